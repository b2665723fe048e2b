"""A pod as the API describes it, and what of it is kept: its names and the ids of its containers.

A pod that was created in the API has its uid in its cgroup. A static pod is started by the kubelet from a file.
The kubelet knows it by a hash of that file, which is in the pod's cgroup, and creates a *mirror* of it in the API,
with a uid of its own. Two annotations of the mirror have the hash:

    kubernetes.io/config.hash      the hash of a static pod
    kubernetes.io/config.mirror    the same; only mirrors have it

A user who may create pods can write both. So of several pods that claim a hash the one counts that looks most like
a mirror of the kubelet's: see Credence.

Source: pkg/kubelet/types/pod_update.go and pkg/kubelet/pod/mirror_client.go of Kubernetes
"""

import re
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NamedTuple

_HASH = "kubernetes.io/config.hash"
_MIRROR = "kubernetes.io/config.mirror"
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
# The API's own limits are 63 (a namespace, a container), 253 (a pod) and 36 (a uid).
_LONGEST_NAME = 253
_LONGEST_ID = 256
_KEY = re.compile(r"[0-9a-f]{32}")


class Credence(IntEnum):
    """How far a pod's claim to be the mirror of a static pod is believed; a higher one wins."""

    NONE = 0
    """It claims nothing."""
    HASH = 1
    """It has the hash."""
    MIRROR = 2
    """It has the annotation of a mirror."""
    OWNED = 3
    """And a node is its owner, as the kubelet writes it."""


class Pod(NamedTuple):
    """What is kept of a pod.

    Attributes:
        key: Its uid without dashes.
        namespace: Its namespace.
        name: Its name.
        containers: Names by id, of all kinds of containers: those that run, and the last ended one of each.
        config_hash: The hash of the static pod that it mirrors, without dashes; "" if it is no mirror.
        credence: How far that is believed.
    """

    key: str
    namespace: str
    name: str
    containers: dict[str, str]
    config_hash: str
    credence: Credence


def pod_key(uid: str) -> str:
    """Return a uid as pods are found by: without dashes."""
    return uid.replace("-", "")


def parse_pod(described: Any) -> Pod | None:
    """Take from the API's description of a pod what is kept of it.

    Args:
        described: What its JSON decodes to, of any form.
    Returns:
        The pod; None if it is none: without a uid, a name or a namespace such as the API gives.
    """
    metadata = _object(_object(described).get("metadata"))
    key = pod_key(_name(metadata.get("uid")))
    namespace, name = _name(metadata.get("namespace")), _name(metadata.get("name"))
    if not (key and namespace and name):
        return None
    config_hash, credence = _find_mirrored(metadata)
    return Pod(
        key, namespace, name, dict(_find_containers(_object(described).get("status"))), config_hash, credence
    )


def _find_mirrored(metadata: dict[str, Any]) -> tuple[str, Credence]:
    annotations = _object(metadata.get("annotations"))
    mirror, config_hash = _name(annotations.get(_MIRROR)), _name(annotations.get(_HASH))
    claimed = pod_key(config_hash or mirror)
    if not _KEY.fullmatch(claimed):
        return "", Credence.NONE
    if not mirror or (config_hash and pod_key(mirror) != claimed):
        return claimed, Credence.HASH
    owners = [_object(owner).get("kind") for owner in _list(metadata.get("ownerReferences"))]
    return claimed, Credence.OWNED if owners == ["Node"] else Credence.MIRROR


def _find_containers(status: Any) -> Iterator[tuple[str, str]]:
    """Yield id and name of each container that a pod's status names."""
    for kind in _STATUSES:
        for container in map(_object, _list(_object(status).get(kind))):
            name = _name(container.get("name"))
            state, last_state = _object(container.get("state")), _object(container.get("lastState"))
            for part in (
                _object(last_state.get("terminated")),
                _object(state.get("terminated")),
                container,
            ):
                container_id = _parse_container_id(part.get("containerID"))
                if name and container_id:
                    yield container_id, name


def _parse_container_id(text: Any) -> str:
    """Return the id in `containerd://ID`; "" if there is none yet."""
    _, scheme, container_id = _name(text, _LONGEST_ID).partition("://")
    return container_id if scheme else ""


def _name(value: Any, longest: int = _LONGEST_NAME) -> str:
    """Return a name such as the API permits; "" if it is none, so that a label never gets anything else."""
    is_name = isinstance(value, str) and len(value) <= longest and value.isascii() and value.isprintable()
    return value if is_name else ""


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
