"""Comms that are read as soon as an event of their process arrives."""

from collections.abc import Callable

import builders
import pytest

from exporter.kernel.bpf import EventFilter
from exporter.processes.name_hints import EXECS, FORKS_AND_EXECS, NameHints


class Proc:
    """Two processes, a clock, and the hints."""

    def __init__(self) -> None:
        self.comms = {400: b"make", 401: b"worker"}
        self.looks: list[int] = []
        self.now_ns = 1000
        self.hints = NameHints(self._read_comm, lambda: self.now_ns)

    def _read_comm(self, tgid: int) -> bytes | None:
        self.looks.append(tgid)
        self.now_ns += 1
        return self.comms.get(tgid)


@pytest.fixture
def proc() -> Proc:
    return Proc()


def test_an_exec_is_read_at_once_and_kept_by_its_process_and_time(proc: Proc) -> None:
    proc.hints.take(builders.batch([builders.exec_(tgid=400, pid=402, timestamp_ns=900)]))
    # The time is that of the moment after the look.
    assert proc.hints.by_event == {(400, 900): (b"make", 1001)}


def test_a_child_of_a_thread_is_read(proc: Proc) -> None:
    fork = builders.fork(parent_tgid=100, parent_pid=101, child_tgid=401, timestamp_ns=900)
    proc.hints.take(builders.batch([fork]))
    assert proc.hints.by_event == {(401, 900): (b"worker", 1001)}


@pytest.mark.parametrize(
    "datagram",
    [
        lambda: builders.fork(parent_tgid=100, child_tgid=400),
        lambda: builders.fork(parent_tgid=100, parent_pid=101, child_tgid=400, child_pid=401),
        lambda: builders.exit_(tgid=400),
        lambda: builders.comm(tgid=400, comm=b"new"),
        lambda: builders.ack(ack=1),
        lambda: builders.exec_(tgid=400)[:-1],
        lambda: b"",
    ],
    ids=["child of a leader", "thread", "exit", "rename", "ack", "cut short", "nothing"],
)
def test_nothing_else_is_worth_a_look(proc: Proc, datagram: Callable[[], bytes]) -> None:
    proc.hints.take(builders.batch([datagram()]))
    assert proc.looks == []
    assert proc.hints.by_event == {}


def test_a_process_that_is_gone_has_no_reading(proc: Proc) -> None:
    proc.hints.take(builders.batch([builders.exec_(tgid=999)]))
    assert proc.looks == [999]
    assert proc.hints.by_event == {}


def test_what_is_malformed_does_not_hide_its_neighbours(proc: Proc) -> None:
    datagrams = [
        b"x" * 76,
        builders.exec_(tgid=400, timestamp_ns=1),
        b"y",
        builders.exec_(tgid=401, timestamp_ns=2),
    ]
    proc.hints.take(builders.batch(datagrams))
    assert list(proc.hints.by_event) == [(400, 1), (401, 2)]


def test_readings_that_were_not_used_are_forgotten_by_their_age(proc: Proc) -> None:
    for timestamp_ns in (1, 2, 3):
        proc.hints.take(builders.batch([builders.exec_(tgid=400, timestamp_ns=timestamp_ns)]))
    proc.hints.forget(1002)
    assert list(proc.hints.by_event) == [(400, 2), (400, 3)]


def test_forks_are_worth_a_wake_up_while_some_of_them_exec(proc: Proc) -> None:
    assert proc.hints.wanted == FORKS_AND_EXECS
    proc.hints.judge(100, 20)
    assert proc.hints.wanted == FORKS_AND_EXECS
    proc.hints.judge(100, 1)
    assert proc.hints.wanted == EXECS
    proc.hints.judge(100, 20)
    assert proc.hints.wanted == FORKS_AND_EXECS


def test_a_few_forks_change_nothing(proc: Proc) -> None:
    proc.hints.judge(15, 0)
    assert proc.hints.wanted == FORKS_AND_EXECS


@pytest.mark.parametrize(("every", "wanted"), [(20, EXECS), (4, FORKS_AND_EXECS)])
def test_a_burst_of_forks_is_judged_before_it_is_drained(proc: Proc, every: int, wanted: EventFilter) -> None:
    for number in range(300):
        events = [builders.fork(parent_tgid=100, child_tgid=1000 + number)]
        if number % every == 0:
            events.append(builders.exec_(tgid=1000 + number))
        proc.hints.take(builders.batch(events))
    assert proc.hints.wanted == wanted


def test_bursts_on_both_sides_of_a_drain_are_two(proc: Proc) -> None:
    for _ in range(10):
        for number in range(100):
            proc.hints.take(builders.batch([builders.fork(parent_tgid=100, child_tgid=1000 + number)]))
        proc.hints.judge(100, 100)
    assert proc.hints.wanted == FORKS_AND_EXECS
