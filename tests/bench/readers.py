"""Who counts processes: the exporter, its peers, and C programs that do the least that can be done.

Each is a context manager that starts one reader, waits until it listens, and ends it.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import machine
from bench.exporter_client import ExporterProcess, Scrape, exporter_running
from bench.follower import Follower
from bench.names import Line, Names, check_lines, check_scrapes, parse_extrace, parse_forkstat
from bench.programs import Programs
from bench.storms import StormRun

_START_SECONDS = 10.0
_SETTLE_SECONDS = 20.0
# Longer than any pause that the exporter or the floor make between two drains.
_QUIET_SECONDS = 0.15
_QUIET_CPU_NS = 1_500_000
_POLL_SECONDS = 0.001


class Report(NamedTuple):
    """What a reader says about a storm; None where it cannot tell."""

    events: int | None = None
    lost: int | None = None
    names: Names | None = None


class Reader:
    """A running reader.

    Args:
        pid: Its process; None: there is no reader.
        report: Asks it about the storm since it started. It may have ended afterwards.
    """

    def __init__(self, pid: int | None, report: Callable[[StormRun], Report]) -> None:
        self.pid = pid
        self.report = report
        self._sockets = set() if pid is None else machine.sockets_of(pid)

    def cpu_ns(self) -> int:
        """Return the CPU time that it has used."""
        return 0 if self.pid is None else machine.cpu_ns(self.pid)

    def is_done(self) -> bool:
        """Tell whether nothing waits in its sockets, and it sleeps."""
        if self.pid is None:
            return True
        waiting = sum(row.receive_bytes for row in machine.netlink_sockets() if row.inode in self._sockets)
        return waiting == 0 and machine.is_asleep(self.pid)

    def wait_until_done(self) -> int:
        """Wait until it has handled everything; return when that was first seen (time.monotonic_ns)."""
        give_up = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < give_up:
            seen_ns = time.monotonic_ns()
            if self.is_done():
                time.sleep(_POLL_SECONDS)
                if self.is_done():
                    return seen_ns
            time.sleep(_POLL_SECONDS)
        raise TimeoutError("the reader never handled all that had arrived")

    def settle(self) -> None:
        """Wait until it has handled everything, and has been at rest for a while; not for ever on a busy host."""
        if self.pid is None:
            return
        give_up = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < give_up:
            self.wait_until_done()
            before = self.cpu_ns()
            time.sleep(_QUIET_SECONDS)
            if self.is_done() and self.cpu_ns() - before < _QUIET_CPU_NS:
                return


def _wait_until_listening(process: subprocess.Popen[bytes], since: float) -> None:
    """Wait until a process has bound a socket to the process connector."""
    while time.monotonic() < since + _START_SECONDS:
        inodes = machine.sockets_of(process.pid)
        if any(row.groups and row.inode in inodes for row in machine.netlink_sockets()):
            return
        if process.poll() is not None:
            break
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"{process.args!r} does not listen; exit code {process.poll()}")


@contextmanager
def _running(programs: Programs, output: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command with its output in a file; it ends when the benchmark does."""
    since = time.monotonic()
    with output.open("wb") as stdout, output.with_suffix(".err").open("wb") as stderr:
        process = subprocess.Popen([programs.reader, "guard", *command], stdout=stdout, stderr=stderr)
    try:
        _wait_until_listening(process, since)
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_START_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _no_reader(_: Programs, __: Path) -> Iterator[Reader]:
    yield Reader(None, lambda _: Report())


def _counting(how: str) -> "Start":
    @contextmanager
    def start(programs: Programs, folder: Path) -> Iterator[Reader]:
        output = folder / "reader.out"
        with _running(programs, output, str(programs.reader), how) as process:

            def report(_: StormRun) -> Report:
                _end(process)
                events, lost = output.read_text(encoding="ascii").split()[1:]
                return Report(int(events), int(lost))

            yield Reader(process.pid, report)

    return start


def _printing(
    command: tuple[str, ...], parse: Callable[[str], Iterable[Line]], events: tuple[str, ...]
) -> "Start":
    @contextmanager
    def start(programs: Programs, folder: Path) -> Iterator[Reader]:
        output = folder / "reader.out"
        with _running(programs, output, *command) as process:

            def report(storm: StormRun) -> Report:
                _end(process)
                text = output.read_text(encoding="utf-8", errors="replace")
                return Report(names=check_lines(parse(text), storm, events))

            yield Reader(process.pid, report)

    return start


def _exporter(*flags: str) -> "Start":
    @contextmanager
    def start(programs: Programs, folder: Path) -> Iterator[Reader]:
        with exporter_running([str(programs.reader), "guard"], folder, *flags) as exporter:
            before = exporter.scrape()
            reader = Reader(exporter.pid, lambda storm: report_of(exporter, before, storm))
            reader.settle()
            yield reader

    return start


def _capturing(programs: Programs, folder: Path) -> AbstractContextManager[Reader]:
    return _exporter(f"--capture={folder / 'capture'}")(programs, folder)


@contextmanager
def _streaming(programs: Programs, folder: Path) -> Iterator[Reader]:
    path = folder / "stream.sock"
    guard = [str(programs.reader), "guard"]
    with exporter_running(guard, folder, f"--stream.socket={path}") as exporter, Follower(path) as follower:
        before = exporter.scrape()

        def report(storm: StormRun) -> Report:
            told = follower.told(storm, _SETTLE_SECONDS)
            counted = report_of(exporter, before, storm)
            names = check_lines(told.lines, storm, ("exec", "exit"))
            return counted._replace(lost=(counted.lost or 0) + told.missing, names=names)

        reader = Reader(exporter.pid, report)
        reader.settle()
        yield reader


def report_of(exporter: ExporterProcess, before: Scrape, storm: StormRun) -> Report:
    """Ask the exporter what it counted since a scrape."""
    after = exporter.scrape()
    names = check_scrapes(before, after, storm) if storm.births else None
    return Report(
        round(after.total("events_total") - before.total("events_total")),
        round(after.total("lost_messages_total") - before.total("lost_messages_total")),
        names,
    )


Start = Callable[[Programs, Path], AbstractContextManager[Reader]]


class Kind(NamedTuple):
    """A reader that can be started.

    Attributes:
        name: Short, for the command line.
        what: For the tables.
        program: What must be installed.
        start: Starts it; a folder is for its output.
    """

    name: str
    what: str
    program: str | None
    start: Start

    def is_installed(self) -> bool:
        """Tell whether it can be started here."""
        return self.program is None or shutil.which(self.program) is not None


NO_READER = Kind("none", "no reader", None, _no_reader)
BLOCKING = Kind("c-blocking", "(a) C, only counts, blocking recvmmsg", None, _counting("blocking"))
FLOOR = Kind("c-floor", "(b) C, only counts, drained every 100 ms", None, _counting("floor"))
FORKSTAT = Kind(
    "forkstat",
    "(c) forkstat `-e all`",
    "forkstat",
    _printing(("forkstat", "-e", "all"), parse_forkstat, ("exec", "exit")),
)
EXTRACE = Kind(
    "extrace", "(d) extrace (execs only)", "extrace", _printing(("extrace", "-f"), parse_extrace, ("exec",))
)


def exporter_kind(name: str, *flags: str) -> Kind:
    """Return the exporter with some flags."""
    return Kind(name, f"**exporter, {name}**", None, _exporter(*flags))


TASKSTATS = exporter_kind("taskstats", "--attribution=taskstats")
EVENTS = Kind(
    "events",
    "**exporter, taskstats, without side-band records**",
    None,
    _exporter("--attribution=taskstats", "--exec-names=events"),
)
GROUPS = Kind(
    "groups",
    "**exporter, taskstats, with the labels of `--group.by pod,unit`**",
    None,
    _exporter("--attribution=taskstats", "--group.by=pod,unit"),
)
PROCFS = exporter_kind("procfs", "--attribution=procfs")
PROCFS_EVENTS = Kind(
    "procfs-events",
    "**exporter, procfs, without side-band records**",
    None,
    _exporter("--attribution=procfs", "--exec-names=events"),
)
CAPTURE = Kind("capture", "**exporter, taskstats, capturing**", None, _capturing)
STREAM = Kind("stream", "**exporter, taskstats, telling a client of everything**", None, _streaming)
READERS = (
    BLOCKING, FLOOR, FORKSTAT, EXTRACE, TASKSTATS, EVENTS, GROUPS, PROCFS, PROCFS_EVENTS, CAPTURE, STREAM,
)  # fmt: skip
