"""A storm of short-lived processes: every one of them is counted, and none stays behind."""

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from kernel.harness import (
    PATIENCE,
    RECORDED_BEFORE,
    UNKNOWN,
    Exporter,
    Programs,
    Scrape,
    World,
    running,
    wait_until_the_table_equals_proc,
)

COUNT = int(4_000 / PATIENCE)  # per spawner
PARALLEL = 64
CODES = 4  # per program, and no two programs have one in common


@pytest.mark.slow
def test_a_storm_under_two_uids_is_counted_to_the_last_process(exporter: Exporter, programs: Programs) -> None:
    victims = [programs.link(f"victim{k}") for k in range(4)]
    worlds = [World(exporter, programs) for _ in range(2)]
    spawners = [world.program("spawner") for world in worlds]
    before = exporter.scrape()
    storms = [
        world.start(spawner, "storm", str(COUNT), str(PARALLEL), str(CODES), *victims, stdout=subprocess.PIPE)
        for world, spawner in zip(worlds, spawners, strict=True)
    ]
    for world, spawner, storm in zip(worlds, spawners, storms, strict=True):
        with storm:
            output, _ = storm.communicate()
        assert storm.returncode == 0
        world.count("exits", spawner.name, status=0)
        world.count("forks", spawner.name, COUNT)
        lines = [tuple(int(word) for word in line.split()) for line in output.splitlines()]
        assert len(lines) == len(victims) * CODES
        assert sum(n for _, _, n in lines) == COUNT
        for victim, status, n in lines:
            world.count("execs", victims[victim].name, n)
            world.count("exits", victims[victim].name, n, status=status)
    for world in worlds:
        scrape = world.check()
    assert scrape.total("proc_connector_lost_messages_total") == before.total("proc_connector_lost_messages_total")
    assert scrape.total("proc_connector_malformed_messages_total") == 0
    if exporter.mode == "taskstats":
        assert scrape.get("proc_connector_unattributed_total", event="exit") == 0
    assert not {victim.name for victim in victims if scrape.get("proc_connector_processes", comm=victim.name)}
    wait_until_the_table_equals_proc(exporter)


def exits_of(scrape: Scrape, uid: int) -> Counter[str]:
    ends: Counter[str] = Counter()
    for (comm, owner, *_), n in scrape.rows("exits").items():
        if owner == str(uid):
            ends[comm] += n
    return ends


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["taskstats", "procfs"])
def test_a_start_amid_a_storm_misses_nothing_that_ends_later(
    mode: str, programs: Programs, tmp_path: Path
) -> None:
    uid = programs.new_uid()
    victims = [programs.link("amid") for _ in range(4)]
    comms = {UNKNOWN, *(victim.name for victim in victims)}
    storm: list[str | Path] = [programs.link("spawner"), "storm", "1000000", "8", str(CODES), *victims]
    with subprocess.Popen(storm, user=uid, group=uid, extra_groups=[], stdout=subprocess.DEVNULL) as spawner:
        try:
            for attempt in range(3):
                with running(mode, tmp_path / f"log{attempt}") as exporter:
                    shown = exporter.wait_for(
                        lambda scrape: (
                            sum(n for row, n in scrape.rows("exits").items() if row[1] == str(uid)) > 100
                        ),
                        "a hundred ends amid the storm",
                    )
                    assert {row[0] for row in shown.rows("exits") if row[1] == str(uid)} <= comms
                    if mode == "taskstats":
                        # Every other EXIT has its record, from the first on.
                        unattributed = shown.get("proc_connector_unattributed_total", event="exit")
                        assert unattributed <= RECORDED_BEFORE
                    os.kill(spawner.pid, signal.SIGSTOP)
                    wait_until_the_table_equals_proc(exporter)
                    os.kill(spawner.pid, signal.SIGCONT)
        finally:
            spawner.kill()
