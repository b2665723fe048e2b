"""The counters of programs, a row each: everything that depends on which there are is built from these rows.

A row is a field of `Counters`, so that counting is `cell.forks += 1`. With its metadata it makes the family of the
exposition, its share of the budget of series, the columns of a snapshot, and the `--events` that show it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from itertools import compress
from operator import attrgetter
from typing import Any, NamedTuple

from exporter.events import EVENTS


class CounterRow(NamedTuple):
    """One counter as its users see it."""

    field: str
    event: str | None
    """The value of --events, and of the label `event`, that it counts; None if that is counted otherwise."""
    metric: str
    help: str


def counter(event: str | None, metric: str, description: str) -> Any:
    """Declare a counter: the event that it counts, if one, the name of its metric and its help."""
    return field(default=0, metadata={"event": event, "metric": metric, "help": description})


@dataclass(slots=True, eq=False)
class Counters:
    """What is counted for each program and user, in the order in which it is exposed."""

    forks: int = counter("fork", "proc_connector_forks_total", "Processes forked, by the forking process.")
    execs: int = counter("exec", "proc_connector_execs_total", "Programs executed, by the comm after the exec.")
    coredumps: int = counter(
        "coredump", "proc_connector_coredumps_total", "Processes that died of a signal that dumps core."
    )
    uid_changes: int = counter(
        "uid", "proc_connector_uid_changes_total", "Changes of real or effective uid, by the new real one."
    )
    ptrace_attaches: int = counter(
        "ptrace",
        "proc_connector_ptrace_attaches_total",
        "Times a process began to be traced, by the comm of the traced process.",
    )
    oom_kills: int = counter(
        None,
        "proc_connector_oom_kills_total",
        "Processes that died of SIGKILL because the kernel's OOM killer had chosen them; they are in "
        "proc_connector_exits_total too.",
    )


COUNTERS = tuple(CounterRow(row.name, **row.metadata) for row in fields(Counters))
FIELDS = tuple(row.field for row in COUNTERS)
BY_EVENT = {row.event: row for row in COUNTERS if row.event is not None}

_COUNTED = {*BY_EVENT, "exit"}
EVENT_NAMES = tuple(event for event in EVENTS if event in _COUNTED)
"""The events that cells count: those of the counters, and the ends."""

values_of: Callable[[Counters], tuple[int, ...]] = attrgetter(*FIELDS)
"""Returns the numbers, in the order of COUNTERS. One call of the interpreter's: each cell is asked often."""


def add_counters(to: Counters, other: Counters) -> None:
    """Add the numbers of one to those of another."""
    # Only those that are not zero: most often it is one.
    for name in compress(FIELDS, values_of(other)):
        setattr(to, name, getattr(to, name) + getattr(other, name))
