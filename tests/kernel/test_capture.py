"""A storm that is captured counts the same when it is replayed."""

import asyncio
import os
import shlex
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from documented import documented
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
BATCH = 100
SMALL_BYTES = 1 << 19
LARGE_BYTES = 1 << 30


def complain(socket: str, error: Exception) -> None:
    pytest.fail(f"{socket}: {error}")


@asynccontextmanager
async def counting(mode: str, capture: Path, max_bytes: int) -> AsyncIterator[Core]:
    """Count and capture; nothing is counted any more when the block has ended."""
    with open_sources(mode, DEFAULT_EVENTS, "auto", 64 << 20) as sources:
        tape = CaptureFile(capture, max_bytes, header_of(sources))
        core = make_live_core(sources, Procfs("/proc"), Tallies(), tape=tape, on_malformed=complain)
        await core.feed.start()
        yield core
        await core.feed.drain_all()
        core.feed.stop()
        tape.close()


async def rage(count: int, spawner: Path, victims: list[Path]) -> None:
    """Start victims one after another; all have ended when this returns."""
    command: list[str | Path] = [spawner, "storm", str(count), "64", str(CODES), *victims]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    assert await process.wait() == 0


def ends_of(core: Core, programs: list[Path]) -> int:
    """Return how many ends of these programs were counted."""
    cells = core.tallies.snapshot_cells()
    names = {program.name for program in programs}
    return sum(
        sum(exits.values()) for (comm, _), exits in zip(cells.keys, cells.exits, strict=True) if comm in names
    )


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
    async with counting(mode, tmp_path / "capture", LARGE_BYTES) as live:
        await rage(COUNT, programs.link("spawner"), victims)
    assert live.table.events.exit >= COUNT
    replayed = await replay(tmp_path / "capture")
    assert exposition(replayed.tallies, replayed.table) == exposition(live.tallies, live.table)
    assert status(replayed.tallies, replayed.pipeline) == status(live.tallies, live.pipeline)
    assert (replayed.mode, replayed.filter, replayed.plan) == (live.mode, live.filter, live.plan)


@pytest.mark.slow
async def test_the_second_of_two_files_has_the_rest_of_the_storm(programs: Programs, tmp_path: Path) -> None:
    spawner, capture = programs.link("spawner"), tmp_path / "capture"
    earlier, later = ([programs.link(f"{when}{k}") for k in range(4)] for when in ("earlier", "later"))
    before, started = time.monotonic_ns(), 0
    async with counting("taskstats", capture, SMALL_BYTES) as live:
        # A batch is much less than a file, so what comes after the first change of files is in the second.
        while not (tmp_path / "capture.1").exists():
            assert started < 100 * BATCH, "the file never ended"
            await rage(BATCH, spawner, earlier)
            started += BATCH
            await live.feed.drain_all()
        await rage(BATCH, spawner, later)
    assert (tmp_path / "capture.1").stat().st_size >= SMALL_BYTES
    with open_capture(capture) as (header, _):
        assert header.continued
        assert header.monotonic_ns > before
    replayed = await replay(capture)
    assert replayed.table.live() == live.table.live()
    assert ends_of(replayed, later) == ends_of(live, later) == BATCH
    assert ends_of(replayed, earlier) < ends_of(live, earlier) == started
    cells = replayed.tallies.snapshot_cells()
    assert all(comm != UNKNOWN or not exits for (comm, _), exits in zip(cells.keys, cells.exits, strict=True))


def test_the_exporter_replays_what_it_captured_without_privilege_as_documented(
    programs: Programs, tmp_path: Path
) -> None:
    capture = programs.folder / "capture"
    address = " --web.listen-address localhost:10062"
    commands = documented("docs/capture.md", "tests/kernel/test_capture.py")
    assert all(address in command for command in commands)
    to_record, to_replay = (
        shlex.split(command.replace("bad-day", str(capture)).replace(address, ""))[1:] for command in commands
    )
    with running("taskstats", tmp_path / "log", *to_record) as exporter:
        world = World(exporter, programs)
        program = world.program("recorded")
        world.spawn(*[(program, "exit", str(code)) for code in range(32)])
        world.check()
    os.chown(capture, 65534, 65534)
    unprivileged = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    log = tmp_path / "replayed"
    replaying = Exporter("taskstats", log, *to_replay, "--limit.series", "1000000", prefix=unprivileged)
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
    assert sys.executable in line
