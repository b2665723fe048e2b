"""The canary's age: what shows a client that none comes back."""

import asyncio
import errno
import os
import time
from typing import cast

import builders
import pytest
from live_rig import Rig

from exporter.live.canary import Canary, spawn
from exporter.live.drain import State
from exporter.live.listener import Listener
from exporter.processes.observer import Happening, News
from exporter.processes.pipeline import Pipeline


class Everything:
    """A listener and a pipeline for which every canary comes back."""

    async def count_all(self) -> None:
        pass

    def expect_canary(self, tgid: int) -> None:
        pass

    def canary_returned(self, tgid: int) -> bool | None:
        return True

    def forget_canary(self, tgid: int) -> None:
        pass


def no_child() -> int:
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def ended_child() -> int:
    """Return a child that has ended and is not reaped."""
    pid = spawn()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


async def test_while_no_canary_has_come_back_its_age_is_the_time_since_the_start() -> None:
    began = time.monotonic()
    world = Everything()
    canary = Canary(cast("Pipeline", world), cast("Listener", world), 15.0, records=False, spawn_child=no_child)
    assert not await canary.prove()
    assert canary.age_seconds(began + 1000.0) == pytest.approx(1000.0, abs=10.0)


async def test_once_a_canary_has_come_back_its_age_is_the_time_since_then() -> None:
    world = Everything()
    canary = Canary(cast("Pipeline", world), cast("Listener", world), 15.0, records=False, spawn_child=spawn)
    assert await canary.prove()
    assert canary.came_back_at is not None
    assert canary.age_seconds(canary.came_back_at + 3.0) == pytest.approx(3.0)


async def test_a_process_that_had_a_canarys_pid_before_it_is_observed(rig: Rig) -> None:
    told: list[News] = []
    rig.pipeline.observe(told.extend)
    rig.lives_and_dies(1000, b"make")
    canary = Canary(rig.pipeline, rig.listener, 0.1, records=True, spawn_child=lambda: 1000)
    problem = await canary._send()  # noqa: SLF001 - without the renewal that prove() begins
    assert problem == "the process connector is silent"
    assert [one.event for one in told if isinstance(one, Happening)] == ["fork", "exec", "exit"]
    assert (rig.exits(), rig.table.events.fork) == ({"make": 1}, 1)


async def test_a_missed_canary_whose_events_a_comparison_keeps_is_counted_nowhere(rig: Rig) -> None:
    """It was counted as a process without an exit record: its pid was forgotten before the comparison was over."""
    pid = ended_child()
    canary = Canary(rig.pipeline, rig.listener, 0.1, records=True, spawn_child=lambda: pid)
    assert await canary._send() is not None  # noqa: SLF001 - without the renewal that prove() begins
    await canary._reap_earlier()  # noqa: SLF001 - from now on it is known to have ended
    comparison = asyncio.ensure_future(rig.listener.resubscribe())
    while rig.drain.state is not State.HOLDING:  # noqa: ASYNC110 - what it waits for makes no event
        await asyncio.sleep(0)
    now_ns = time.monotonic_ns()
    rig.connector.datagrams += [
        builders.fork(parent_tgid=os.getpid(), child_tgid=pid, timestamp_ns=now_ns),
        builders.exit_(tgid=pid, exit_code=42 << 8, timestamp_ns=now_ns + 1),
    ]
    rig.taskstats.datagrams.append(builders.taskstats_datagram(pid=pid, exit_code=42 << 8))
    await canary._reap_earlier()  # noqa: SLF001 - as above
    await comparison
    await rig.listener.drain_all()
    assert (rig.exits(), rig.table.events.fork) == ({}, 0)
    assert rig.pipeline.canaries() == []
