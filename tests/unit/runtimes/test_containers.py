"""exporter/runtimes/containers.py: what Docker and Podman say of a container."""

import json
from typing import Any

import pytest

from exporter.errors import ApiFailure
from exporter.runtimes.containers import Container, ContainerEvent, parse_container, parse_event

ID = 64 * "a"
# As podman 4.3.1 writes it.
OF_PODMAN = (
    b'{"status":"rename","id":"%b","Type":"container","Action":"rename","Actor":{"ID":"%b","Attributes":'
    b'{"containerExitCode":"0","image":"","name":"longer","podId":""}},"scope":"local","time":1795965600,'
    b'"timeNano":1795965600213440111}' % (ID.encode(), ID.encode())
)
HOSTILE = [
    "",
    "/",
    "a/b",
    "<unknown>",
    "<other>",
    "a b",
    "a\n",
    "ä",
    "\ud800",
    "-a",
    ".",
    254 * "a",
    5,
    None,
    ["a"],
]


def test_a_listed_container_has_the_name_that_is_its_own() -> None:
    assert parse_container({"Id": ID, "Names": ["/proxy/web", "/web"]}) == Container(ID, "web")


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_a_name_that_no_engine_gives_is_none(name: Any) -> None:
    slashed = f"/{name}" if isinstance(name, str) else name
    assert parse_container({"Id": ID, "Names": [slashed]}) is None
    event = {"Type": "container", "Action": "start", "Actor": {"ID": ID, "Attributes": {"name": name}}}
    assert parse_event(json.dumps(event).encode()) is None


@pytest.mark.parametrize(
    "described",
    [None, [], "a", {}, {"Id": ID}, {"Id": ID, "Names": "a"}, {"Id": "abc", "Names": ["/a"]}],
    ids=repr,
)
def test_what_is_no_container_is_none(described: Any) -> None:
    assert parse_container(described) is None


def test_an_event_of_podman_has_the_new_name() -> None:
    assert parse_event(OF_PODMAN) == ContainerEvent(Container(ID, "longer"), has_ended=False)


@pytest.mark.parametrize(("action", "has_ended"), [("start", False), ("die", True), ("died", True), (7, False)])
def test_an_event_says_whether_the_container_has_ended(action: Any, has_ended: bool) -> None:
    event = {"Type": "container", "Action": action, "Actor": {"ID": ID, "Attributes": {"name": "web"}}}
    assert parse_event(json.dumps(event).encode()) == ContainerEvent(Container(ID, "web"), has_ended)


def test_an_event_of_something_else_is_none() -> None:
    event = {"Type": "network", "Action": "connect", "Actor": {"ID": ID, "Attributes": {"name": "web"}}}
    assert parse_event(json.dumps(event).encode()) is None


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", b'{"Actor": 5}', b"\xff", 100_000 * b"["], ids=repr)
def test_what_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(ApiFailure):
        parse_event(line)
