"""The canary's age: what tells the world outside that none comes back."""

import errno
import os
import time
from typing import cast

import pytest

from exporter.live.canary import Canary, spawn
from exporter.live.listener import Listener
from exporter.processes.pipeline import Pipeline


class Everything:
    """A listener and a table for which every canary comes back."""

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
