"""From datagrams to tallies: order, and what is malformed."""

import builders
import pytest
from host import Host, Mode, Thread

from exporter.kernel.netlink import Batch


@pytest.fixture
def host() -> Host:
    host = Host(Mode.EXACT)
    host.lives(100, b"sh", 1000)
    return host


def test_events_wait_for_apply_and_are_counted_once(host: Host) -> None:
    pipeline = host.pipeline
    pipeline.take_events(builders.batch([builders.fork(parent_tgid=100, child_tgid=400)]))
    assert host.forks == {}
    pipeline.apply(host.now_ns)
    pipeline.apply(host.now_ns)
    assert host.forks == {("sh", "1000"): 1}


def test_batches_are_applied_in_their_order(host: Host) -> None:
    host.pipeline.take_events(builders.batch([builders.fork(parent_tgid=100, child_tgid=400)]))
    host.pipeline.take_events(builders.batch([builders.comm(tgid=400, comm=b"new"), builders.exit_(tgid=400)]))
    host.pipeline.apply(host.now_ns)
    assert host.exits == {("new", "1000", 0): 1}


def test_a_batch_is_copied_before_its_buffer_is_used_again(host: Host) -> None:
    buffer = bytearray(builders.fork(parent_tgid=100, child_tgid=400))
    host.pipeline.take_events(Batch(memoryview(buffer), 76, [76]))
    buffer[:] = bytes(76)
    host.pipeline.apply(host.now_ns)
    assert host.forks == {("sh", "1000"): 1}


def test_a_record_that_is_taken_after_its_events_finds_them(host: Host) -> None:
    host.fork(100, 400)
    host.exec(400)
    host.record(Thread(400, b"make", 1000))
    host.exit(400)
    host.drain()
    assert host.exits == {("make", "1000", 0): 1}


@pytest.mark.parametrize(
    "datagram",
    [b"", b"\0" * 76, builders.exec_(tgid=1)[:-1], builders.exec_(tgid=1) + b"\0", builders.exec_(tgid=1, idx=2)],
    ids=["empty", "zeros", "short", "long", "another connector"],
)
def test_malformed_events_are_counted_told_and_left_out(host: Host, datagram: bytes) -> None:
    good = builders.fork(parent_tgid=100, child_tgid=400)
    host.pipeline.take_events(builders.batch([good, datagram, good], stride=80))
    host.pipeline.apply(host.now_ns)
    assert host.forks == {("sh", "1000"): 2}
    assert host.pipeline.malformed == {"connector": 1, "taskstats": 0}
    assert [socket for socket, _ in host.complaints] == ["connector"]


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        builders.taskstats_datagram(pid=400)[:-1],
        builders.taskstats_datagram(pid=400, version=7),
        builders.taskstats_datagram(pid=400, family_id=99),
        builders.taskstats_datagram(pid=400, cmd=1),
    ],
    ids=["empty", "short", "too old", "another family", "another command"],
)
def test_malformed_records_are_counted_told_and_left_out(host: Host, datagram: bytes) -> None:
    good = [builders.taskstats_datagram(pid=pid, comm=b"make", uid=1000) for pid in (401, 402)]
    host.pipeline.take_records(builders.batch([good[0], datagram, good[1]], builders.TASKSTATS_STRIDE))
    for pid in (401, 402):
        host.fork(100, pid)
        host.exit(pid)
    host.drain()
    assert host.exits == {("make", "1000", 0): 2}
    assert host.pipeline.malformed == {"connector": 0, "taskstats": 1}
    assert [socket for socket, _ in host.complaints] == ["taskstats"]


def test_without_taskstats_there_is_no_count_of_its_malformed_messages() -> None:
    host = Host(Mode.PROCFS)
    host.pipeline.take_records(builders.batch([b"anything"]))
    assert host.pipeline.malformed == {"connector": 0}


def test_nothing_is_applied_without_events_but_time_goes_on(host: Host) -> None:
    host.exec(100, b"make")
    host.drain()
    host.rest(1000)
    host.pipeline.apply(host.now_ns)
    assert host.execs == {("make", "1000"): 1}
