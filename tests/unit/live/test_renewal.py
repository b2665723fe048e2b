"""Subscribing again after a silence."""

import errno
import logging
import os

import pytest
from live_rig import Rig


async def test_an_acknowledged_subscription_is_followed_by_a_comparison(rig: Rig) -> None:
    resyncs, resubscriptions = rig.listener.resyncs, rig.listener.resubscriptions
    assert await rig.listener.resubscribe()
    assert rig.listener.resyncs == resyncs + 1
    assert rig.listener.resubscriptions == resubscriptions + 1


@pytest.mark.parametrize(("needed", "acknowledged"), [(10, True), (11, False)])
async def test_on_a_busy_machine_it_tries_ten_times(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, needed: int, acknowledged: bool
) -> None:
    tries = 0

    def resubscribe() -> bool:
        nonlocal tries
        tries += 1
        return tries == needed

    monkeypatch.setattr(rig.connector, "resubscribe", resubscribe)
    resyncs = rig.listener.resyncs
    assert await rig.listener.resubscribe() is acknowledged
    assert tries == 10
    assert rig.listener.resyncs == resyncs + acknowledged


async def test_a_kernel_that_refuses_is_logged_and_nothing_is_compared(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def resubscribe() -> bool:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(rig.connector, "resubscribe", resubscribe)
    resyncs = rig.listener.resyncs
    with caplog.at_level(logging.ERROR):
        assert not await rig.listener.resubscribe()
    assert caplog.messages == ["cannot subscribe again"]
    assert rig.listener.resyncs == resyncs
