"""The canary's age: what shows a client that none comes back."""

import errno
import os
import time
from typing import cast

import pytest
from live_rig import Rig

from exporter.live.canary import Canary, spawn
from exporter.live.listener import Listener
from exporter.processes.observer import Happening, News
from exporter.processes.pipeline import Pipeline


class Everything:
    """A listener and a pipeline for which every canary comes back."""

    async def drain_all(self) -> None:
        pass

    def expect_canary(self, tgid: int) -> None:
        pass

    def canary_returned(self, tgid: int) -> bool | None:
        return True

    def forget_canary(self, tgid: int) -> None:
        pass


def no_child() -> int:
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


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
