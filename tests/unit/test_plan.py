"""exporter/plan.py: what is asked of the kernel for what a user wants."""

import itertools

import pytest

from exporter.events import DEFAULT_EVENTS, EVENTS
from exporter.kernel import cn_proc
from exporter.plan import make_plan

FORK, EXEC, EXIT = cn_proc.PROC_EVENT_FORK, cn_proc.PROC_EVENT_EXEC, cn_proc.PROC_EVENT_EXIT
TABLE = {FORK, EXEC, EXIT, cn_proc.PROC_EVENT_UID, cn_proc.PROC_EVENT_COMM}
FAMILIES = ("fork", "exec", "exit", "nonzero_exit")
SUBSETS = [
    frozenset(subset)
    for length in range(1, len(FAMILIES) + 1)
    for subset in itertools.combinations(FAMILIES, length)
]


def test_by_default_all_families_are_fed_and_threads_are_left_out() -> None:
    plan = make_plan(DEFAULT_EVENTS, exact=True, records_end_processes=True)
    assert plan.keeps_table
    assert plan.deliver.events == TABLE | {cn_proc.PROC_EVENT_PTRACE, cn_proc.PROC_EVENT_COREDUMP}
    # The EXIT of a last thread is its process's end.
    assert plan.deliver.threads == {EXIT}


def test_threads_are_followed_where_records_do_not_mark_the_end() -> None:
    plan = make_plan(DEFAULT_EVENTS, exact=True, records_end_processes=False)
    assert plan.deliver.threads == {FORK, EXIT}


def test_failures_alone_need_nothing_else() -> None:
    plan = make_plan({"nonzero_exit"}, exact=True, records_end_processes=True)
    assert plan.failures_only
    assert not plan.keeps_table
    assert plan.deliver.mask == 0x20000000


@pytest.mark.parametrize("records_end_processes", [True, False])
def test_failures_alone_stay_so_without_exit_records(records_end_processes: bool) -> None:
    plan = make_plan({"nonzero_exit"}, exact=False, records_end_processes=records_end_processes)
    assert plan.failures_only
    assert plan.deliver.events == {EXIT}


def test_ends_alone_need_no_table_where_records_have_names() -> None:
    plan = make_plan({"exit"}, exact=True, records_end_processes=True)
    assert not plan.keeps_table
    assert plan.deliver.events == {EXIT}
    plan = make_plan({"exit"}, exact=False, records_end_processes=False)
    assert plan.keeps_table
    assert plan.deliver.events == TABLE


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("wanted", SUBSETS, ids=lambda wanted: "+".join(sorted(wanted)))
def test_every_subset_gets_what_its_counters_need(wanted: frozenset[str], exact: bool) -> None:
    plan = make_plan(wanted, exact=exact, records_end_processes=exact)
    assert plan.wanted == wanted
    if wanted & {"fork", "exec"}:
        assert plan.deliver.events >= TABLE
        assert not plan.deliver.nonzero_exits
    assert EXIT in plan.deliver.events
    assert plan.deliver.nonzero_exits == (wanted == {"nonzero_exit"})


@pytest.mark.parametrize("name", ["thread_fork", "thread_exit"])
def test_threads_come_when_they_are_asked_for(name: str) -> None:
    what = {"thread_fork": FORK, "thread_exit": EXIT}[name]
    plan = make_plan({name}, exact=True, records_end_processes=True)
    assert what in plan.deliver.threads
    assert plan.deliver.events == {what, EXIT}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", EVENTS)
def test_a_failure_comes_through_whatever_is_wanted_for_that_is_what_a_canary_is(name: str, exact: bool) -> None:
    plan = make_plan({name}, exact=exact, records_end_processes=exact)
    assert EXIT in plan.deliver.events
    assert plan.deliver.mask & 0xA0000000


def test_groups_need_the_table_and_the_beginning_of_each_session() -> None:
    plan = make_plan({"nonzero_exit"}, exact=True, records_end_processes=True, grouped=True)
    assert plan.keeps_table
    assert plan.deliver.events == TABLE | {cn_proc.PROC_EVENT_SID}
    assert not plan.failures_only
