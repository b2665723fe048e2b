"""In which mount namespace processes are, which says of one that is gone in which container it ran.

A container has a mount namespace of its own, and a runtime enters it before it executes a program there. A
side-band record has the inode of the namespace of each process that is forked, and of each that enters another.
So a process that is gone before it could be read where it was ran in the container of the processes that live and
have been in the same namespace since before.

An inode is used again as soon as its namespace is gone: that another process lives which was there before, and
still is, is what proves that it is the same one. If those that live there are not all in one container, nothing is
known. That events are lost changes no record; a process that has ended meanwhile is taken off by the comparison
with /proc.
"""

from collections.abc import Callable, Iterable, Mapping

from exporter.kernel.perf_event import MountSpace
from exporter.processes.process import OpenGroup, Process
from exporter.tallies.cells import Group

# Processes that are gone are forgotten when there are so many more than after the last time.
_SLACK = 4096
# So long a process that is gone can still be asked for.
_KEPT_NS = 5_000_000_000


class MountSpaces:
    """The mount namespace of each process of which a record has come."""

    def __init__(self) -> None:
        # (when it entered it, inode) by tgid.
        self._last: dict[int, tuple[int, int]] = {}
        self._prune_at = _SLACK

    def __len__(self) -> int:
        return len(self._last)

    def add(self, records: Iterable[MountSpace]) -> None:
        """Take records, those of one process in any order: the rings of the CPUs are read one by one."""
        last = self._last
        for time_ns, tgid, inode in records:
            known = last.get(tgid)
            if known is None or known[0] <= time_ns:
                last[tgid] = time_ns, inode

    def clear(self) -> None:
        """Forget all: records were lost, so that a process can be elsewhere by now."""
        self._last.clear()

    def end_batch(self, complete_until_ns: int, by_tgid: Mapping[int, Process]) -> None:
        """Forget processes that are gone, if there are many.

        Args:
            complete_until_ns: All events before that have been applied.
            by_tgid: The processes that live.
        """
        if len(self._last) < self._prune_at:
            return
        before_ns = complete_until_ns - _KEPT_NS
        self._last = {
            tgid: known for tgid, known in self._last.items() if tgid in by_tgid or known[0] >= before_ns
        }
        self._prune_at = 2 * len(self._last) + _SLACK

    def home_of(
        self, group: OpenGroup, by_tgid: Mapping[int, Process], is_container: Callable[[Group], bool]
    ) -> Group | None:
        """Return the container in which the process of an open group was, if its mount namespace says that.

        Args:
            group: Its process may be gone.
            by_tgid: The processes that live.
            is_container: Whether a group is that of a container.
        """
        if not group.execd_ns and group.heir is None:
            # A runtime enters the namespaces before it is moved.
            return None
        for process in (group.process, group.heir):
            if process is not None:
                home = self.group_of(process, by_tgid, is_container)
                if home is not None:
                    return home
        return None

    def group_of(
        self, process: Process, by_tgid: Mapping[int, Process], is_container: Callable[[Group], bool]
    ) -> Group | None:
        """Return the container in whose mount namespace a process was last; None if that is not known.

        Args:
            process: It may be gone.
            by_tgid: The processes that live.
            is_container: Whether a group is that of a container.
        """
        own = self._last.get(process.tgid)
        owner = by_tgid.get(process.tgid)
        if own is None or own[0] < process.start_ns:
            return None
        if owner is not None and owner is not process and owner.start_ns <= own[0]:
            # The record is that of the next process with this pid.
            return None
        found: Group | None = None
        is_proven = False
        for tgid, (time_ns, inode) in self._last.items():
            if inode != own[1] or tgid == process.tgid:
                continue
            witness = by_tgid.get(tgid)
            if witness is None or witness.start_ns > time_ns or witness.cell.group.last.is_open:
                continue
            group = witness.cell.group.last
            if found is not None and group is not found:
                return None
            found = group
            is_proven = is_proven or time_ns <= own[0]
        return found if found is not None and is_proven and is_container(found) else None
