"""What the exporter has to reach, and whether it did."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bench.growth import Growth
from bench.matrix import Matrix
from bench.scrape_cost import Rendering
from bench.series_table import SeriesTable
from bench.stats import Figure, floor_percent, number, percent, times

_MIB = 1 << 20


class Results(NamedTuple):
    """What was measured; None: it was not asked for."""

    matrix: Matrix | None = None
    series: SeriesTable | None = None
    scrape: list[Rendering] | None = None
    growth: Growth | None = None


class Target(NamedTuple):
    """One line of the table."""

    what: str
    target: str
    measured: str
    met: bool


def check(results: Results) -> Iterator[Target]:
    """Compare what was measured with the targets."""
    if results.matrix is not None:
        yield from _cpu(results.matrix)
        yield from _slowdown(results.matrix)
        yield from _names(results.matrix)
    if results.growth is not None:
        yield from _loss(results.growth)
    if results.scrape is not None:
        yield from _scrape(results.scrape)
    if results.series is not None and results.series.nonzero_share is not None:
        share = results.series.nonzero_share
        what = (
            f"CPU of non-zero exits only, {results.series.failing_processes:,} exits, 1 % failing, of all events"
        )
        yield Target(what, "<= 10 %", share.show(percent, " %"), share.median <= 0.1)
    if results.growth is not None:
        yield from _growth(results.growth)


def _at_most(what: str, figure: Figure, limit: float, unit: str, stretch: float | None = None) -> Target:
    goal = f"<= {limit:g} {unit}" + ("" if stretch is None else f" (stretch {stretch:g})")
    return Target(what, goal, figure.show(times, f" {unit}"), figure.median <= limit)


def _cpu(matrix: Matrix) -> Iterator[Target]:
    limits = (
        ("taskstats", "AB", "c-blocking", "(a)", 0.60, 0.50),
        ("taskstats", "A", "c-floor", "(b)", 2.6, None),
        ("taskstats", "B", "c-floor", "(b)", 2.9, None),
        ("taskstats", "AB", "forkstat", "(c)", 0.25, 0.2),
        ("procfs", "A", "c-blocking", "(a)", 0.45, None),
    )
    for mode, storms, other, letter, limit, stretch in limits:
        if matrix.has(other):
            for storm in storms:
                ratio = matrix.cpu_ratio(storm, mode, other)
                yield _at_most(f"CPU per event, {mode}, {storm}", ratio, limit, f"x {letter}", stretch)

    without = "exporter without side-band records"
    for storms, limit in (("AB", 1.15), ("C", 1.0)):
        for storm in storms:
            ratio = matrix.cpu_ratio(storm, "taskstats", "events")
            yield _at_most(f"CPU per event, taskstats, {storm}, of the {without}", ratio, limit, "x")
    for storm in "AB":
        ratio = matrix.cpu_ratio(storm, "groups", "taskstats")
        yield _at_most(f"CPU per event, groups, {storm}, of the exporter without groups", ratio, 1.03, "x")
    for storm in "BC":
        ratio = matrix.cpu_ratio(storm, "procfs", "procfs-events")
        yield _at_most(f"CPU per event, procfs, {storm}, of the {without}", ratio, 0.25, "x")
    for storm in "AB":
        ratio = matrix.cpu_ratio(storm, "stream", "taskstats")
        yield _at_most(f"CPU per event, a client gets all, {storm}, of the exporter without", ratio, 2.5, "x")
    for mode, storm, limit_us in (("procfs", "B", 3.0), ("procfs", "C", 3.5), ("taskstats", "T", 0.6)):
        cpu_us = matrix.cpu_us(storm, mode)
        shown = cpu_us.show(number, " us")
        yield Target(f"CPU per event, {mode}, {storm}", f"<= {limit_us:g} us", shown, cpu_us.median <= limit_us)


def _slowdown(matrix: Matrix) -> Iterator[Target]:
    for storm, limit in (("A", 0.06), ("B", 0.04), ("T", 0.10)):
        ours, theirs = (matrix.slowdown(storm, reader) for reader in ("taskstats", "c-blocking"))
        shown = ours.show(percent, " %")
        yield Target(f"slow-down of {storm}, taskstats", f"<= {100 * limit:g} %", shown, ours.median <= limit)
        half = theirs.median / 2
        yield Target(
            f"slow-down of {storm}, taskstats", f"< half of (a)'s: {100 * half:.1f} %", shown, ours.median < half
        )


def _names(matrix: Matrix) -> Iterator[Target]:
    for mode, storm, limit in (
        ("taskstats", "A", 1.0),
        ("taskstats", "B", 1.0),
        ("taskstats", "C", 1.0),
        ("taskstats", "D", 1.0),
        ("procfs", "B", 0.97),
        ("procfs", "C", 0.90),
    ):
        names = matrix.names(storm, mode)
        if names is not None:
            unknown = names.expected - names.right - names.wrong
            share = floor_percent(names.share)
            yield Target(
                f"right names, {mode}, {storm}",
                f"{'' if limit == 1 else '>= '}{100 * limit:g} %, none wrong",
                f"{share} % of {names.expected:,}, {unknown:,} unknown, {names.wrong:,} wrong",
                names.share >= limit and not names.wrong,
            )


def _loss(growth: Growth) -> Iterator[Target]:
    run = growth.full_rate
    yield Target(
        f"lost messages, A at full rate for {run.seconds:.0f} s, default settings",
        "0",
        f"{run.lost:,} of {run.events:,} ({number(run.events / run.seconds)} events/s)",
        run.lost == 0,
    )


def _scrape(rows: Iterable[Rendering]) -> Iterator[Target]:
    for row in rows:
        if row.series > 5_000:
            what = f"scrape of {row.series:,} series, {row.form}"
            shown = f"1/{1 / row.ratio.median:.1f}"
            yield Target(what, "<= 1/8 of the library's time", shown, row.ratio.median <= 1 / 8)
            piece = row.longest_piece_ms
            yield Target(f"{what}, longest piece", "<= 50 ms", piece.show(number, " ms"), piece.high <= 50)


def _growth(growth: Growth) -> Iterator[Target]:
    counted = growth.ages[-1].events_before
    yield Target(
        f"CPU per event at {counted / 1e6:.1f} million events",
        "<= 1.1 x that at 10 thousand",
        f"{growth.age_ratio:.2f} x",
        growth.age_ratio <= 1.1,
    )
    for what, limit in (("at start", 48), ("many series and processes", 64)):
        for row in growth.memory:
            if row.what == what:
                shown = f"{row.rss_bytes / _MIB:.1f} MiB"
                label = f"RSS with {row.series:,} series and {row.processes:,} live processes"
                yield Target(label, f"<= {limit} MiB", shown, row.rss_bytes <= limit * _MIB)
    for pair in growth.pairs:
        yield Target(
            f"peak RSS of two scrapes at once of {pair.series:,} series, {pair.forms}, {pair.readers}",
            "<= 70 MiB",
            f"{pair.peak_bytes / _MIB:.1f} MiB",
            pair.peak_bytes <= 70 * _MIB,
        )
    start = growth.starts[-1]
    yield Target(
        f"start-up with {start.processes:,} processes, to the first good scrape",
        "<= 1.5 s",
        start.seconds.show(times, " s"),
        start.seconds.median <= 1.5,
    )
    for idle in growth.idle:
        if idle.events_per_second:
            yield Target(
                f"idle at {idle.events_per_second:g} events/s, {idle.mode}",
                "<= 0.3 % of a core",
                f"{100 * idle.share_of_a_core:.2f} %",
                idle.share_of_a_core <= 0.003,
            )
