"""What a host does in years: a full disk, pids that come round again, thousands of processes, a flood of events.

Some of these tests change how many pids the host has, or keep every listener of the host busy. They run alone: see
kernel.alone.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.canaries import readiness
from kernel.harness import DEADLINE_SECONDS, ROOMY, Exporter, Programs, World, ask, free_port, running, wait_until

pytestmark = pytest.mark.alone

EVENTS = "proc_connector_events_total"
PID_MAX = Path("/proc/sys/kernel/pid_max")


def spawn_some(world: World, count: int = 40) -> None:
    program = world.program("some")
    world.spawn(*[(program, "exit", str(code % 256)) for code in range(count)])
    world.check()


def test_a_full_disk_for_logs_costs_log_lines_and_nothing_else(programs: Programs) -> None:
    with Exporter("taskstats", Path("/dev/full"), *ROOMY, "--log.level", "debug").closing() as exporter:
        world = World(exporter, programs)
        spawn_some(world)
        assert exporter.stop() >= 0


@pytest.fixture
def few_pids() -> Iterator[int]:
    """A host that has so few pids that each is used again within a second."""
    before = PID_MAX.read_text()
    few = 3000
    PID_MAX.write_text(f"{few}\n")
    try:
        yield few
    finally:
        PID_MAX.write_text(before)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["taskstats", "procfs"])
def test_pids_that_come_round_again_and_again_are_other_processes(
    mode: str, few_pids: int, programs: Programs, tmp_path: Path
) -> None:
    with running(mode, tmp_path / "log") as exporter:
        world = World(exporter, programs)
        victims = [world.program(f"victim{k}") for k in range(4)]
        spawner = world.program("spawner")
        count, codes = 3 * few_pids, 4
        with world.start(
            spawner, "storm", str(count), "64", str(codes), *victims, stdout=subprocess.PIPE
        ) as storm:
            output, _ = storm.communicate()
        assert storm.returncode == 0
        world.count("exits", spawner.name, status=0)
        world.count("forks", spawner.name, count)
        for victim, status, n in (map(int, line.split()) for line in output.splitlines()):
            world.count("execs", victims[victim].name, n)
            world.count("exits", victims[victim].name, n, status=status)
        world.check()


@pytest.mark.slow
def test_a_thread_and_the_next_process_with_its_pid_are_told_apart(
    few_pids: int, programs: Programs, tmp_path: Path
) -> None:
    """No exit record comes of a thread that neither leads nor ends its process."""
    with running("taskstats", tmp_path / "log") as exporter:
        world = World(exporter, programs)
        threads, leader, short = (world.program(name) for name in ("threads", "leader", "short"))
        per_round: list[list[str | Path]] = [
            [threads, "burn", "0", "30"],
            [leader, "leader_first", "thread", "17", "group", "33"],
            [threads, "threads", "20", "15", "0"],
        ]
        per_round += [[short, "exit", str(status)] for status in range(10)]
        # Each makes some sixty pids.
        for _ in range(3 * few_pids // 60 // 4):
            world.spawn(*(per_round * 4))
        world.check()


@pytest.fixture
def many_pids() -> Iterator[int]:
    """A host with room for thirty thousand processes more."""
    before = PID_MAX.read_text()
    PID_MAX.write_text(f"{max(int(before), 1 << 17)}\n")
    try:
        yield 30_000
    finally:
        PID_MAX.write_text(before)


@pytest.mark.slow
def test_thirty_thousand_processes_that_live_are_known_before_they_end(
    many_pids: int, programs: Programs, tmp_path: Path
) -> None:
    living = programs.link("living")
    with subprocess.Popen(
        [living, "live", str(many_pids)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        try:
            assert parent.stdout is not None
            assert int(parent.stdout.readline()) == many_pids
            with running("taskstats", tmp_path / "log") as exporter:
                # And the parent.
                assert exporter.scrape().get("proc_connector_processes", comm=living.name) == many_pids + 1
                spawn_some(World(exporter, programs))
                parent.communicate()
                ended = exporter.wait_for(
                    lambda scrape: not scrape.get("proc_connector_processes", comm=living.name), "the end of all"
                )
                ends = {row: n for row, n in ended.rows("exits").items() if row[0] == living.name}
                assert ends == {
                    (living.name, "0", "143", "SIGTERM"): many_pids,
                    (living.name, "0", "0", ""): 1,
                }
        finally:
            parent.kill()


@pytest.mark.slow
def test_a_flood_of_events_holds_up_no_scrape_no_readiness_and_no_end(programs: Programs, tmp_path: Path) -> None:
    """Any user can cause events faster than they can be counted; what is lost is counted."""
    uid = programs.new_uid()
    flood = [str(programs.link("flood")), "flood"]
    with running("taskstats", tmp_path / "first", "--canary.interval", "2") as exporter:
        with subprocess.Popen(flood, user=uid, group=uid, extra_groups=[]) as flooding:
            try:
                before = exporter.scrape().get(EVENTS, event="comm")
                for _ in range(5):
                    now = exporter.scrape().get(EVENTS, event="comm")
                    assert now > before
                    before = now
                    assert readiness(exporter)[0] in (200, 503)
                # An exporter that starts meanwhile answers, and ends at a SIGTERM.
                port = free_port()
                command = [sys.executable, "-m", "exporter", "--web.listen-address", f"127.0.0.1:{port}"]
                with subprocess.Popen(command, cwd="/", stderr=subprocess.DEVNULL) as second:
                    try:
                        wait_until(lambda: answers(port), bool, "an answer")
                        second.send_signal(signal.SIGTERM)
                        assert second.wait(DEADLINE_SECONDS) == 0
                    finally:
                        second.kill()
            finally:
                flooding.kill()
        wait_until(lambda: readiness(exporter)[0], lambda status: status == 200, "ready again")
        exporter.wait_for(
            lambda scrape: (
                scrape.get("proc_connector_lost_messages_total", socket="connector") == 0
                or scrape.get("proc_connector_resyncs_total") > 0
            ),
            "a comparison after what was lost",
        )
        spawn_some(World(exporter, programs))


def answers(port: int) -> bool:
    try:
        return ask(port, "/-/healthy").status == 200
    except OSError:
        return False
