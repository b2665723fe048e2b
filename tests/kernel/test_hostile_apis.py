"""An engine and a Kubernetes API that send what no sound one does, to the real program under the chart's limit."""

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from attack.memory_cgroup import MemoryCgroup, memory_cgroup
from attack.program import limits_of_memory_mib
from kernel.harness import DEADLINE_SECONDS, Exporter, running

PROGRAMS = 500
PEAK_MIB = 120
# Objects of one member take thirty times as much memory as they are long.
OBJECTS = b'{"":0},' * 5000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'{"Type":"container","Action":"create","Actor":{"ID":"%064x","Attributes":{"name":"a"}}}\n'
POD = b'{"type":"ADDED","object":{"metadata":{"uid":"%d","name":"a","namespace":"b","resourceVersion":"7"}}}\n'

Pieces = Iterator[bytes]


def one_of_many_objects(start: bytes) -> Pieces:
    """One value of 14 MB, which decoded takes more than the limit, and then others."""
    yield start
    for _ in range(400):
        yield OBJECTS
    while True:
        yield b'0]}\n{"a":[' + OBJECTS


def without_end(make: Callable[[int], bytes]) -> Pieces:
    for n in count():
        yield b"".join(make(i) for i in range(200 * n, 200 * n + 200))


ENGINES: dict[str, Callable[[], Pieces]] = {
    "objects": lambda: one_of_many_objects(b'{"a":['),
    "events": lambda: without_end(lambda n: EVENT % n),
    "lines that are no events": lambda: without_end(lambda _: b"{}\n"),
    "a text": lambda: without_end(lambda _: b"x" * 100),
}
APIS: dict[str, Callable[[], Pieces]] = {
    "objects": lambda: one_of_many_objects(b'{"type":"ADDED","object":{"a":['),
    "pods": lambda: without_end(lambda n: POD % n),
    "a text": lambda: without_end(lambda _: b"x" * 100),
}
# So many pieces are waited for: with a large value until it is complete.
ENOUGH = {"objects": 410}


class Hostile:
    """A server that answers lists with nothing, and events and watches with pieces.

    Args:
        listening: Its socket.
        empty: The list.
        pieces: Makes the pieces.

    Attributes:
        sent: How many pieces were sent.
    """

    def __init__(self, listening: socket.socket, empty: bytes, pieces: Callable[[], Pieces]) -> None:
        self._listening = listening
        self._empty = empty
        self._pieces = pieces
        self.sent = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            asked = b""
            while more := connection.recv(1 << 16):
                asked += more
                if not asked.endswith(b"\r\n\r\n"):
                    continue
                connection.sendall(HEAD)
                line, asked = asked.split(b"\r\n")[0], b""
                if b"watch=" not in line and b"/events" not in line:
                    connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(self._empty), self._empty))
                    continue
                for piece in self._pieces():
                    connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                    self.sent += 1


@contextlib.contextmanager
def listening(family: int, address: object) -> Iterator[socket.socket]:
    with socket.socket(family) as sock:
        sock.bind(address)  # type: ignore[arg-type]
        sock.listen()
        yield sock
        # A thread that waits in accept() would keep it open.
        sock.shutdown(socket.SHUT_RDWR)


def ends_of(exporter: Exporter, comm: str) -> float:
    ends = exporter.scrape().samples.get("proc_connector_exits_total", {})
    return sum(value for key, value in ends.items() if dict(key)["comm"] == comm)


def peak_rss_mib(exporter: Exporter) -> float:
    status = Path(f"/proc/{exporter.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def does_its_work(
    exporter: Exporter, hostile: Hostile, folder: Path, cgroup: MemoryCgroup | None, pieces: int
) -> None:
    program = folder / "counted-anyway"
    shutil.copy("/bin/false", program)
    loop = f'i=0; while [ $i -lt {PROGRAMS} ]; do "{program}"; i=$((i+1)); done; true'
    give_up = time.monotonic() + DEADLINE_SECONDS
    while hostile.sent < pieces:
        assert exporter.process.poll() is None, "killed"
        assert time.monotonic() < give_up, hostile.sent
        time.sleep(0.05)
    subprocess.run(["/bin/sh", "-c", loop], check=True, timeout=DEADLINE_SECONDS)
    exporter.wait_for(lambda _: ends_of(exporter, program.name) == PROGRAMS, f"{PROGRAMS} ends")
    assert exporter.request("/-/ready").status == 200
    assert exporter.scrape().get("proc_connector_lost_messages_total", socket="connector") == 0
    assert peak_rss_mib(exporter) < PEAK_MIB
    assert cgroup is None or not cgroup.kills


@contextlib.contextmanager
def limited(folder: Path, *flags: str) -> Iterator[tuple[Exporter, MemoryCgroup | None]]:
    with memory_cgroup(min(limits_of_memory_mib()) << 20) as cgroup:
        prefix = [] if cgroup is None else cgroup.command([])
        with running("taskstats", folder / "log", "--group.by=pod", *flags, prefix=prefix) as exporter:
            yield exporter, cgroup


@pytest.mark.slow
@pytest.mark.parametrize("attack", ENGINES)
def test_a_hostile_engine_keeps_the_exporter_from_nothing(folder: Path, attack: str) -> None:
    path = folder / "engine.sock"
    with listening(socket.AF_UNIX, str(path)) as sock:
        hostile = Hostile(sock, b"[]", ENGINES[attack])
        with limited(folder, f"--containers.socket={path}") as (exporter, cgroup):
            does_its_work(exporter, hostile, folder, cgroup, ENOUGH.get(attack, 50))


@pytest.mark.slow
@pytest.mark.parametrize("attack", APIS)
def test_a_hostile_kubernetes_api_keeps_the_exporter_from_nothing(folder: Path, attack: str) -> None:
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as sock:
        hostile = Hostile(sock, b'{"items": [], "metadata": {"resourceVersion": "7"}}', APIS[attack])
        server = f"--kubernetes.api-server=http://127.0.0.1:{sock.getsockname()[1]}"
        with limited(folder, server, "--kubernetes.node-name=node-17") as (exporter, cgroup):
            does_its_work(exporter, hostile, folder, cgroup, ENOUGH.get(attack, 50))
