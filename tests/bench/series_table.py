"""The table of the kernel series that made the process connector fit for this, measured here.

Source: "Process connector bug fixes & enhancements", cover letter, March 2023:
https://lkml.iu.edu/hypermail/linux/kernel/2303.1/10084.html
"""

import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

from bench.exporter_client import knows_flag
from bench.readers import BLOCKING, NO_READER, TASKSTATS, Kind, exporter_kind
from bench.setup import Bench, say
from bench.stats import Figure
from bench.storms import STORM_A, STORM_B, Held, StormRun, held, run_failing

_READERS = (NO_READER, BLOCKING, TASKSTATS)
_FAILING_EVERY = 100
NONZERO_FLAG = "--events"


class Row(NamedTuple):
    """Some work and what handling it takes."""

    work: str
    reader: str
    letter_ms: float | None
    """What the cover letter says, of its own machine and reader."""
    wall_ms: Figure
    cpu_ms: Figure
    storm_ms: Figure | None
    """How long the work itself took."""


class SeriesTable(NamedTuple):
    """All rows, and the cost of hearing of failures only against hearing of everything."""

    processes: int
    rows: list[Row]
    failing_processes: int
    nonzero_share: Figure | None
    """None: this exporter has no such mode."""


class _Times(NamedTuple):
    wall_ns: int
    cpu_ns: int
    storm_ns: int


def measure(bench: Bench) -> SeriesTable:
    """Measure everything."""
    n = bench.size(8_000, 1_000)
    works: list[tuple[str, float, Callable[[Kind], _Times]]] = [
        (f"{n:,} exits", 70, lambda kind: _time_exits(bench, kind, n)),
        (f"{n:,} forks + exits", 150, lambda kind: _time(bench, kind, lambda: STORM_A.run(bench.programs, n))),
        (
            f"{n:,} forks + execs + exits",
            200,
            lambda kind: _time(bench, kind, lambda: STORM_B.run(bench.programs, n)),
        ),
    ]
    times: dict[tuple[str, str], list[_Times]] = {}
    pidfd: list[_Times] = []
    scan: list[_Times] = []
    for turn in range(bench.rounds):
        say(f"the kernel series' table, round {turn + 1} of {bench.rounds}")
        for work, _, run in works:
            for kind in _READERS:
                times.setdefault((work, kind.what), []).append(run(kind))
        with held(bench.programs, n) as processes:
            scan.append(_scan(bench))
            pidfd.append(_pidfd(bench, processes))
    rows = [
        _row(work, kind.what, letter_ms, times[work, kind.what])
        for work, letter_ms, _ in works
        for kind in _READERS
    ]
    rows.append(_row(f"{n:,} exits", "C, a pidfd each, epoll", 200, pidfd))
    rows.append(
        _row(f"one scan of /proc with {n:,} more processes", "C, list and read stat", 50, scan)._replace(
            storm_ms=None
        )
    )
    failing = bench.size(80_000, 8_000)
    share, failures = _nonzero(bench, failing)
    if failures:
        rows.append(
            _row(f"{failing:,} exits, 1 % of them failing", "**exporter, non-zero exits only**", None, failures)
        )
    return SeriesTable(n, rows, failing, share)


def _row(work: str, reader: str, letter_ms: float | None, times: list[_Times]) -> Row:
    return Row(
        work,
        reader,
        letter_ms,
        Figure.of(t.wall_ns / 1e6 for t in times),
        Figure.of(t.cpu_ns / 1e6 for t in times),
        Figure.of(t.storm_ns / 1e6 for t in times),
    )


def _time(bench: Bench, kind: Kind, run: Callable[[], StormRun]) -> _Times:
    """Take the time from the work's begin until the reader has handled all of it."""
    with kind.start(bench.programs, bench.folder) as reader:
        reader.settle()
        before_ns, begin_ns = reader.cpu_ns(), time.monotonic_ns()
        done = run()
        end_ns = reader.wait_until_done()
        reader.settle()
        return _Times(end_ns - begin_ns, reader.cpu_ns() - before_ns, done.wall_ns)


def _time_exits(bench: Bench, kind: Kind, n: int) -> _Times:
    with held(bench.programs, n) as processes:
        return _time(bench, kind, processes.release)


def _pidfd(bench: Bench, processes: Held) -> _Times:
    with subprocess.Popen(
        [bench.programs.reader, "pidfd"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n".join(map(str, processes.pids)).encode())
        process.stdin.close()
        process.stdout.readline()
        begin_ns = time.monotonic_ns()
        done = processes.release()
        _, _, cpu_ns = process.stdout.readline().split()
        return _Times(time.monotonic_ns() - begin_ns, int(cpu_ns), done.wall_ns)


def _scan(bench: Bench) -> _Times:
    done = subprocess.run([bench.programs.reader, "scan"], check=True, stdout=subprocess.PIPE)
    _, wall_ns, cpu_ns = map(int, done.stdout.split())
    return _Times(wall_ns, cpu_ns, 0)


def _nonzero(bench: Bench, processes: int) -> tuple[Figure | None, list[_Times]]:
    """Compare hearing of failures only with hearing of everything."""
    if not knows_flag(NONZERO_FLAG, "nonzero_exit"):
        return None, []
    failures_only = exporter_kind("nonzero", f"{NONZERO_FLAG}=nonzero_exit")
    rounds = [
        [
            _time(bench, kind, lambda: run_failing(bench.programs, processes, _FAILING_EVERY))
            for kind in (failures_only, TASKSTATS)
        ]
        for _ in range(bench.rounds)
    ]
    failures = [few for few, _ in rounds]
    return Figure.ratio([t.cpu_ns for t in failures], [all_.cpu_ns for _, all_ in rounds]), failures
