"""The exporter as a black box: a process, its pages, and what it says there."""

import contextlib
import http.client
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import machine

CHECKOUT = Path(__file__).parents[2]
UNKNOWN = "<unknown>"

_START_SECONDS = 30.0
_HTTP_SECONDS = 60.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.005
_SAMPLE = re.compile(r"^proc_connector_(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_OF_GROUPS = frozenset({"namespace", "pod", "container", "unit"})

Labels = tuple[str, ...]


class ExporterDiedError(Exception):
    """It ended before it should have, or never became ready."""


class Page(NamedTuple):
    """An answer of /metrics, and what it took."""

    body: bytes
    wall_ns: int
    cpu_ns: int


class Scrape:
    """What the exporter counted at one moment, of all groups together."""

    def __init__(self, text: str) -> None:
        self.series = 0
        self._values: dict[str, dict[Labels, float]] = {}
        for name, labels, value in _SAMPLE.findall(text):
            self.series += 1
            row = tuple(value for label, value in _LABEL.findall(labels) if label not in _OF_GROUPS)
            rows = self._values.setdefault(name, {})
            rows[row] = rows.get(row, 0) + float(value)

    def counts(self, name: str) -> Counter[Labels]:
        """Return a counter (its name without prefix) by the values of its labels, in the page's order."""
        return Counter({row: int(value) for row, value in self._values.get(name, {}).items()})

    def total(self, name: str) -> float:
        """Add up all series of a metric."""
        return sum(self._values.get(name, {}).values())


class ExporterProcess:
    """A running exporter."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._port = port
        self._log = log
        self.ready_seconds = 0.0

    def wait_until_ready(self, since: float) -> None:
        """Ask until it says that it is ready, and take the time since (time.monotonic)."""
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > since + _START_SECONDS:
                raise ExporterDiedError(self._log.read_text(encoding="utf-8", errors="replace"))
            time.sleep(_POLL_SECONDS)
        self.get()
        self.ready_seconds = time.monotonic() - since

    def _is_ready(self) -> bool:
        try:
            return self._request("/-/ready", {})[0] == http.client.OK
        except OSError:
            return False

    def _request(self, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_HTTP_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def get(self, **headers: str) -> Page:
        """Get /metrics; a header's name is given with underscores."""
        cpu_ns, begin_ns = machine.cpu_ns(self.pid), time.monotonic_ns()
        status, body = self._request("/metrics", {k.replace("_", "-"): v for k, v in headers.items()})
        if status != http.client.OK:
            raise ExporterDiedError(f"/metrics answers {status}: {body!r}")
        return Page(body, time.monotonic_ns() - begin_ns, machine.cpu_ns(self.pid) - cpu_ns)

    def get_later(self, may_read: Callable[[], object], **headers: str) -> None:
        """Get /metrics, and read no more than the head of the answer until a call returns."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_HTTP_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics", headers={k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            may_read()
            if answer.status != http.client.OK or len(answer.read()) != int(answer.headers["Content-Length"]):
                raise ExporterDiedError(f"/metrics answers {answer.status}, not to its end")

    def scrape(self) -> Scrape:
        """Get /metrics and read it."""
        return Scrape(self.get().body.decode())


def knows_flag(flag: str, *choices: str) -> bool:
    """Tell whether this version of the exporter has a flag, and offers these choices for it."""
    answer = subprocess.run(
        [sys.executable, "-m", "exporter", "--help"], cwd=CHECKOUT, check=True, capture_output=True
    )
    text = answer.stdout.decode()
    return flag in text and all(choice in text for choice in choices)


@contextmanager
def exporter_running(guard: list[str], folder: Path, *flags: str) -> Iterator[ExporterProcess]:
    """Start the exporter with these flags, all others at their defaults.

    Args:
        guard: Command before it that lets it end when the benchmark does.
        folder: For its log.
        flags: As its users give them.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [*guard, sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{port}", *flags]
    log = folder / "exporter.log"
    since = time.monotonic()
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=CHECKOUT, stderr=stderr)
    try:
        exporter = ExporterProcess(process, port, log)
        exporter.wait_until_ready(since)
        yield exporter
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
