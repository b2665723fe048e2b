"""Figures of several rounds as one: the median, and how far they lie apart."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple


class Figure(NamedTuple):
    """What rounds gave."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Figure":
        """Sum up at least one round."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])

    @classmethod
    def ratio(cls, ours: Sequence[float], theirs: Sequence[float]) -> "Figure":
        """Compare round by round: what slows the machine down slows both sides of a round."""
        return cls.of(a / b for a, b in zip(ours, theirs, strict=True))

    def show(self, form: Callable[[float], str], unit: str = "") -> str:
        """Write the median and, where they differ from it, the extremes."""
        median, low, high = form(self.median), form(self.low), form(self.high)
        spread = "" if low == high else f" ({low}..{high})"
        return f"{median}{unit}{spread}"


def times(value: float) -> str:
    """Write a ratio."""
    return f"{value:.2f}"


def percent(value: float) -> str:
    """Write a share of 1."""
    return f"{100 * value:.1f}"


def number(value: float) -> str:
    """Write a number to three digits."""
    if value >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def floor_percent(share: float) -> str:
    """Write a share of 1 so that 100.00 means all."""
    return f"{int(share * 10_000) / 100:.2f}"
