"""A replay counts what was counted when the capture was taken."""

import asyncio
import io
import time

import builders
import pytest
from host import OWN_TGID, Host, Mode, Thread
from replayed import MemoryTape, Replayed, exposition, status
from unit.capture.test_format import HEADER

from exporter.capture.format import Frame, encode_entry, encode_frame, iter_entries
from exporter.capture.kinds import READ_COMM
from exporter.capture.replay import Replay
from exporter.feeds import Core, make_replay_core
from exporter.tallies.tallies import Tallies


def busy_host(mode: Mode, tape: MemoryTape | None) -> Host:
    host = Host(mode, tape=tape)
    host.lives(100, b"sh", 1000)
    for child in range(400, 420):
        host.fork(100, child)
        host.exec(child, b"make")
        if child % 2:
            host.read_early()
            host.end(child, b"make", 1000, child % 3 << 8)
        host.drain()
    host.settle()
    return host


def answers_in(tape: MemoryTape) -> list[bytes]:
    """What /proc answered."""
    return [body for frame in tape.files[0] for letter, body in iter_entries(frame.entries) if letter == READ_COMM]


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_a_replay_looks_up_the_same_newborn_processes(mode: Mode) -> None:
    """Only some are read at once, and the clock of a replay stands still until the next answer."""
    tape, again = MemoryTape(), MemoryTape()
    host = Host(mode, tape=tape)
    host.lives(100, b"sh", 1000)
    host.exec(100, b"storm")
    host.comms.update(dict.fromkeys(range(1000, 1040), b"storm"))
    for child in range(1000, 1009):
        host.fork(100, child)
    host.drain()
    host.rest(70)
    for child in range(1020, 1036):
        host.fork(100, child)
    # The one that was put off is the first, and is newborn no more.
    host.rest(40)
    host.drain()
    host.settle()
    host.settle()
    Replayed(mode, tape.files[0], again)
    assert answers_in(again) == answers_in(tape) != []


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_a_replay_writes_the_same_exposition(mode: Mode) -> None:
    tape = MemoryTape()
    host = busy_host(mode, tape)
    replayed = Replayed(mode, tape.files[0])
    assert exposition(replayed.tallies, replayed.table) == exposition(host.tallies, host.table)
    assert status(replayed.tallies, replayed.pipeline) == status(host.tallies, host.pipeline)


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_recording_changes_nothing(mode: Mode) -> None:
    recorded, plain = busy_host(mode, MemoryTape()), busy_host(mode, None)
    assert exposition(recorded.tallies, recorded.table) == exposition(plain.tallies, plain.table)


def test_losses_resyncs_canaries_and_slices_are_replayed() -> None:
    tape = MemoryTape()
    host = Host(Mode.EXACT, tape=tape)
    host.lives(100, b"sh", 1000)
    host.lives(101, b"gone", 1000)
    host.pipeline.expect_canary(500)
    host.fork(4000, 500)
    host.end(500, b"canary", 0, 0x2A00)
    host.drain()
    assert host.pipeline.canary_returned(500) is True
    host.pipeline.forget_canary(500)
    host.exec(100, b"new")
    host.drain()
    host.pipeline.lose("taskstats", 3, host.now_ns)
    host.pipeline.lose_track()
    host.pipeline.take_records(builders.batch([builders.taskstats_datagram(pid=9)], builders.TASKSTATS_STRIDE))
    host.pipeline.forget_records(host.pipeline.waiting_records())
    host.pipeline.forget(host.pipeline.missing([100]), host.now_ns)
    for child in range(600, 640):
        host.pipeline.take_events(
            builders.batch([builders.fork(parent_tgid=100, child_tgid=child, timestamp_ns=host.now_ns)])
        )
    while host.pipeline.apply(host.now_ns, most_batches=16):
        pass
    replayed = Replayed(Mode.EXACT, tape.files[0])
    assert replayed.pipeline.lost == {"connector": 0, "taskstats": 3}
    assert replayed.table.lost_ends == 1
    assert replayed.pipeline.waiting_records() == []
    assert replayed.table.canaries.ended == 1
    assert replayed.pipeline.canary_returned(500) is None
    assert exposition(replayed.tallies, replayed.table) == exposition(host.tallies, host.table)


def test_a_file_that_begins_in_the_middle_knows_which_processes_live() -> None:
    tape = MemoryTape(frames_per_file=1 << 30)
    host = Host(Mode.EXACT, tape=tape)
    host.lives(100, b"sh", 1000)
    host.lives(101, b"kthreads-parent", 0)
    host.exec(100, b"looked-up")  # under a name that is not known yet
    host.fork(101, 300)
    host.record(child := Thread(300, b"child"), status=0x700)  # its EXIT comes in the next file
    host.fork(OWN_TGID, 500)
    host.pipeline.expect_canary(500)
    host.record(canary := Thread(500, b"exporter"), status=0x2A00)
    tape.frames_per_file = 1
    host.drain()
    tape.frames_per_file = 1 << 30
    assert len(tape.files) == 2
    forks, exits = host.forks.copy(), host.exits.copy()
    host.exit(child.pid, 0x700)
    host.exit(canary.pid, 0x2A00)
    host.fork(101, 301)
    host.fork(100, 302)
    host.end(302, b"looked-up", 1000)
    host.settle()
    replayed = Replayed(Mode.EXACT, tape.files[1])
    cells = replayed.tallies.snapshot_cells()
    rows = zip(cells.keys, cells.counters["forks"], cells.exits, strict=True)
    counted = {key: (forks, dict(exits)) for key, forks, exits in rows if forks or exits}
    assert counted == {
        ("kthreads-parent", 0): (1, {}),
        ("child", 0): (0, {0x700: 1}),
        ("<unknown>", 1000): (1, {}),
        ("looked-up", 1000): (0, {0: 1}),
    }
    # Its exit record is among those of the file before.
    assert (replayed.table.canaries.ended, replayed.table.canaries.recorded) == (1, 0)
    assert host.exits == exits | {("child", "0", 0x700): 1, ("looked-up", "1000", 0): 1}
    assert host.forks[("kthreads-parent", "0")] == forks[("kthreads-parent", "0")] + 1


# -- in time -------------------------------------------------------------------------------------------------


def three_forks(tape: MemoryTape) -> list[Frame]:
    """A second apart."""
    host = Host(Mode.EXACT, tape=tape)
    host.lives(100, b"sh", 1000)
    for child in range(400, 403):
        host.rest(1000)
        host.fork(100, child)
        host.drain()
    return tape.files[0]


def replay_of(data: bytes, speed: float) -> Core:
    header = HEADER._replace(family_id=builders.FAMILY_ID, monotonic_ns=three_forks(MemoryTape())[0].time_ns)
    return make_replay_core(header, io.BytesIO(data), Tallies(), speed=speed)


def forks(core: Core) -> int:
    return sum(core.tallies.snapshot_cells().counters["forks"])


async def play(core: Core) -> bool:
    """Play to the end; return whether the capture was sound."""
    replay = core.feed
    assert isinstance(replay, Replay)
    await replay.start()
    try:
        return await asyncio.wait_for(replay.ended, 30)
    finally:
        replay.stop()


async def test_a_replay_takes_its_time() -> None:
    data = b"".join(map(encode_frame, three_forks(MemoryTape())))
    began = time.monotonic()
    assert await play(core := replay_of(data, 30)) is True
    assert time.monotonic() - began >= 0.1
    assert forks(core) == 3


async def test_a_replay_as_fast_as_can_be_does_not_wait() -> None:
    frames = three_forks(MemoryTape())
    late = [frame._replace(time_ns=frame.time_ns + (hours << 42)) for hours, frame in enumerate(frames)]
    assert await play(core := replay_of(b"".join(map(encode_frame, late)), 0)) is True
    assert forks(core) == 3


async def test_a_damaged_capture_is_played_to_the_damage(caplog: pytest.LogCaptureFixture) -> None:
    data = b"".join(map(encode_frame, three_forks(MemoryTape())))
    assert await play(core := replay_of(data[:-1], 0)) is False
    assert forks(core) == 2
    [line] = caplog.records
    assert line.getMessage() == "the capture ends early"
    assert str(line.__dict__["error"]) == f"the capture is cut short in frame {line.__dict__['whole_frames'] + 1}"


async def test_an_entry_that_no_capture_holds_ends_the_replay(caplog: pytest.LogCaptureFixture) -> None:
    data = encode_frame(Frame(0, encode_entry("?", b"what")))
    assert await play(replay_of(data, 0)) is False
    assert "an entry '?', which this exporter does not know" in str(caplog.records[0].__dict__["error"])


async def test_a_malformed_message_is_logged_with_its_socket(caplog: pytest.LogCaptureFixture) -> None:
    tape = MemoryTape()
    host = Host(Mode.EXACT, tape=tape)
    host.event(lambda **_: b"short")
    host.drain()
    assert await play(core := replay_of(b"".join(map(encode_frame, tape.files[0])), 0)) is True
    assert core.feed.malformed() == {"connector": 1, "taskstats": 0}
    [line] = caplog.records
    assert (line.getMessage(), line.__dict__["socket"]) == ("malformed message dropped", "connector")
