"""How a snapshot of programs becomes text.

It can be a hundred thousand series, so its text is written here, in slices, with each series' labels escaped once
and kept. The tests hold it together with what the library would have written.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/, the OpenMetrics 1.0 specification.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice

from exporter.exposition.buckets import bound_labels
from exporter.exposition.budget import budget
from exporter.exposition.exemplars import Exemplar, Exemplars, write_exemplar
from exporter.exposition.metrics import BUDGET, FOLDED, NONZERO_EXITS, PROCESSES, HistogramRow
from exporter.exposition.snapshot import TallySnapshot
from exporter.exposition.spec import MetricSpec
from exporter.tallies.histograms import Histogram
from exporter.tallies.labels import write_group_labels, write_program_labels, write_status_labels
from exporter.tallies.programs import ProgramCounts

# Rows that are written in one piece.
_SLICE = 1000
_NO_EXEMPLARS: Exemplars = {}


def render(
    snapshot: TallySnapshot,
    *,
    openmetrics: bool,
    names: Collection[str] = (),
    exemplars: Exemplars = _NO_EXEMPLARS,
) -> Iterator[str]:
    """Write the families of a snapshot in the text format or in OpenMetrics, without its closing line.

    Args:
        snapshot: What was counted.
        openmetrics: Which of the two formats.
        names: The samples to write; empty for all.
        exemplars: Of the series of NONZERO_EXITS; for OpenMetrics only.

    Yields:
        Pieces of text. Each takes a few milliseconds to write, so that others can have their turn in between.
    """
    everything = snapshot
    if names:
        snapshot = snapshot.restricted(names)
    born = snapshot.cells.born
    if openmetrics and born is not None:
        yield from _cells_with_births(snapshot, born.exits, exemplars)
    else:
        yield from _cells(snapshot, openmetrics=openmetrics, exemplars=exemplars if openmetrics else _NO_EXEMPLARS)
    began = snapshot.began_seconds if openmetrics else None
    for row, of_programs in snapshot.histograms():
        yield _head(row.spec, openmetrics=openmetrics)
        rows = _render_histograms(row, of_programs, snapshot.cumulative(row), births=began is not None)
        pieces = _join(rows, _SLICE // (len(row.bounds) + 1))
        yield from (_lines_of(piece, names) for piece in pieces) if names else pieces
    if PROCESSES in snapshot.shown:
        yield _head(PROCESSES, openmetrics=openmetrics)
        yield from _join(
            f"{PROCESSES.name}{{{write_program_labels(comm)}{write_group_labels(snapshot.group_labels, values)}}} "
            f"{value}\n"
            for comm, values, value in snapshot.processes()
        )
    shown = [spec for spec in BUDGET if not names or spec.name in names]
    # It is about all metrics, whichever are written.
    for spec, metrics in zip(BUDGET, budget(everything) if shown else (), strict=bool(shown)):
        if spec not in shown:
            continue
        yield _head(spec, openmetrics=openmetrics)
        labels_of = ((f'metric="{name}"', value) for name, value in metrics.items())
        if spec is FOLDED and began is not None:
            yield from _join(_with_birth(spec.name, labels, value, began) for labels, value in labels_of)
        else:
            yield from _join(f"{spec.name}{{{labels}}} {value}\n" for labels, value in labels_of)


def _cells(snapshot: TallySnapshot, *, openmetrics: bool, exemplars: Exemplars) -> Iterator[str]:
    """Write what is counted per comm and uid."""
    cells = snapshot.cells
    for spec, values in snapshot.counters():
        yield _head(spec, openmetrics=openmetrics)
        start = f"{spec.name}{{"
        yield from _join(
            f"{start}{labels}}} {value}\n" for labels, value in zip(cells.labels, values, strict=True) if value
        )
    for spec, least in snapshot.ends():
        yield _head(spec, openmetrics=openmetrics)
        start = f"{spec.name}{{"
        of_spec = exemplars if spec is NONZERO_EXITS else _NO_EXEMPLARS
        if of_spec:
            yield from _join(
                f"{start}{labels}{write_status_labels(status)}}} {value}"
                f"{write_exemplar(of_spec.get((*key, group, status)))}\n"
                for key, group, labels, status, value in zip(
                    cells.for_ends(cells.keys),
                    cells.for_ends(cells.groups),
                    cells.for_ends(cells.labels),
                    cells.statuses,
                    cells.ends,
                    strict=True,
                )
                if status >= least
            )
            continue
        yield from _join(
            f"{start}{labels}{write_status_labels(status)}}} {value}\n"
            for labels, status, value in zip(cells.for_ends(cells.labels), cells.statuses, cells.ends, strict=True)
            if status >= least
        )


def _cells_with_births(
    snapshot: TallySnapshot, born: list[dict[int, float]], exemplars: Exemplars
) -> Iterator[str]:
    """Write what is counted per comm and uid in OpenMetrics, each series with when it was born."""
    cells = snapshot.cells
    for spec, values, times in snapshot.counters_and_births():
        yield _head(spec, openmetrics=True)
        yield from _join(
            _with_birth(spec.name, labels, value, time)
            for labels, value, time in zip(cells.labels, values, times, strict=True)
            if value
        )
    for spec, least in snapshot.ends():
        yield _head(spec, openmetrics=True)
        of_spec = exemplars if spec is NONZERO_EXITS else _NO_EXEMPLARS
        yield from _join(
            _with_birth(
                spec.name,
                f"{labels}{write_status_labels(status)}",
                value,
                times_of[status],
                of_spec.get((*key, group, status)),
            )
            for key, group, labels, times_of, status, value in zip(
                cells.for_ends(cells.keys),
                cells.for_ends(cells.groups),
                cells.for_ends(cells.labels),
                cells.for_ends(born),
                cells.statuses,
                cells.ends,
                strict=True,
            )
            if status >= least
        )


def _with_birth(name: str, labels: str, value: int, born_seconds: float, exemplar: Exemplar | None = None) -> str:
    created = f"{name.removesuffix('_total')}_created"
    return f"{name}{{{labels}}} {value}{write_exemplar(exemplar)}\n{created}{{{labels}}} {born_seconds:.3f}\n"


def _render_histograms(
    row: HistogramRow,
    of_programs: list[tuple[ProgramCounts, Histogram]],
    cumulative: Callable[[Histogram], Sequence[int]],
    *,
    births: bool,
) -> Iterator[str]:
    name, in_base_unit = row.spec.name, row.in_base_unit
    tails = [f',le="{bound}"}}' for bound in bound_labels(row.bounds)]
    for program, histogram in of_programs:
        labels = program.labels
        start = f"{name}_bucket{{{labels}"
        counts = cumulative(histogram)
        buckets = "".join([f"{start}{tail} {count}\n" for tail, count in zip(tails, counts, strict=True)])
        text = (
            f"{buckets}{name}_count{{{labels}}} {counts[-1]}\n"
            f"{name}_sum{{{labels}}} {in_base_unit(histogram[-1])!r}\n"
        )
        yield f"{text}{name}_created{{{labels}}} {program.born_seconds:.3f}\n" if births else text


def _lines_of(piece: str, names: Collection[str]) -> str:
    """Return the lines of samples of these names: of a histogram there are three."""
    return "".join(line for line in piece.splitlines(keepends=True) if line.partition("{")[0] in names)


def _head(spec: MetricSpec, *, openmetrics: bool) -> str:
    name = spec.name.removesuffix("_total") if openmetrics else spec.name
    return f"# HELP {name} {spec.help}\n# TYPE {name} {spec.type}\n"


def _join(texts: Iterator[str], size: int = _SLICE) -> Iterator[str]:
    while piece := "".join(islice(texts, size)):
        yield piece
