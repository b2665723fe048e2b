"""Makes `examples/busy-minute.capture`: a minute of a host that builds, serves, backs up and has a bad day.

`PYTHONPATH=tests python tests/golden/busy_minute.py` writes it anew. Nothing in it is of a real host: processes
are made up, and the datagrams those that a Linux 6.18 would have sent of them.
"""

import heapq
import random
from collections.abc import Callable
from pathlib import Path

import builders
from host import MS, START_NS, Host, Mode, Thread
from replayed import MemoryTape

from exporter.capture.format import Frame, Header, encode_frame, encode_header
from exporter.events import DEFAULT_EVENTS

SAMPLE = Path(__file__).parents[2] / "examples" / "busy-minute.capture"
_SECONDS = 60
_DRAIN_MS = 100
_WALL_NS = 1_764_000_000_000_000_000

HEADER = Header(
    exporter="0.1.0",
    kernel="6.18.0",
    mode="taskstats",
    filter="kernel",
    events=DEFAULT_EVENTS,
    family_id=builders.FAMILY_ID,
    taskstats_version=16,
    own_tgid=900,
    wall_ns=_WALL_NS,
    monotonic_ns=START_NS,
    continued=False,
)

_SERVICES = {
    1: (b"systemd", 0), 2: (b"kthreadd", 0), 300: (b"cron", 0), 400: (b"sshd", 0), 500: (b"nginx", 33),
    600: (b"postgres", 999), 700: (b"containerd", 0), 800: (b"gitlab-runner", 998),
}  # fmt: skip


class Minute:
    """Things that happen at their time."""

    def __init__(self) -> None:
        self._random = random.Random(20)  # noqa: S311 - the same minute every time
        self._todo: list[tuple[int, int, Callable[[], object]]] = []
        self._numbers = 0
        self._pid = 10_000
        self.tape = MemoryTape()
        self.host = Host(Mode.EXACT, tape=self.tape)
        self.host.step_ms = 0.01
        for tgid, (comm, uid) in _SERVICES.items():
            self.host.lives(tgid, comm, uid)

    def at(self, ms: float, do: Callable[[], object]) -> None:
        """Do something so long after the beginning."""
        self._numbers += 1
        heapq.heappush(self._todo, (START_NS + round(ms * MS), self._numbers, do))

    def soon(self, ms: float, do: Callable[[], object]) -> None:
        """Do something so long from now on, more or less."""
        self.at((self.host.now_ns - START_NS) / MS + ms * self._random.uniform(0.5, 1.5), do)

    def child(self, parent: int, comm: bytes, uid: int, ms: float, status: int = 0, *, execs: bool = True) -> int:
        """A process is forked, execs, and ends after a while."""
        self._pid += self._random.randint(1, 3)
        tgid = self._pid
        self.host.fork(parent, tgid)
        if uid != _SERVICES.get(parent, (b"", uid))[1]:
            self.host.set_uid(tgid, uid)
        if execs:
            self.host.exec(tgid, comm)
        rss_kib = self._random.randint(2000, 60_000) if ms > 20 else self._random.randint(1400, 4000)

        def end() -> None:
            thread = Thread(tgid, comm, uid)
            self.host.record(thread, status=status, cpu_ms=round(ms * 0.4), rss_kib=rss_kib, ms=round(ms))
            if status & 0x80:
                self.host.event(builders.coredump, tgid=tgid, parent_tgid=parent)
            self.host.exit(tgid, status, parent=parent)

        self.soon(ms, end)
        return tgid

    def build(self) -> None:
        """A compiler for each file, one in forty of which does not compile."""
        make = self.child(800, b"make", 998, 6000, self._random.choice((0, 0, 0x200)))

        def compile_one() -> None:
            shell = self.child(make, b"sh", 998, 180)
            failed = self._random.random() < 1 / 40
            self.child(shell, b"cc1", 998, 150, 0x100 if failed else 0)
            self.child(shell, b"as", 998, 12)

        for number in range(100):
            self.soon(50 * number, compile_one)

    def crash_loop(self) -> None:
        """A worker that nobody has looked at yet."""
        self.child(1, b"mail-worker", 112, 40, 0x100)

    def run(self) -> list[Frame]:
        """Let the minute pass."""
        for second in range(_SECONDS):
            self.at(1000 * second + 120, self.crash_loop)
            self.at(1000 * second + 500, lambda: self.child(700, b"healthcheck", 0, 15))
            for backend in range(4):
                self.at(1000 * second + 200 * backend, lambda: self.child(600, b"postgres", 999, 700, execs=False))
        for second in range(0, _SECONDS, 10):
            self.at(1000 * second + 300, self.build)
            self.at(1000 * second + 777, lambda: self.child(300, b"logrotate", 0, 300))
        self.at(31_000, lambda: self.child(600, b"pg_dump", 999, 9000, 9))
        self.at(44_400, lambda: self.child(500, b"image-resize", 33, 2500, 0x8B))
        for drain in range(_SECONDS * 1000 // _DRAIN_MS):
            self.at(drain * _DRAIN_MS + 50, self.host.drain)
        while self._todo:
            time_ns, _, do = heapq.heappop(self._todo)
            self.host.now_ns = max(self.host.now_ns, time_ns)
            do()
        self.host.settle()
        return self.tape.files[0]


def main() -> None:
    frames = Minute().run()
    SAMPLE.write_bytes(encode_header(HEADER) + b"".join(map(encode_frame, frames)))


if __name__ == "__main__":
    main()
