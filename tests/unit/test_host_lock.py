"""The lock between runs of the kernel tests on one host."""

import threading
from pathlib import Path

import pytest
from kernel.alone import HostLock


def silent(line: str) -> None:
    """Say nothing."""


def test_several_runs_share_the_lock(tmp_path: Path) -> None:
    first, second = HostLock(tmp_path, silent), HostLock(tmp_path, silent)
    with first.held(alone=False), second.held(alone=False, patience_seconds=0):
        pass


@pytest.mark.parametrize(("holds", "wants"), [(True, False), (False, True), (True, True)])
def test_a_run_that_wants_the_lock_alone_has_it_alone(tmp_path: Path, *, holds: bool, wants: bool) -> None:
    first, second = HostLock(tmp_path, silent), HostLock(tmp_path, silent)
    with (
        first.held(alone=holds),
        pytest.raises(TimeoutError, match="other runs of these tests"),
        second.held(alone=wants, patience_seconds=0),
    ):
        pass
    with second.held(alone=wants, patience_seconds=0):
        pass


def test_no_further_run_shares_the_lock_while_one_waits_for_it_alone(tmp_path: Path) -> None:
    waits, has_it = threading.Event(), threading.Event()
    sharing = HostLock(tmp_path, silent)

    def wait_alone() -> None:
        with HostLock(tmp_path, lambda _: waits.set()).held(alone=True):
            has_it.set()

    thread = threading.Thread(target=wait_alone)
    with sharing.held(alone=False):
        thread.start()
        assert waits.wait(30)
        with (
            pytest.raises(TimeoutError),
            HostLock(tmp_path, silent).held(alone=False, patience_seconds=0),
        ):
            pass
        assert not has_it.is_set()
    assert has_it.wait(30)
    thread.join()


def test_a_run_says_once_that_it_waits(tmp_path: Path) -> None:
    said: list[str] = []
    with (
        HostLock(tmp_path, silent).held(alone=True),
        pytest.raises(TimeoutError),
        HostLock(tmp_path, said.append).held(alone=True, patience_seconds=0.2),
    ):
        pass
    assert [line.partition(":")[0] for line in said] == ["waiting for other runs of these tests on this host"]
