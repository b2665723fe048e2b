"""Workloads: processes made by storms.c."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, NamedTuple

from bench.programs import STORM_COMM, VICTIM_COMMS, VICTIM_PREFIX, WRAPPER_COMMS, Programs

_TIMEOUT_SECONDS = 300


class Birth(NamedTuple):
    """A process that a storm made."""

    pid: int
    comm: str
    exit_code: int


class StormRun(NamedTuple):
    """What a storm did."""

    processes: int
    events: int
    wall_ns: int
    births: list[Birth]
    execs: bool
    wrappers: tuple[str, ...] = ()
    """The comms of what each process executes before its own program."""
    of_threads: bool = False
    """Its events are of threads, which the exporter is not asked to count."""

    def expected(self, birth: Birth, event: str) -> list[str]:
        """Return the comms of the events of a kind, exec or exit, that a process causes."""
        if event == "exit":
            return [birth.comm]
        return [*self.wrappers, birth.comm] if self.execs else []


class Storm(NamedTuple):
    """A workload.

    Attributes:
        width: Processes at a time.
        execs: Each executes a program; otherwise it only exits.
        wrappers: The comms of what it executes before that.
        of_threads: They are threads of one process.
    """

    name: str
    what: str
    width: int
    execs: bool
    wrappers: tuple[str, ...] = ()
    of_threads: bool = False

    def run(self, programs: Programs, processes: int) -> StormRun:
        """Make so many processes, or threads."""
        if self.of_threads:
            done, wall_ns = _run(programs, ["threads", str(processes), str(self.width)])
            return StormRun(done, 2 * done, wall_ns, [], execs=False, of_threads=True)
        what, kinds = ("spawn", [f"./{VICTIM_PREFIX}", str(len(VICTIM_COMMS))]) if self.execs else ("fork", ["0"])
        wrappers = [f"./{comm}" for comm in self.wrappers]
        what = "chain" if wrappers else what
        done, wall_ns = _run(programs, [what, str(processes), str(self.width), *kinds, "truth", *wrappers])
        truth = programs.storm.with_name("truth")
        births = [
            Birth(int(pid), VICTIM_COMMS[int(kind)] if self.execs else STORM_COMM, int(kind))
            for pid, kind in (line.split() for line in truth.read_text(encoding="ascii").splitlines())
        ]
        events = 3 + len(self.wrappers) if self.execs else 2
        return StormRun(done, done * events, wall_ns, births, self.execs, self.wrappers)


STORM_A = Storm("A", "fork+exit, 64 at a time", 64, execs=False)
STORM_B = Storm("B", "posix_spawn of a static binary that exits at once, 64 at a time", 64, execs=True)
STORM_C = Storm("C", "the same, one at a time", 1, execs=True)
STORM_D = Storm(
    "D",
    "the same after four wrappers that execute one another, 64 at a time",
    64,
    execs=True,
    wrappers=WRAPPER_COMMS,
)
STORM_T = Storm("T", "threads of one process that exit at once, 64 at a time", 64, execs=False, of_threads=True)
STORMS = (STORM_A, STORM_B, STORM_C, STORM_D, STORM_T)


def _run(programs: Programs, arguments: Sequence[str]) -> tuple[int, int]:
    # In its own folder: peers print command lines, and long ones would cost them more.
    done = subprocess.run(
        [f"./{STORM_COMM}", *arguments],
        cwd=programs.storm.parent,
        check=True,
        stdout=subprocess.PIPE,
        timeout=_TIMEOUT_SECONDS,
    )
    processes, wall_ns = done.stdout.split()
    return int(processes), int(wall_ns)


def _forks(answer: tuple[int, int]) -> StormRun:
    processes, wall_ns = answer
    return StormRun(processes, 2 * processes, wall_ns, [], execs=False)


def run_failing(programs: Programs, processes: int, every: int) -> StormRun:
    """Fork processes that exit at once, each so many with 1, the others with 0."""
    return _forks(_run(programs, ["fork", str(processes), "64", str(every), "-"]))


def run_for(programs: Programs, seconds: float) -> StormRun:
    """Fork processes that exit at once, as fast as it goes, for a time."""
    return _forks(_run(programs, ["last", str(seconds), "64"]))


def run_paced(programs: Programs, per_second: float, seconds: float) -> StormRun:
    """Fork processes that exit at once, evenly spread over a time."""
    return _forks(_run(programs, ["pace", str(per_second), str(seconds)]))


def run_renamed(programs: Programs, comms: int) -> StormRun:
    """Fork processes that take a comm of their own and exit."""
    return _forks(_run(programs, ["rename", str(comms), "1"]))


def run_crowd(programs: Programs, members: int) -> StormRun:
    """Run programs with an odd name each; two processes of each name end, with the same exit code."""
    done, wall_ns = _run(programs, ["crowd", str(members)])
    return StormRun(2 * done, 6 * done, wall_ns, [], execs=True)


class Held:
    """Processes that live until they are released."""

    def __init__(self, process: subprocess.Popen[bytes], stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self._process = process
        self._stdin = stdin
        self._stdout = stdout
        self.pids: list[int] = []
        for line in stdout:
            if not line.strip():
                return
            self.pids.append(int(line))
        raise RuntimeError(f"could not hold the processes, {len(self.pids)} were born")

    def release(self) -> StormRun:
        """Let them all exit, and wait until they have."""
        self._stdin.close()
        processes, wall_ns = map(int, self._stdout.readline().split())
        self._process.wait(_TIMEOUT_SECONDS)
        return StormRun(processes, processes, wall_ns, [], execs=False)


@contextmanager
def held(programs: Programs, processes: int) -> Iterator[Held]:
    """Keep so many processes alive."""
    command = [str(programs.storm), "hold", str(processes), str(_TIMEOUT_SECONDS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Held(process, process.stdin, process.stdout)
        finally:
            process.stdin.close()
            process.wait(_TIMEOUT_SECONDS)
