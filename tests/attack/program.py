"""The real program on a capture, for attackers: it needs no kernel and no privilege."""

import base64
import contextlib
import os
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import yaml
from attack.memory_cgroup import MemoryCgroup, memory_cgroup
from kernel.harness import free_port

PATIENCE_SECONDS = 60.0
REPOSITORY = Path(__file__).parents[2]
SAMPLE = REPOSITORY / "examples" / "busy-minute.capture"
T = TypeVar("T")


def wait_until(read: Callable[[], T], holds: Callable[[T], bool], what: str) -> T:
    """Read until the condition holds; fail with the last value when it never does."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not holds(value := read()):
        assert time.monotonic() < give_up, f"never came true: {what}; last seen: {value}"
        time.sleep(0.05)
    return value


class Program:
    """The exporter, serving a capture.

    Args:
        log: Where it logs.
        flags: Its flags.
        tls: How to connect to it; None if it serves without TLS.
        headers: What each honest request has.
        capture: What it serves.
        cgroup: Where it runs; None for no limit of its memory.
    """

    def __init__(
        self,
        log: Path,
        *flags: str,
        tls: ssl.SSLContext | None = None,
        headers: str = "",
        capture: Path = SAMPLE,
        cgroup: MemoryCgroup | None = None,
    ) -> None:
        self.port = free_port()
        self.tls = tls
        self.headers = headers
        self.log = log
        command = [
            sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{self.port}", "--speed=0",
            f"--replay={capture}", *flags,
        ]  # fmt: skip
        self.cgroup = cgroup
        if cgroup is not None:
            command = cgroup.command(command)
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stderr=file, env={"PATH": os.environ["PATH"]})
        wait_until(self._listens, bool, "the program listens")

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return b"listening" in self.log.read_bytes()

    def connect(self, source: str = "127.0.0.1", *, receive_bytes: int = 0) -> socket.socket:
        """Connect from an address of the loopback, without TLS."""
        sock = socket.socket()
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.settimeout(PATIENCE_SECONDS)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", self.port))
        return sock

    def shake(self, sock: socket.socket) -> socket.socket:
        """Go on with TLS, if the program has it."""
        return sock if self.tls is None else self.tls.wrap_socket(sock, server_hostname="localhost")

    def get(self, path: str, source: str = "127.0.0.1", headers: str = "") -> tuple[int, bytes]:
        """Ask as an honest client does; returns status and body, 0 if there is no whole answer."""
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers or self.headers}Connection: close\r\n\r\n"
        with self.connect(source) as raw, contextlib.suppress(OSError), self.shake(raw) as sock:
            sock.sendall(request.encode())
            answer = b""
            while piece := sock.recv(1 << 16):
                answer += piece
            head, _, body = answer.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or -1)
            return (int(head.split()[1]), body) if len(body) == length else (0, body)
        return 0, b""

    @property
    def rss_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    @property
    def peak_rss_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def forget_peak_rss(self) -> None:
        """Let the peak begin anew, with what is resident now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self) -> None:
        assert self.cgroup is None or not self.cgroup.kills
        self.process.terminate()
        assert self.process.wait(PATIENCE_SECONDS) == 0
        assert "Traceback" not in self.log.read_text()


@contextlib.contextmanager
def running(
    log: Path,
    *flags: str,
    tls: ssl.SSLContext | None = None,
    headers: str = "",
    capture: Path = SAMPLE,
    memory_bytes: int | None = None,
) -> Iterator[Program]:
    """Run the program while the block runs; it must end well and without a traceback.

    Args:
        log: As for Program, as are flags, tls, headers and capture.
        memory_bytes: The limit of a memory cgroup that it runs in, where this process may make one.
    """
    with contextlib.nullcontext() if memory_bytes is None else memory_cgroup(memory_bytes) as cgroup:
        program = Program(log, *flags, tls=tls, headers=headers, capture=capture, cgroup=cgroup)
        try:
            yield program
            program.stop()
        finally:
            program.process.kill()
            program.process.wait()


def limits_of_memory_mib() -> list[int]:
    """Return what the systemd unit and the chart allow."""
    unit = (REPOSITORY / "deploy/systemd/proc-connector-exporter.service").read_text()
    values = yaml.safe_load((REPOSITORY / "helm/proc-connector-exporter/values.yaml").read_text())
    return [
        int(unit.partition("MemoryMax=")[2].partition("M")[0]),
        int(values["resources"]["limits"]["memory"].removesuffix("Mi")),
    ]


def basic(user: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() + "\r\n"


def reset(sock: socket.socket) -> None:
    """Close a connection by a reset instead of a farewell."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
