"""The table against /proc: what a scan finds, what of it is doubtful, and what is gone.

A scan reads processes while events of them wait. An event is sent after the change that it describes: for a while
before it, the state before and the state after can both have been read. So what a scan read is doubted when the
events that waited are applied, and given up where they can explain it.
"""

from collections.abc import Iterable, Iterator

from exporter.kernel.cn_proc import PROC_EVENT_COMM, PROC_EVENT_EXEC, PROC_EVENT_UID, decode_comm, iter_proc_events
from exporter.kernel.procfs import ProcessInfo
from exporter.processes.ends import Ends
from exporter.processes.open_names import READING_SETTLES_NS
from exporter.processes.process import Children, KnownProcess, Process
from exporter.processes.shared import Shared
from exporter.tallies.labels import UNKNOWN

# Processes that lost their pid and whose EXIT does not come: no loss that was noticed explains so many.
_MOST_LATE = 1 << 12
# A process that lost its pid was released, and sends its EXIT as soon as it has a CPU.
_EXITS_WITHIN_NS = 10_000_000_000
# /proc shows when a process started in ticks (USER_HZ), rounded down.
_TICK_NS = 10_000_000


class Reconciler:
    """Brings the table in line with what /proc shows.

    Args:
        shared: The table's parts.
        ends: Takes off processes that are gone.
        special: What the children of some processes are called.
    """

    def __init__(self, shared: Shared, ends: Ends, special: dict[int, Children]) -> None:
        self._roster = shared.roster
        self._naming = shared.naming
        self._ends = ends
        self._records = shared.records
        self._tallies = shared.tallies
        self._canaries = shared.canaries
        self._sideband = shared.sideband
        self._special = special
        self._follow_threads = shared.follow_threads
        self._failures_only = shared.failures_only
        self.overdue = 0
        self._adopted: list[Process] = []
        # Those that have ended already, and whether they were known before: the EXIT is on its way, was before our
        # time, or was lost.
        self._zombies: list[tuple[Process, bool]] = []

    # -- what a scan finds --------------------------------------------------------------------------------------

    def adopt(self, tgid: int, info: ProcessInfo, start_ns: int, read_ns: int) -> None:
        """Take over what /proc shows of a process, if the events have not said it.

        No events are applied from the first process adopted until READING_SETTLES_NS after the last: whatever
        makes a reading doubtful is then in the next batch.

        Args:
            tgid: The process.
            info: What was read.
            start_ns: When it started, in CLOCK_MONOTONIC; 0 if that is not known.
            read_ns: When it had been read.
        """
        if tgid in self._canaries:
            return
        process = self._roster.by_tgid.get(tgid)
        unsure_end = None if process is None or process.odd is None else process.odd.unsure_end
        exited_ns = 0 if unsure_end is None else unsure_end[1]
        if process is not None and exited_ns and start_ns > exited_ns:
            # The FORK of the process that has the pid now was lost.
            self._ends.drop(process)
            process = None
        cell = self._tallies.claim_cell(info.comm, info.uid, None if process is None else process.cell.group)
        known = process is not None and not process.is_glimpsed
        if process is None:
            process = self._roster.add(Process(tgid, cell, 0))
        odd = process.make_odd()
        if not known:
            odd.children = self._special.get(tgid, Children.INHERIT)
        odd.glimpsed = False
        is_settled = odd.name is None and not process.needs_name and odd.children is Children.INHERIT
        # If it started within a tick before the EXIT, it can be that process, or the one after it.
        is_sure = not known or not exited_ns or start_ns + _TICK_NS <= exited_ns
        if not known or (is_settled and is_sure and process.cell is not cell):
            process.cell = cell
            process.start_ns = process.start_ns or start_ns
            odd.adopted_ns = read_ns
            self._adopted.append(process)
        if self._follow_threads:
            odd.threads = set(info.threads) or None
            odd.named_threads = None
        if info.zombie and info.threads:
            odd.leader_exited = True
        elif info.zombie:
            self._zombies.append((process, known))
        process.tidy()

    def doubt(self, chunks: Iterable[bytes]) -> None:
        """Give up what was read of a process where an event shows that it need not be what it is now.

        Args:
            chunks: All events since the first process was adopted; none of them has been applied.
        """
        if not self._adopted:
            return
        for chunk in chunks:
            for event in iter_proc_events(chunk):
                what, timestamp_ns, pid, tgid, ruid, *_ = event
                process = self._roster.by_tgid.get(tgid)
                odd = None if process is None else process.odd
                if process is None or odd is None or not odd.adopted_ns or pid != tgid or odd.name is not None:
                    continue
                if timestamp_ns > odd.adopted_ns + READING_SETTLES_NS:
                    continue
                cell = process.cell
                is_older = timestamp_ns <= odd.adopted_ns
                if what == PROC_EVENT_EXEC or (
                    what == PROC_EVENT_COMM
                    and (is_older or self._tallies.shown_comm(decode_comm(event), cell.uid) == cell.comm)
                ):
                    odd.stranger = True
                    self._naming.look_later(process)
                elif what == PROC_EVENT_UID and (is_older or ruid == cell.uid):
                    process.cell = self._tallies.claim_sibling(cell, None)

    def end_batch(self, complete_until_ns: int) -> None:
        """Stop doubting what older events cannot explain, and drop what is not there any more.

        Args:
            complete_until_ns: All events before that have been applied.
        """
        for process in self._roster.late_before(complete_until_ns - _EXITS_WITHIN_NS):
            self._ends.drop_lost(process)
            self.overdue += 1
        if self._roster.late_of:
            for number in self._roster.late_numbers()[: -_MOST_LATE or None]:
                if (oldest := self._roster.late(number)) is not None:
                    self._ends.drop_lost(oldest)
        if self._adopted:
            self._adopted = [process for process in self._adopted if self._is_doubtful(process, complete_until_ns)]
        zombies, self._zombies = self._zombies, []
        for process, known in zombies:
            # If its EXIT was in this batch, it is gone.
            if self._roster.by_tgid.get(process.tgid) is process:
                if known:
                    self._ends.drop_lost(process)
                else:
                    self._ends.drop(process)

    @staticmethod
    def _is_doubtful(process: Process, complete_until_ns: int) -> bool:
        odd = process.odd
        if odd is None or odd.adopted_ns >= complete_until_ns:
            return odd is not None
        odd.adopted_ns = 0
        process.tidy()
        return False

    # -- what a comparison finds --------------------------------------------------------------------------------

    def missing(self, alive: Iterable[int]) -> list[int]:
        """Return what is known and not among the tgids that are alive: tgids, and minus a number for late ones."""
        return [*self._roster.by_tgid.keys() - set(alive), *(-number for number in self._roster.late_numbers())]

    def forget(self, tgids: Iterable[int], listed_ns: int) -> None:
        """After a loss, take off what is gone although its EXIT has not come.

        Args:
            tgids: From missing, with what /proc listed.
            listed_ns: When it did. Everything older than that has been applied since.
        """
        for tgid in tgids:
            if tgid < 0:
                late = self._roster.late(-tgid)
                owners = [] if late is None else [late]
            else:
                owners = self._roster.owners(tgid)
            for process in owners:
                # The start of one whose FORK was lost too is 0.
                if process.start_ns < listed_ns:
                    self._ends.drop_lost(process)

    def lose_track(self) -> None:
        """Give up open names: messages were lost, so what was read of them may be of another exec.

        And the leader of a process that fails need not be the last one whose record came.
        """
        self._naming.names.resolve_all_unknown()
        self._sideband.clear()
        if self._failures_only:
            self._records.clear()

    # -- handing over -------------------------------------------------------------------------------------------

    def known(self) -> Iterator[KnownProcess]:
        """Return what is known of each process, names that are still open as unknown; late ones are left out."""
        for process in self._roster.by_tgid.values():
            odd = process.odd
            if odd is not None and odd.glimpsed:
                continue
            cell = process.cell
            named = not process.needs_name and process.open_name is None and cell.comm != UNKNOWN
            yield KnownProcess(
                process.tgid,
                cell.comm if named else None,
                cell.uid,
                process.start_ns,
                odd is not None and odd.leader_exited,
                frozenset((odd.threads if odd else None) or ()),
            )

    def recall(self, known: KnownProcess) -> None:
        """Take over what another table knew of a process."""
        comm = None if known.comm is None else known.comm.encode()
        cell = self._tallies.claim_cell(comm, known.uid)
        process = self._roster.add(Process(known.tgid, cell, known.start_ns))
        odd = process.make_odd()
        odd.children = self._special.get(known.tgid, Children.INHERIT)
        odd.threads = set(known.threads) or None
        odd.leader_exited = known.leaderless
        process.tidy()
