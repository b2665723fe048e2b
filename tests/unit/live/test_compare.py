"""The process table against a /proc that is not the kernel's."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import builders
import pytest
from fake_proc import add_process
from live_rig import EVENTS_PER_STEP, SECOND_NS, Rig

from exporter.errors import ShortageError
from exporter.kernel.procfs import ProcessInfo, Procfs
from exporter.live import compare
from exporter.live.compare import start_ns


async def test_after_a_loss_what_is_gone_is_taken_off_and_what_is_exiting_keeps_its_record(
    rig: Rig, tmp_path: Path
) -> None:
    now_ns = time.monotonic_ns()
    for tgid in (400, 401, 402):
        rig.connector.datagrams.append(builders.fork(parent_tgid=1, child_tgid=tgid, timestamp_ns=now_ns))
    # The process that had the pid 402 before has ended, and both its events were lost.
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
    # That of 401 has no record any more, which would say whether other threads live on.
    (tmp_path / "401" / "comm").unlink()
    async with asyncio.timeout(30):
        while rig.exits() != {"other": 1, "record": 1}:
            await rig.listener.drain_all()
            await asyncio.sleep(0.01)


async def test_a_process_that_is_stopped_between_its_release_and_its_exit_keeps_its_record(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = time.monotonic_ns()
    rig.connector.datagrams.append(builders.fork(parent_tgid=1, child_tgid=400, timestamp_ns=now_ns))
    rig.taskstats.datagrams.append(builders.taskstats_datagram(pid=400, comm=b"stopped", exit_code=9))
    await rig.listener.drain_all()
    is_exiting = Procfs.is_exiting

    def go_on_a_moment_later(self: Procfs, pid: int) -> bool:
        exit_ = builders.exit_(tgid=400, exit_code=9, timestamp_ns=now_ns + 1)
        asyncio.get_running_loop().call_later(0.02, rig.connector.datagrams.append, exit_)
        return is_exiting(self, pid)

    monkeypatch.setattr(Procfs, "is_exiting", go_on_a_moment_later)
    await rig.listener.resubscribe()
    await rig.listener.drain_all()
    assert rig.exits() == {"stopped": 1}
    assert rig.table.lost_ends == 0


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


def test_time_in_suspend_is_not_time_that_a_process_lived(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc counts it, the timestamps of events do not."""
    suspended_ns, now_ns = 3600 * SECOND_NS, time.monotonic_ns()
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: time.monotonic_ns() + suspended_ns)
    ticks = os.sysconf("SC_CLK_TCK")
    began = (now_ns + suspended_ns - 10 * SECOND_NS) * ticks // SECOND_NS
    started_ns = start_ns(ProcessInfo(b"sh", 0, began, False, frozenset()))
    assert abs(started_ns - (now_ns - 10 * SECOND_NS)) < SECOND_NS


async def turn_until_compared(rig: Rig, resyncs: int) -> None:
    async with asyncio.timeout(30):
        while rig.listener.resyncs < resyncs:  # noqa: ASYNC110 - what it waits for makes no event
            await asyncio.sleep(0.01)


async def test_losses_that_come_while_a_comparison_is_under_way_wait_for_the_next_look(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compare, "_PAUSE_AFTER_LOSS_SECONDS", 0.0)
    before = rig.listener.resyncs
    listed = Procfs.iter_processes

    def lose_amid_the_scan(self: Procfs) -> Iterator[int]:
        rig.connector.drops = 5
        rig.listener.look_at_buffers()
        return listed(self)

    monkeypatch.setattr(Procfs, "iter_processes", lose_amid_the_scan)
    rig.connector.drops = 3
    rig.listener.look_at_buffers()
    await turn_until_compared(rig, before + 1)
    rig.listener.look_at_buffers()
    await turn_until_compared(rig, before + 2)
    rig.listener.look_at_buffers()
    lost = [record.__dict__["lost"] for record in caplog.records if record.msg.startswith("messages lost")]
    assert lost == [3, 2]
    rig.listener.stop()


async def test_a_loss_before_a_comparison_begins_to_list_needs_no_second_one(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compare, "_PAUSE_AFTER_LOSS_SECONDS", 0.0)
    before = rig.listener.resyncs
    rig.connector.drops = 3
    rig.listener.look_at_buffers()
    # The kernel drops more during the pause, and no look has noticed it yet.
    rig.connector.drops = 5
    await turn_until_compared(rig, before + 1)
    rig.listener.look_at_buffers()
    lost = [record.__dict__["lost"] for record in caplog.records if record.msg.startswith("messages lost")]
    assert lost == [3]
    assert rig.pipeline.lost["connector"] == 5
    rig.listener.stop()


async def test_a_bug_in_a_comparison_that_follows_a_loss_ends_the_program(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong() -> None:
        raise RuntimeError("this is a bug")

    monkeypatch.setattr(compare, "_PAUSE_AFTER_LOSS_SECONDS", 0.0)
    monkeypatch.setattr(rig.pipeline, "lose_track", wrong)
    rig.connector.drops = 1
    rig.listener.look_at_buffers()
    async with asyncio.timeout(30):
        with pytest.raises(RuntimeError, match="this is a bug"):
            await rig.listener.crashed


async def test_a_stop_ends_the_comparison_that_follows_a_loss(rig: Rig) -> None:
    before = rig.listener.resyncs
    rig.connector.drops = 1
    rig.listener.look_at_buffers()
    following = rig.listener._comparison._following  # noqa: SLF001 - only the task shows that it was cancelled
    assert following is not None
    rig.listener.stop()
    with pytest.raises(asyncio.CancelledError):
        await following
    assert rig.listener.resyncs == before
    assert not rig.listener.crashed.done()


async def test_a_comparison_waits_until_proc_can_be_read_again(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_process(tmp_path, 500, b"alive")
    refused = 0

    def short(self: Procfs, opens: Callable[[], object]) -> object:
        nonlocal refused
        refused += 1
        if refused % 2:
            raise ShortageError("Too many open files")
        return opens()

    monkeypatch.setattr(compare, "_SHORTAGE_NS", 1)
    monkeypatch.setattr(Procfs, "_with_spare", short)
    await rig.listener.resubscribe()
    assert rig.table.live() == {"init": 1, "alive": 1}
    assert rig.table.lost_ends == 0
    assert refused > 4
