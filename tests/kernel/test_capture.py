"""A storm that is captured counts the same when it is replayed."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kernel.harness import UNKNOWN, Exporter, Programs, World, free_port, running, wait_until
from replayed import exposition, status

from exporter.capture.file import CaptureFile, open_capture
from exporter.capture.replay import Replay
from exporter.events import DEFAULT_EVENTS
from exporter.feeds import Core, header_of, make_live_core, make_replay_core
from exporter.kernel.procfs import Procfs
from exporter.live.open_sources import open_sources
from exporter.tallies.tallies import Tallies

COUNT = 2_000
CODES = 4
# Small enough to be filled by a storm, which then is in more than one file.
SMALL_BYTES = 1 << 17
LARGE_BYTES = 1 << 30


def complain(socket: str, error: Exception) -> None:
    pytest.fail(f"{socket}: {error}")


async def count_a_storm(mode: str, capture: Path, max_bytes: int, storm: list[str | Path]) -> Core:
    """Count while a storm runs; nothing is counted any more when this returns."""
    with open_sources(mode, DEFAULT_EVENTS, "auto", 64 << 20) as sources:
        tape = CaptureFile(capture, max_bytes, header_of(sources))
        core = make_live_core(sources, Procfs("/proc"), Tallies(), tape=tape, on_malformed=complain)
        await core.feed.start()
        process = await asyncio.create_subprocess_exec(*storm, stdout=subprocess.DEVNULL)
        assert await process.wait() == 0
        await core.feed.drain_all()
        core.feed.stop()
        tape.close()
    return core


async def replay(capture: Path) -> Core:
    with open_capture(capture) as (header, file):
        core = make_replay_core(header, file, Tallies(), speed=0, on_malformed=complain)
        assert isinstance(core.feed, Replay)
        await core.feed.start()
        assert await asyncio.wait_for(core.feed.ended, 60) is True
    return core


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["taskstats", "procfs"])
async def test_a_storm_is_replayed_to_the_byte(mode: str, programs: Programs, tmp_path: Path) -> None:
    victims = [programs.link(f"replay{k}") for k in range(4)]
    storm: list[str | Path] = [programs.link("spawner"), "storm", str(COUNT), "64", str(CODES), *victims]
    live = await count_a_storm(mode, tmp_path / "capture", LARGE_BYTES, storm)
    assert live.table.events.exit >= COUNT
    replayed = await replay(tmp_path / "capture")
    assert exposition(replayed.tallies, replayed.table) == exposition(live.tallies, live.table)
    assert status(replayed.tallies, replayed.pipeline) == status(live.tallies, live.pipeline)
    assert (replayed.mode, replayed.filter, replayed.plan) == (live.mode, live.filter, live.plan)


@pytest.mark.slow
async def test_the_second_of_two_files_has_the_rest_of_the_storm(programs: Programs, tmp_path: Path) -> None:
    victims = [programs.link(f"rotate{k}") for k in range(4)]
    storm: list[str | Path] = [programs.link("spawner"), "storm", str(COUNT), "64", str(CODES), *victims]
    before = time.monotonic_ns()
    live = await count_a_storm("taskstats", tmp_path / "capture", SMALL_BYTES, storm)
    assert (tmp_path / "capture.1").stat().st_size >= SMALL_BYTES
    with open_capture(tmp_path / "capture") as (header, _):
        assert header.continued
        assert header.monotonic_ns > before
    replayed = await replay(tmp_path / "capture")
    assert replayed.table.live() == live.table.live()
    names = {victim.name for victim in victims}
    cells = replayed.tallies.snapshot_cells()
    ends = {comm: sum(exits.values()) for (comm, _), exits in zip(cells.keys, cells.exits, strict=True)}
    assert 0 < sum(ends.get(name, 0) for name in names) < COUNT
    assert ends.get(UNKNOWN, 0) == 0


def test_the_exporter_replays_what_it_captured_without_privilege(programs: Programs, tmp_path: Path) -> None:
    capture = programs.folder / "capture"
    with running("taskstats", tmp_path / "log", "--capture", str(capture)) as exporter:
        world = World(exporter, programs)
        program = world.program("recorded")
        world.spawn(*[(program, "exit", str(code)) for code in range(32)])
        world.check()
    os.chown(capture, 65534, 65534)
    unprivileged = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    log = tmp_path / "replayed"
    flags = ("--replay", str(capture), "--speed", "0", "--limit.series", "1000000")
    replaying = Exporter("taskstats", log, *flags, prefix=unprivileged)
    try:
        wait_until(log.read_text, lambda text: "the capture has ended" in text, "the end of the replay")
        world.compare(replaying.scrape())
    finally:
        replaying.stop()


def test_a_file_that_is_no_capture_fails_with_one_line(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "exporter", "--web.listen-address", address, "--replay", sys.executable]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30)
    assert result.returncode == 4
    [line] = result.stderr.splitlines()
    assert "this is not a capture" in line
