"""A small life-like host: cron jobs, a web server that crashes, a crash loop, a fork storm, short-lived tools.

It needs nothing but Python and sh, and bounds itself: a few processes at a time, one CPU at most during a storm.
Run it beside any exporter: `python3 deploy/demo/workload.py [--seconds 60]`.
"""

import argparse
import contextlib
import ctypes
import heapq
import os
import random
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

# Shell scripts: the kernel calls a process that executes one by the script's name.
PROGRAMS = {
    "tool": "exit 0",
    "backup": "for part in 1 2 3 4; do tool; done; sleep 0.2; exit $1",
    "report": "i=0; while [ $i -lt 40000 ]; do i=$((i + 1)); done",
    "web": "for worker in 1 2 3; do web-worker $1 & done; wait",
    "web-worker": "tool; sleep 0.$1; case $1 in 9) kill -SEGV $$;; 8) kill -ABRT $$;; esac",
    "payments": "sleep 0.02; exit 1",
    "importer": "sleep 0.5; kill -KILL $$",
    "mailer": "exit $1",
    "nightly": "exit $1",
    "make": "i=0; while [ $i -lt $1 ]; do cc1; i=$((i + 1)); done",
    "cc1": "exit 0",
    "grep": "exit 1",
}

NOBODY = 65534
_PTRACE_SEIZE = 0x4206
_CHOICE = random.Random(7)  # noqa: S311  # the same life every time


class Job(NamedTuple):
    """What runs when.

    Attributes:
        program: One of PROGRAMS.
        every: Seconds from one start to the next.
        argument: What it gets, by the seconds since the beginning.
        user: The uid it runs under where the workload may choose.
    """

    program: str
    every: float
    argument: Callable[[float], str] = lambda _: "0"
    user: int = 0


def _worker(elapsed: float) -> str:
    """Most workers are well and take a while; now and then some crash, from the 20th second on."""
    return _CHOICE.choice("12345") if elapsed < 20 or _CHOICE.random() > 0.15 else _CHOICE.choice("89")


def _delivery(elapsed: float) -> str:
    """Mail is seldom refused, until something changes."""
    return "75" if _CHOICE.random() < (0.02 if elapsed < 25 else 0.6) else "0"


JOBS = (
    Job("tool", 0.2),
    Job("backup", 4.0),
    Job("report", 3.0, user=NOBODY),
    Job("web", 1.0, _worker, user=NOBODY),
    Job("payments", 1.0),
    Job("importer", 15.0),
    Job("mailer", 0.25, _delivery, user=NOBODY),
    Job("nightly", 5.0, lambda elapsed: "2" if elapsed > 62 else "0"),
    Job("grep", 2.0),
)
STORM_FIRST_SECONDS, STORM_EVERY_SECONDS, STORM_FORKS = 30.0, 90.0, 6000
TRACE_EVERY_SECONDS = 10.0


def write_programs(folder: Path) -> None:
    """Write the scripts, readable by every user."""
    folder.chmod(0o755)
    for name, text in PROGRAMS.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)


class Workload:
    """The running jobs.

    Args:
        folder: Where the programs are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[subprocess.Popen[bytes]] = []
        self._libc = ctypes.CDLL(None)

    def run(self, seconds: float) -> None:
        """Start jobs as they are due for so many seconds; then end them all."""
        began = time.monotonic()
        due: list[tuple[float, int, Callable[[float], object], float]] = [
            (job.every * _CHOICE.random(), order, partial(self._start, job), job.every)
            for order, job in enumerate(JOBS)
        ]
        due += [
            (STORM_FIRST_SECONDS, len(JOBS), self._storm, STORM_EVERY_SECONDS),
            (1.0, len(JOBS) + 1, self._trace, TRACE_EVERY_SECONDS),
        ]
        heapq.heapify(due)
        try:
            while (elapsed := time.monotonic() - began) < seconds:
                at, order, start, every = due[0]
                if at > elapsed:
                    time.sleep(min(at, seconds) - elapsed)
                    continue
                start(elapsed)
                # What could not be started in time is left out, not made up for.
                heapq.heapreplace(due, (max(at + every, elapsed), order, start, every))
                self._children = [child for child in self._children if child.poll() is None]
        finally:
            self.stop()

    def stop(self) -> None:
        """End what still runs, with all its children."""
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            child.wait()

    def _start(self, job: Job, elapsed: float) -> None:
        self._spawn(job.program, job.argument(elapsed), user=job.user or None)

    def _storm(self, _: float) -> None:
        self._spawn("make", str(STORM_FORKS))

    def _trace(self, _: float) -> None:
        """Hold a child the way a debugger does; the tracee's own end is all that happens then."""
        child = self._spawn("tool", "0")
        self._libc.ptrace(_PTRACE_SEIZE, child.pid, None, None)

    def _spawn(self, program: str, argument: str, user: int | None = None) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [self._folder / program, argument],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": f"{self._folder}:/usr/bin:/bin"},
            cwd="/",
            user=user if os.geteuid() == 0 else None,
            process_group=0,
        )
        self._children.append(child)
        return child


def main() -> None:
    """Run until the time is over or SIGINT comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="how long (default: until Ctrl-C)")
    seconds = parser.parse_args().seconds
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with (
        tempfile.TemporaryDirectory(prefix="proc-connector-demo-") as name,
        contextlib.suppress(KeyboardInterrupt),
    ):
        write_programs(Path(name))
        Workload(Path(name)).run(seconds)


if __name__ == "__main__":
    main()
