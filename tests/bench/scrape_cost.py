"""Rendering /metrics beside prometheus-client's own rendering of the same samples, in one process."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from bench.setup import Bench, say
from bench.stats import Figure
from library_families import families
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from exporter.exposition.metrics import program_metrics
from exporter.exposition.render import render
from exporter.exposition.snapshot import TallySnapshot
from exporter.tallies.histograms import CPU_NS, LIFETIME_NS, MAX_RSS_KIB, observe
from exporter.tallies.tallies import Tallies

_SHOWN = program_metrics(("fork", "exec", "exit", "nonzero_exit", "uid", "coredump"), records=True, live=True)


class Rendering(NamedTuple):
    """One size in one format."""

    series: int
    form: str
    ours_ms: Figure
    library_ms: Figure
    ratio: Figure
    longest_piece_ms: Figure
    """How long others on the event loop had to wait."""


class _Prepared(Collector):
    """Families that are ready: the library only has to write them."""

    def __init__(self, snapshot: TallySnapshot) -> None:
        self._families = list(families(snapshot))

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def measure(bench: Bench) -> list[Rendering]:
    """Measure everything."""
    rows = []
    for target in (1_000, 10_000, 100_000)[: bench.size(3, 2)]:
        tallies, series = _tallies(target)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Prepared(_snapshot(tallies)))
        for form, write in (("text", generate_latest), ("OpenMetrics", generate_openmetrics)):
            say(f"scrape of {series:,} series, {form}")
            rows.append(_compare(bench, tallies, series, form, partial(write, registry)))
    return rows


def _snapshot(tallies: Tallies) -> TallySnapshot:
    programs = tallies.snapshot_programs()
    live = {program.comm: 1 for program in programs}
    return TallySnapshot(tallies.snapshot_cells(), programs, live, _SHOWN, tallies.limit)


def _tallies(target: int) -> tuple[Tallies, int]:
    """Count processes of more and more programs until there are so many series."""
    tallies = Tallies(limit=100 * target)
    always = len(_lines(Tallies()))
    per_comm = len(_lines(_count_program(Tallies(), "example"))) - always
    comms = max(1, target // per_comm)
    for i in range(comms):
        _count_program(tallies, f"program-{i:06d}")
    return tallies, len(_lines(tallies))


def _count_program(tallies: Tallies, comm: str) -> Tallies:
    cell = tallies.claim_cell(comm.encode(), 1000)
    cell.forks, cell.execs = 17, 12345
    for status, count in {0: 12000, 0x100: 300, 9: 45}.items():
        tallies.count_end(cell, status, count)
    for ms in (0.5, 3, 40, 2000):
        observe(cell.lifetime_ns, LIFETIME_NS, round(ms * 1e6))
        observe(cell.cpu_ns, CPU_NS, round(ms * 1e5))
        observe(cell.max_rss_kib, MAX_RSS_KIB, round(ms * 1000))
    return tallies


def _lines(tallies: Tallies) -> list[str]:
    text = "".join(render(_snapshot(tallies), openmetrics=False))
    return [line for line in text.splitlines() if not line.startswith("#")]


def _compare(
    bench: Bench,
    tallies: Tallies,
    series: int,
    form: str,
    library: Callable[[], bytes],
) -> Rendering:
    ours, theirs, longest = [], [], []
    for _ in range(bench.rounds):
        pieces = list(_render(tallies, openmetrics=form == "OpenMetrics"))
        ours.append(sum(pieces) / 1e6)
        longest.append(max(pieces) / 1e6)
        begin_ns = time.monotonic_ns()
        library()
        theirs.append((time.monotonic_ns() - begin_ns) / 1e6)
    return Rendering(
        series, form, Figure.of(ours), Figure.of(theirs), Figure.ratio(ours, theirs), Figure.of(longest)
    )


def _render(tallies: Tallies, *, openmetrics: bool) -> Iterator[int]:
    """Render as a scrape does, and yield the ns of each piece; the first copies the tallies."""
    begin_ns = time.monotonic_ns()
    body = bytearray()
    pieces = render(_snapshot(tallies), openmetrics=openmetrics)
    yield time.monotonic_ns() - begin_ns
    while True:
        begin_ns = time.monotonic_ns()
        piece = next(pieces, None)
        if piece is None:
            return
        body += piece.encode()
        yield time.monotonic_ns() - begin_ns
