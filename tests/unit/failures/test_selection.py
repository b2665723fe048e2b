"""The filters of /failures: what they let through, and what they refuse."""

import pytest
from unit.failures.made import ALL, FAILED, GROUPED, LABELS

from exporter.errors import ConfigError
from exporter.failures.selection import parse_selection


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ({}, "failed killed dumped bare"),
        ({"comm": ["make"]}, "failed dumped"),
        ({"comm": ["mak"]}, ""),
        ({"comm": ["MAKE"]}, ""),
        ({"comm": ["mak?"]}, "failed dumped"),
        ({"comm": ["or*", "make"]}, "failed killed dumped"),
        ({"comm": ["<unknown>"]}, "bare"),
        ({"comm": ["<other>"]}, "failed killed dumped bare"),
        ({"comm": [""]}, "failed killed dumped bare"),
        ({"uid": ["0"]}, "killed"),
        ({"uid": ["0, 1000"]}, "failed killed dumped"),
        ({"uid": ["<unknown>"]}, "bare"),
        ({"uid": ["<other>"]}, "failed killed dumped bare"),
        ({"exit_code": ["2"]}, "failed"),
        ({"exit_code": ["137", "2"]}, "failed killed"),
        ({"signal": ["SIGKILL"]}, "killed"),
        ({"signal": ["kill,11"]}, "killed dumped"),
        ({"signal": [""], "uid": [""], "exit_code": [""], "since": [""]}, "failed killed dumped bare"),
        ({"comm": ["make"], "signal": ["SIGSEGV"], "exit_code": ["139"], "uid": ["1000"]}, "dumped"),
    ],
    ids=str,
)
def test_a_filter_lets_through_what_matches(query: dict[str, list[str]], shown: str) -> None:
    selection = parse_selection(query)
    assert [name for name, failure in ALL.items() if selection.matches(failure)] == shown.split()


@pytest.mark.parametrize("comm", ["a[b]", "*", "[kworker]", "what?", "\\x1b[2J"])
def test_a_comm_that_looks_like_a_glob_matches_itself(comm: str) -> None:
    assert parse_selection({"comm": [comm]}).matches(FAILED._replace(comm=comm))


@pytest.mark.parametrize(
    ("text", "ns"), [("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("30", 30), (" 1h30m ", 5400)]
)
def test_since_is_a_duration(text: str, ns: int) -> None:
    selection = parse_selection({"since": [text]})
    assert (selection.since_ns, selection.since_wall_ns) == (ns * 1_000_000_000, None)


@pytest.mark.parametrize(
    "text", ["2026-11-29T10:00:00Z", "2026-11-29 10:00:00", "2026-11-29T11:00:00+01:00", "2026-11-29T10:00Z"]
)
def test_since_is_a_time_of_day(text: str) -> None:
    selection = parse_selection({"since": [text]})
    assert (selection.since_ns, selection.since_wall_ns) == (None, 1_795_946_400_000_000_000)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (
            {"foo": ["1"]},
            "there is no filter 'foo'; there are comm, uid, exit_code, signal, oom, since, and format",
        ),
        ({"uid": ["root"]}, "uid must be numbers from 0 to 4294967295, or <unknown>, got 'root'"),
        ({"uid": ["4294967296"]}, "uid must be numbers from 0 to 4294967295, or <unknown>, got '4294967296'"),
        ({"exit_code": ["256"]}, "exit_code must be numbers from 0 to 255, got '256'"),
        ({"exit_code": ["-1"]}, "exit_code must be numbers from 0 to 255, got '-1'"),
        ({"exit_code": ["٣"]}, "exit_code must be numbers from 0 to 255, got '٣'"),
        ({"signal": ["SIGFOO"]}, "signal must be names such as SIGKILL or numbers from 1 to 64, got 'SIGFOO'"),
        ({"signal": ["0"]}, "signal must be names such as SIGKILL or numbers from 1 to 64, got '0'"),
        (
            {"comm": ["x"] * 2 + [f"y{i}" for i in range(16)]},
            "comm may be given 16 times, with 64 characters each",
        ),
        ({"comm": ["x" * 65]}, "comm may be given 16 times, with 64 characters each"),
        (
            {"since": ["yesterday"]},
            (
                "since must be a duration such as 90s, 15m, 2h or 1d, or a time such as 2026-11-29T10:00:00Z, "
                "got 'yesterday'"
            ),
        ),
    ],
    ids=str,
)
def test_what_cannot_be_filtered_by_is_refused_with_the_reason(query: dict[str, list[str]], reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_selection(query)
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ({"namespace": ["shop"]}, "in a pod"),
        ({"pod": ["cart-*"], "container": ["web", "side"]}, "in a pod"),
        ({"unit": ["cron.service"]}, "in a unit"),
        ({"unit": ["*"]}, "in a pod,in a unit,not known"),
        ({"unit": ["<unknown>"]}, "not known"),
        ({"unit": ["<other>"]}, "in a pod,in a unit,not known"),
        ({"unit": [""], "pod": ["cart-2"]}, ""),
    ],
)
def test_failures_are_selected_by_their_group(query: dict[str, list[str]], shown: str) -> None:
    selection = parse_selection(query, LABELS)
    assert ",".join(name for name, failure in GROUPED.items() if selection.matches(failure)) == shown


def test_a_label_that_there_is_not_is_no_filter() -> None:
    with pytest.raises(ConfigError, match=r"there is no filter 'pod'; there are comm, .*, unit, and format"):
        parse_selection({"pod": ["a"]}, ("unit",))


def test_a_glob_of_a_label_is_not_longer_than_a_name() -> None:
    parse_selection({"pod": ["a" * 253]}, LABELS)
    with pytest.raises(ConfigError, match="pod may be given 16 times, with 255 characters each"):
        parse_selection({"pod": ["a" * 256]}, LABELS)
