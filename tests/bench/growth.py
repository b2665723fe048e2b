"""What the exporter costs as it grows: older, with more series, with more live processes; and when idle."""

import math
import time
from contextlib import ExitStack
from typing import NamedTuple

from bench import machine, pairs
from bench.exporter_client import ExporterProcess, exporter_running
from bench.readers import Reader, Report, report_of
from bench.setup import Bench, say
from bench.stats import Figure
from bench.storms import STORM_A, held, run_for, run_paced, run_renamed

_TASKSTATS = "--attribution=taskstats"
_MODES = ("taskstats", "procfs")
_EXAMPLE_COMMS = 20


class Age(NamedTuple):
    """Storm A at an age of the exporter."""

    events_before: int
    events: int
    cpu_us_per_event: Figure


class FullRate(NamedTuple):
    """A storm as fast as the machine can, with default settings."""

    seconds: float
    events: int
    lost: int
    cpu_us_per_event: float


class Memory(NamedTuple):
    """What is resident, once /metrics was read."""

    what: str
    series: int
    processes: int
    rss_bytes: int
    peak_bytes: int


class Start(NamedTuple):
    """From the start of the program to the first good scrape."""

    processes: int
    seconds: Figure
    cpu_seconds: Figure


class Idle(NamedTuple):
    """A quiet host."""

    mode: str
    events_per_second: float
    share_of_a_core: float


class Page(NamedTuple):
    """One /metrics over HTTP, by the whole exporter."""

    series: int
    form: str
    bytes: int
    wall_ms: Figure
    cpu_ms: Figure


class Growth(NamedTuple):
    """Everything."""

    ages: list[Age]
    full_rate: FullRate
    memory: list[Memory]
    starts: list[Start]
    idle: list[Idle]
    pages: list[Page]
    pairs: list[pairs.Pair]

    @property
    def age_ratio(self) -> float:
        """CPU per event of a short storm after the long one, against the same before it."""
        return self.ages[-1].cpu_us_per_event.median / self.ages[0].cpu_us_per_event.median


def measure(bench: Bench) -> Growth:
    """Measure everything."""
    ages, full_rate = _ages(bench)
    pages: list[Page] = []
    memory = [_memory_at_start(bench), *_memory_of_series(bench, pages)]
    starts, live = _starts(bench)
    return Growth(
        ages,
        full_rate,
        [*memory, *live],
        starts,
        _idle(bench),
        pages,
        pairs.measure(bench),
    )


def _ages(bench: Bench) -> tuple[list[Age], FullRate]:
    """Storms of 10,000 events on young exporters and on one that has counted a million and more."""
    young = []
    for turn in range(bench.rounds):
        say(f"growth with age, young exporter {turn + 1} of {bench.rounds}")
        with exporter_running(bench.guard, bench.folder, _TASKSTATS) as exporter:
            young.append(_short_storm(bench, exporter))
    with exporter_running(bench.guard, bench.folder) as exporter:
        first = _short_storm(bench, exporter)
        seconds = bench.size(60, 5)
        say(f"growth with age, full rate for {seconds} s")
        before = exporter.scrape()
        reader = Reader(exporter.pid, lambda storm: report_of(exporter, before, storm))
        reader.settle()
        cpu_ns = reader.cpu_ns()
        run = run_for(bench.programs, seconds)
        reader.settle()
        cpu_ns = reader.cpu_ns() - cpu_ns
        report = reader.report(run)
        full_rate = FullRate(run.wall_ns / 1e9, run.events, report.lost or 0, cpu_ns / run.events / 1000)
        old = [_short_storm(bench, exporter) for _ in range(bench.rounds)]
    counted = first[0] + run.events
    return [
        Age(0, young[0][0], Figure.of(us for _, us in (*young, first))),
        Age(first[0], run.events, Figure.of([full_rate.cpu_us_per_event])),
        Age(counted, old[0][0], Figure.of(us for _, us in old)),
    ], full_rate


def _short_storm(bench: Bench, exporter: ExporterProcess) -> tuple[int, float]:
    """Return the events of a storm and its CPU per event in us."""
    reader = Reader(exporter.pid, lambda _: Report())
    reader.settle()
    cpu_ns = reader.cpu_ns()
    run = STORM_A.run(bench.programs, 5_000)
    reader.settle()
    return run.events, (reader.cpu_ns() - cpu_ns) / run.events / 1000


def _memory(what: str, exporter: ExporterProcess) -> Memory:
    scrape = exporter.scrape()
    return Memory(
        what,
        scrape.series,
        round(scrape.total("processes")),
        machine.rss_bytes(exporter.pid),
        machine.peak_rss_bytes(exporter.pid),
    )


def _memory_at_start(bench: Bench) -> Memory:
    with exporter_running(bench.guard, bench.folder, _TASKSTATS) as exporter:
        return _memory("at start", exporter)


def _memory_of_series(bench: Bench, pages: list[Page]) -> list[Memory]:
    """Make series by processes that each take a name of their own."""
    rows = []
    # So many as the larger target are more than the exporter makes unless it is told to.
    for target, flags in ((10_000, ()), (bench.size(100_000, 30_000), ("--limit.series=1000000",))):
        say(f"growth with series, {target:,}")
        with exporter_running(bench.guard, bench.folder, _TASKSTATS, *flags) as exporter:
            _make_series(bench, exporter, target)
            rows.append(_memory("many series", exporter))
            for form, headers in _FORMS.items():
                pages.append(_page(bench, exporter, rows[-1].series, form, headers))
            if target == 10_000:
                with held(bench.programs, 10_000):
                    rows.append(_memory("many series and processes", exporter))
    return rows


def _make_series(bench: Bench, exporter: ExporterProcess, target: int) -> None:
    """Bring as many comms as it takes to have so many series."""
    comms, series = _EXAMPLE_COMMS, exporter.scrape().series
    while series < target:
        run_renamed(bench.programs, comms)
        series = exporter.scrape().series
        comms = math.ceil(1.01 * comms * target / series)


_OPENMETRICS = "application/openmetrics-text;version=1.0.0"
_FORMS = {
    "text": {},
    "text, gzip": {"Accept_Encoding": "gzip"},
    "OpenMetrics": {"Accept": _OPENMETRICS},
    "OpenMetrics, gzip": {"Accept": _OPENMETRICS, "Accept_Encoding": "gzip"},
}


def _page(bench: Bench, exporter: ExporterProcess, series: int, form: str, headers: dict[str, str]) -> Page:
    pages = [exporter.get(**headers) for _ in range(bench.rounds)]
    return Page(
        series,
        form,
        len(pages[-1].body),
        Figure.of(page.wall_ns / 1e6 for page in pages),
        Figure.of(page.cpu_ns / 1e6 for page in pages),
    )


def _starts(bench: Bench) -> tuple[list[Start], list[Memory]]:
    """Start it while few and while many processes live."""
    starts, memory = [], []
    many = bench.size(30_000, 3_000)
    with machine.pid_max_at_least(bench.programs, 4 * many):
        for target in (300, many):
            say(f"start-up with {target:,} processes")
            with ExitStack() as processes:
                processes.enter_context(held(bench.programs, max(1, target - machine.count_processes())))
                seconds, cpu_seconds = [], []
                for turn in range(bench.rounds):
                    with exporter_running(bench.guard, bench.folder, _TASKSTATS) as exporter:
                        seconds.append(exporter.ready_seconds)
                        cpu_seconds.append(machine.cpu_ns(exporter.pid) / 1e9)
                        if turn == 0:
                            memory.append(_memory("live processes", exporter))
                starts.append(Start(target, Figure.of(seconds), Figure.of(cpu_seconds)))
    return starts, memory


def _idle(bench: Bench) -> list[Idle]:
    """Ten events in a second, and none."""
    rows = []
    for mode in _MODES:
        say(f"idle, {mode}")
        with exporter_running(bench.guard, bench.folder, f"--attribution={mode}") as exporter:
            time.sleep(1.0)
            for per_second in (10.0, 0.0):
                seconds = bench.size(15, 2)
                before_ns, begin_ns = machine.cpu_ns(exporter.pid), time.monotonic_ns()
                run_paced(bench.programs, per_second / 2, seconds)
                cpu_ns = machine.cpu_ns(exporter.pid) - before_ns
                rows.append(Idle(mode, per_second, cpu_ns / (time.monotonic_ns() - begin_ns)))
    return rows
