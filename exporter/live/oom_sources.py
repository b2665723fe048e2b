"""What says which processes the OOM killer chose: the best that is permitted, found by trying.

kmsg     /dev/kmsg, opened before privileges are given up: by pid, exact
syslog   syslog(2), where CAP_SYSLOG stays: by pid, exact
vmstat   `oom_kill` of /proc/vmstat, which needs nothing: by number (see processes/oom_kills.py)

Nothing is read while nothing dies of SIGKILL, but once a second at most if events come anyway. The kernel counts
and logs a kill before the process can end, so what is read after an end has come has what belongs to it.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from exporter.errors import SetupError, ShortageError
from exporter.kernel.kernel_log_readers import KernelLog, Kmsg, NewKills, Syslog
from exporter.kernel.procfs import Procfs
from exporter.processes.pipeline import Pipeline

_LOG = logging.getLogger(__name__)

_NS_PER_SECOND = 1_000_000_000
_LOOK_EVERY_NS = _NS_PER_SECOND
# Which processes of the host are about to die takes a look at all of them.
_SCAN_EVERY_NS = _NS_PER_SECOND // 10
# A log that is written faster than it is read must not hold up the count.
_MOST_READS = 8
_MOST_READS_AT_START = 64


class OomSource(NamedTuple):
    """What is open."""

    name: str
    """As --oom-kills calls it; empty if there is none."""
    log: KernelLog | None = None
    dying: tuple[int, ...] = ()
    """Processes that were chosen before, and had not ended when the log was opened."""
    why: str = ""
    """Why it is nothing better; empty if that was not asked for."""

    def log_choice(self) -> None:
        """Log why it is nothing better: once the exporter has started, as a failed start is one line."""
        if self.why:
            what = "OOM kills are known by number only" if self.name else "no proc_connector_oom_kills_total"
            _LOG.info(what, extra={"why": self.why})


NO_OOM_SOURCE = OomSource("")


@contextmanager
def open_oom_source(choice: str, procfs: Procfs, *, becomes_other: bool) -> Iterator[OomSource]:
    """Open what says it, and close it when the block ends. To be called before the connector is opened.

    Args:
        choice: kmsg, syslog, vmstat, off, or auto: the best that is permitted.
        procfs: The host's.
        becomes_other: The exporter gives up its privileges later.

    Raises:
        SetupError: What was asked for is not permitted, or not there.
    """
    source = _open(choice, procfs, becomes_other=becomes_other)
    try:
        yield source
    finally:
        if source.log is not None:
            source.log.close()


def _open(choice: str, procfs: Procfs, *, becomes_other: bool) -> OomSource:
    if choice == "off":
        return NO_OOM_SOURCE
    reasons: list[str] = []
    for name, log_of in (("kmsg", Kmsg), ("syslog", Syslog)):
        if choice not in {"auto", name}:
            continue
        try:
            if name == "syslog" and becomes_other and procfs.restricts_log():
                raise SetupError("syslog needs CAP_SYSLOG for good, which --user gives up")
            log: KernelLog = log_of()
        except SetupError as error:
            reasons.append(str(error))
            continue
        return OomSource(name, log, tuple(_still_dying(log, procfs)))
    if choice in {"auto", "vmstat"}:
        if procfs.read_oom_kills() is not None:
            return OomSource("vmstat", why="; ".join(reasons))
        reasons.append("/proc/vmstat has no oom_kill (Linux 4.13 and later has)")
    if choice != "auto":
        raise SetupError(f"--oom-kills={choice}: {reasons[-1]}")
    return OomSource("", why="; ".join(reasons))


def _still_dying(log: KernelLog, procfs: Procfs) -> Iterator[int]:
    """Read what was logged so far, and yield the processes in it that have not ended yet."""
    for pid in dict.fromkeys(pid for kills in _read_all(log, _MOST_READS_AT_START) for pid in kills.pids):
        if procfs.is_dying(pid):
            yield pid


def _read_all(log: KernelLog, most: int = _MOST_READS) -> Iterator[NewKills]:
    for _ in range(most):
        kills = log.read()
        yield kills
        if kills.is_all:
            return


class OomKillReader:
    """Reads what the pipeline needs to know, right after each count.

    Args:
        source: What is open.
        pipeline: Gets it.
        procfs: The host's.
        now_ns: CLOCK_MONOTONIC.
    """

    def __init__(self, source: OomSource, pipeline: Pipeline, procfs: Procfs, now_ns: Callable[[], int]) -> None:
        self._log = source.log
        self._pipeline = pipeline
        self._kills = pipeline.table.oom_kills
        self._procfs = procfs
        self._now_ns = now_ns
        self._looked_ns: int | None = None
        # The processes that were about to die when the kernel's number was read, and have not ended.
        self._dying: list[int] | None = None
        self._scanned_total = 0
        self._scanned_ns = 0
        # When the last of them had ended.
        self._ended_ns: int | None = None
        if source.log is not None:
            pipeline.take_oom_lines(source.dying, now_ns())
        self._take_total()

    def answer(self, complete_until_ns: int) -> None:
        """Read what is new, if there are suspects, or if it was not looked at for a while.

        Args:
            complete_until_ns: All events before that have been counted (CLOCK_MONOTONIC).
        """
        now_ns = self._now_ns()
        is_due = self._looked_ns is None or now_ns - self._looked_ns >= _LOOK_EVERY_NS
        if not (is_due or self._kills.asks):
            return
        if self._log is None:
            self._look_at_number(now_ns, complete_until_ns)
        else:
            self._look_at_log(self._log, is_due=is_due)
        if is_due:
            self._looked_ns = now_ns

    def _take_total(self) -> int | None:
        total = self._procfs.read_oom_kills()
        if total is not None:
            self._pipeline.take_oom_total(total, self._now_ns())
        return total

    def _look_at_log(self, log: KernelLog, *, is_due: bool) -> None:
        # To read all of a log takes milliseconds, the kernel's count a tenth of one.
        total = self._procfs.read_oom_kills() if is_due or not log.is_stream else None
        pids: list[int] = []
        is_whole = True
        if log.is_stream or total is None or total != self._kills.total:
            for kills in _read_all(log):
                pids += kills.pids
                is_whole &= kills.is_whole
            is_whole &= kills.is_all
        if pids or self._kills.asks or not is_whole or (is_due and self._kills.has_lines):
            self._pipeline.take_oom_lines(pids, self._now_ns(), is_whole)
        if total is not None and is_due:
            self._pipeline.take_oom_total(total, self._now_ns())

    def _look_at_number(self, now_ns: int, complete_until_ns: int) -> None:
        total = self._take_total()
        if total is None or not self._kills.asks or self._kills.owed <= 0:
            self._dying = self._ended_ns = None
            return
        if total != self._scanned_total:
            self._dying = self._ended_ns = None
        if self._ended_ns is None:
            self._look_for_dying(total, now_ns)
        if self._ended_ns is not None and self._ended_ns <= complete_until_ns:
            self._pipeline.oom_victims_ended(self._ended_ns)
            self._dying = self._ended_ns = None

    def _look_for_dying(self, total: int, now_ns: int) -> None:
        """Find out whether all that were chosen have ended: those that are about to die are among them."""
        if self._dying is None and now_ns - self._scanned_ns < _SCAN_EVERY_NS:
            return
        try:
            if self._dying is None:
                self._scanned_total, self._scanned_ns = total, now_ns
                self._dying = list(filter(self._procfs.is_dying, self._procfs.iter_processes()))
            else:
                self._dying = list(filter(self._procfs.is_dying, self._dying))
        except ShortageError:
            self._dying = None
            return
        if not self._dying:
            self._ended_ns = self._now_ns()
