"""How a scrape becomes protobuf: length-delimited messages of io.prometheus.client.MetricFamily.

Written by hand as the text is, each series' labels once and kept. It is the only format with native histograms,
and the one of which Prometheus reads the time of a series' birth.

Source: https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto
"""

from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from itertools import islice
from struct import Struct

from prometheus_client import Metric

from exporter.exposition.buckets import cumulative
from exporter.exposition.budget import budget
from exporter.exposition.metrics import FOLDED, PROCESSES, SERIES, SERIES_LIMIT, HistogramRow
from exporter.exposition.snapshot import TallySnapshot
from exporter.exposition.spec import MetricSpec
from exporter.tallies.histograms import Histogram
from exporter.tallies.labels import END_LABELS, Key, status_labels, uid_label
from exporter.tallies.native import SCHEMA, Folding
from exporter.tallies.tallies import ProgramCounts

CONTENT_TYPE = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"

# Rows that are written in one piece.
_SLICE = 4000
_TYPES = {"counter": 0, "gauge": 1, "unknown": 3, "histogram": 4}
_NO_TYPE = 3
# The field of Metric that has the value, by the type.
_VALUE_FIELDS = {"counter": 3, "gauge": 2, "unknown": 5}
_VARINT, _FIXED64, _BYTES = 0, 1, 2
_double = Struct("<d").pack
_MOST_KEPT = 100_000
_TIMES_KEPT = 1 << 16


def varint(number: int) -> bytes:
    """Encode an unsigned integer."""
    if number < 0x80:
        return _SHORT[number]
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SHORT = [bytes([number]) for number in range(0x80)]


def zigzag(number: int) -> bytes:
    """Encode a signed integer as sint32 and sint64."""
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)


def _tag(field: int, wire_type: int) -> bytes:
    return varint(field << 3 | wire_type)


def _message(field: int, content: bytes) -> bytes:
    return _tag(field, _BYTES) + varint(len(content)) + content


def _number(field: int, number: int) -> bytes:
    return _tag(field, _VARINT) + varint(number)


def _float(field: int, number: float) -> bytes:
    return _tag(field, _FIXED64) + _double(number)


def _label(name: str, value: str) -> bytes:
    return _message(1, _message(1, name.encode()) + _message(2, value.encode()))


@lru_cache(_TIMES_KEPT)
def _timestamp(field: int, seconds: float | None) -> bytes:
    """Encode a google.protobuf.Timestamp; nothing if it is not known."""
    if not seconds:
        return b""
    whole, rest = divmod(round(seconds * 1e9), 10**9)
    return _message(field, _number(1, whole) + _number(2, rest))


@cache
def _status_labels(status: int) -> bytes:
    return b"".join(map(_label, END_LABELS[-2:], status_labels(status)))


def _bucket_tails(bounds: Iterable[float]) -> list[bytes]:
    """Return what each bucket of a histogram ends with: its bound."""
    return [_float(2, bound) for bound in (*bounds, float("inf"))]


def _buckets(tails: list[bytes], counts: list[int]) -> bytes:
    """Encode classic buckets; most counts are short, so their length is that of one byte."""
    written = []
    for tail, count in zip(tails, counts, strict=True):
        if count < 0x80:
            written.append(b"\x1a\x0b\x08" + _SHORT[count] + tail)
        else:
            number = varint(count)
            written.append(b"\x1a" + _SHORT[10 + len(number)] + b"\x08" + number + tail)
    return b"".join(written)


def _native(folding: Folding, histogram: Histogram) -> bytes:
    """Encode the native buckets: spans of buckets that follow one another, and differences of their counts."""
    zero_count, by_index = folding.native(histogram)
    spans, deltas, before = [], [], 0
    begin = end = None
    for index, count in by_index.items():
        if end is None or index != end:
            if begin is not None and end is not None:
                spans.append((begin, end))
            begin = index
        end = index + 1
        deltas.append(zigzag(count - before))
        before = count
    if begin is not None and end is not None:
        spans.append((begin, end))
    after = 0
    written = b"8" + varint(zero_count)
    for first, beyond in spans:
        span = b"\x08" + zigzag(first - after) + b"\x10" + varint(beyond - first)
        written += b"b" + _SHORT[len(span)] + span
        after = beyond
    if not deltas:
        return written
    packed = b"".join(deltas)
    return written + b"j" + varint(len(packed)) + packed


def _native_head(folding: Folding) -> bytes:
    """Encode what all native histograms of a family have in common."""
    return _tag(5, _VARINT) + zigzag(SCHEMA) + _float(6, folding.scale.zero_threshold)


class ProtobufRenderer:
    """Writes families, and keeps the labels of programs as they are written."""

    def __init__(self) -> None:
        self._of_keys: dict[Key, bytes] = {}

    def render(self, snapshot: TallySnapshot) -> Iterator[bytes]:
        """Write the families of a snapshot.

        Yields:
            Pieces, empty ones among them: each takes a few milliseconds to write, so that others can have their
            turn in between.
        """
        for spec, metrics in self._families(snapshot):
            written: list[bytes] = []
            while piece := b"".join(islice(metrics, _SLICE)):
                written.append(piece)
                yield b""
            yield from _delimited(spec.name, spec.help, spec.type, written)

    def _families(self, snapshot: TallySnapshot) -> Iterator[tuple[MetricSpec, Iterator[bytes]]]:
        labels = self._labels(snapshot.cells.keys)
        born = snapshot.cells.born
        for spec, values, times in snapshot.counters_and_births():
            yield spec, _counters(zip(labels, values, times, strict=True))
        for spec, least in snapshot.ends():
            yield (
                spec,
                _counters(
                    (cell_labels + _status_labels(status), value, 0.0 if times is None else times[status])
                    for cell_labels, exits, times in zip(
                        labels,
                        snapshot.cells.exits,
                        [None] * len(labels) if born is None else born.exits,
                        strict=True,
                    )
                    for status, value in exits.items()
                    if status >= least
                ),
            )
        for row, of_programs in snapshot.histograms():
            yield row.spec, self._histograms(snapshot, row, of_programs)
        if PROCESSES in snapshot.shown:
            yield PROCESSES, _gauges("comm", snapshot.live)
        series, limit, folded = budget(snapshot)
        yield SERIES, _gauges("metric", series)
        yield SERIES_LIMIT, _gauges("metric", limit)
        began = snapshot.began_seconds or 0.0
        yield (
            FOLDED,
            _counters(((_label("metric", name), value, began) for name, value in folded.items()), zeros=True),
        )

    def _labels(self, keys: list[Key]) -> list[bytes]:
        kept = self._of_keys
        if len(kept) > _MOST_KEPT:
            kept.clear()
        for key in keys:
            if key not in kept:
                kept[key] = _label("comm", key[0]) + _label("uid", uid_label(key[1]))
        return [kept[key] for key in keys]

    def _histograms(
        self, snapshot: TallySnapshot, row: HistogramRow, of_programs: list[tuple[ProgramCounts, Histogram]]
    ) -> Iterator[bytes]:
        folding = snapshot.folding(row)
        tails = _bucket_tails(row.bounds)
        native_head = b"" if folding is None else _native_head(folding)
        for program, histogram in of_programs:
            counts = cumulative(histogram)
            content = (
                _number(1, counts[-1])
                + _float(2, row.in_base_unit(histogram[-1]))
                + _buckets(tails, counts)
                + _timestamp(15, program.born_seconds)
            )
            if folding is not None:
                content += native_head + _native(folding, getattr(program, row.field))
            yield _message(4, _label("comm", program.comm) + _message(7, content))


def _counters(rows: Iterable[tuple[bytes, int, float]], *, zeros: bool = False) -> Iterator[bytes]:
    """Encode a Metric for each row of labels, value and birth; those that are 0 only on request."""
    for labels, value, born in rows:
        if not value and not zeros:
            continue
        if born:
            counter = b"\t" + _double(value) + _timestamp(3, born)
            metric = labels + b"\x1a" + _SHORT[len(counter)] + counter
        else:
            metric = labels + b"\x1a\x09\x09" + _double(value)
        length = len(metric)
        yield b'"' + (_SHORT[length] if length < 0x80 else varint(length)) + metric


def _gauges(label: str, values: dict[str, int]) -> Iterator[bytes]:
    for text, value in values.items():
        yield _message(4, _label(label, text) + _message(2, _float(1, value)))


def _delimited(name: str, description: str, kind: str, metrics: list[bytes]) -> Iterator[bytes]:
    """Encode a family with the length before it; one without a series is left out, as it must not be empty."""
    if not metrics:
        return
    head = _message(1, name.encode()) + _message(2, description.encode()) + _number(3, _TYPES.get(kind, _NO_TYPE))
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
            _message(
                4,
                b"".join([_label(name, value) for name, value in sample.labels.items()])
                + _message(
                    _VALUE_FIELDS[kind],
                    _float(1, sample.value) + _timestamp(3, born.get(tuple(sample.labels.items()))),
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
            content += _message(3, _number(1, int(sample.value)) + _float(2, float(sample.labels["le"])))
        elif sample.name.endswith("_count"):
            content += _number(1, int(sample.value))
        elif sample.name.endswith("_sum"):
            content += _float(2, sample.value)
        else:
            content += _timestamp(15, sample.value)
    return _message(4, _message(7, content))
