"""Makes `life.*.capture`: a short story of a host, as an exporter in each mode would have captured it.

`PYTHONPATH=tests python tests/golden/record.py` writes them anew.
"""

from collections.abc import Callable
from pathlib import Path

import builders
from host import Mode, make_pipeline
from replayed import MemoryTape

from exporter.capture.format import Frame, Header, encode_frame, encode_header
from exporter.capture.recorder import Recorder
from exporter.events import DEFAULT_EVENTS
from exporter.kernel.procfs import ProcessInfo
from exporter.tallies.tallies import Tallies

MODES = {"taskstats": Mode.EXACT, "procfs": Mode.PROCFS}
"""As --attribution calls them."""

_MS = 1_000_000
_BEGAN_NS = 5_000_000 * _MS


def header(attribution: str) -> Header:
    """Return what a capture of a mode begins with."""
    exact = MODES[attribution] is Mode.EXACT
    return Header(
        exporter="0.1.0",
        kernel="6.18.0",
        mode=attribution,
        filter="kernel",
        events=DEFAULT_EVENTS,
        family_id=builders.FAMILY_ID if exact else 0,
        taskstats_version=16 if exact else 0,
        own_tgid=900,
        wall_ns=1_764_000_000_000_000_000,
        monotonic_ns=_BEGAN_NS,
        continued=False,
    )


class Recording:
    """A host and a recorded exporter; each event comes a millisecond after the one before."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._now_ns = _BEGAN_NS
        self._comms: dict[int, bytes] = {}
        self._events: list[bytes] = []
        self._records: list[bytes] = []
        self._tape = MemoryTape()
        recorder = Recorder(self._tape, self._comms.get, lambda: self._now_ns)
        self._pipeline = make_pipeline(
            mode, Tallies(), recorder.read_comm, recorder.read_ns, lambda socket, error: None
        )
        recorder.record(self._pipeline)

    @property
    def frames(self) -> list[Frame]:
        """What was recorded."""
        return self._tape.files[0]

    def event(self, datagram: Callable[..., bytes], /, **fields: object) -> None:
        self._now_ns += _MS
        self._events.append(datagram(timestamp_ns=self._now_ns, **fields))

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
            # In two hours a server has run; a record with a known start is not older than its EXIT.
            elapsed_us=7_200_000_000 if last and pid is None else 1000,
            ac_tgid=tgid,
        )
        self._records.append(record)
        self.event(builders.exit_, tgid=tgid, pid=pid, exit_code=status)

    def adopt(self, tgid: int, uid: int, comm: bytes) -> None:
        """A process that a scan finds."""
        info = ProcessInfo(comm, uid, None, zombie=False, threads=frozenset())
        self._pipeline.adopt(tgid, info, 1_000_000_000, 0)

    def proc(self, tgid: int, comm: bytes) -> None:
        """What /proc shows from now on."""
        self._comms[tgid] = comm

    def drain(self, after_ms: int = 1) -> None:
        """The exporter reads its sockets."""
        self._now_ns += after_ms * _MS
        self._pipeline.take_events(builders.batch(self._events))
        if self._mode.has_records:
            self._pipeline.take_records(builders.batch(self._records, builders.TASKSTATS_STRIDE))
        self._pipeline.apply(self._now_ns)
        self._events.clear()
        self._records.clear()


def life(mode: Mode) -> list[Frame]:
    """A build, a crash, a daemon, a session of another user, hostile names, and an exec that is still open."""
    r = Recording(mode)
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
    return r.frames


RECORDINGS: dict[str, Callable[[Mode], list[Frame]]] = {"life": life}


def main(folder: Path) -> None:
    for name, make in RECORDINGS.items():
        for attribution, mode in MODES.items():
            data = encode_header(header(attribution)) + b"".join(map(encode_frame, make(mode)))
            (folder / f"{name}.{attribution}.capture").write_bytes(data)


if __name__ == "__main__":
    main(Path(__file__).parent)
