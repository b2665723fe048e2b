"""Each storm under each reader: CPU per event, what the host pays, right names, losses.

A round starts every reader once for every storm, and lets the storm run without any before and after each: what
the host pays is the reader's time against the mean of its two neighbours. The order of the readers turns from
round to round.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bench.names import Names
from bench.readers import READERS, Kind
from bench.setup import Bench, say
from bench.stats import Figure
from bench.storms import STORMS, Storm


class Sample(NamedTuple):
    """One storm under one reader, once."""

    cpu_ns_per_event: float
    slowdown: float
    names: Names | None
    lost: int
    """Messages that the reader counted as lost, or never heard."""


class Matrix(NamedTuple):
    """All rounds: storm -> reader -> samples in order of rounds."""

    samples: dict[str, dict[str, list[Sample]]]
    not_installed: list[Kind]
    alone_ns: dict[str, Figure]
    """How long each storm takes without a reader."""
    processes: dict[str, int]

    def has(self, reader: str) -> bool:
        """Tell whether a reader was measured."""
        return any(reader in by_reader for by_reader in self.samples.values())

    def cpu_us(self, storm: str, reader: str) -> Figure:
        """Return CPU per event."""
        return Figure.of(s.cpu_ns_per_event / 1000 for s in self.samples[storm][reader])

    def cpu_ratio(self, storm: str, reader: str, other: str) -> Figure:
        """Return CPU per event in terms of another reader's in the same round."""
        return Figure.ratio(
            [s.cpu_ns_per_event for s in self.samples[storm][reader]],
            [s.cpu_ns_per_event for s in self.samples[storm][other]],
        )

    def slowdown(self, storm: str, reader: str) -> Figure:
        """Return how much longer the storm takes, as a share."""
        return Figure.of(s.slowdown for s in self.samples[storm][reader])

    def names(self, storm: str, reader: str) -> Names | None:
        """Return the names of all rounds."""
        rounds = [s.names for s in self.samples[storm][reader] if s.names is not None]
        return Names(*map(sum, zip(*rounds, strict=True))) if rounds else None

    def lost(self, reader: str) -> int:
        """Return the messages that a reader lost in all rounds of all storms."""
        return sum(s.lost for by_reader in self.samples.values() for s in by_reader.get(reader, []))


def measure(bench: Bench, storms: Sequence[Storm] = STORMS) -> Matrix:
    """Measure everything; peers that are not installed are left out."""
    sizes = {
        "A": bench.size(16_000, 3_000),
        "B": bench.size(6_000, 1_000),
        "C": bench.size(3_000, 500),
        "D": bench.size(2_000, 400),
        "T": bench.size(20_000, 4_000),
    }
    kinds = [kind for kind in READERS if kind.is_installed()]
    samples: dict[str, dict[str, list[Sample]]] = {s.name: {k.name: [] for k in kinds} for s in storms}
    alone: dict[str, list[int]] = {storm.name: [] for storm in storms}
    for turn in range(bench.rounds):
        say(f"storms, round {turn + 1} of {bench.rounds}")
        first = turn % len(kinds)
        for storm in storms:
            size = sizes[storm.name]
            before_ns = storm.run(bench.programs, size).wall_ns
            alone[storm.name].append(before_ns)
            for kind in (*kinds[first:], *kinds[:first]):
                wall_ns, sample = _measure_once(bench, storm, kind, size)
                after_ns = storm.run(bench.programs, size).wall_ns
                alone[storm.name].append(after_ns)
                slowdown = 2 * wall_ns / (before_ns + after_ns) - 1
                samples[storm.name][kind.name].append(sample._replace(slowdown=slowdown))
                before_ns = after_ns
    return Matrix(
        samples,
        [kind for kind in READERS if kind not in kinds],
        {name: Figure.of(values) for name, values in alone.items()},
        sizes,
    )


def _measure_once(bench: Bench, storm: Storm, kind: Kind, size: int) -> tuple[int, Sample]:
    with kind.start(bench.programs, bench.folder) as reader:
        reader.settle()
        before_ns = reader.cpu_ns()
        run = storm.run(bench.programs, size)
        reader.settle()
        cpu_ns = reader.cpu_ns() - before_ns
        report = reader.report(run)
    unheard = 0 if report.events is None or run.of_threads else run.events - report.events
    lost = max(report.lost or 0, unheard)
    return run.wall_ns, Sample(cpu_ns / run.events, 0.0, report.names, lost)
