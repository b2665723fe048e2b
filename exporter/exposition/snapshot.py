"""What a scrape shows of programs, and its families one by one: render and budget go through them alike."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from exporter.exposition.buckets import cumulative
from exporter.exposition.metrics import COUNTER_SPECS, ENDS, HISTOGRAMS, EndRow, HistogramRow
from exporter.exposition.spec import MetricSpec
from exporter.tallies.histograms import Histogram
from exporter.tallies.native import FOLDINGS, Folding
from exporter.tallies.programs import ProgramCounts
from exporter.tallies.tallies import DEFAULT_LIMIT, CellCounts


class TallySnapshot(NamedTuple):
    """Everything that is counted per program, at one moment."""

    cells: CellCounts
    programs: list[ProgramCounts]
    live: dict[str, int]
    """Processes that live, by comm."""
    shown: frozenset[MetricSpec]
    """The families to write: those of events that the user did not ask for are absent."""
    limit: int = DEFAULT_LIMIT
    """How many series each may have."""
    has_native: bool = False
    """The histograms have the bounds of native ones, too."""
    began_seconds: float | None = None
    """When what is always there was born; None if births are not noted."""
    group_labels: tuple[str, ...] = ()
    """The names of the labels of groups; none where groups are not asked for."""
    live_in_groups: Mapping[tuple[str, tuple[str, ...]], int] | None = None
    """Processes that live, by comm and the values of the labels of their groups; None where they have none."""

    def processes(self) -> Iterator[tuple[str, tuple[str, ...], int]]:
        """Return the processes that live: the comm, the values of the labels of groups, and how many."""
        if self.live_in_groups is None:
            return ((comm, (), count) for comm, count in self.live.items())
        return ((comm, values, count) for (comm, values), count in self.live_in_groups.items())

    def restricted(self, names: Collection[str]) -> "TallySnapshot":
        """Return the same, of which only the families with samples of these names are shown."""
        return self._replace(shown=frozenset(spec for spec in self.shown if set(spec.sample_names) & set(names)))

    def counters(self) -> Iterator[tuple[MetricSpec, list[int]]]:
        """Return the counters that are shown: the number of each cell."""
        return ((spec, values) for spec, values, _ in self.counters_and_births())

    def counters_and_births(self) -> Iterator[tuple[MetricSpec, list[int], list[float]]]:
        """Return the counters that are shown: the number of each cell and when it was born, 0 if not known."""
        born = self.cells.born
        not_known = [0.0] * len(self.cells.keys)
        for name, spec in COUNTER_SPECS.items():
            if spec in self.shown:
                yield spec, self.cells.counters[name], not_known if born is None else born.counters[name]

    def ends(self) -> Iterator[EndRow]:
        """Return the counters of ends that are shown."""
        return (row for row in ENDS if row.spec in self.shown)

    def histograms(self) -> Iterator[tuple[HistogramRow, list[tuple[ProgramCounts, Histogram]]]]:
        """Return the histograms that are shown, as they are counted, of the programs that have any value."""
        for row in HISTOGRAMS:
            if row.spec in self.shown:
                histogram_of = attrgetter(row.field)
                yield row, [(program, counts) for program in self.programs if any(counts := histogram_of(program))]

    def cumulative(self, row: HistogramRow) -> Callable[[Histogram], Sequence[int]]:
        """Return what makes the counts of classic buckets, cumulative ones, of a histogram as it is counted."""
        folding = self.folding(row)
        return cumulative if folding is None else folding.cumulative

    def folding(self, row: HistogramRow) -> Folding | None:
        """Return what makes classic and native buckets of a histogram; None if it is counted in classic ones."""
        return FOLDINGS[HISTOGRAMS.index(row)] if self.has_native else None
