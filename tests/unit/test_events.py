"""exporter/events.py: what a user can ask for."""

import pytest

from exporter.errors import ConfigError
from exporter.events import EVENTS, parse_events


@pytest.mark.parametrize("name", EVENTS)
def test_each_event_can_be_asked_for_alone(name: str) -> None:
    assert parse_events("--events", f" {name} ,") == {name}


@pytest.mark.parametrize("text", ["", ",", "forks", "fork,exit,nothing", "FORK"])
def test_what_is_no_event_is_refused_with_the_list(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--events .*fork, exec, exit, nonzero_exit"):
        parse_events("--events", text)
