"""Results as markdown, put between two markers of a file so that the words around them stay."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench import poller
from bench.growth import Growth
from bench.matrix import Matrix
from bench.poller import Seen
from bench.readers import CAPTURE, EVENTS, GROUPS, READERS, STREAM, Kind
from bench.scrape_cost import Rendering
from bench.series_table import SeriesTable
from bench.stats import floor_percent, number, percent, times
from bench.storms import STORMS
from bench.targets import Results, Target

BEGIN = "<!-- figures: written by `make bench`, do not edit -->"
END = "<!-- end of figures -->"

_MIB = 1 << 20


def write_between_markers(path: Path, figures: str) -> None:
    """Replace what is between the markers of a file; a file without them gets both at its end."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    head, begin, rest = old.partition(BEGIN)
    tail = rest.partition(END)[2] if begin else "\n"
    if not begin and head:
        head = head.rstrip("\n") + "\n\n"
    path.write_text(f"{head}{BEGIN}\n\n{figures.strip()}\n\n{END}{tail}", encoding="utf-8")


def render(
    results: Results, seen: dict[str, Seen] | None, targets: Sequence[Target], circumstances: Iterable[str]
) -> str:
    """Write everything that was measured."""
    parts = ["\n".join(circumstances)]
    if targets:
        parts.append("### Targets\n\n" + _targets(targets))
    if results.matrix is not None:
        parts.append("\n\n".join(_matrix(results.matrix, seen)))
    if results.series is not None:
        parts.append("### The kernel series' own table\n\n" + _series(results.series))
    if results.scrape is not None:
        parts.append("### Rendering beside prometheus-client\n\n" + _scrape(results.scrape))
    if results.growth is not None:
        parts.append("\n\n".join(_growth(results.growth)))
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _targets(targets: Sequence[Target]) -> str:
    rows = [(t.what, t.target, t.measured, "met" if t.met else "**missed**") for t in targets]
    return _table(("", "target", "measured", ""), rows)


def _matrix(matrix: Matrix, seen: dict[str, Seen] | None) -> Iterator[str]:
    storms = [storm for storm in STORMS if storm.name in matrix.samples]
    kinds = [kind for kind in READERS if matrix.has(kind.name)]
    yield "### Storms\n\n" + "\n".join(
        f"- {s.name}: {matrix.processes[s.name]:,} x {s.what}; "
        f"{matrix.alone_ns[s.name].show(lambda ns: number(ns / 1e9))} s without a reader"
        for s in storms
    )
    names = [s.name for s in storms]
    yield "CPU of the whole reader per event (a thread has two), in microseconds:\n\n" + _table(
        ("reader", *names),
        [(kind.what, *(matrix.cpu_us(s, kind.name).show(number) for s in names)) for kind in kinds]
        + [(kind.what, *("not installed" for _ in names)) for kind in matrix.not_installed],
    )
    yield "The same as a multiple of another reader's in the same round:\n\n" + _table(
        ("", *(f"{s}, of {letter}" for s in names for letter in ("(a)", "(b)", "(c)"))),
        [_ratios(matrix, names, kind) for kind in kinds if kind.name in ("taskstats", "procfs")],
    )
    yield "Other ways to run it, as a multiple of the exporter in taskstats mode:\n\n" + _table(
        ("", *names),
        [
            (kind.what, *(matrix.cpu_ratio(s, kind.name, "taskstats").show(times) for s in names))
            for kind in (EVENTS, GROUPS, CAPTURE, STREAM)
        ],
    )
    yield "How much longer the storm takes, in percent of its time without a reader:\n\n" + _table(
        ("reader", *names),
        [(kind.what, *(matrix.slowdown(s, kind.name).show(percent) for s in names)) for kind in kinds],
    )
    yield "Right names, in percent of all execs and exits (in brackets: another program's name):\n\n" + _table(
        ("reader", *names),
        [
            *(
                (kind.what, *(_names(matrix, s, kind) for s in names))
                for kind in kinds
                if _tells_names(matrix, kind)
            ),
            (f"{poller.PROGRAM}: processes seen at all", *(_seen(seen, s) for s in names)),
        ],
    )
    lost = ", ".join(f"{kind.what} {matrix.lost(kind.name)}" for kind in kinds if kind.program is None)
    yield f"Messages lost or never heard in all rounds: {lost}."


def _ratios(matrix: Matrix, storms: Iterable[str], kind: Kind) -> list[str]:
    return [
        kind.what,
        *(
            matrix.cpu_ratio(s, kind.name, other).show(times) if matrix.has(other) else "not installed"
            for s in storms
            for other in ("c-blocking", "c-floor", "forkstat")
        ),
    ]


def _tells_names(matrix: Matrix, kind: Kind) -> bool:
    return any(matrix.names(storm, kind.name) is not None for storm in matrix.samples)


def _names(matrix: Matrix, storm: str, kind: Kind) -> str:
    names = matrix.names(storm, kind.name)
    if names is None:
        return "-"
    wrong = f" ({100 * names.wrong / names.expected:.2f})" if names.wrong else ""
    return f"{floor_percent(names.share)}{wrong}"


def _seen(seen: dict[str, Seen] | None, storm: str) -> str:
    if seen is None:
        return "not installed"
    if storm not in seen:
        return "-"
    found = seen[storm]
    return f"<= {100 * found.at_most / found.processes:.2f}"


def _series(table: SeriesTable) -> str:
    text = _table(
        ("work", "reader", "the letter says", "time until handled, ms", "of which the work itself, ms", "CPU, ms"),
        [
            (
                row.work,
                row.reader,
                "-" if row.letter_ms is None else f"{row.letter_ms:.0f} ms",
                row.wall_ms.show(number),
                "-" if row.storm_ms is None else row.storm_ms.show(number),
                row.cpu_ms.show(number),
            )
            for row in table.rows
        ],
    )
    if table.nonzero_share is None:
        return f"{text}\n\nNon-zero exits only: this version has no such mode."
    share = table.nonzero_share.show(percent, " %")
    return f"{text}\n\nNon-zero exits only takes {share} of the CPU of hearing of everything."


def _scrape(rows: Iterable[Rendering]) -> str:
    return _table(
        ("series", "format", "exporter, ms", "prometheus-client, ms", "ratio", "longest piece, ms"),
        [
            (
                f"{row.series:,}",
                row.form,
                row.ours_ms.show(number),
                row.library_ms.show(number),
                row.ratio.show(lambda ratio: f"{ratio:.3f}"),
                row.longest_piece_ms.show(number),
            )
            for row in rows
        ],
    )


def _growth(growth: Growth) -> Iterator[str]:
    yield "### Growth\n\nStorm A as the exporter grows older:\n\n" + _table(
        ("counted before", "events of the storm", "CPU per event, us"),
        [(f"{age.events_before:,}", f"{age.events:,}", age.cpu_us_per_event.show(number)) for age in growth.ages],
    )
    yield "Resident memory after a scrape:\n\n" + _table(
        ("", "series", "live processes", "RSS, MiB", "peak, MiB"),
        [
            (
                row.what,
                f"{row.series:,}",
                f"{row.processes:,}",
                f"{row.rss_bytes / _MIB:.1f}",
                f"{row.peak_bytes / _MIB:.1f}",
            )
            for row in growth.memory
        ],
    )
    yield "Peak of the resident memory at the limit of series, in MiB:\n\n" + _table(
        ("two scrapes at once", "read", "series", "before", "one scrape", "two at once", "20 times two"),
        [
            (
                pair.forms,
                pair.readers,
                f"{pair.series:,}",
                *(
                    f"{each / _MIB:.1f}"
                    for each in (pair.before_bytes, pair.one_bytes, pair.pair_bytes, pair.pairs_bytes)
                ),
            )
            for pair in growth.pairs
        ],
    )
    yield "One /metrics over HTTP, the whole exporter:\n\n" + _table(
        ("series", "format", "KiB", "time, ms", "CPU, ms"),
        [
            (f"{p.series:,}", p.form, f"{p.bytes / 1024:,.0f}", p.wall_ms.show(number), p.cpu_ms.show(number))
            for p in growth.pages
        ],
    )
    yield "From the start of the program to the first good scrape:\n\n" + _table(
        ("live processes", "seconds", "CPU seconds"),
        [(f"{s.processes:,}", s.seconds.show(times), s.cpu_seconds.show(times)) for s in growth.starts],
    )
    yield "A quiet host (what is left at 0 events/s is the exporter's own canary and timers):\n\n" + _table(
        ("mode", "events/s", "share of a core"),
        [(i.mode, f"{i.events_per_second:g}", f"{100 * i.share_of_a_core:.2f} %") for i in growth.idle],
    )
