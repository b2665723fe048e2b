"""Far more than the receive buffers hold: what was counted and what was lost are all that happened."""

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from kernel.harness import (
    ROOMY,
    Exporter,
    Programs,
    Scrape,
    World,
    running,
    wait_until,
    wait_until_the_table_equals_proc,
)
from kernel.witness import Witness, witness

EVENTS = "fork,exec,exit,thread_exit,uid,gid,sid,ptrace,comm,coredump"
LOST = "proc_connector_lost_messages_total"


def heard_and_lost(scrape: Scrape) -> tuple[float, float]:
    """Everything that the kernel sent to each socket: events, exit records."""
    return (
        scrape.total("proc_connector_events_total") + scrape.get(LOST, socket="connector"),
        scrape.total("proc_connector_exit_records_total") + scrape.get(LOST, socket="taskstats"),
    )


def sent(heard: Witness) -> tuple[int, int]:
    events, records = heard.settled()
    del events["thread_fork"]  # not asked for
    return events.total(), records


def look(exporter: Exporter, heard: Witness) -> tuple[tuple[int, int], tuple[float, float], tuple[int, int]]:
    """What was sent before a scrape, what it says, what was sent after it."""
    before = sent(heard)
    scrape = exporter.scrape()
    return before, heard_and_lost(scrape), sent(heard)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("buffer_bytes", "processes", "kind"),
    [
        pytest.param(1 << 20, 2_000, "spawns", id="1 MiB, forks and execs"),
        pytest.param(64 << 20, 70_000, "forks", id="the default, forks"),
    ],
)
def test_what_was_counted_and_what_was_lost_are_all_that_was_sent(
    buffer_bytes: int, processes: int, kind: str, programs: Programs, tmp_path: Path
) -> None:
    victims = [str(programs.link("victim")) for _ in range(4)]
    words = ["fork", str(processes), "0"] if kind == "forks" else ["storm", str(processes), "64", "4", *victims]
    flags = ("--canary.interval", "0", "--events", EVENTS, "--receive-buffer.bytes", str(buffer_bytes))
    with witness() as heard, Exporter("taskstats", tmp_path / "log", *ROOMY, *flags).closing() as exporter:
        world = World(exporter, programs)
        stays, goes = world.program("stays"), world.program("goes")
        with (
            # One was there before and ends meanwhile, one begins meanwhile and stays.
            subprocess.Popen([goes, "when_told", "exit", "0"], stdin=subprocess.PIPE) as gone,
            subprocess.Popen([programs.link("spawner"), "exit", "0"]) as warm,
        ):
            warm.wait()
            exporter.wait_for(lambda s: s.get("proc_connector_processes", comm=goes.name) == 1, "one that goes")
            first = look(exporter, heard)
            exporter.process.send_signal(signal.SIGSTOP)
            try:
                storm = [str(programs.link("storm")), *words]
                subprocess.run(storm, check=True, stdout=subprocess.DEVNULL)
                gone.communicate()
                stayed = subprocess.Popen([stays, "when_told", "exit", "7"], stdin=subprocess.PIPE)
            finally:
                exporter.process.send_signal(signal.SIGCONT)
            with stayed:
                scrape = exporter.wait_for(lambda s: s.get("proc_connector_resyncs_total") >= 1, "a comparison")
                assert scrape.get(LOST, socket="connector") > processes // 4
                assert scrape.get(LOST, socket="taskstats") > processes // 10
                wait_until_the_table_equals_proc(exporter)
                last = look(exporter, heard)
                for socket in (0, 1):
                    least = last[0][socket] - first[2][socket]
                    most = last[2][socket] - first[0][socket]
                    assert least <= last[1][socket] - first[1][socket] <= most, ("connector", "taskstats")[socket]
                # Its FORK and EXEC may have been lost, its name is known all the same.
                assert exporter.scrape().get("proc_connector_processes", comm=stays.name) == 1
                stayed.communicate()
        # What happens from now on is exact.
        after = World(exporter, programs)
        program = after.program("after")
        after.spawn(*[(program, "exit", str(code)) for code in range(40)])
        after.check()
        ends = Counter({row: n for row, n in exporter.scrape().rows("exits").items() if row[0] == stays.name})
        assert ends == Counter({(stays.name, "0", "7", ""): 1})
        assert exporter.stop() >= 0


def test_the_kernels_own_totals_agree_with_the_events(programs: Programs, tmp_path: Path) -> None:
    def ended(scrape: Scrape, source: str) -> float:
        return scrape.get("proc_connector_task_exits_total", source=source)

    with running("taskstats", tmp_path / "log", "--canary.interval", "1") as exporter:
        world = World(exporter, programs)
        program = world.program("threads")
        before = exporter.scrape()
        world.spawn(*[(program, "threads", "8", "9", "0")] * 20, *[(program, "exit", "1")] * 200)
        world.truth["coredumps"].clear()
        spawned = 20 * 8 + 200

        def grown(scrape: Scrape) -> dict[str, float]:
            return {source: ended(scrape, source) - ended(before, source) for source in ("events", "kernel")}

        last = wait_until(
            lambda: grown(exporter.scrape()),
            lambda ends: abs(ends["events"] - ends["kernel"]) <= 5 and ends["events"] >= spawned,
            "events and the kernel agree",
        )
        assert last["kernel"] >= spawned


def test_what_was_lost_shows_in_the_kernels_own_totals(programs: Programs, tmp_path: Path) -> None:
    flags = ("--canary.interval", "0", "--receive-buffer.bytes", str(1 << 20))
    with Exporter("taskstats", tmp_path / "log", *flags).closing() as exporter:
        before = exporter.scrape()
        os.kill(exporter.process.pid, signal.SIGSTOP)
        subprocess.run([str(programs.link("many")), "fork", "5000", "0"], check=True)
        os.kill(exporter.process.pid, signal.SIGCONT)
        scrape = exporter.wait_for(lambda s: s.get("proc_connector_resyncs_total") >= 1, "a comparison")
        grown = {
            source: scrape.get("proc_connector_task_exits_total", source=source)
            - before.get("proc_connector_task_exits_total", source=source)
            for source in ("events", "kernel")
        }
        assert grown["kernel"] >= 5000
        assert grown["kernel"] > grown["events"] + 1000
