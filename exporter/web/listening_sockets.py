"""The listening sockets of the web server: opened, or taken from systemd."""

import errno
import os
import socket
from collections.abc import Iterable, Mapping

from exporter.errors import AddressError, SetupError
from exporter.settings.web import ListenAddress

# The first descriptor that systemd passes: sd_listen_fds(3).
_FIRST_PASSED = 3
# A socket unit that has failed passes nothing to a service that is started without it.
_REMEDY = (
    "systemctl reset-failed 'proc-connector-exporter.*' && "
    "systemctl start proc-connector-exporter.socket proc-connector-exporter.service"
)
# What may come with the network, after this start: an address of this machine, an answer of DNS.
_MAY_COME = frozenset({errno.EADDRNOTAVAIL, socket.EAI_AGAIN})


def open_web_sockets(addresses: Iterable[ListenAddress]) -> list[socket.socket]:
    """Open the sockets to serve on. Names are looked up here, not by the event loop, which would start a thread.

    Raises:
        AddressError: An address cannot be listened on.
        SetupError: An address is not there now: this machine does not have it, or DNS does not answer.
    """
    return [opened for address in addresses for opened in _open(address)]


def _open(address: ListenAddress) -> list[socket.socket]:
    try:
        if address.host is None:
            if socket.has_dualstack_ipv6():
                return [socket.create_server(("", address.port), family=socket.AF_INET6, dualstack_ipv6=True)]
            return [socket.create_server(("", address.port))]
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return [
            socket.create_server(name, family=family) for family, name in {(row[0], row[4]): None for row in found}
        ]
    except (OSError, UnicodeError) as error:
        # create_server appends the address in Python's notation.
        reason = (
            f"{error.strerror}".partition(" (while ")[0] if isinstance(error, OSError) else "not a name of a host"
        )
        kind = SetupError if isinstance(error, OSError) and error.errno in _MAY_COME else AddressError
        raise kind(f"cannot listen on {address}: {reason}; choose another --web.listen-address") from error


def take_passed_sockets(environment: Mapping[str, str] = os.environ) -> list[socket.socket]:
    """Return the sockets that systemd opened for this process.

    Raises:
        AddressError: systemd passed no socket, or one that is not a listening stream socket.

    Source: sd_listen_fds(3).
    """
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal() or int(count) == 0:
        raise AddressError(f"--web.systemd-socket: no socket was passed; start the socket unit too: {_REMEDY}")
    passed = []
    for number in range(_FIRST_PASSED, _FIRST_PASSED + int(count)):
        try:
            os.set_inheritable(number, False)
            sock = socket.socket(fileno=number)
            listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise AddressError(f"--web.systemd-socket: descriptor {number}: {error.strerror}") from error
        if not listens or sock.type != socket.SOCK_STREAM:
            raise AddressError(f"--web.systemd-socket: descriptor {number} is not a listening stream socket")
        passed.append(sock)
    return passed


def socket_name(sock: socket.socket) -> str:
    """Return the address of a socket in the form of --web.listen-address."""
    name = sock.getsockname()
    return str(ListenAddress(name[0], name[1])) if isinstance(name, tuple) else str(name)
