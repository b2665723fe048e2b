"""Which events the kernel has to deliver for those that a user wants, and what can then be known."""

from collections.abc import Iterable
from typing import NamedTuple

from exporter.kernel.bpf import EventFilter
from exporter.kernel.cn_proc import (
    PROC_EVENT_COMM,
    PROC_EVENT_COREDUMP,
    PROC_EVENT_EXEC,
    PROC_EVENT_EXIT,
    PROC_EVENT_FORK,
    PROC_EVENT_GID,
    PROC_EVENT_PTRACE,
    PROC_EVENT_SID,
    PROC_EVENT_UID,
)
from exporter.tallies.counters import BY_EVENT

_WHAT = {
    "fork": PROC_EVENT_FORK,
    "exec": PROC_EVENT_EXEC,
    "exit": PROC_EVENT_EXIT,
    "nonzero_exit": PROC_EVENT_EXIT,
    "uid": PROC_EVENT_UID,
    "gid": PROC_EVENT_GID,
    "sid": PROC_EVENT_SID,
    "ptrace": PROC_EVENT_PTRACE,
    "comm": PROC_EVENT_COMM,
    "coredump": PROC_EVENT_COREDUMP,
    "thread_fork": PROC_EVENT_FORK,
    "thread_exit": PROC_EVENT_EXIT,
}

ENDS = frozenset({"exit", "nonzero_exit"})
"""Of the names of events those that are ends of processes."""

# What it takes to know who lives under which comm and uid.
_TABLE = frozenset({PROC_EVENT_FORK, PROC_EVENT_EXEC, PROC_EVENT_UID, PROC_EVENT_COMM, PROC_EVENT_EXIT})
# Counted under the comm that a live process has at that time.
_NAMED_BY_TABLE = frozenset(BY_EVENT)


class Plan(NamedTuple):
    """What to ask the kernel for."""

    wanted: frozenset[str]
    """What the user asked for; only this is shown."""
    deliver: EventFilter
    keeps_table: bool
    """Who lives is known, so that names can come from there."""

    @property
    def has_ends(self) -> bool:
        """The user asked for ends of processes."""
        return bool(self.wanted & ENDS)

    @property
    def all_ends(self) -> bool:
        """The EXIT of every thread reaches us."""
        return PROC_EVENT_EXIT in self.deliver.threads and not self.deliver.nonzero_exits

    @property
    def failures_only(self) -> bool:
        """Nothing but failed processes reaches us."""
        return self.deliver.nonzero_exits


def make_plan(
    wanted: Iterable[str],
    *,
    exact: bool,
    records_end_processes: bool,
    named: bool = False,
    grouped: bool = False,
) -> Plan:
    """Work out what the kernel has to deliver.

    Args:
        wanted: Names of EVENTS.
        exact: Exit records have the names of processes that end.
        records_end_processes: They mark the last thread of a process too, so that threads need not be followed.
        named: The name belongs to each event, even if that takes events that the user did not ask for.
        grouped: The group of each process is to be known, too.
    """
    wanted = frozenset(wanted)
    failures = "nonzero_exit" in wanted and not wanted & {"exit", "thread_exit"}
    keeps_table = bool(wanted & _NAMED_BY_TABLE) or ("exit" in wanted and not exact)
    keeps_table = keeps_table or grouped
    if named and not (exact and wanted <= {"exit", "nonzero_exit"}):
        keeps_table = True
    whats = {_WHAT[name] for name in wanted}
    threads = set()
    if "thread_fork" in wanted:
        threads.add(PROC_EVENT_FORK)
    if "thread_exit" in wanted:
        threads.add(PROC_EVENT_EXIT)
    if keeps_table:
        whats |= _TABLE
    if grouped:
        # A process that begins a session is about to be moved, often.
        whats.add(PROC_EVENT_SID)
    if keeps_table or wanted & {"exit", "nonzero_exit"}:
        # The last thread's EXIT can be a process's end.
        threads.add(PROC_EVENT_EXIT)
        if not records_end_processes and not (failures and not keeps_table):
            whats.add(PROC_EVENT_FORK)
            threads.add(PROC_EVENT_FORK)
    only_failures = failures and not keeps_table
    if PROC_EVENT_EXIT not in whats:
        # The canary's end has to come back, whatever else is wanted.
        whats.add(PROC_EVENT_EXIT)
        only_failures = True
    return Plan(
        wanted, EventFilter(frozenset(whats), frozenset(threads), nonzero_exits=only_failures), keeps_table
    )
