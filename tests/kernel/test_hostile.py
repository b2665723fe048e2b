"""Processes that do what none does by chance: every one is counted, nothing is lost, and clients are answered."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.harness import Exporter, Programs, running, wait_until
from kernel.test_web import storm_during

# The exporter is stopped for a while, and the host is kept busy.
pytestmark = pytest.mark.alone

ANSWERED_WITHIN_SECONDS = 1.0
STOPPED_SECONDS = 3.0
EXECS = 20_000
THREADS, CHANGES = 5_000, 50_000
GROUPS = 2_000


@pytest.fixture(scope="module")
def hostile(programs: Programs) -> Path:
    """A program with a name of its own."""
    path = programs.folder / f"hostile-{os.getpid() % 100_000}"
    source = Path(__file__).with_name("hostile.c")
    subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", path, source], check=True)
    return path


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Exporter]:
    with running("taskstats", tmp_path / "log") as exporter:
        yield exporter


async def answers_at_once(exporter: Exporter) -> None:
    began = time.monotonic()
    assert (await asyncio.to_thread(exporter.request, "/-/healthy")).status == 200
    assert time.monotonic() - began < ANSWERED_WITHIN_SECONDS


def counted(exporter: Exporter, counter: str, comm: str) -> int:
    return sum(n for row, n in exporter.scrape().rows(counter).items() if row[0] == comm)


@pytest.mark.slow
def test_a_process_that_executes_itself_for_ever_is_counted_and_holds_nothing_up(
    hostile: Path, exporter: Exporter, programs: Programs
) -> None:
    with subprocess.Popen([hostile, "execs", str(EXECS)]) as process:
        # What it did meanwhile is there at once.
        time.sleep(0.1)
        exporter.process.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED_SECONDS)
        exporter.process.send_signal(signal.SIGCONT)
        storm_during(exporter, programs, lambda: answers_at_once(exporter))
        assert process.wait() == 0
    wait_until(lambda: counted(exporter, "execs", hostile.name), (1 + EXECS).__eq__, "each exec is counted")
    assert counted(exporter, "exits", hostile.name) == 1


@pytest.mark.slow
def test_threads_with_thousands_of_uids_are_counted_and_hold_nothing_up(
    hostile: Path, exporter: Exporter, programs: Programs
) -> None:
    def changes() -> float:
        return exporter.scrape().get("proc_connector_events_total", event="uid")

    before = changes()
    with subprocess.Popen([hostile, "uids", str(THREADS), str(CHANGES)]) as process:
        storm_during(exporter, programs, lambda: answers_at_once(exporter))
        assert process.wait() == 0
    # The storm changes some, too.
    wait_until(changes, lambda now: now >= before + THREADS + CHANGES, "each change is counted")


def test_a_process_in_very_many_groups_is_known_though_it_is_older(hostile: Path, tmp_path: Path) -> None:
    words = [str(hostile), "groups", str(GROUPS), "7"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with running("taskstats", tmp_path / "log") as exporter:
            shown = exporter.scrape().get("proc_connector_processes", comm=hostile.name)
            assert shown == 1
            process.stdin.close()
            assert process.wait() == 7
            row = (hostile.name, "0", "7", "")
            wait_until(lambda: exporter.scrape().rows("exits")[row], (1).__eq__, "its end is counted")
    assert "cannot read a process" not in (tmp_path / "log").read_text()
