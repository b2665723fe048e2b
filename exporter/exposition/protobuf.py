"""How a scrape becomes protobuf: length-delimited messages of io.prometheus.client.MetricFamily.

Written by hand as the text is, each series' labels once and kept. It is the only format with native histograms,
and the one of which Prometheus reads the time of a series' birth.

Source: https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto
"""

from collections.abc import Iterable, Iterator
from functools import cache, lru_cache, partial
from itertools import chain, compress, islice
from operator import add
from typing import NamedTuple

from prometheus_client import Metric

from exporter.exposition.budget import budget
from exporter.exposition.metrics import BUDGET, FOLDED, PROCESSES, HistogramRow
from exporter.exposition.protobuf_histograms import HistogramEncoder
from exporter.exposition.snapshot import TallySnapshot
from exporter.exposition.spec import MetricSpec
from exporter.exposition.wire import SHORT, double, label, message, number, real, timestamp, varint
from exporter.tallies.histograms import Histogram
from exporter.tallies.labels import END_LABELS, Key, status_labels, uid_label
from exporter.tallies.programs import ProgramCounts

CONTENT_TYPE = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"

# Rows that are written in one piece.
_SLICE = 4000
# Of a counter: what stays the same, its birth, its value.
_PARTS = 3
_TYPES = {"counter": 0, "gauge": 1, "unknown": 3, "histogram": 4}
_NO_TYPE = 3
# The field of Metric that has the value, by the type.
_VALUE_FIELDS = {"counter": 3, "gauge": 2, "unknown": 5}
# How much is kept of what was written: at most 30 MB, when there are as many series as are allowed by default.
_MOST_KEPT = 100_000


@cache
def _status_labels(status: int) -> bytes:
    return b"".join(map(label, END_LABELS[-2:], status_labels(status)))


def _group_labels(names: tuple[str, ...], values: tuple[str, ...]) -> bytes:
    return b"".join(map(label, names, values))


def _birth(seconds: float) -> bytes:
    """Encode a counter's birth, if it is known, and the tag of the value that follows."""
    return timestamp(3, seconds) + b"\t"


def _counter_head(labels: bytes, birth_length: int) -> bytes:
    """Encode what comes before a counter's birth and value: its labels, and how long all is."""
    length = birth_length + 8
    return b'"' + varint(len(labels) + 2 + length) + labels + b"\x1a" + SHORT[length]


_Kept = tuple[Histogram, float | None, bytes]
"""A histogram, when it was born, and both as they were written."""


class _Ends(NamedTuple):
    """The series of ends, one for each cell and wait status."""

    labels: list[bytes]
    statuses: list[int]
    values: list[int]
    times: list[float]


class ProtobufRenderer:
    """Writes families, and keeps what stays the same from scrape to scrape: labels and births."""

    def __init__(self) -> None:
        self._of_keys: dict[tuple[Key, tuple[str, ...]], bytes] = {}
        self._of_programs: dict[str, dict[tuple[str, tuple[str, ...]], _Kept]] = {}
        self._of_comm = lru_cache(_MOST_KEPT)(partial(label, "comm"))
        self._head = lru_cache(_MOST_KEPT)(_counter_head)
        self._birth = lru_cache(_MOST_KEPT)(_birth)

    def render(self, snapshot: TallySnapshot) -> Iterator[bytes]:
        """Write the families of a snapshot.

        Yields:
            Pieces, empty ones among them: each takes a few milliseconds to write, so that others can have their
            turn in between.
        """
        for spec, metrics, size in self._families(snapshot):
            written: list[bytes] = []
            while piece := b"".join(islice(metrics, size)):
                written.append(piece)
                yield b""
            yield from _delimited(spec.name, spec.help, spec.type, written)

    def _families(self, snapshot: TallySnapshot) -> Iterator[tuple[MetricSpec, Iterator[bytes], int]]:
        """Return each family, the parts of its encoded series, and how many of them to write in one piece."""
        labels = self._labels(snapshot)
        for spec, values, times in snapshot.counters_and_births():
            yield (
                spec,
                self._counters(compress(labels, values), filter(None, values), compress(times, values)),
                _PARTS * _SLICE,
            )
        if ends := list(snapshot.ends()):
            of_ends, statuses, values, times = self._ends(snapshot, labels)
            for spec, least in ends:
                shown = list(map(least.__le__, statuses))
                counted = self._counters(compress(of_ends, shown), compress(values, shown), compress(times, shown))
                yield spec, counted, _PARTS * _SLICE
        for row, of_programs in snapshot.histograms():
            yield row.spec, self._histograms(snapshot, row, of_programs), _SLICE // len(row.bounds)
        if PROCESSES in snapshot.shown:
            living = (
                (self._of_comm(comm) + _group_labels(snapshot.group_labels, values), value)
                for comm, values, value in snapshot.processes()
            )
            yield PROCESSES, _gauges(living), _SLICE
        for spec, metrics in zip(BUDGET, budget(snapshot), strict=True):
            names = [label("metric", name) for name in metrics]
            if spec is FOLDED:
                began = [snapshot.began_seconds or 0.0] * len(names)
                yield spec, self._counters(names, metrics.values(), began), _PARTS * _SLICE
            else:
                yield spec, _gauges(zip(names, metrics.values(), strict=True)), _SLICE

    def _labels(self, snapshot: TallySnapshot) -> list[bytes]:
        keys = list(zip(snapshot.cells.keys, snapshot.cells.groups, strict=True))
        kept = self._of_keys
        if len(kept) > _MOST_KEPT:
            kept.clear()
        for key in keys:
            if key not in kept:
                (comm, uid), values = key
                kept[key] = (
                    label("comm", comm)
                    + label("uid", uid_label(uid))
                    + _group_labels(snapshot.group_labels, values)
                )
        return [kept[key] for key in keys]

    def _counters(self, labels: Iterable[bytes], values: Iterable[int], times: Iterable[float]) -> Iterator[bytes]:
        """Encode a Metric for each of these, in parts; the loop over all of them is the interpreter's own."""
        births = list(map(self._birth, times))
        heads = map(self._head, labels, map(len, births))
        return chain.from_iterable(zip(heads, births, map(double, values), strict=True))

    def _ends(self, snapshot: TallySnapshot, labels: list[bytes]) -> _Ends:
        """Return the labels of all ends, their wait statuses, how many there are and when they were born."""
        cells = snapshot.cells
        times = (
            [0.0] * len(cells.statuses)
            if cells.born is None
            else [
                times[status]
                for times, status in zip(cells.for_ends(cells.born.exits), cells.statuses, strict=True)
            ]
        )
        return _Ends(
            list(map(add, cells.for_ends(labels), map(_status_labels, cells.statuses))),
            cells.statuses,
            cells.ends,
            times,
        )

    def _histograms(
        self, snapshot: TallySnapshot, row: HistogramRow, of_programs: list[tuple[ProgramCounts, Histogram]]
    ) -> Iterator[bytes]:
        """Encode a Metric for each program; of most programs no process has ended since the last scrape."""
        encode = HistogramEncoder(row, snapshot.folding(row)).encode
        kept = self._of_programs.get(row.spec.name, {})
        self._of_programs[row.spec.name] = now_kept = {}
        for program, histogram in of_programs:
            key = program.comm, program.group
            before = kept.get(key)
            if before is None or before[0] != histogram or before[1] != program.born_seconds:
                labels = self._of_comm(program.comm)
                if program.group:
                    labels += _group_labels(snapshot.group_labels, program.group)
                metric = message(4, labels + encode(histogram, program.born_seconds))
                before = histogram, program.born_seconds, metric
            now_kept[key] = before
            yield before[2]


def _gauges(rows: Iterable[tuple[bytes, int]]) -> Iterator[bytes]:
    for labels, value in rows:
        yield message(4, labels + message(2, real(1, value)))


def _delimited(name: str, description: str, kind: str, metrics: list[bytes]) -> Iterator[bytes]:
    """Encode a family with the length before it; one without a series is left out, as it must not be empty."""
    if not metrics:
        return
    head = message(1, name.encode()) + message(2, description.encode()) + number(3, _TYPES.get(kind, _NO_TYPE))
    yield varint(len(head) + sum(map(len, metrics))) + head
    yield from metrics


def render_families(families: Iterable[Metric]) -> Iterator[bytes]:
    """Write the library's families: counters, gauges and histograms."""
    for family in families:
        kind = family.type if family.type in _TYPES else "unknown"
        if kind == "histogram":
            yield from _delimited(family.name, family.documentation, kind, [_library_histogram(family)])
            continue
        born = {
            tuple(sample.labels.items()): sample.value
            for sample in family.samples
            if sample.name.endswith("_created")
        }
        metrics = [
            message(
                4,
                b"".join([label(name, value) for name, value in sample.labels.items()])
                + message(
                    _VALUE_FIELDS[kind],
                    real(1, sample.value) + timestamp(3, born.get(tuple(sample.labels.items()))),
                ),
            )
            for sample in family.samples
            if not sample.name.endswith("_created")
        ]
        name = f"{family.name}_total" if kind == "counter" else family.name
        yield from _delimited(name, family.documentation, kind, metrics)


def _library_histogram(family: Metric) -> bytes:
    """Encode the one series of a histogram without labels."""
    content = b""
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            content += message(3, number(1, int(sample.value)) + real(2, float(sample.labels["le"])))
        elif sample.name.endswith("_count"):
            content += number(1, int(sample.value))
        elif sample.name.endswith("_sum"):
            content += real(2, sample.value)
        else:
            content += timestamp(15, sample.value)
    return message(4, message(7, content))
