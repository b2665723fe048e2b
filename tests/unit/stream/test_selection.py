"""Filters: what they let through, what they ask of the kernel, and which make no sense."""

from collections.abc import Set as AbstractSet

import pytest

from exporter.errors import ConfigError
from exporter.events import DEFAULT_EVENTS, EVENTS
from exporter.processes.observer import Happening
from exporter.stream.selection import parse_selection

MS = 1_000_000
FORK = Happening(0, "fork", 7, 7, 1, 1000, "oracle_1")
OK = Happening(0, "exit", 7, 7, None, 1000, "oracle_1", 0, False, 1500 * MS, oom=False)
FAILED = OK._replace(status=0x300)
KILLED = OK._replace(status=9, uid=0)
CHOSEN = KILLED._replace(oom=True)
NAMELESS = FAILED._replace(comm=None, uid=None, lifetime_ns=None)
THREAD = Happening(0, "thread_exit", 8, 7, None, 1000, "oracle_1", 0x300, False)
ALL = {"fork": FORK, "ok": OK, "failed": FAILED, "killed": KILLED, "nameless": NAMELESS, "thread": THREAD}


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ({}, "fork ok failed killed nameless thread"),
        ({"events": ["exit"]}, "ok failed killed nameless"),
        ({"events": ["nonzero_exit"]}, "failed killed nameless"),
        ({"events": ["fork, nonzero_exit"]}, "fork failed killed nameless"),
        ({"events": ["fork", "thread_exit"]}, "fork thread"),
        ({"comm": ["oracle*"]}, "fork ok failed killed thread"),
        ({"comm": ["ORACLE*"]}, ""),
        ({"comm": ["or*", "?racle_[12]"]}, "fork ok failed killed thread"),
        ({"comm": ["oracle"]}, ""),
        ({"uid": ["0,33"]}, "killed"),
        ({"exit_code": ["3"]}, "failed nameless thread"),
        ({"exit_code": ["0"]}, "ok"),
        ({"exit_code": ["137"]}, "killed"),
        ({"signal": ["SIGKILL"]}, "killed"),
        ({"signal": ["kill"]}, "killed"),
        ({"signal": ["9"]}, "killed"),
        ({"signal": ["SIGTERM,SIGHUP"]}, ""),
        ({"min_lifetime": ["1.5"]}, "ok failed killed"),
        ({"min_lifetime": ["1501ms"]}, ""),
        ({"max_lifetime": ["2m"]}, "ok failed killed"),
        ({"max_lifetime": ["1s"]}, ""),
        ({"events": ["nonzero_exit"], "comm": ["oracle*"], "uid": ["1000"]}, "failed"),
    ],
    ids=str,
)
def test_a_filter_lets_through_what_it_says(query: dict[str, list[str]], shown: str) -> None:
    selection = parse_selection(query)
    assert [name for name, happening in ALL.items() if selection.matches(happening)] == shown.split()


@pytest.mark.parametrize(("value", "shown"), [("true", [CHOSEN]), ("false", [OK, FAILED, KILLED])])
def test_ends_are_told_apart_by_whether_the_oom_killer_was_it(value: str, shown: list[Happening]) -> None:
    """What is not known, and what is no end of a process, is neither."""
    selection = parse_selection({"oom": [value]})
    ends = [OK, FAILED, KILLED, CHOSEN, CHOSEN._replace(oom=None), THREAD, FORK]
    assert list(filter(selection.matches, ends)) == shown


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({}, DEFAULT_EVENTS),
        ({"events": ["nonzero_exit"]}, {"nonzero_exit"}),
        ({"events": ["fork,exit"]}, {"fork", "exit"}),
        ({"comm": ["x"]}, DEFAULT_EVENTS),
        ({"exit_code": ["0,1"]}, {"exit"}),
        ({"exit_code": ["1"]}, {"nonzero_exit"}),
        ({"signal": ["9"]}, {"nonzero_exit"}),
        ({"signal": ["9"], "events": ["exit,fork,thread_exit"]}, {"nonzero_exit", "thread_exit"}),
        ({"oom": ["true"]}, {"nonzero_exit"}),
        ({"oom": ["false"]}, {"exit"}),
        ({"min_lifetime": ["1"]}, {"exit"}),
        ({"min_lifetime": ["1"], "exit_code": ["3"]}, {"nonzero_exit"}),
    ],
    # A set's text differs from process to process.
    ids=lambda value: str(sorted(value)) if isinstance(value, AbstractSet) else str(value),
)
def test_the_kernel_is_asked_only_for_events_that_can_match(query: dict[str, list[str]], wanted: set[str]) -> None:
    assert parse_selection(query).wanted(DEFAULT_EVENTS) == wanted


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({"event": ["exit"]}, "there is no filter 'event'; there are events, comm, uid"),
        ({"events": ["birth"]}, f"events does not know birth; there are {', '.join(EVENTS)}"),
        ({"events": [","]}, "events is empty"),
        ({"uid": ["root"]}, "uid must be numbers from 0 to 4294967295, got 'root'"),
        ({"uid": ["-1"]}, "got '-1'"),
        ({"exit_code": ["256"]}, "exit_code must be numbers from 0 to 255, got '256'"),
        ({"exit_code": [""]}, "exit_code is empty"),
        ({"signal": ["SIGNOT"]}, "signal must be names such as SIGKILL or numbers from 1 to 64, got 'SIGNOT'"),
        ({"signal": ["65"]}, "got '65'"),
        ({"oom": ["yes"]}, "oom must be true or false, got 'yes'"),
        ({"oom": ["true"], "events": ["fork,thread_exit"]}, "nothing can match: fork, thread_exit have no"),
        ({"min_lifetime": ["soon"]}, "min_lifetime must be a time such as 1.5, 200ms, 5m or 1h, got 'soon'"),
        ({"min_lifetime": ["2s"], "max_lifetime": ["1s"]}, "nothing can match: min_lifetime is above max"),
        ({"events": ["fork"], "exit_code": ["3"]}, "nothing can match: fork have no exit code"),
    ],
    ids=str,
)
def test_a_filter_that_makes_no_sense_is_refused_with_the_reason(query: dict[str, list[str]], why: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_selection(query)
    assert why in str(error.value)


def test_an_error_names_a_flag_as_it_is_typed() -> None:
    with pytest.raises(ConfigError, match=r"^--exit-code must be"):
        parse_selection({"exit_code": ["x"]}, flags=True)


def test_a_client_may_have_few_globs_and_each_counts_once() -> None:
    assert parse_selection({"comm": ["a*"] * 16}) == parse_selection({"comm": ["a*"]})
    for globs in (["a"] * 17, ["a" * 65]):
        with pytest.raises(ConfigError, match="comm may be given 16 times, with 64 characters each"):
            parse_selection({"comm": globs})
        assert parse_selection({"comm": globs}, flags=True).comm is not None


IN_POD = OK._replace(group=(("namespace", "shop"), ("pod", "cart-1"), ("container", "web"), ("unit", "")))
IN_UNIT = OK._replace(group=(("namespace", ""), ("pod", ""), ("container", ""), ("unit", "cron.service")))
NOWHERE = OK._replace(group=tuple((name, "<unknown>") for name in ("namespace", "pod", "container", "unit")))
LABELS = ("namespace", "pod", "container", "unit")


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ({}, "pod unit nowhere none"),
        ({"pod": ["cart-*"]}, "pod"),
        ({"namespace": ["shop", "till"], "container": ["web"]}, "pod"),
        ({"unit": ["cron*"]}, "unit"),
        ({"unit": ["*"]}, "pod unit"),
        ({"unit": [""]}, "pod"),
        ({"pod": ["<unknown>"]}, ""),
        ({"pod": ["cart-1"], "exit_code": ["7"]}, ""),
    ],
    ids=str,
)
def test_events_are_selected_by_where_their_process_ran(query: dict[str, list[str]], shown: str) -> None:
    happenings = {"pod": IN_POD, "unit": IN_UNIT, "nowhere": NOWHERE, "none": OK}
    selection = parse_selection(query, labels=LABELS)
    assert [name for name, happening in happenings.items() if selection.matches(happening)] == shown.split()


def test_without_groups_there_are_no_filters_of_them() -> None:
    with pytest.raises(ConfigError, match="there is no filter 'pod'"):
        parse_selection({"pod": ["a"]})
    with pytest.raises(ConfigError, match=r"there is no filter 'pod'; there are .*, unit$"):
        parse_selection({"pod": ["a"]}, labels=("unit",))


def test_the_globs_of_a_client_are_bounded_for_each_label() -> None:
    parse_selection({"pod": ["a" * 253]}, labels=LABELS)
    with pytest.raises(ConfigError, match="pod may be given 16 times, with 255 characters each"):
        parse_selection({"pod": ["a"] * 17}, labels=LABELS)
