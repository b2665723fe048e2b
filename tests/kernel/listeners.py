"""Other programs that speak to the process connector: listeners, and the attack that silences all of them.

The kernel counts LISTEN minus IGNORE requests of the whole host and sends no event while that is below 1. A test
that silences it puts it right again: see `put_right`.
"""

import itertools
import os
import secrets
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

NETLINK_CONNECTOR = 11
LISTEN, IGNORE, REFUSED = 1, 2, 0
PROC_EVENT_ALL = 0xE00003C7
_ROUNDS = 500
# The attack wipes out the requests of all present listeners: their IGNORE must not bring the count below 1.
_SPARE_ROUNDS = 1000

# Run by a user without any right: no import beside the standard library's, which any user can read.
_ATTACK = """
import socket, struct, sys
def request(op):
    data = struct.pack("=II", op, 0xE00003C7)
    return struct.pack("=IHHIIIIIIHH", 44, 3, 0, 0, 0, 1, 1, 0, 0, 8, 0) + data
refused, ignore = request(0), request(2)
with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 11) as connector:
    for _ in range(int(sys.argv[1])):
        connector.sendto(refused, (0, 0))
        connector.sendto(ignore, (0, 0))
"""

# Listeners that read all until the input ends. Each takes its LISTEN back, which the kernel would keep.
_CROWD = """
import os, resource, selectors, socket, sys
listen, ignore, count = bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
# What forks goes first, wherever the kernel lets one program interrupt another's system call.
os.nice(19)
readable = selectors.DefaultSelector()
crowd = [socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 11) for _ in range(count)]
for connector in crowd:
    connector.bind((0, 1))
    connector.sendto(listen, (0, 0))
    readable.register(connector, selectors.EVENT_READ)
readable.register(sys.stdin, selectors.EVENT_READ)
print("listening", flush=True)
while True:
    for key, _ in readable.select():
        if key.fileobj is sys.stdin:
            for connector in crowd:
                connector.sendto(ignore, (0, 0))
            sys.exit()
        try:
            while key.fileobj.recv(4096):
                pass
        except OSError:
            pass
"""


def request(op: int, ack: int = 0, mask: int | None = PROC_EVENT_ALL) -> bytes:
    """Return nlmsghdr (NLMSG_DONE), cn_msg (CN_IDX_PROC, CN_VAL_PROC), the operation, and a mask or none."""
    data = struct.pack("=I", op) if mask is None else struct.pack("=II", op, mask)
    cn_msg = struct.pack("=IIIIHH", 1, 1, 0, ack, len(data), 0) + data
    return struct.pack("=IHHII", 16 + len(cn_msg), 3, 0, 0, 0) + cn_msg


def _open() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, NETLINK_CONNECTOR)


def _heard(connector: socket.socket, ack: int | None) -> bool:
    """Read all that is there; return whether the acknowledgement (None: anything) was among it."""
    found = False
    while True:
        try:
            datagram = connector.recv(4096)
        except BlockingIOError:
            return found
        except OSError:  # ENOBUFS: more came than the buffer holds
            continue
        what, _, _, err = struct.unpack_from("=IIQI", datagram, 36)
        found = found or ack is None or (what, err, struct.unpack_from("=I", datagram, 28)[0]) == (0, 0, ack + 1)


@contextmanager
def crowd(count: int) -> Iterator[None]:
    """Let so many others listen while the block runs."""
    words = [sys.executable, "-I", "-S", "-c", _CROWD, request(LISTEN).hex(), request(IGNORE).hex(), str(count)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            yield
        finally:
            process.communicate(timeout=60)
    assert process.returncode == 0


def put_right() -> None:
    """Raise the kernel's count of listeners until it sends events, and some more."""
    ack = secrets.randbelow(1 << 30) + 1
    give_up = time.monotonic() + 60
    with _open() as connector:
        connector.bind((0, 1))
        refused, listen = request(REFUSED), request(LISTEN, ack)
        spare = 0
        while spare < _SPARE_ROUNDS:
            assert time.monotonic() < give_up, "the kernel's count of listeners cannot be put right"
            for _ in range(_ROUNDS):
                connector.sendto(refused, (0, 0))
                connector.sendto(listen, (0, 0))
            if _heard(connector, ack):
                spare += _ROUNDS
        # Closed without IGNORE: the kernel keeps the count.


def take_away_all() -> None:
    """Bring the kernel's count of listeners to 0, exactly: it acknowledges nothing from there on."""
    give_up = time.monotonic() + 60
    with _open() as witness, _open() as connector:
        witness.bind((0, 1))
        # Closed without IGNORE, but what it adds is taken away below.
        for op in (REFUSED, LISTEN):
            witness.sendto(request(op), (0, 0))
        for ack in itertools.count(secrets.randbelow(1 << 30)):
            assert time.monotonic() < give_up, "the kernel's count of listeners cannot be brought to 0"
            connector.sendto(request(REFUSED), (0, 0))
            connector.sendto(request(IGNORE, ack), (0, 0))
            if not _heard(witness, ack):
                return


def attack(depth: int = 20_000) -> None:
    """Silence all listeners as a user who may do nothing; the count of listeners falls by `depth`."""
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", _ATTACK, str(depth)],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        check=True,
    )


def is_silent() -> bool:
    """Fork children, and return whether the kernel sent no event at all."""
    with _open() as connector:
        connector.bind((0, 1))
        for _ in range(3):
            pid = os.posix_spawn("/proc/self/exe", [sys.executable, "-I", "-S", "-c", ""], {})
            os.waitpid(pid, 0)
        return not _heard(connector, None)


@contextmanager
def silenced(depth: int = 20_000) -> Iterator[None]:
    """Silence the host, and put it right afterwards in any case."""
    try:
        attack(depth)
        for _ in range(10):
            if is_silent():
                break
            # Another listener on this host has renewed its subscription.
            attack(depth)
        yield
    finally:
        put_right()
