"""Who is at the other end of a connection, and who of them holds the most of what all share.

Whatever clients share has a limit for all of them together. So that one client cannot take all of it, a client
that comes at the limit takes a place of the peer that has the most.
"""

import socket
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

_T = TypeVar("_T")

# pid, uid, gid: struct ucred
_UCRED = struct.Struct("=iII")
_IPV6_NETWORK_BYTES = 8


def peer_of(sock: socket.socket) -> str:
    """Return who is at the other end: clients with the same name share what one of them may take.

    It is an IPv4 address, a network of 64 bits of IPv6, of which one host has all addresses, or a user of a Unix
    socket.
    """
    if sock.family == socket.AF_UNIX:
        _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return str(uid)
    address: str = sock.getpeername()[0]
    if sock.family != socket.AF_INET6:
        return address
    packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    if packed.startswith(bytes(10) + b"\xff\xff"):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return f"{packed[:_IPV6_NETWORK_BYTES].hex()}/64"


def greediest(held: Iterable[_T], peer: Callable[[_T], str], newcomer: str) -> list[_T]:
    """Return all that those peers hold who have the most of it.

    Args:
        held: What is held.
        peer: Returns who holds it.
        newcomer: A peer that wants one more, which is counted as if it were held.
    """
    by_peer: dict[str, list[_T]] = defaultdict(list)
    for one in held:
        by_peer[peer(one)].append(one)
    counts = {name: len(ones) + (name == newcomer) for name, ones in by_peer.items()}
    most = max(counts.values(), default=0)
    return [one for name, ones in by_peer.items() if counts[name] == most for one in ones]
