"""exporter/events.py: what a user can ask for."""

import pytest

from exporter.errors import ConfigError
from exporter.events import DEFAULT_EVENTS, EVENTS, in_words, parse_events


@pytest.mark.parametrize("name", EVENTS)
def test_each_event_can_be_asked_for_alone(name: str) -> None:
    assert parse_events("--events", f" {name} ,") == {name}


@pytest.mark.parametrize("text", ["", ",", "forks", "fork,exit,nothing", "FORK"])
def test_what_is_no_event_is_refused_with_the_list(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--events .*fork, exec, exit, nonzero_exit"):
        parse_events("--events", text)


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ({"nonzero_exit"}, "non-zero exit"),
        ({"exit"}, "exit and non-zero exit"),
        ({"exec", "fork", "thread_exit"}, "fork, exec and exit of a thread"),
        (
            DEFAULT_EVENTS,
            "fork, exec, exit, non-zero exit, change of uid, ptrace, change of comm and core dump",
        ),
    ],
)
def test_events_in_words_are_those_that_are_counted(events: set[str], words: str) -> None:
    assert in_words(frozenset(events)) == words
