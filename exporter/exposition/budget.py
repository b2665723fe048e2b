"""How far the series of each family are from their limit."""

from typing import NamedTuple

from exporter.exposition.metrics import PROCESSES
from exporter.exposition.snapshot import TallySnapshot
from exporter.tallies.labels import OTHER, find_folded


class Budget(NamedTuple):
    """How far the series of the families are from their limit, by the name of the metric."""

    series: dict[str, int]
    limit: dict[str, int]
    folded: dict[str, int]
    """What was counted under `<other>`."""


def budget(snapshot: TallySnapshot) -> Budget:
    """Count the series of a snapshot."""
    cells = snapshot.cells
    others = find_folded(cells.keys, cells.groups)
    series: dict[str, int] = {}
    folded: dict[str, int] = {}
    for spec, values in snapshot.counters():
        series[spec.name] = len(values) - values.count(0)
        folded[spec.name] = sum(values[i] for i in others)
    for spec, least in snapshot.ends():
        series[spec.name] = sum(map(least.__le__, cells.statuses))
        folded[spec.name] = sum(count for status, count in cells.ends_of(others) if status >= least)
    for row, of_programs in snapshot.histograms():
        # Beside a bucket for each bound: the one without a bound, count and sum.
        series[row.spec.name] = len(of_programs) * (len(row.bounds) + 3)
        folded[row.spec.name] = sum(
            sum(histogram[:-1])
            for program, histogram in of_programs
            if program.comm == OTHER or OTHER in program.group
        )
    if PROCESSES in snapshot.shown:
        series[PROCESSES.name] = sum(1 for _ in snapshot.processes())
    return Budget(series, dict.fromkeys(series, snapshot.limit), folded)
