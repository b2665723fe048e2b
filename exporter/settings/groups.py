"""The flags of groups: where processes run, and what that is called."""

from dataclasses import dataclass
from pathlib import Path

from exporter.flag_parsers import MayBeEmpty, parse_group_by, parse_path, parse_text
from exporter.flags import flag, switch
from exporter.kubernetes.access import parse_api_server, parse_node_name


@dataclass(frozen=True, slots=True)
class Groups:
    """Which groups there are."""

    by: frozenset[str] = flag(
        "--group.by",
        "LIST",
        "none",
        "Where processes run, as further labels: unit (of systemd), pod (namespace, pod and container; container "
        "without Kubernetes too), both, or none.",
        parse_group_by,
    )
    histograms: bool = switch(
        "--group.histograms",
        "Give the labels of --group.by to the histograms too, of which each has 17 samples.",
    )


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """How to ask for the names of pods."""

    api_server: str | None = flag(
        "--kubernetes.api-server",
        "URL",
        "",
        "Where to ask for the names of pods: https://HOST[:PORT]; empty: the API of the cluster of this pod.",
        MayBeEmpty(parse_api_server),
    )
    token_file: str | None = flag(
        "--kubernetes.token-file",
        "FILE",
        "",
        "File with the token to ask with, read anew for each request; empty: the service account's.",
        MayBeEmpty(parse_text),
    )
    ca_file: str | None = flag(
        "--kubernetes.ca-file",
        "FILE",
        "",
        "File with the authorities of the API's certificate, read anew for each request; empty: the service "
        "account's, or else those of the system.",
        MayBeEmpty(parse_text),
    )
    node_name: str | None = flag(
        "--kubernetes.node-name",
        "NAME",
        "",
        "The node whose pods are asked for; empty: $NODE_NAME.",
        MayBeEmpty(parse_node_name),
    )


CONTAINERS_SOCKET = "--containers.socket"


@dataclass(frozen=True, slots=True)
class Containers:
    """How to ask for the names of containers in no pod."""

    socket: Path | None = flag(
        CONTAINERS_SOCKET,
        "PATH",
        "",
        "API socket of Docker or Podman, to ask for the names of containers, opened before --user; without it "
        "their short ids are their names. Who may open this socket can become root by it.",
        MayBeEmpty(parse_path),
    )
