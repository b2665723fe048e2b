"""A client of the exporter's event stream that keeps up, and checks what it is told."""

import json
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from bench.names import Line
from bench.storms import StormRun

_RECEIVE_BYTES = 1 << 20
_POLL_SECONDS = 0.01


class Told(NamedTuple):
    """What it was told of a storm.

    Attributes:
        lines: What happened to its processes.
        missing: Events that should have come and did not.
    """

    lines: list[Line]
    missing: int


class Follower:
    """Reads the stream in a thread until it is closed.

    Args:
        path: The exporter's Unix socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._parts: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._socket.connect(str(self._path))
        self._socket.sendall(b"GET /events?events=fork,exec,exit HTTP/1.0\r\n\r\n")
        head, _, body = self._socket.recv(_RECEIVE_BYTES).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.0 200"):
            raise RuntimeError(f"the stream answers {head!r}")
        self._parts.append(body)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while part := self._socket.recv(_RECEIVE_BYTES):
            self._parts.append(part)

    def told(self, storm: StormRun, patience_seconds: float) -> Told:
        """Wait until it was told everything of a storm's processes, and return it; patience has an end."""
        due = Counter({("fork", birth.pid): 1 for birth in storm.births})
        for birth in storm.births:
            for event in ("exec", "exit"):
                due[event, birth.pid] += len(storm.expected(birth, event))
        missing = due.total()
        pids = {birth.pid for birth in storm.births}
        lines: list[Line] = []
        read = 0
        give_up = time.monotonic() + patience_seconds
        while missing and time.monotonic() < give_up:
            time.sleep(_POLL_SECONDS)
            text = b"".join(self._parts)
            whole = text.rfind(b"\n") + 1
            news = map(json.loads, text[read:whole].splitlines())
            read = whole
            for line in [Line(n["event"], n["tgid"], n["comm"]) for n in news if n.get("tgid") in pids]:
                lines.append(line)
                # Another process of the host can have had the pid.
                if due[line.event, line.pid]:
                    due[line.event, line.pid] -= 1
                    missing -= 1
        return Told(lines, missing)
