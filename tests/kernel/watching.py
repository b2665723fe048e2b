"""`watch`, running, for the tests that compare what it prints with what they did."""

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from kernel.harness import DEADLINE_SECONDS, Exporter, Programs, World, wait_until
from kernel.received import Received

WATCH = (sys.executable, "-m", "exporter", "watch", "--log.level", "info")


class Watching:
    """A running `watch`; for a World it stands where an exporter stands."""

    def __init__(self, mode: str, folder: Path, *flags: str) -> None:
        self.mode = mode
        self.worlds: list[World] = []
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*WATCH, "--attribution", mode, *flags], stdout=out, stderr=err, cwd="/"
            )
        wait_until(self._err.read_text, lambda text: "msg=watching" in text, "that it watches")

    def received(self) -> Received:
        """What it has printed, as far as the line is whole."""
        lines = self._out.read_bytes().split(b"\n")[:-1]
        return Received(lines)

    def stop(self, number: int = signal.SIGINT) -> Received:
        self.process.send_signal(number)
        assert self.process.wait(DEADLINE_SECONDS) == 0
        log = self._err.read_text()
        assert re.search("level=(warn|error)|Traceback", log) is None, log
        assert self._out.read_bytes()[-1:] in (b"", b"\n")
        return self.received()

    def check(self, world: World) -> None:
        """Wait until it has printed the truth about the world."""
        give_up = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                world.compare(self.received())
            except AssertionError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.05)
            else:
                return


@contextlib.contextmanager
def watching(mode: str, folder: Path, *flags: str) -> Iterator[Watching]:
    watch = Watching(mode, folder, *flags)
    try:
        yield watch
    finally:
        if watch.process.poll() is None:
            watch.process.kill()
            watch.process.wait()


def world_of(watch: Watching, programs: Programs) -> World:
    return World(cast("Exporter", watch), programs)
