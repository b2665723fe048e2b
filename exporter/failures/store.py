"""Keeps the last processes that ended badly, in bounded memory.

Of one comm and wait status in one group only the newest are kept, so that a program that fails again and again
does not push the one failure of another out. A failure is kept as bytes, 120 of them mostly: a thousand take a
quarter of a megabyte, and less than a whole one with the longest names that there can be. The time comes first in
them, so the bytes sort by time. Groups are kept once for all failures of a kind.
"""

import struct
from bisect import insort
from collections.abc import Iterable

from exporter.processes.bad_ends import MOST_OF_A_KIND, Failure
from exporter.tallies.labels import GroupName

# time_ns, pid, ppid, uid, status, core, OOM, lifetime_ns, cpu_ns, max_rss_kib. -1: not known; a uid has 32 bits.
_NUMBERS = struct.Struct(">QIIqi?bqqq")
_NOT_KNOWN = -1
_UID_NOT_KNOWN = -2
# Between the comms of a failure. No comm has it, as it does not print.
_SEPARATOR = "\0"
# The oldest are looked for when there are so many more than are to be kept.
_SLACK = 128


class FailureStore:
    """Keeps failures.

    Args:
        most: How many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kinds: dict[tuple[GroupName, str, int], list[bytes]] = {}
        self._held = 0

    def __len__(self) -> int:
        return min(self._held, self._most)

    def take(self, failures: Iterable[Failure]) -> None:
        """Keep failures, instead of older ones if there is no room."""
        for failure in failures:
            self._held += 1
            of_kind = self._kinds.setdefault((failure.group, failure.comm, failure.status), [])
            insort(of_kind, _pack(failure))
            if len(of_kind) > MOST_OF_A_KIND:
                del of_kind[0]
                self._held -= 1
            if self._held > self._most + _SLACK:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest = sorted(packed for of_kind in self._kinds.values() for packed in of_kind)[-self._most]
        for kind, of_kind in list(self._kinds.items()):
            kept = [packed for packed in of_kind if packed >= oldest]
            if kept:
                self._kinds[kind] = kept
            else:
                del self._kinds[kind]
        self._held = sum(map(len, self._kinds.values()))

    def newest(self) -> list[Failure]:
        """Return all that are kept, the newest first."""
        held = [(packed, group) for (group, _, _), of_kind in self._kinds.items() for packed in of_kind]
        held.sort(reverse=True)
        return [_unpack(packed, group) for packed, group in held[: self._most]]


def _pack(failure: Failure) -> bytes:
    numbers = _NUMBERS.pack(
        failure.time_ns,
        failure.pid,
        failure.ppid or 0,
        _UID_NOT_KNOWN if failure.uid is None else failure.uid,
        failure.status,
        failure.core,
        _NOT_KNOWN if failure.oom is None else failure.oom,
        _NOT_KNOWN if failure.lifetime_ns is None else failure.lifetime_ns,
        _NOT_KNOWN if failure.cpu_ns is None else failure.cpu_ns,
        _NOT_KNOWN if failure.max_rss_kib is None else failure.max_rss_kib,
    )
    comms = (failure.comm, failure.parent_comm or "", *failure.execs)
    return numbers + _SEPARATOR.join(comms).encode()


def _unpack(packed: bytes, group: GroupName) -> Failure:
    time_ns, pid, ppid, uid, status, core, oom, lifetime_ns, cpu_ns, max_rss_kib = _NUMBERS.unpack_from(packed)
    comm, parent_comm, *execs = packed[_NUMBERS.size :].decode().split(_SEPARATOR)
    return Failure(
        time_ns,
        pid,
        ppid or None,
        parent_comm or None,
        None if uid == _UID_NOT_KNOWN else uid,
        comm,
        status,
        core,
        None if lifetime_ns == _NOT_KNOWN else lifetime_ns,
        None if cpu_ns == _NOT_KNOWN else cpu_ns,
        None if max_rss_kib == _NOT_KNOWN else max_rss_kib,
        tuple(execs),
        None if oom == _NOT_KNOWN else bool(oom),
        group,
    )
