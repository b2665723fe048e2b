"""Exemplars: a process that stands for a series, which Prometheus stores and Grafana shows beside the curve.

Only OpenMetrics has them. Their own labels may have 128 characters together, whatever labels the series has; pid
and ppid never have more than 34.

Source: the OpenMetrics 1.0 specification, section Exemplars.
"""

from collections.abc import Mapping
from typing import NamedTuple

MOST_CHARACTERS = 128


class Exemplar(NamedTuple):
    """The last process that was counted in a series."""

    pid: int
    ppid: int | None
    """None if it is not known."""
    seconds: float
    """When it ended, in seconds since the epoch. It must be the same in each scrape: to Prometheus an exemplar
    with another time is another one, and an older one is an error."""


ExemplarKey = tuple[str, int | None, tuple[str, ...], int]
"""comm, uid, the values of the labels of the group, wait status"""
Exemplars = Mapping[ExemplarKey, Exemplar]


def write_exemplar(exemplar: Exemplar | None) -> str:
    """Return what stands behind the value of a sample; an empty text without an exemplar."""
    if exemplar is None:
        return ""
    parent = "" if exemplar.ppid is None else f',ppid="{exemplar.ppid}"'
    return f' # {{pid="{exemplar.pid}"{parent}}} 1 {exemplar.seconds:.3f}'
