"""Where the API is and who asks it: what is set, else what Kubernetes gives each pod.

A pod finds the address of the API in its environment, and a token and the authority of the API's certificate in
files. The name of the node is not among them; the chart puts it into NODE_NAME.

Source: https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from exporter.errors import ConfigError

TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - where it is, not what it is
CA_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
NODE_NAME = "NODE_NAME"

_HOST, _PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"
_DEFAULT_PORT = "443"
_NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """How to ask the API for the pods of a node.

    Attributes:
        server: https://HOST[:PORT][/PATH], or http:// of a proxy on this machine, which gets no token.
        token_file: File with the token; "" to send none.
        ca_file: File with the authorities that the API's certificate may be from, as PEM; "" for those of the
            system.
        node_name: The node.
    """

    server: str
    token_file: str
    ca_file: str
    node_name: str

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted, and a token may go over it."""
        return self.server.startswith("https://")


def parse_api_server(flag: str, text: str) -> str:
    """Parse the address of an API: https://HOST[:PORT][/PATH], or http://.

    Raises:
        ConfigError: It is none.
    """
    try:
        parts = urlsplit(text)
        is_address = (
            parts.scheme in {"https", "http"}
            and bool(parts.hostname)
            and parts.port != 0
            and not (parts.query or parts.fragment or parts.username or parts.password)
            and text.isascii()
            and text.isprintable()
            and " " not in text
        )
    except ValueError:
        is_address = False
    if not is_address:
        raise ConfigError(f"{flag} must be https://HOST[:PORT], got {text!r}")
    return text.rstrip("/")


def parse_node_name(flag: str, text: str) -> str:
    """Parse the name of a node.

    Raises:
        ConfigError: It is none.
    """
    if not _NODE_NAME.fullmatch(text):
        raise ConfigError(f"{flag} must be the name of a node: lowercase letters, digits, - and ., got {text!r}")
    return text


def is_in_pod(environ: Mapping[str, str]) -> bool:
    """Whether the environment is that of a pod which is given the name of its node."""
    return bool(environ.get(_HOST) and environ.get(NODE_NAME))


def find_access(
    environ: Mapping[str, str],
    *,
    api_server: str | None = None,
    token_file: str | None = None,
    ca_file: str | None = None,
    node_name: str | None = None,
    is_file: Callable[[str], bool] = os.path.isfile,
) -> ApiAccess:
    """Complete what is set by what Kubernetes gives each pod.

    Args:
        environ: The environment.
        api_server: As parse_api_server returns it; None for the API of this pod's cluster.
        token_file: The file; None for this pod's, if there is one.
        ca_file: The file; None for this pod's, if there is one.
        node_name: As parse_node_name returns it; None for $NODE_NAME.
        is_file: Whether there is such a file.

    Raises:
        ConfigError: The address or the node is not set and not in the environment, or not in its form there.
    """
    if not api_server:
        host, port = environ.get(_HOST, ""), environ.get(_PORT, "") or _DEFAULT_PORT
        if not host:
            raise ConfigError(f"--kubernetes.api-server is not set, and no pod's environment has {_HOST}")
        host = f"[{host}]" if ":" in host else host
        api_server = parse_api_server(f"{_HOST} and {_PORT}", f"https://{host}:{port}")
    if not node_name:
        node_name = environ.get(NODE_NAME, "")
        if not node_name:
            raise ConfigError(f"--kubernetes.node-name is not set, and {NODE_NAME} is not in the environment")
        node_name = parse_node_name(NODE_NAME, node_name)
    return ApiAccess(
        api_server,
        token_file or (TOKEN_FILE if is_file(TOKEN_FILE) else ""),
        ca_file or (CA_FILE if is_file(CA_FILE) else ""),
        node_name,
    )
