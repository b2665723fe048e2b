"""Registering for exit records, written down a second time."""

import socket
import struct

_CTRL_CMD_GETFAMILY, _TASKSTATS_CMD_GET = 3, 1
_FAMILY_ID, _FAMILY_NAME, _REGISTER_CPUMASK = 1, 2, 3


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _ask(sock: socket.socket, family: int, command: int, attribute: bytes, flags: int) -> bytes:
    payload = struct.pack("=BBH", command, 1, 0) + attribute
    sock.sendto(struct.pack("=IHHII", 16 + len(payload), family, flags, 1, 0) + payload, (0, 0))
    return sock.recv(4096)


def register(sock: socket.socket, cpus: str) -> None:
    """Ask for the exit records of these CPUs on a generic netlink socket."""
    answer = _ask(sock, 16, _CTRL_CMD_GETFAMILY, _attribute(_FAMILY_NAME, b"TASKSTATS\0"), 1)
    at, family = 20, 0
    while at < len(answer) and not family:
        length, kind = struct.unpack_from("=HH", answer, at)
        if kind == _FAMILY_ID:
            (family,) = struct.unpack_from("=H", answer, at + 4)
        at += (length + 3) & ~3
    answer = _ask(sock, family, _TASKSTATS_CMD_GET, _attribute(_REGISTER_CPUMASK, cpus.encode("ascii") + b"\0"), 5)
    kind, error = struct.unpack_from("=4xH10xi", answer)
    assert (kind, error) == (2, 0), "taskstats refuses"
