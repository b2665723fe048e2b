"""How many of a storm's processes an exporter sees that looks at /proc when it is scraped."""

import contextlib
import http.client
import re
import shutil
import socket
import subprocess
import threading
import time
from typing import NamedTuple

from bench.programs import STORM_COMM, VICTIM_COMMS
from bench.setup import Bench, say
from bench.storms import STORM_A, STORM_B, Storm

PROGRAM = "prometheus-process-exporter"
SCRAPE_EVERY_SECONDS = 1.0

_START_SECONDS = 10.0
_NUM_PROCS = re.compile(r'^namedprocess_namegroup_num_procs\{groupname="[^"]*"\} (\S+)$', re.MULTILINE)


class Seen(NamedTuple):
    """Of how many processes it saw how many, at most, being scraped how often."""

    processes: int
    at_most: int
    scrapes: int


def measure(bench: Bench) -> dict[str, Seen] | None:
    """Scrape it during storms; None when it is not installed."""
    if shutil.which(PROGRAM) is None:
        return None
    say("processes seen by polling")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    names = ",".join((STORM_COMM, *VICTIM_COMMS))
    process = subprocess.Popen(
        [*bench.guard, PROGRAM, f"-web.listen-address=127.0.0.1:{port}", f"-procnames={names}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_ready(port)
        return {storm.name: _seen(bench, storm, port) for storm in (STORM_A, STORM_B)}
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(port: int) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while True:
        try:
            _processes_now(port)
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        else:
            return


def _processes_now(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        return round(sum(map(float, _NUM_PROCS.findall(connection.getresponse().read().decode()))))


def _seen(bench: Bench, storm: Storm, port: int) -> Seen:
    """Add up what each scrape found: a process that two scrapes find counts twice, so it is at most that."""
    found: list[int] = []
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(SCRAPE_EVERY_SECONDS):
            # The storm's own process is one of them.
            found.append(max(0, _processes_now(port) - 1))

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        run = storm.run(
            bench.programs, bench.size(64_000, 16_000) if not storm.execs else bench.size(16_000, 4_000)
        )
    finally:
        over.set()
        thread.join()
    return Seen(run.processes, sum(found), len(found))
