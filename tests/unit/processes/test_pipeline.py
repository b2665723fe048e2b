"""From datagrams to tallies: order, and what is malformed."""

import builders
import pytest
from host import Host, Mode, Thread

from exporter.kernel.netlink import Batch
from exporter.processes.name_hints import EXECS, FORKS_AND_EXECS
from exporter.processes.observer import Happening, Loss, News
from exporter.processes.pipeline import NO_EVENTS, Pipeline


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


def test_other_work_is_done_before_each_batch_that_is_counted(host: Host) -> None:
    forks_before: list[int] = []
    host.pipeline.between = lambda: forks_before.append(host.forks.get(("sh", "1000"), 0))
    for tgid in range(400, 403):
        host.pipeline.take_events(builders.batch([builders.fork(parent_tgid=100, child_tgid=tgid)]))
    host.pipeline.apply(host.now_ns, most_batches=2)
    host.pipeline.apply(host.now_ns)
    assert forks_before == [0, 1, 2]


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


def sends_fork(pipeline: Pipeline, tgid: int, timestamp_ns: int, **fields: int) -> None:
    fork = builders.fork(parent_tgid=100, child_tgid=tgid, timestamp_ns=timestamp_ns, **fields)
    pipeline.take_events(builders.batch([fork]))


def test_a_fork_lacks_its_record_until_that_is_taken() -> None:
    pipeline = Host(Mode.EXACT, sideband=True).pipeline
    assert not pipeline.lacks_fork_record(0)
    sends_fork(pipeline, 400, 7)
    assert pipeline.lacks_fork_record(7)
    assert not pipeline.lacks_fork_record(8), "it is too old"
    pipeline.take_sideband(builders.perf_fork(time_ns=8, tgid=401, forker_tgid=100))
    assert pipeline.lacks_fork_record(7), "the record is another one's"
    pipeline.take_sideband(builders.perf_fork(time_ns=8, tgid=400, forker_tgid=100))
    assert not pipeline.lacks_fork_record(7)
    sends_fork(pipeline, 400, 9, child_pid=500)
    assert not pipeline.lacks_fork_record(7), "a thread, whose record is left out"
    sends_fork(pipeline, 600, 10)
    pipeline.take_events(builders.batch([builders.exec_(tgid=7, timestamp_ns=11)]))
    assert pipeline.lacks_fork_record(7), "in the batch before the last one"
    pipeline.apply(0)
    assert not pipeline.lacks_fork_record(7)


def test_a_fork_far_behind_the_last_events_is_not_looked_for() -> None:
    """Each step of a drain looks."""
    pipeline = Host(Mode.EXACT, sideband=True).pipeline
    sends_fork(pipeline, 400, 7)
    for count in (40, 87):
        pipeline.take_events(builders.batch([builders.exec_(tgid=7, timestamp_ns=8)] * count))
    assert pipeline.lacks_fork_record(7), "it is the 128th from the end"
    pipeline.take_events(builders.batch([builders.exec_(tgid=7, timestamp_ns=8)]))
    assert not pipeline.lacks_fork_record(7)


def test_without_sideband_no_fork_lacks_a_record(host: Host) -> None:
    sends_fork(host.pipeline, 400, 7)
    assert not host.pipeline.lacks_fork_record(0)


@pytest.mark.parametrize(
    "datagram",
    [b"", b"\0" * 76, builders.exec_(tgid=1)[:-1], builders.exec_(tgid=1) + b"\0", builders.exec_(tgid=1, idx=2)],
    ids=["empty", "zeros", "short", "long", "another connector"],
)
def test_malformed_events_are_counted_reported_and_left_out(host: Host, datagram: bytes) -> None:
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
def test_malformed_records_are_counted_reported_and_left_out(host: Host, datagram: bytes) -> None:
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


def test_a_name_that_was_read_when_its_event_arrived_names_a_process_that_is_gone() -> None:
    host = Host(Mode.PROCFS)
    host.lives(100, b"sh", 1000)
    host.exec(100, b"make")
    host.read_early()
    host.exit(100)
    host.drain()
    assert host.execs == {("make", "1000"): 1}
    assert host.looks == [100]


def test_a_name_that_no_event_of_a_drain_asked_for_is_forgotten() -> None:
    host = Host(Mode.PROCFS)
    host.lives(100, b"sh", 1000)
    exec_of_100 = builders.batch([builders.exec_(tgid=100, timestamp_ns=host.now_ns)])
    host.comms[100] = b"make"
    host.pipeline.take_names(exec_of_100)
    host.drain()
    host.pipeline.take_events(exec_of_100)
    host.exit(100)
    host.drain()
    assert host.execs == {("<unknown>", "1000"): 1}


def test_the_second_socket_is_woken_by_forks_only_while_they_lead_to_execs() -> None:
    host = Host(Mode.PROCFS)
    host.lives(100, b"sh")
    assert host.pipeline.wanted_by_names == FORKS_AND_EXECS
    for child in range(400, 440):
        host.fork(100, child)
    host.drain()
    assert host.pipeline.wanted_by_names == EXECS


def test_without_a_second_socket_no_event_is_wanted_of_it(host: Host) -> None:
    pipeline = Pipeline(host.table, None, lambda socket, error: None)
    pipeline.take_names(builders.batch([builders.exec_(tgid=100)]))
    assert pipeline.wanted_by_names == NO_EVENTS
    assert host.looks == []


def test_what_waited_for_a_name_is_handed_on_as_soon_as_track_is_lost(host: Host) -> None:
    news: list[News] = []
    host.pipeline.observe(news.extend)
    assert host.pipeline.is_observed
    host.exec(100, b"make")
    host.drain()
    host.pipeline.lose("connector", 3, host.now_ns)
    assert news == []
    host.pipeline.lose_track()
    assert [type(one) for one in news] == [Loss, Happening]
    host.pipeline.observe(None)
    assert not host.pipeline.is_observed


def test_a_record_that_another_pipeline_has_counted_is_not_counted_again(host: Host) -> None:
    host.pipeline.recall_record((400, 0, 32, 1, bytes(44), 0, 0))
    assert host.pipeline.records == 0
    assert [record[0] for record in host.pipeline.waiting_records()] == [400]


def test_only_records_whose_exit_has_not_come_meanwhile_are_dropped(host: Host) -> None:
    for status in (1, 2):
        host.record(Thread(400, b"make"), status=status << 8)
    host.drain()
    waiting = host.pipeline.waiting_records()
    host.exit(400, 1 << 8)
    host.drain()
    host.pipeline.forget_records(waiting[:1])
    assert host.pipeline.waiting_records() == waiting[1:]
    host.pipeline.forget_records(waiting)
    assert host.pipeline.waiting_records() == []
