"""A container as Docker and Podman describe it, in a list and in an event: its id and its name.

    GET /containers/json   {"Id": ID, "Names": ["/web", "/proxy/web"]}
    GET /events            {"Type": "container", "Action": "start",
                            "Actor": {"ID": ID, "Attributes": {"name": "web"}}}

The second name is what another container calls it. The attributes have the container's labels too, but the engine
writes its own `name` over one of these.

Sources: api/swagger.yaml and daemon/events.go of Moby; pkg/api/handlers/compat/events.go and
pkg/domain/entities/events.go of Podman
"""

import re
from typing import Any, NamedTuple

from exporter.errors import ApiFailure
from exporter.kubernetes.json_values import decode

ENDS = frozenset({"die", "died"})
"""The action of an end, as Docker and as Podman call it."""
ACTIONS = ("create", "start", "rename", *sorted(ENDS))
"""What is asked for."""

_ID = re.compile(r"[0-9a-f]{64}")
# Of both engines; so that no label gets anything else, such as `<unknown>`.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}")


class Container(NamedTuple):
    """What is kept of a container."""

    container_id: str
    name: str


class ContainerEvent(NamedTuple):
    """What happened to a container."""

    container: Container
    has_ended: bool


def parse_container(described: Any) -> Container | None:
    """Take from an item of the list what is kept of it; None if it has no id or name such as the engines give.

    Args:
        described: What its JSON decodes to, of any form.
    """
    item = _object(described)
    names = item.get("Names")
    for text in names if isinstance(names, list) else []:
        container = _container(item.get("Id"), text.removeprefix("/") if isinstance(text, str) else None)
        if container is not None:
            return container
    return None


def parse_event(line: bytes) -> ContainerEvent | None:
    """Parse a line of the events; None of an event of something else, or of a container without such a name.

    Raises:
        ApiFailure: It is no event.
    """
    event = decode(line)
    if not isinstance(event, dict) or not isinstance(event.get("Actor"), dict):
        raise ApiFailure("malformed", "a line of the events is no event")
    actor = event["Actor"]
    container = _container(actor.get("ID"), _object(actor.get("Attributes")).get("name"))
    if event.get("Type") != "container" or container is None:
        return None
    action = event.get("Action")
    return ContainerEvent(container, isinstance(action, str) and action in ENDS)


def _container(container_id: Any, name: Any) -> Container | None:
    is_sound = (
        isinstance(container_id, str)
        and isinstance(name, str)
        and _ID.fullmatch(container_id)
        and _NAME.fullmatch(name)
    )
    return Container(container_id, name) if is_sound else None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
