"""What histories of processes are counted as where side-band records name each exec and each forker."""

from collections import Counter

import builders
import pytest
from host import MS, OWN_TGID, Host, Mode, Thread
from replayed import MemoryTape, Replayed, exposition, status

from exporter.processes.observer import Happening, News
from exporter.tallies.labels import UNKNOWN


@pytest.fixture(params=Mode, ids=lambda mode: mode.value)
def mode(request: pytest.FixtureRequest) -> Mode:
    found: Mode = request.param
    return found


def host_with_a_shell(mode: Mode) -> Host:
    """A shell of uid 1000 lives, pid 100."""
    host = Host(mode, sideband=True)
    host.lives(100, b"sh", 1000)
    return host


@pytest.fixture
def host(mode: Mode) -> Host:
    return host_with_a_shell(mode)


# -- execs ------------------------------------------------------------------------------------------------------


def test_an_exec_is_counted_at_once_and_proc_is_not_read(host: Host) -> None:
    host.fork(100, 400)
    host.exec(400, b"make")
    host.drain()
    assert host.execs == {("make", "1000"): 1}
    assert (host.live, host.pending, host.looks) == ({"sh": 1, "make": 1}, {}, [])
    host.end(400, b"make", 1000, 0x200)
    host.drain()
    assert host.exits == {("make", "1000", 0x200): 1}
    assert host.execs == {("make", "1000"): 1}
    assert host.looks == []


@pytest.mark.parametrize("length", [2, 5, 10])
@pytest.mark.parametrize("drained", ["at once", "after each"])
def test_each_exec_of_a_chain_is_counted_under_its_own_name(host: Host, length: int, drained: str) -> None:
    names = [b"stage-%d" % i for i in range(length)]
    host.fork(100, 400)
    for i, name in enumerate(names):
        host.exec(400, name, cpu=i % 2)
        if drained == "after each":
            host.drain()
    host.end(400, names[-1], 1000)
    host.drain()
    assert host.execs == {(name.decode(), "1000"): 1 for name in names}
    assert host.exits == {(names[-1].decode(), "1000", 0): 1}
    assert (host.pending, host.looks) == ({}, [])


def test_many_chains_in_one_drain_do_not_mix(host: Host) -> None:
    for i in range(3):
        for tgid in range(400, 420):
            if not i:
                host.fork(100, tgid)
            host.exec(tgid, b"%d-%d" % (tgid, i), cpu=(tgid + i) % 2)
    host.drain()
    assert host.execs == {(f"{tgid}-{i}", "1000"): 1 for tgid in range(400, 420) for i in range(3)}
    assert host.live == {"sh": 1} | {f"{tgid}-2": 1 for tgid in range(400, 420)}


def test_a_child_has_the_name_that_its_parent_had_when_it_forked(host: Host) -> None:
    host.exec(100, b"first")
    host.fork(100, 400)
    host.exec(100, b"second")
    host.fork(100, 401)
    host.exec(100, b"third")
    host.drain()
    assert host.execs == {("first", "1000"): 1, ("second", "1000"): 1, ("third", "1000"): 1}
    assert host.forks == {("first", "1000"): 1, ("second", "1000"): 1}
    assert host.live == {"third": 1, "first": 1, "second": 1}


def test_an_exec_that_was_recorded_is_not_named_by_the_exit_record(host: Host) -> None:
    """It renames itself before it ends: the exit record has that comm."""
    host.fork(100, 400)
    host.exec(400, b"make")
    host.rename(400, b"renamed")
    host.end(400, b"renamed", 1000)
    host.drain()
    assert host.execs == {("make", "1000"): 1}
    assert host.exits == {("renamed", "1000", 0): 1}


def test_a_rename_between_two_execs_names_neither(host: Host) -> None:
    host.fork(100, 400)
    host.exec(400, b"one")
    host.rename(400, b"between")
    host.fork(400, 401)
    host.exec(400, b"two")
    host.drain()
    assert host.execs == {("one", "1000"): 1, ("two", "1000"): 1}
    assert host.forks == {("sh", "1000"): 1, ("between", "1000"): 1}
    assert host.live == {"sh": 1, "between": 1, "two": 1}


def test_an_exec_by_a_thread_counts_for_the_process(host: Host) -> None:
    host.fork(100, 400)
    host.exec(400, b"threaded")
    host.thread(400, 401)
    host.thread(400, 402)
    host.drain()
    # Thread 401 execs: all others are killed, it takes the leader's pid, and its own never exits.
    host.end(400, b"threaded", 1000, 9, last=False, thread=402)
    host.begin_exec(400, b"after")
    host.record(Thread(400, b"threaded", 1000), last=False)
    host.event(builders.exit_, tgid=400, exit_code=0)
    host.exec(400)
    host.drain()
    assert host.execs == {("threaded", "1000"): 1, ("after", "1000"): 1}
    assert host.exits == {}
    host.end(400, b"after", 1000, 0x500)
    host.drain()
    assert host.exits == {("after", "1000", 0x500): 1}
    assert host.live == {"sh": 1}


RECORDS_SHOW_LAST_THREADS = pytest.mark.parametrize("mode", [Mode.EXACT], ids=lambda mode: mode.value)
"""Before taskstats version 12 a record does not show that its process lives on."""


def begin(host: Host, comm: bytes, *, parent: int = 100) -> int:
    """Process 400 is forked and executes a program; returns when it began."""
    host.fork(parent, 400)
    start_ns = host.now_ns
    host.exec(400, comm)
    return start_ns


def exec_by_a_thread(
    host: Host, comm: bytes, target: bytes, *, start_ns: int, thread: int = 401, exit_is: str = "before"
) -> None:
    """A thread of 400 execs, and has taken the leader's pid before the leader's EXIT is sent."""
    host.thread(400, thread)
    host.begin_exec(400, target)
    host.record(Thread(400, comm, 1000), last=False, ms=(host.now_ns - start_ns) / MS)
    if exit_is == "before":
        host.exit(400, thread=thread)
    host.exec(400)
    if exit_is == "after":
        host.exit(400, thread=thread)
    host.comms[400] = target


@RECORDS_SHOW_LAST_THREADS
@pytest.mark.parametrize("code", [0, 0x500])
@pytest.mark.parametrize("exit_is", ["before", "after"])
@pytest.mark.parametrize("rest_ms", [0, 10, 5000])
def test_a_process_ends_though_its_leaders_exit_came_under_a_threads_pid(
    host: Host, code: int, exit_is: str, rest_ms: int
) -> None:
    start_ns = begin(host, b"threaded")
    exec_by_a_thread(host, b"threaded", b"after", start_ns=start_ns, exit_is=exit_is)
    for _ in range(5 if rest_ms else 0):
        host.rest(rest_ms / 5)
        host.drain()
    host.record(Thread(400, b"after", 1000), status=code, ms=(host.now_ns - start_ns) / MS)
    host.exit(400, code)
    host.drain()
    assert host.exits == {("after", "1000", code): 1}
    assert (host.live, host.pending) == ({"sh": 1}, {})
    # Its pid can be used again.
    host.fork(100, 400)
    host.end(400, b"sh", 1000)
    host.drain()
    assert host.exits == {("after", "1000", code): 1, ("sh", "1000", 0): 1}
    assert host.table.lost_ends == host.table.uncounted_losses == sum(host.table.missed_events.values()) == 0


@RECORDS_SHOW_LAST_THREADS
@pytest.mark.parametrize("drained", [False, True])
def test_a_replaced_leaders_exit_that_is_sent_after_the_exec_is_no_end(host: Host, drained: bool) -> None:
    """It has its own pid: the kernel had noted that before the thread took the pid over."""
    start_ns = begin(host, b"threaded")
    host.thread(400, 401)
    host.begin_exec(400, b"after")
    host.record(Thread(400, b"threaded", 1000), last=False, ms=(host.now_ns - start_ns) / MS)
    exited_ns = host.now_ns
    host.exec(400)
    if drained:
        host.drain()
    host.exit(400, timestamp_ns=exited_ns)
    host.comms[400] = b"after"
    host.fork(400, 500)
    host.record(Thread(400, b"after", 1000), ms=(host.now_ns - start_ns) / MS)
    host.exit(400)
    host.drain()
    assert host.exits == {("after", "1000", 0): 1}
    assert host.forks[("after", "1000")] == 1
    assert host.live == {"sh": 1, "after": 1}
    assert host.table.events.exit == 2


@RECORDS_SHOW_LAST_THREADS
def test_a_leader_is_replaced_though_its_uid_is_not_known(host: Host) -> None:
    start_ns = begin(host, b"threaded", parent=77)
    exec_by_a_thread(host, b"threaded", b"after", start_ns=start_ns)
    host.record(Thread(400, b"after", 1000), ms=(host.now_ns - start_ns) / MS)
    host.exit(400)
    host.drain()
    assert host.exits == {("after", "1000", 0): 1}
    assert len(host.table.records) == 0


@RECORDS_SHOW_LAST_THREADS
def test_a_process_ends_though_two_leaders_exits_came_under_threads_pids(host: Host) -> None:
    start_ns = begin(host, b"first")
    exec_by_a_thread(host, b"first", b"second", start_ns=start_ns)
    exec_by_a_thread(host, b"second", b"third", start_ns=start_ns, thread=402)
    host.record(Thread(400, b"third", 1000), ms=(host.now_ns - start_ns) / MS)
    host.exit(400)
    host.drain()
    assert host.exits == {("third", "1000", 0): 1}
    assert host.live == {"sh": 1}


@RECORDS_SHOW_LAST_THREADS
def test_a_process_whose_leader_was_replaced_ends_with_another_thread(host: Host) -> None:
    start_ns = begin(host, b"threaded")
    exec_by_a_thread(host, b"threaded", b"after", start_ns=start_ns)
    host.thread(400, 402)
    host.record(Thread(400, b"after", 1000), last=False, ms=(host.now_ns - start_ns) / MS)
    host.exit(400)
    host.record(Thread(402, b"worker", 1000), ms=(host.now_ns - start_ns) / MS, tgid=400)
    host.exit(400, thread=402)
    host.fork(100, 400)
    host.end(400, b"sh", 1000)
    host.drain()
    assert host.exits == {("after", "1000", 0): 1, ("sh", "1000", 0): 1}
    assert host.live == {"sh": 1}


@RECORDS_SHOW_LAST_THREADS
def test_a_process_whose_leader_was_replaced_exits_after_it_has_lost_its_pid(host: Host) -> None:
    start_ns = begin(host, b"threaded")
    exec_by_a_thread(host, b"threaded", b"after", start_ns=start_ns)
    host.record(Thread(400, b"after", 1000), ms=(host.now_ns - start_ns) / MS)
    host.fork(100, 400)
    host.exit(400)
    host.drain()
    host.end(400, b"sh", 1000)
    host.drain()
    assert host.exits == {("after", "1000", 0): 1, ("sh", "1000", 0): 1}


@RECORDS_SHOW_LAST_THREADS
@pytest.mark.parametrize("found", [False, True], ids=["forked", "found by a scan"])
def test_an_exec_by_a_thread_is_no_end_although_all_comes_in_one_drain(host: Host, found: bool) -> None:
    """When a process began that a scan found is known to 10 ms."""
    if found:
        start_ns = host.now_ns
        host.adopt(400, b"sh", 1000, start_ns=start_ns - 9 * MS)
    else:
        host.fork(100, 400)
        start_ns = host.now_ns
    host.exec(400, b"threaded")
    host.thread(400, 401)
    host.begin_exec(400, b"after")
    host.record(Thread(400, b"threaded", 1000), last=False, ms=(host.now_ns - start_ns) / MS)
    host.exit(400)
    host.comms[400] = b"after"
    host.exec(400)
    host.fork(400, 500)
    host.record(Thread(400, b"after", 1000), ms=(host.now_ns - start_ns) / MS)
    host.exit(400)
    host.drain()
    assert host.exits == {("after", "1000", 0): 1}
    assert host.forks[("after", "1000")] == 1
    assert host.live == {"sh": 1, "after": 1}


@RECORDS_SHOW_LAST_THREADS
@pytest.mark.parametrize("start", ["known", "unknown"])
def test_the_record_of_a_leader_that_threads_outlive_waits_on_at_an_exec(host: Host, start: str) -> None:
    """It executes a program of its own name, and its EXIT is read in the next drain."""
    if start == "known":
        host.fork(100, 400)
        start_ns = host.now_ns
    else:
        host.adopt(400, b"sh", 1000, start_ns=0)
        start_ns = host.now_ns
    host.exec(400, b"sh")
    host.thread(400, 401)
    host.record(Thread(400, b"sh", 1000), last=False, ms=(host.now_ns - start_ns) / MS)
    host.drain(complete=False)
    assert len(host.table.records) == 1
    host.exit(400)
    host.end(400, b"worker", 1000, 0x500, thread=401)
    host.drain()
    assert host.exits == {("sh", "1000", 0x500): 1}
    assert host.live == {"sh": 1}


@RECORDS_SHOW_LAST_THREADS
def test_the_record_of_a_leader_waits_on_at_the_exec_of_the_next_process_with_its_pid(host: Host) -> None:
    host.fork(100, 400)
    host.thread(400, 401)
    host.record(Thread(400, b"sh", 1000), last=False, ms=1)
    host.end(400, b"worker", 1000, 0x500, thread=401)
    host.fork(100, 400)
    host.rest(10)
    host.exec(400, b"next")
    host.drain(complete=False)
    assert len(host.table.records) == 1
    host.exit(400)
    host.end(400, b"next", 1000)
    host.drain()
    assert host.exits == {("sh", "1000", 0x500): 1, ("next", "1000", 0): 1}


def test_an_exec_of_a_process_that_a_scan_found_is_named(host: Host) -> None:
    host.exec(100, b"became")
    host.drain()
    assert host.execs == {("became", "1000"): 1}
    assert host.live == {"became": 1}


def test_an_exec_of_a_process_that_nothing_is_known_of_is_named(host: Host) -> None:
    host.exec(400, b"stranger")
    host.drain()
    assert host.execs == {("stranger", UNKNOWN): 1}


def test_the_exec_that_died_after_the_point_of_no_return_names_nothing(host: Host) -> None:
    host.fork(100, 400)
    host.exec(400, b"shell")
    host.begin_exec(400, b"target")
    # The kernel has changed its comm, so its exit record has the target's.
    host.end(400, b"target", 1000, 9)
    host.drain()
    assert host.execs == {("shell", "1000"): 1}
    assert host.exits == {("shell", "1000", 9): 1}
    host.rest(11_000)
    host.drain()
    assert host.table.sideband.execs.first == {}


def test_a_pid_that_is_used_again_at_once_has_its_own_names(host: Host) -> None:
    for i in range(5):
        host.fork(100, 400)
        host.exec(400, b"owner-%d" % i, cpu=i % 2)
        host.end(400, b"owner-%d" % i, 1000, i << 8)
    host.drain()
    assert host.execs == {(f"owner-{i}", "1000"): 1 for i in range(5)}
    assert host.exits == {(f"owner-{i}", "1000", i << 8): 1 for i in range(5)}
    assert host.live == {"sh": 1}


def test_an_empty_comm_is_a_name(host: Host) -> None:
    host.exec(100, b"")
    host.drain()
    [(comm, _)] = host.execs
    assert comm != UNKNOWN


# -- lost records -----------------------------------------------------------------------------------------------


def test_an_exec_whose_record_was_lost_is_named_as_without_records(host: Host) -> None:
    host.fork(100, 400)
    host.exec(400, b"make", recorded=False)
    host.settle()
    assert host.execs == {("make", "1000"): 1}
    assert host.looks == [400]


@pytest.mark.parametrize("lost", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 1, 2}], ids=str)
def test_a_lost_record_makes_no_other_exec_of_a_chain_wrong(host: Host, lost: set[int]) -> None:
    names = [b"one", b"two", b"three"]
    host.fork(100, 400)
    for i, name in enumerate(names):
        host.exec(400, name, recorded=i not in lost)
    host.settle()
    # The last one can be read in /proc.
    unknown = len(lost - {2})
    expected = {(name.decode(), "1000"): 1 for i, name in enumerate(names) if i not in lost or i == 2}
    assert host.execs == expected | ({(UNKNOWN, "1000"): unknown} if unknown else {})


def test_a_fork_whose_record_was_lost_counts_for_the_parent_that_the_event_names(host: Host) -> None:
    host.fork(100, 400, recorded=False)
    host.drain()
    assert host.forks == {("sh", "1000"): 1}
    assert host.table.missed_forks == 0


def test_records_that_the_kernel_dropped_are_counted(host: Host) -> None:
    host.ring(builders.perf_lost(lost=3))
    host.ring(builders.perf_lost(lost=4), cpu=1)
    host.drain()
    assert host.pipeline.lost["sideband"] == 7


def test_bytes_that_are_no_records_are_malformed_and_the_other_rings_are_taken(host: Host) -> None:
    host.ring(b"\1" * 7)
    host.exec(100, b"make", cpu=1)
    host.drain()
    assert host.pipeline.malformed["sideband"] == 1
    assert [socket for socket, _ in host.complaints] == ["sideband"]
    assert host.execs == {("make", "1000"): 1}


def test_after_a_loss_of_events_old_records_name_nothing(host: Host) -> None:
    host.begin_exec(100, b"lost")
    host.drain()
    host.pipeline.lose_track()
    host.exec(100, b"next", recorded=False)
    host.settle()
    assert host.execs == {("next", "1000"): 1}


# -- forks ------------------------------------------------------------------------------------------------------


def two_generations(mode: Mode) -> Host:
    """A runtime of root, 200, and its stage of uid 5, 201."""
    host = host_with_a_shell(mode)
    host.lives(200, b"runc", 0)
    host.fork(200, 201)
    host.set_uid(201, 5)
    host.rename(201, b"stage")
    host.drain()
    return host


@pytest.mark.parametrize("cpu", [0, 1])
def test_a_sibling_that_a_process_clones_counts_for_that_process(mode: Mode, cpu: int) -> None:
    host = two_generations(mode)
    host.fork(200, 300, forker=201, cpu=cpu)
    host.drain()
    assert host.forks == {("runc", "0"): 1, ("stage", "5"): 1}
    assert host.live == {"sh": 1, "runc": 1, "stage": 2}
    host.end(300, b"stage", 5, 0x700)
    host.drain()
    assert host.exits == {("stage", "5", 0x700): 1}


def test_a_sibling_whose_record_comes_after_that_of_an_earlier_process_with_its_pid(mode: Mode) -> None:
    host = two_generations(mode)
    host.fork(200, 300, cpu=1)
    host.end(300, b"runc", 0)
    host.fork(200, 300, forker=201, cpu=0)
    host.drain()
    assert host.forks == {("runc", "0"): 2, ("stage", "5"): 1}
    assert host.live == {"sh": 1, "runc": 1, "stage": 2}


def test_a_sibling_of_a_process_that_is_not_known_is_unknown(mode: Mode) -> None:
    """And not its parent's: that did not fork."""
    host = two_generations(mode)
    host.fork(200, 300, forker=999)
    host.drain()
    assert host.forks == {("runc", "0"): 1, (UNKNOWN, UNKNOWN): 1}


def test_a_child_of_a_thread_has_a_name_of_its_own(host: Host) -> None:
    host.thread(100, 101)
    host.fork(100, 400, by_thread=101)
    host.comms[400] = b"worker"
    host.settle()
    assert host.forks == {("sh", "1000"): 1}
    assert host.live == {"sh": 1, "worker": 1}


def test_a_canary_is_in_no_count(host: Host) -> None:
    host.lives(OWN_TGID, b"exporter")
    host.pipeline.expect_canary(400)
    host.fork(OWN_TGID, 400)
    host.end(400, b"exporter", 0, 42 << 8)
    host.drain()
    assert (host.forks, host.exits) == ({}, {})
    assert host.table.sideband.forks.first == {}
    assert host.table.missed_forks == 0


def test_a_fork_whose_event_does_not_come_is_missed_once_the_events_before_it_are_complete(host: Host) -> None:
    host.rest()
    host.ring(builders.perf_fork(time_ns=host.now_ns, tgid=400, forker_tgid=100))
    host.drain(complete=False)
    assert host.table.missed_forks == 0
    host.drain()
    assert host.table.missed_forks == 1
    host.drain()
    assert host.table.missed_forks == 1


def test_a_record_that_comes_a_drain_before_its_event_is_not_missed(host: Host) -> None:
    host.fork(100, 400)
    event = host._events.pop()  # noqa: SLF001 - queued later
    # The event is queued after the drain has begun.
    host.rest(-1)
    host.now_ns -= MS
    host.drain()
    host._events.append(event)  # noqa: SLF001 - as above
    host.drain()
    assert host.forks == {("sh", "1000"): 1}
    assert host.table.missed_forks == 0


@pytest.mark.parametrize("drains_between", [1, 3])
def test_a_record_that_comes_drains_after_its_event_is_not_missed(host: Host, drains_between: int) -> None:
    """The thread that forks has sent the FORK to this listener, and not yet to all others."""
    host.rest()
    host.event(builders.fork, parent_tgid=100, child_tgid=400)
    for _ in range(drains_between):
        host.rest()
        host.drain()
    assert host.forks == {("sh", "1000"): 1}
    host.ring(builders.perf_fork(time_ns=host.now_ns, tgid=400, forker_tgid=100))
    host.rest()
    host.drain()
    host.drain()
    assert host.table.missed_forks == 0
    # It excuses no other record with that pid.
    host.ring(builders.perf_fork(time_ns=host.now_ns, tgid=400, forker_tgid=100))
    host.rest()
    host.drain()
    assert host.table.missed_forks == 1


def test_a_record_that_comes_a_second_after_an_event_without_one_is_missed(host: Host) -> None:
    host.rest()
    host.event(builders.fork, parent_tgid=100, child_tgid=400)
    host.drain()
    host.rest(1000)
    host.ring(builders.perf_fork(time_ns=host.now_ns, tgid=400, forker_tgid=100))
    host.rest()
    host.drain()
    assert host.table.missed_forks == 1


# -- what is seen of it -----------------------------------------------------------------------------------------


def medley(host: Host) -> None:
    """Chains, siblings, threads' children, lost records and pids that are used again, in several drains."""
    host.lives(200, b"runc", 0)
    for round_ in range(4):
        for i, tgid in enumerate(range(400, 412)):
            host.fork(100, tgid, cpu=i % 2, recorded=(i + round_) % 5 != 0)
            host.exec(tgid, b"env", cpu=i % 2)
            if i % 3 == 0:
                host.rename(tgid, b"named-%d" % i)
            host.exec(tgid, b"program-%d" % (i % 4), cpu=(i + 1) % 2, recorded=(i + round_) % 7 != 0)
            if i % 4 == 0:
                host.fork(100, tgid + 100, forker=tgid, cpu=i % 2)
                host.exit(tgid + 100, 0x100)
            if i % 5 == round_:
                host.drain()
            host.end(tgid, b"program-%d" % (i % 4), 1000, i << 8)
        host.settle()


def test_an_observer_is_told_what_is_counted_and_changes_nothing(mode: Mode) -> None:
    counted, observed = host_with_a_shell(mode), host_with_a_shell(mode)
    news: list[News] = []
    observed.pipeline.observe(news.extend)
    for host in (counted, observed):
        medley(host)
    assert (observed.forks, observed.execs, observed.exits) == (counted.forks, counted.execs, counted.exits)
    assert observed.live == counted.live
    told = [happening for happening in news if isinstance(happening, Happening)]
    for event, counts in (("fork", counted.forks), ("exec", counted.execs)):
        labels = [
            (UNKNOWN if h.comm is None else h.comm, UNKNOWN if h.uid is None else str(h.uid))
            for h in told
            if h.event == event
        ]
        assert Counter(labels) == counts


def test_a_capture_of_it_replays_to_the_same_bytes(mode: Mode) -> None:
    tape, again = MemoryTape(), MemoryTape()
    host = Host(mode, tape=tape, sideband=True)
    host.lives(100, b"sh", 1000)
    medley(host)
    replayed = Replayed(mode, tape.files[0], again, sideband=True)
    assert [frame.entries for frame in again.files[0]] == [frame.entries for frame in tape.files[0]]
    assert exposition(replayed.tallies, replayed.table) == exposition(host.tallies, host.table)
    assert status(replayed.tallies, replayed.pipeline) == status(host.tallies, host.pipeline)
    assert b"program-1" in exposition(host.tallies, host.table).encode()
