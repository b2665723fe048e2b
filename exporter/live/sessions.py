"""Processes that begin a session, caught while they live: a descriptor of each is opened at once.

A runtime calls setsid(2), is moved, and executes its program, which may live for two milliseconds. So there is one
more connector socket, which receives SID only, and whose reader is woken for each. It opens a descriptor, by which
the kernel says in which cgroup the process was last, even when it is gone. The main socket has the same event with
the same timestamp: its reader asks here by (tgid, timestamp_ns).

A process can be gone before that: crun's forks the program and ends, within half a millisecond. Then its child is
asked for. Its pid is not known yet, but most often it is the next one; what it really is the main socket says, so
that a descriptor of another process does no harm.

A kernel that does not say it (before Linux 6.13; of what is reaped, before 6.15) leaves one way: to read
/proc/PID/cgroup every millisecond, until it changes or the process is gone, for a tenth of a second.

Any user can begin sessions as often as he likes. So there is a budget of descriptors; while it is used up the
kernel is asked for no SID here, so that there are no wake-ups either.
"""

import asyncio
import os
import resource
from collections.abc import Callable

from exporter.errors import ShortageError
from exporter.groups.cgroup_path import Placement
from exporter.kernel.bpf import EventFilter
from exporter.kernel.cn_proc import PROC_EVENT_COREDUMP, PROC_EVENT_SID, iter_proc_events, sound_datagrams
from exporter.kernel.connector_socket import Connector
from exporter.kernel.pidfd import open_pidfd
from exporter.live.placements import Placements
from exporter.processes.grouping import Found

SESSIONS = EventFilter(frozenset({PROC_EVENT_SID}), frozenset())
# No mask means no event at all; these are rare, and passed over.
_REST = EventFilter(frozenset({PROC_EVENT_COREDUMP}), frozenset())

_PER_SECOND, _BURST = 100, 200
_LIKELY_CHILDREN = 8
_MOST_DESCRIPTORS = 512
_DESCRIPTORS_SHARE = 4
_KEPT_NS = 10_000_000_000
_REREAD_SECONDS = 0.001
_REREAD_FOR_NS = 100_000_000
_MOST_REREAD = 32
# A program in a container of its own that lives for 2 ms is gone 3 to 4 ms after its session began.
_FOLLOWED_EVERY_NS = 1_000_000
_NS_PER_SECOND = 1_000_000_000

SessionKey = tuple[int, int]
"""(tgid, timestamp_ns) of its SID"""


class _Session:
    """A process that has begun a session, or may be a child of one.

    Attributes:
        keys: Of all processes that were opened for the same session.
    """

    def __init__(self, fd: int, keys: list[SessionKey], opened_ns: int) -> None:
        self.fd = fd
        self.keys = keys
        self.opened_ns = opened_ns
        self.first: Placement | None = None
        self.last: Placement | None = None
        self.asked_ns = self.read_ns = 0
        self.has_changed = False


class Sessions:
    """The source of early descriptors.

    Args:
        socket: Receives SID; closed by its owner.
        placements: Where processes are.
        now_ns: CLOCK_MONOTONIC.
        rereads: Read again and again from the beginning; otherwise only when the kernel has failed to say where
            a process was.
        drain_soon: Has the main socket drained at once: a process was gone, and what it has forked may live.
    """

    def __init__(
        self,
        socket: Connector,
        placements: Placements,
        now_ns: Callable[[], int],
        *,
        rereads: bool,
        drain_soon: Callable[[], object],
    ) -> None:
        self._socket = socket
        self._placements = placements
        self._now_ns = now_ns
        self._rereads = rereads
        self._drain_soon = drain_soon
        self._most = min(_MOST_DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _DESCRIPTORS_SHARE)
        self._tokens = float(_BURST)
        self._filled_ns = now_ns()
        self._looked_ns = 0
        # In the order in which they began.
        self._sessions: dict[SessionKey, _Session] = {}
        self._rereading: dict[SessionKey, _Session] = {}
        self._timer: asyncio.TimerHandle | None = None

    def fileno(self) -> int:
        """Return the descriptor of the socket, for an event loop."""
        return self._socket.fileno()

    # -- as a source that is read first ---------------------------------------------------------------------------

    def read(self) -> None:
        """Open a descriptor of each process that has begun a session."""
        self._looked_ns = self._now_ns()
        for batch in self._socket.iter_batches():
            # A malformed datagram is malformed on the main socket too, and counted there.
            data, _ = sound_datagrams(batch)
            for what, timestamp_ns, _, tgid, *_ in iter_proc_events(data):
                if what == PROC_EVENT_SID:
                    self._begin(tgid, timestamp_ns)
        self.narrow()

    def follow(self) -> None:
        """Read amid other work, unless that was just done."""
        if self._now_ns() - self._looked_ns >= _FOLLOWED_EVERY_NS:
            self.read()

    def narrow(self) -> None:
        """Ask the kernel for SID only while the budget allows to follow one."""
        self._fill()
        self._socket.narrow(SESSIONS if self._tokens >= 1 else _REST)

    def _fill(self) -> None:
        now_ns = self._now_ns()
        self._tokens = min(_BURST, self._tokens + (now_ns - self._filled_ns) * _PER_SECOND / _NS_PER_SECOND)
        self._filled_ns = now_ns

    def _begin(self, tgid: int, timestamp_ns: int) -> None:
        if self._tokens < 1:
            return
        self._tokens -= 1
        keys: list[SessionKey] = []
        if not self._open((tgid, timestamp_ns), keys):
            for child in range(tgid + 1, tgid + 1 + _LIKELY_CHILDREN):
                self._open((child, timestamp_ns), keys)
            self._drain_soon()

    def _open(self, key: SessionKey, keys: list[SessionKey]) -> bool:
        """Open a descriptor of a process for a session; returns whether the process was there."""
        self._drop_old()
        if key in self._sessions or (fd := open_pidfd(key[0])) is None:
            return False
        session = self._sessions[key] = _Session(fd, keys, self._now_ns())
        keys.append(key)
        self._look(key, session)
        if self._rereads and len(self._rereading) < _MOST_REREAD:
            self._rereading[key] = session
            self._reread_soon()
        return True

    def _drop_old(self) -> None:
        while self._sessions:
            key, session = next(iter(self._sessions.items()))
            if len(self._sessions) < self._most and self._now_ns() - session.opened_ns < _KEPT_NS:
                return
            self._close(key)

    def _close(self, key: SessionKey) -> None:
        os.close(self._sessions.pop(key).fd)
        self._rereading.pop(key, None)

    def close(self) -> None:
        """Close all descriptors, and stop reading again."""
        if self._timer is not None:
            self._timer.cancel()
        for key in tuple(self._sessions):
            self._close(key)

    # -- reading again ------------------------------------------------------------------------------------------

    def _look(self, key: SessionKey, session: _Session) -> bool:
        """Read where a process is; returns whether it has to be read again."""
        asked_ns = self._now_ns()
        try:
            placement = self._placements.learn_of(session.fd, key[0])
        except ShortageError:
            return True
        if placement is None:
            return False
        if session.first is None:
            session.first = placement
        session.last, session.asked_ns, session.read_ns = placement, asked_ns, self._now_ns()
        session.has_changed = placement != session.first
        return not session.has_changed and session.read_ns - session.opened_ns < _REREAD_FOR_NS

    def _reread_soon(self) -> None:
        if self._timer is None and self._rereading:
            self._timer = asyncio.get_running_loop().call_later(_REREAD_SECONDS, self._reread)

    def _reread(self) -> None:
        self._timer = None
        for key, session in tuple(self._rereading.items()):
            if not self._look(key, session):
                del self._rereading[key]
        self._reread_soon()

    # -- what is asked ------------------------------------------------------------------------------------------

    def find(self, key: SessionKey, execd_ns: int) -> Found | None:
        """Return where a process is, or was last, after it may have been moved; None if that is not known.

        Args:
            key: Of the process's SID; with the tgid of its child for that one.
            execd_ns: When it exec'd since; 0 if it has not.

        Raises:
            ShortageError: Nothing can be opened now.
        """
        session = self._sessions.get(key)
        if session is None:
            return None
        placement = self._placements.of_descriptor(session.fd)
        if placement is not None:
            return Found(placement, self._now_ns(), session.opened_ns)
        placement = self._placements.read(key[0])
        if placement is not None:
            return Found(placement, self._now_ns(), self._now_ns())
        # It is gone, and the kernel does not say any more where it was.
        self._rereads = True
        # It may have been moved, and have exec'd, between the reading and the look at the clock after it.
        is_late = session.has_changed or (execd_ns and session.asked_ns > execd_ns)
        return Found(session.last, session.read_ns, session.opened_ns, early=not is_late)

    def forget(self, key: SessionKey) -> None:
        """Close the descriptors of a session that is not asked for any more."""
        session = self._sessions.get(key)
        for each in () if session is None else session.keys:
            if each in self._sessions:
                self._close(each)
