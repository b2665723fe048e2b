"""Locks between runs of these tests on one host.

Some tests change the whole host for a moment: they silence all listeners of the process connector, or leave the
host few pids. They hold the lock alone. All other tests of the kernel share it, so that each run waits for the
others instead of failing because of them.
"""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PATIENCE_SECONDS = 900.0


def lock_folder() -> Path:
    """Return the folder of the locks; only root can lock there."""
    run = Path("/run")
    folder = (run if run.is_dir() else Path(tempfile.gettempdir())) / "proc-connector-exporter-tests"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def holders(lock: Path) -> set[int]:
    """Return the pids of other processes that hold the lock, from /proc/locks."""
    inode = str(lock.stat().st_ino)
    rows = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    found = {int(row[-4]) for row in rows if "->" not in row and row[-3].rpartition(":")[2] == inode}
    return found - {os.getpid()}


class HostLock:
    """A lock that one run holds alone or several runs share.

    Args:
        folder: Where its files are.
        say: Called with one line before a wait.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        # A run takes the gate before it takes the lock. The run that wants the lock alone keeps the gate while it
        # waits, so that further runs cannot share the lock before it.
        self._gate = folder / "gate"
        self._lock = folder / "lock"
        self._say = say

    @contextlib.contextmanager
    def held(self, *, alone: bool, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
        """Hold the lock.

        Raises:
            TimeoutError: Other runs kept the lock for all of that time.
        """
        give_up = time.monotonic() + patience_seconds
        with self._lock.open("a") as lock:
            with self._gate.open("a") as gate:
                self._take(gate.fileno(), self._gate, fcntl.LOCK_EX, give_up)
                self._take(lock.fileno(), self._lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, give_up)
            yield

    def _take(self, fd: int, path: Path, how: int, give_up: float) -> None:
        waits = False
        while True:
            try:
                fcntl.flock(fd, how | fcntl.LOCK_NB)
            except BlockingIOError:
                pids = sorted(holders(path))
                if time.monotonic() >= give_up:
                    raise TimeoutError(f"other runs of these tests keep {path} locked: pids {pids}") from None
                if not waits:
                    self._say(f"waiting for other runs of these tests on this host: pids {pids} hold {path}")
                    waits = True
                time.sleep(0.05)
            else:
                return
