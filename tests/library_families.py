"""What render writes, as prometheus-client's objects: the library then writes it in its own way."""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from exporter.exposition.buckets import bound_labels
from exporter.exposition.budget import budget
from exporter.exposition.metrics import FOLDED, PROCESSES, SERIES, SERIES_LIMIT
from exporter.exposition.snapshot import TallySnapshot
from exporter.exposition.spec import MetricSpec
from exporter.kernel.wait_status import exit_labels
from exporter.tallies.labels import uid_label


def families(snapshot: TallySnapshot) -> Iterator[Metric]:
    """Return what render writes, as the library's objects."""
    of_cells = [
        [*values, *_program_labels(key)]
        for key, values in zip(snapshot.cells.keys, snapshot.cells.groups, strict=True)
    ]
    for spec, values in snapshot.counters():
        family = CounterMetricFamily(spec.name, spec.help, labels=[*snapshot.group_labels, *spec.labels])
        for labels, value in zip(of_cells, values, strict=True):
            if value:
                family.add_metric(labels, value)
        yield family
    for spec, least in snapshot.ends():
        family = CounterMetricFamily(spec.name, spec.help, labels=[*snapshot.group_labels, *spec.labels])
        for labels, exits in zip(of_cells, snapshot.cells.exits, strict=True):
            for status, value in exits.items():
                if status >= least:
                    family.add_metric([*labels, *exit_labels(status)], value)
        yield family
    for row, of_programs in snapshot.histograms():
        in_groups = snapshot.group_labels if any(program.group for program, _ in of_programs) else ()
        histograms = HistogramMetricFamily(row.spec.name, row.spec.help, labels=[*in_groups, *row.spec.labels])
        for program, histogram in of_programs:
            buckets = list(zip(bound_labels(row.bounds), accumulate(histogram[:-1]), strict=True))
            histograms.add_metric([*program.group, program.comm], buckets, row.in_base_unit(histogram[-1]))
        yield histograms
    if PROCESSES in snapshot.shown:
        processes = GaugeMetricFamily(
            PROCESSES.name, PROCESSES.help, labels=[*snapshot.group_labels, *PROCESSES.labels]
        )
        for comm, group, count in snapshot.processes():
            processes.add_metric([*group, comm], count)
        yield processes
    for spec, metrics in zip((SERIES, SERIES_LIMIT, FOLDED), budget(snapshot), strict=True):
        yield _numbers(spec, metrics)


def _numbers(spec: MetricSpec, values: dict[str, int]) -> Metric:
    make = CounterMetricFamily if spec.type == "counter" else GaugeMetricFamily
    family = make(spec.name, spec.help, labels=spec.labels)
    for label, value in values.items():
        family.add_metric([label], value)
    return family


def _program_labels(key: tuple[str, int | None]) -> list[str]:
    comm, uid = key
    return [comm, uid_label(uid)]
