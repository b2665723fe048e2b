"""Another listener to the kernel, with sockets of its own, that only counts: what the exporter should have heard.

It reads in a thread, with buffers that hold everything: it asserts that it has lost nothing itself.
"""

import contextlib
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kernel.listeners import LISTEN, NETLINK_CONNECTOR, request
from kernel.taskstats import register

SO_RCVBUFFORCE, SO_MEMINFO = 33, 55
BUFFER_BYTES = 1 << 30
KINDS = {
    0x1: "fork",
    0x2: "exec",
    0x4: "uid",
    0x40: "gid",
    0x80: "sid",
    0x100: "ptrace",
    0x200: "comm",
    0x40000000: "coredump",
    0x80000000: "exit",
}


class Witness:
    """What the kernel sent.

    Attributes:
        events: By kind, as the label `event` names them.
        records: Exit records.
    """

    def __init__(self, connector: socket.socket, taskstats: socket.socket) -> None:
        self.events: Counter[str] = Counter()
        self.records = 0
        self._sockets = (connector, taskstats)
        self._ends = False
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        connector, taskstats = self._sockets
        poller = select.poll()
        for sock in self._sockets:
            sock.setblocking(False)
            poller.register(sock, select.POLLIN)
        while not self._ends:
            poller.poll(100)
            for datagram in _datagrams(connector):
                what, _, _, pid, tgid, child_pid, child_tgid = struct.unpack_from("=IIQIIII", datagram, 36)
                if what in KINDS:
                    thread = child_pid != child_tgid if what == 0x1 else pid != tgid and what == 0x80000000
                    self.events[("thread_" if thread else "") + KINDS[what]] += 1
            self.records += sum(1 for _ in _datagrams(taskstats))

    def settled(self) -> tuple[Counter[str], int]:
        """Return the counts when all that has happened until now is in them."""
        give_up = time.monotonic() + 60
        while any(_meminfo(sock)[0] for sock in self._sockets):
            assert time.monotonic() < give_up, "the witness does not keep up"
            time.sleep(0.01)
        time.sleep(0.05)  # what was taken out of the sockets last is counted
        assert [_meminfo(sock)[8] for sock in self._sockets] == [0, 0], "the witness has lost something itself"
        return self.events.copy(), self.records

    def end(self) -> None:
        self._ends = True
        self._thread.join()


def _datagrams(sock: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield sock.recv(8192)
        except BlockingIOError:
            return


def _meminfo(sock: socket.socket) -> tuple[int, ...]:
    return struct.unpack("=9I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))


@contextlib.contextmanager
def witness() -> Iterator[Witness]:
    """Listen to everything."""
    with (
        socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_CONNECTOR) as connector,
        socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 16) as taskstats,
    ):
        for sock in (connector, taskstats):
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES // 2)
        connector.bind((0, 1))
        connector.sendto(request(LISTEN), (0, 0))
        register(taskstats, Path("/sys/devices/system/cpu/possible").read_text().strip())
        heard = Witness(connector, taskstats)
        try:
            yield heard
        finally:
            heard.end()
