"""The live loop against sockets and a /proc that are not the kernel's."""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import builders
import pytest
from fake_proc import add_process

from exporter.events import DEFAULT_EVENTS, make_plan
from exporter.kernel.netlink import Batch
from exporter.kernel.procfs import ProcessInfo, Procfs
from exporter.kernel.recvmmsg import Meminfo
from exporter.kernel.sockets import Connector, Taskstats
from exporter.kernel.taskstats import RecordDecoder
from exporter.live import listener
from exporter.live.canary import Canary
from exporter.live.listener import Listener
from exporter.live.sources import Sources
from exporter.processes.observer import Happening, News
from exporter.processes.pipeline import Pipeline
from exporter.processes.table import ProcessTable
from exporter.tallies.tallies import Tallies

SECOND_NS = 1_000_000_000

# What one step may take on: about ten milliseconds' worth.
EVENTS_PER_STEP = 16 * 256
RECORDS_PER_STEP = 64 * 64


class FakeSocket:
    """Stands for a Connector or Taskstats: hands out what was put in."""

    def __init__(self, slots: int, stride: int) -> None:
        self._slots = slots
        self._stride = stride
        self.datagrams: list[bytes] = []
        self.drops = 0
        self.malformed = 0
        self.keep: object = None
        self.flood: bytes | None = None

    def iter_batches(self) -> Iterator[Batch]:
        while self.datagrams or self.flood:
            batch, self.datagrams = self.datagrams[: self._slots], self.datagrams[self._slots :]
            if self.flood is not None:
                batch += [self.flood] * (self._slots - len(batch))
            yield builders.batch(batch, self._stride)

    def meminfo(self) -> Meminfo:
        waiting = len(self.datagrams) + (1000 if self.flood else 0)
        return Meminfo(832 * waiting, 64 << 20, self.drops)

    def resubscribe(self) -> bool:
        return True


class Rig:
    """A listener, and everything around it."""

    def __init__(self, root: Path) -> None:
        self.connector = FakeSocket(256, builders.CONNECTOR_STRIDE)
        self.taskstats = FakeSocket(64, builders.TASKSTATS_STRIDE)
        self.tallies = Tallies()
        procfs = Procfs(str(root))
        table = ProcessTable(self.tallies, procfs.read_comm, time.monotonic_ns, records_end_processes=True)
        self.table = table
        self.applied: list[int] = []
        self.taken: list[int] = []
        apply, add_records = table.apply, table.add_records

        self.held: list[int] = []
        self.held_when_records_came: list[int] = []

        def counted_apply(chunks: Sequence[bytes], *arguments: object) -> None:
            self.held.append(pipeline.held_bytes)
            self.applied.append(sum(map(len, chunks)) // builders.CONNECTOR_STRIDE)
            apply(chunks, *arguments)  # type: ignore[arg-type]  # what it got

        def counted_add_records(records: Sequence[object]) -> None:
            self.taken.append(len(records))
            if self.listener._holds:
                self.held_when_records_came.append(pipeline.held_bytes)
            add_records(records)  # type: ignore[arg-type]  # what it got

        table.apply = counted_apply  # type: ignore[method-assign, assignment]  # looks on
        table.add_records = counted_add_records  # type: ignore[method-assign]  # looks on
        plan = make_plan(DEFAULT_EVENTS, exact=True, records_end_processes=True)
        sources = Sources(plan, cast("Connector", self.connector), cast("Taskstats", self.taskstats), None)
        pipeline = Pipeline(table, RecordDecoder(builders.FAMILY_ID), lambda _, error: pytest.fail(str(error)))
        self.pipeline = pipeline
        self.pipeline = pipeline
        self.listener = Listener(sources, pipeline, procfs)

    def lives_and_dies(self, tgid: int, comm: bytes) -> None:
        now_ns = time.monotonic_ns()
        self.connector.datagrams += [
            builders.fork(parent_tgid=1, child_tgid=tgid, timestamp_ns=now_ns),
            builders.exec_(tgid=tgid, timestamp_ns=now_ns + 1),
            builders.exit_(tgid=tgid, exit_code=0x100, timestamp_ns=now_ns + 2),
        ]
        self.taskstats.datagrams.append(builders.taskstats_datagram(pid=tgid, comm=comm, exit_code=0x100))

    def exits(self) -> dict[str, int]:
        cells = self.tallies.snapshot_cells()
        return {key[0]: sum(exits.values()) for key, exits in zip(cells.keys, cells.exits, strict=True) if exits}


@pytest.fixture
async def rig(tmp_path: Path) -> Rig:
    """A host where process 1 has lived for long."""
    add_process(tmp_path, 1, b"init")
    rig = Rig(tmp_path)
    await rig.listener.resubscribe()
    rig.applied.clear()
    return rig


async def test_however_much_waits_a_step_takes_on_no_more_than_its_share(rig: Rig) -> None:
    for tgid in range(1000, 11000):
        rig.lives_and_dies(tgid, b"make")
    steps = 1
    while rig.listener.drain():
        steps += 1
    assert rig.exits() == {"make": 10000}
    assert rig.table.live() == {"init": 1}
    assert sum(rig.applied) == 30000
    assert max(rig.applied) <= EVENTS_PER_STEP
    assert steps > 30000 // EVENTS_PER_STEP


async def test_events_are_not_counted_before_all_records_are_there(rig: Rig) -> None:
    """The last of the records is that of the first EXIT: of a process that took long to free its memory."""
    rig.lives_and_dies(1000, b"late")
    [late] = rig.taskstats.datagrams
    others = range(2000, 2000 + 2 * RECORDS_PER_STEP)
    rig.taskstats.datagrams = [builders.taskstats_datagram(pid=pid, comm=b"huge", ac_flag=0) for pid in others]
    rig.taskstats.datagrams.append(late)
    assert rig.listener.drain()
    assert rig.exits() == {}
    while rig.listener.drain():
        pass
    assert rig.exits() == {"late": 1}


async def test_a_flood_without_end_does_not_hold_whoever_drains(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there when it was called is counted, and names settle, although the socket is never empty."""
    monkeypatch.setattr(listener, "_MOST_BYTES_HELD", 1 << 20)
    now_ns = time.monotonic_ns() - SECOND_NS
    rig.connector.datagrams.append(builders.fork(parent_tgid=1, child_tgid=400, timestamp_ns=now_ns))
    rig.connector.flood = builders.comm(tgid=1, comm=b"flood", timestamp_ns=now_ns)
    for tgid in range(1000, 3000):
        rig.lives_and_dies(tgid, b"make")
    await rig.listener.drain_all()
    assert rig.exits() == {"make": 2000}
    assert rig.table.live() == {"flood": 1, "init": 1}
    await rig.listener.resubscribe()
    assert rig.listener.drain()
    assert rig.table.lost_ends == 1
    # While /proc was compared nothing was applied, and no more was kept than there is room for.
    assert max(rig.held) <= (1 << 20) + EVENTS_PER_STEP * builders.CONNECTOR_STRIDE


async def test_records_wait_in_their_socket_while_no_more_events_are_held(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_MOST_BYTES_HELD", 1 << 20)
    now_ns = time.monotonic_ns()
    rig.connector.flood = builders.comm(tgid=1, comm=b"flood", timestamp_ns=now_ns)
    rig.taskstats.flood = builders.taskstats_datagram(pid=400)
    await rig.listener.resubscribe()
    assert max(rig.held) > 1 << 20
    assert 0 < max(rig.held_when_records_came) <= 1 << 20


async def test_two_who_drain_at_the_same_time_both_get_what_was_there_before(rig: Rig) -> None:
    seen: list[tuple[int, dict[str, int]]] = []

    async def one(number: int) -> None:
        for tgid in range(1000 * number, 1000 * number + 10):
            rig.lives_and_dies(tgid, b"of-%d" % number)
        await rig.listener.drain_all()
        seen.append((number, rig.exits()))

    for tgid in range(20000, 30000):
        rig.lives_and_dies(tgid, b"make")
    await asyncio.gather(*(one(number) for number in range(1, 6)))
    assert [exits[f"of-{number}"] for number, exits in seen] == [10] * 5
    assert rig.exits()["make"] == 10000


async def test_after_a_loss_what_is_gone_is_taken_off_and_what_is_exiting_keeps_its_record(
    rig: Rig, tmp_path: Path
) -> None:
    now_ns = time.monotonic_ns()
    for tgid in (400, 401, 402):
        rig.connector.datagrams.append(builders.fork(parent_tgid=1, child_tgid=tgid, timestamp_ns=now_ns))
    # Whoever had the pid 402 before has ended, and both his events were lost.
    rig.taskstats.datagrams.append(builders.taskstats_datagram(pid=402, comm=b"before", exit_code=9))
    # Three have begun to exit. Of 400 and 401 the EXIT was lost; 401's pid is another's, which has memory.
    for tgid in (400, 401, 402):
        rig.taskstats.datagrams.append(builders.taskstats_datagram(pid=tgid, comm=b"record", exit_code=9))
    add_process(tmp_path, 402, b"huge")
    other = add_process(tmp_path, 401, b"other") / "status"
    other.write_bytes(other.read_bytes() + b"VmSize:\t    8 kB\n")
    await rig.listener.drain_all()
    await rig.listener.resubscribe()
    assert [record[0] for record in rig.pipeline.waiting_records()] == [402]
    assert rig.table.lost_ends == 1  # 400; nothing says that 401 is not the same process
    assert rig.table.live() == {"init": 1, "other": 1, "huge": 1}
    for tgid in (401, 402):
        rig.connector.datagrams.append(builders.exit_(tgid=tgid, exit_code=9))
    await rig.listener.drain_all()
    assert rig.exits() == {"other": 1, "record": 1}


async def test_losses_are_counted_on_when_the_kernels_count_of_32_bits_begins_anew(rig: Rig) -> None:
    for drops in (0xFFFFFFF0, 0xFFFFFFF0, 5, 5):
        rig.connector.drops = drops
        rig.listener.count_losses()
    assert rig.pipeline.lost["connector"] == (1 << 32) + 5


async def test_a_comparison_of_many_processes_lets_others_have_their_turn(rig: Rig, tmp_path: Path) -> None:
    for tgid in range(1000, 3000):
        os.mkdir(tmp_path / str(tgid))  # noqa: PTH102 - gone when it is looked at
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(others())
    for tgid in range(10000, 40000):
        rig.connector.datagrams.append(builders.fork(parent_tgid=1, child_tgid=tgid, timestamp_ns=1))
    await rig.listener.resubscribe()
    task.cancel()
    assert rig.table.live() == {"init": 1}
    assert rig.table.lost_ends == 30000
    assert max(rig.applied) <= EVENTS_PER_STEP
    assert turns > 30000 // EVENTS_PER_STEP


async def test_whoever_had_a_canarys_pid_before_it_is_told(rig: Rig) -> None:
    told: list[News] = []
    rig.pipeline.observe(told.extend)
    rig.lives_and_dies(1000, b"make")
    canary = Canary(rig.pipeline, rig.listener, 0.1, records=True, spawn_child=lambda: 1000)
    assert await canary._send() == "the process connector is silent"
    assert [one.event for one in told if isinstance(one, Happening)] == ["fork", "exec", "exit"]
    assert (rig.exits(), rig.table.events.fork) == ({"make": 1}, 1)


async def test_who_begins_to_wait_for_news_does_not_wait_for_the_end_of_a_long_pause(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(rig.connector, "fileno", lambda: reader, raising=False)
    rig.lives_and_dies(1000, b"make")
    rig.listener._wait_by_timer(3600)
    rig.listener.tell_soon()
    async with asyncio.timeout(30):
        while not rig.exits():  # noqa: ASYNC110 - what it waits for makes no event
            await asyncio.sleep(0.01)
    rig.listener.stop()
    os.close(reader)
    os.close(writer)


def test_time_in_suspend_is_not_time_that_a_process_lived(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc counts it, the timestamps of events do not."""
    suspended_ns, now_ns = 3600 * SECOND_NS, time.monotonic_ns()
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: time.monotonic_ns() + suspended_ns)
    ticks = os.sysconf("SC_CLK_TCK")
    began = (now_ns + suspended_ns - 10 * SECOND_NS) * ticks // SECOND_NS
    start_ns = Listener._start_ns(ProcessInfo(b"sh", 0, began, False, frozenset()))
    assert abs(start_ns - (now_ns - 10 * SECOND_NS)) < SECOND_NS
