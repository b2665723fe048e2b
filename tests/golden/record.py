"""Makes `*.bin`: what the sockets of a host delivered, drain by drain.

`PYTHONPATH=tests python tests/golden/record.py` writes them anew.

A file is a row of entries: kind (u8), length (u32), that many bytes. All numbers outside of datagrams are
little-endian. Kinds:

    C  a datagram of the connector
    T  a datagram of taskstats
    A  a process that was scanned: pid u32, uid u32, comm
    P  what /proc shows from now on: pid u32, comm
    D  the end of a drain: now u64, in ns of CLOCK_MONOTONIC
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import builders

_ENTRY = struct.Struct("<BI")
_MS = 1_000_000

Entry = tuple[str, bytes]


class Recording:
    """Appends entries; each event comes a millisecond after the one before."""

    def __init__(self) -> None:
        self.data = b""
        self.now_ns = 5_000_000 * _MS

    def _append(self, kind: str, body: bytes) -> None:
        self.data += _ENTRY.pack(ord(kind), len(body)) + body

    def event(self, datagram: Callable[..., bytes], /, **fields: object) -> None:
        self.now_ns += _MS
        self._append("C", datagram(timestamp_ns=self.now_ns, **fields))

    def end(
        self, tgid: int, comm: bytes, uid: int, status: int = 0, *, pid: int | None = None, last: bool = True
    ) -> None:
        """A thread's record and its EXIT."""
        record = builders.taskstats_datagram(
            pid=tgid if pid is None else pid,
            comm=comm,
            uid=uid,
            exit_code=status,
            ac_flag=builders.AGROUP if last else 0,
            cpu_ns=tgid * 100_000,
            max_rss_kib=tgid * 16,
            elapsed_us=7_200_000_000,
        )
        self._append("T", record)
        self.event(builders.exit_, tgid=tgid, pid=pid, exit_code=status)

    def adopt(self, tgid: int, uid: int, comm: bytes) -> None:
        self._append("A", struct.pack("<II", tgid, uid) + comm)

    def proc(self, tgid: int, comm: bytes) -> None:
        self._append("P", struct.pack("<I", tgid) + comm)

    def drain(self, after_ms: int = 1) -> None:
        self.now_ns += after_ms * _MS
        self._append("D", struct.pack("<Q", self.now_ns))


def life() -> bytes:
    """A build, a crash, a daemon, a session of another user, hostile names, and an exec that is still open."""
    r = Recording()
    for tgid, uid, comm in ((1, 0, b"systemd"), (2, 0, b"kthreadd"), (700, 0, b"sshd"), (800, 1000, b"bash")):
        r.adopt(tgid, uid, comm)
    r.drain()
    # make, two compilers, one fails; a shell function that never execs.
    r.event(builders.fork, parent_tgid=800, child_tgid=1000)
    r.event(builders.exec_, tgid=1000)
    for child, status in ((1001, 0), (1002, 0x100)):
        r.event(builders.fork, parent_tgid=1000, child_tgid=child)
        r.event(builders.exec_, tgid=child)
        r.end(child, b"cc1", 1000, status)
    r.end(1000, b"make", 1000, 0x200)
    r.event(builders.fork, parent_tgid=800, child_tgid=1003)
    r.end(1003, b"bash", 1000, 0x7F00)
    # A segmentation fault with a core, in a process with threads whose leader goes first.
    r.event(builders.fork, parent_tgid=1, child_tgid=1010)
    r.event(builders.uid, tgid=1010, ruid=33)
    r.event(builders.exec_, tgid=1010)
    r.event(builders.fork, parent_tgid=1, child_tgid=1010, child_pid=1011)
    r.event(builders.coredump, tgid=1010, pid=1011)
    r.end(1010, b"server", 33, 0x0B, last=False)
    r.end(1010, b"worker", 33, 0x8B, pid=1011)
    # Signals: the kernel's, a real-time one.
    for child, status in ((1020, 9), (1021, 34), (1022, 40)):
        r.event(builders.fork, parent_tgid=1, child_tgid=child)
        r.end(child, b"systemd", 0, status)
    r.drain()
    # sshd's session: uid changes, then a shell that lives on and is read.
    r.event(builders.fork, parent_tgid=700, child_tgid=1100)
    r.event(builders.uid, tgid=1100, ruid=1001)
    r.event(builders.gid, tgid=1100, rgid=1001)
    r.event(builders.sid, tgid=1100)
    r.event(builders.exec_, tgid=1100)
    r.proc(1100, b"zsh")
    r.event(builders.ptrace, tgid=1100, tracer_tgid=800)
    r.event(builders.ptrace, tgid=1100, tracer_tgid=0)
    # Names that want to break a line, a label or a terminal.
    for child, comm in enumerate(
        (b'q"uote\\', b"new\nline", b"\x1b[31mred", b"\xff\xfe", "zürich".encode()), 1200
    ):
        r.event(builders.fork, parent_tgid=800, child_tgid=child)
        r.event(builders.comm, tgid=child, comm=comm)
        r.end(child, comm, 1000)
    # A worker of the kernel, a process that nobody knew, and one whose record was lost.
    r.event(builders.fork, parent_tgid=2, child_tgid=1300)
    r.end(1300, b"kworker/u8:1-ex", 0)
    r.end(1400, b"stranger", 65534, 0x100)
    r.event(builders.exit_, tgid=1401, exit_code=0x100)
    r.drain()
    r.drain(after_ms=200)
    # Not read yet: it waits for its name. And a datagram that is not the kernel's.
    r.event(builders.exec_, tgid=1100)
    r.event(builders.fork, parent_tgid=1100, child_tgid=1500)
    r.proc(1100, b"vim")
    r.event(builders.exec_, tgid=1100, idx=9)
    r.drain()
    return r.data


RECORDINGS: dict[str, Callable[[], bytes]] = {"life": life}


def entries(data: bytes) -> Iterator[Entry]:
    """Take a recording apart: (kind, body)."""
    at = 0
    while at < len(data):
        kind, size = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size
        yield chr(kind), data[at : at + size]
        at += size


def main(folder: Path) -> None:
    for name, make in RECORDINGS.items():
        (folder / f"{name}.bin").write_bytes(make())


if __name__ == "__main__":
    main(Path(__file__).parent)
