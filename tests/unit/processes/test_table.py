"""What each history of processes is counted as, in every way of learning of ends."""

import itertools
from dataclasses import asdict

import builders
import pytest
from host import MS, OWN_TGID, START_NS, Ends, Host, Mode, Thread

from exporter.kernel.taskstats import AGROUP, AXSIG
from exporter.processes.open_names import READING_SETTLES_NS
from exporter.tallies.labels import UNKNOWN


@pytest.fixture(params=Mode, ids=lambda mode: mode.value)
def host(request: pytest.FixtureRequest) -> Host:
    """A shell of uid 1000 lives, pid 100."""
    host = Host(request.param)
    host.lives(100, b"sh", 1000)
    return host


@pytest.fixture
def exact() -> Host:
    host = Host(Mode.EXACT)
    host.lives(100, b"sh", 1000)
    return host


@pytest.fixture
def procfs() -> Host:
    host = Host(Mode.PROCFS)
    host.lives(100, b"sh", 1000)
    return host


# -- fork, exec, exit -------------------------------------------------------------------------------------------


def test_a_child_that_never_execs_counts_under_its_parents_comm_and_uid(host: Host) -> None:
    host.fork(100, 400)
    host.end(400, b"sh", 1000, 0x300)
    host.drain()
    assert host.forks == {("sh", "1000"): 1}
    assert host.exits == {("sh", "1000", 0x300): 1}
    assert host.execs == {}


def test_a_child_of_a_child_inherits_too(host: Host) -> None:
    host.fork(100, 400)
    host.fork(400, 401)
    host.fork(401, 402)
    host.end(402, b"sh", 1000)
    host.end(401, b"sh", 1000)
    host.drain()
    assert host.forks == {("sh", "1000"): 3}
    assert host.exits == {("sh", "1000", 0): 2}
    assert host.live == {"sh": 2}


def test_an_exec_is_named_by_the_record_of_a_process_that_is_gone(exact: Host) -> None:
    exact.fork(100, 400)
    exact.exec(400)
    exact.end(400, b"make", 1000)
    exact.drain()
    assert exact.execs == {("make", "1000"): 1}
    assert exact.exits == {("make", "1000", 0): 1}
    assert exact.forks == {("sh", "1000"): 1}
    assert exact.looks == []


def test_an_exec_of_a_process_that_lives_on_is_named_by_proc_once_the_reading_settled(host: Host) -> None:
    host.fork(100, 400)
    host.exec(400, b"make")
    host.drain()
    assert (host.execs, host.pending) == ({}, {"exec": 1})
    host.rest(READING_SETTLES_NS / MS - 10)
    host.drain()
    assert (host.execs, host.pending) == ({}, {"exec": 1})
    host.rest(20)
    host.drain()
    assert (host.execs, host.pending) == ({("make", "1000"): 1}, {})
    assert host.looks == [400]


def test_readings_do_not_settle_by_a_drain_that_was_cut_short(host: Host) -> None:
    host.exec(100, b"make")
    host.drain()
    host.rest(1000)
    host.drain(complete=False)
    assert host.pending == {"exec": 1}


def test_of_two_execs_in_one_drain_the_earlier_is_unknown_and_the_later_right(exact: Host) -> None:
    exact.fork(100, 400)
    exact.exec(400)
    exact.exec(400)
    exact.end(400, b"last", 1000)
    exact.drain()
    assert exact.execs == {(UNKNOWN, "1000"): 1, ("last", "1000"): 1}
    assert exact.exits == {("last", "1000", 0): 1}


@pytest.fixture
def forker_known(exact: Host) -> Host:
    """Side-band records say which process forked, and those of execs are lost."""
    host = Host(exact.mode, sideband=True)
    host.lives(100, b"sh", 1000)
    return host


def test_a_child_remembers_the_name_that_its_parent_gave_up(forker_known: Host) -> None:
    exact = forker_known
    exact.exec(100)
    exact.fork(100, 400)
    exact.exec(100)
    exact.end(100, b"last", 1000)
    exact.drain()
    assert (exact.execs, exact.pending) == ({("last", "1000"): 1}, {"exec": 1, "fork": 1})
    exact.end(400, b"first", 1000)
    exact.drain()
    assert exact.execs == {("last", "1000"): 1, ("first", "1000"): 1}
    assert exact.forks == {("first", "1000"): 1}


def test_forks_under_a_pending_name_are_counted_once_when_it_is_known(host: Host) -> None:
    host.exec(100, b"make")
    host.fork(100, 400)
    host.fork(100, 401)
    host.drain()
    assert (host.forks, host.pending) == ({}, {"exec": 1, "fork": 2})
    host.settle()
    assert host.forks == {("make", "1000"): 2}
    assert host.execs == {("make", "1000"): 1}
    host.settle()
    assert host.forks == {("make", "1000"): 2}


def test_children_inherit_the_pending_name_and_their_record_has_it(forker_known: Host) -> None:
    exact = forker_known
    exact.exec(100)
    exact.fork(100, 400)
    exact.end(400, b"make", 1000)
    exact.drain()
    assert exact.forks == {("make", "1000"): 1}
    assert exact.execs == {("make", "1000"): 1}
    assert exact.live == {"make": 1}


def test_a_child_that_renamed_itself_does_not_give_its_name_to_its_parent(host: Host) -> None:
    host.exec(100, b"make")
    host.fork(100, 400)
    host.rename(400, b"child")
    host.end(400, b"child", 1000)
    host.settle()
    assert host.execs == {("make", "1000"): 1}
    assert host.forks == {("make", "1000"): 1}
    assert host.exits == {("child", "1000", 0): 1}


def test_a_child_that_execd_does_not_give_its_name_to_its_parent(exact: Host) -> None:
    exact.exec(100, b"make")
    exact.fork(100, 400)
    exact.exec(400)
    exact.end(400, b"cc", 1000)
    exact.settle()
    assert exact.execs == {("make", "1000"): 1, ("cc", "1000"): 1}
    assert exact.forks == {("make", "1000"): 1}


@pytest.mark.parametrize("sideband", [False, True], ids=["events", "side-band"])
def test_a_daemon_that_ends_in_one_drain_is_named_by_the_child_that_lives_on_if_that_is_its_own(
    *, sideband: bool
) -> None:
    procfs = Host(Mode.PROCFS, sideband=sideband)
    procfs.lives(100, b"sh", 1000)
    procfs.fork(100, 400)
    procfs.exec(400, b"daemon", recorded=False)
    procfs.fork(400, 401)
    procfs.end(400, b"daemon", 1000)
    procfs.comms[401] = b"daemon"
    procfs.settle()
    assert procfs.pending == {}
    name = "daemon" if sideband else UNKNOWN
    assert (procfs.execs, procfs.exits) == ({(name, "1000"): 1}, {(name, "1000", 0): 1})
    procfs.exec(401, b"other")
    procfs.settle()
    assert procfs.execs == {(name, "1000"): 1, ("other", "1000"): 1}


@pytest.mark.parametrize("open_", [True, False], ids=["open", "settled"])
def test_a_sibling_that_a_process_clones_does_not_name_the_process_that_did_not_fork_it(
    host: Host, *, open_: bool
) -> None:
    """CLONE_PARENT: the event names the parent of the process that forked."""
    host.fork(100, 200)
    if open_:
        host.exec(200, b"runc")
    host.fork(200, 201)
    host.rename(201, b"stage")
    host.fork(200, 300)
    host.comms[300] = b"stage"
    if host.mode.has_records:
        host.end(300, b"stage", 1000, 0x700)
    else:
        host.drain()
        host.rest(200)
        host.exit(300, 0x700)
    host.settle()
    name = "runc" if open_ else "sh"
    assert host.execs == ({("runc", "1000"): 1} if open_ else {})
    assert host.forks == {("sh", "1000"): 1, (name, "1000"): 2} if open_ else {("sh", "1000"): 3}
    # Where there are no records a settled parent's name is taken for the sibling's: docs/numbers.md.
    shown = "stage" if open_ or host.mode.has_records else "sh"
    assert host.exits == {(shown, "1000", 0x700): 1}


@pytest.mark.parametrize("drained", [False, True])
def test_an_exec_that_died_after_the_point_of_no_return_names_no_exec(host: Host, *, drained: bool) -> None:
    """It has changed the comm, so that the exit record has the target's."""
    host.fork(100, 400)
    host.exec(400, b"shell")
    if drained:
        host.drain()
    host.begin_exec(400, b"target")
    host.end(400, b"target", 1000, 11)
    host.settle()
    assert host.execs == {(UNKNOWN, "1000"): 1}
    [(comm, uid, status)] = host.exits
    assert (uid, status) == ("1000", 11)
    assert (
        comm
        == {"taskstats": "target", "procfs": "shell" if drained else UNKNOWN}[
            "taskstats" if host.mode.has_records else "procfs"
        ]
    )


def test_an_exec_is_named_if_what_was_read_is_older_than_an_exec_that_can_have_died(host: Host) -> None:
    host.fork(100, 400)
    host.exec(400, b"shell")
    host.drain()
    host.rest(150)
    host.begin_exec(400, b"target")
    host.end(400, b"target", 1000, 11)
    host.settle()
    assert host.execs == {("shell", "1000"): 1}


# -- readings and the names that come after ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "then", "first"),
    [(b"first", b"second", "first"), (b"second", b"second", UNKNOWN)],
    ids=["old name", "perhaps the new name"],
)
def test_a_reading_before_the_next_exec_is_believed_if_it_is_not_the_next_name(
    host: Host, read: bytes, then: bytes, first: str
) -> None:
    host.exec(100, read)
    host.drain()
    host.exec(100, then)
    host.settle()
    assert host.pending == {}
    assert host.execs == {(first, "1000"): 1, ("second", "1000"): 1}


@pytest.mark.parametrize(
    ("read", "then", "first"),
    [(b"first", b"second", "first"), (b"second", b"second", UNKNOWN)],
    ids=["old name", "perhaps the new name"],
)
def test_a_reading_before_a_rename_is_believed_if_it_is_not_the_new_name(
    host: Host, read: bytes, then: bytes, first: str
) -> None:
    host.exec(100, read)
    host.drain()
    host.rename(100, then)
    host.drain()
    assert host.execs == {(first, "1000"): 1}
    assert host.live == {"second": 1}


def test_a_reading_that_is_younger_than_the_next_exec_says_nothing_of_the_name_before(host: Host) -> None:
    host.exec(100)
    host.rest()
    # The second exec has been sent when /proc is read, and is met by the next drain only.
    host.comms[100] = b"second"
    host.meanwhile = lambda: host.exec(100)
    host.drain()
    host.meanwhile = lambda: None
    host.settle()
    assert host.execs == {(UNKNOWN, "1000"): 1, ("second", "1000"): 1}


def test_a_reading_that_is_younger_than_a_rename_says_nothing_of_the_name_before(host: Host) -> None:
    host.exec(100, b"first")
    host.meanwhile = lambda: host.rename(100, b"second")
    host.drain()
    host.meanwhile = lambda: None
    host.drain()
    assert host.execs == {(UNKNOWN, "1000"): 1}


@pytest.mark.parametrize("length", [2, 3, 8])
def test_a_chain_of_execs_over_drains_is_resolved_from_its_end(host: Host, length: int) -> None:
    for i in range(length):
        host.exec(100, b"program-%d" % i)
        host.drain()
    assert host.execs == {}
    host.settle()
    assert host.execs == {(f"program-{i}", "1000"): 1 for i in range(length)}


def test_one_doubtful_link_makes_all_names_before_it_unknown(host: Host) -> None:
    for comm in (b"a", b"b", b"b", b"c"):
        host.exec(100, comm)
        host.drain()
    host.settle()
    assert host.execs == {(UNKNOWN, "1000"): 2, ("b", "1000"): 1, ("c", "1000"): 1}


def test_a_process_that_execs_for_ever_keeps_a_bounded_chain(host: Host) -> None:
    for i in range(100):
        host.exec(100, b"program-%d" % (i % 7))
        host.drain()
        assert sum(host.execs.values()) >= i - 10
    host.settle()
    assert sum(host.execs.values()) == 100
    assert UNKNOWN in {comm for comm, _ in host.execs}


def test_a_reading_of_one_carrier_survives_the_exec_of_another(host: Host) -> None:
    host.exec(100, b"make")
    host.drain()
    host.fork(100, 400)
    host.exec(400, b"cc")
    host.settle()
    assert host.execs == {("make", "1000"): 1, ("cc", "1000"): 1}


def test_when_the_one_that_was_read_leaves_another_carrier_is_read(host: Host) -> None:
    host.exec(100, b"make")
    host.drain()
    host.fork(100, 400)
    host.comms[400] = b"make"
    host.exec(100, b"other")
    host.settle()
    assert host.execs == {("make", "1000"): 1, ("other", "1000"): 1}
    assert 400 in host.looks


def test_a_process_that_cannot_be_read_is_looked_up_once_in_a_drain(host: Host) -> None:
    host.comms.clear()
    for _ in range(10):
        host.exec(100)
        host.drain()
    host.looks.clear()
    host.drain()
    assert host.looks == [100]
    assert sum(host.execs.values()) + host.pending["exec"] == 10


# -- /proc read early ---------------------------------------------------------------------------------------------


def test_after_a_burst_of_execs_each_drain_looks_for_some_names_until_all_are_known(host: Host) -> None:
    tgids = range(1000, 6000)
    for tgid in tgids:
        host.adopt(tgid, b"before")
    host.drain()
    host.looks.clear()
    for tgid in tgids:
        host.exec(tgid, b"after", recorded=False)
    host.drain()
    # Those that are not looked for yet are pending all the same.
    assert 0 < len(host.looks) < len(tgids)
    assert host.pending["exec"] == len(tgids)
    first = len(host.looks)
    for drains in range(2, 7):
        host.drain()
        assert len(host.looks) <= first * drains
    assert sorted(host.looks) == list(tgids)
    host.settle()
    assert host.execs == {("after", "0"): len(tgids)}


def test_a_short_lived_process_is_named_by_what_was_read_when_its_exec_came(procfs: Host) -> None:
    procfs.fork(100, 400)
    procfs.exec(400, b"true")
    procfs.read_early()
    procfs.end(400, b"true", 1000, 0x100)
    procfs.drain()
    assert procfs.execs == {("true", "1000"): 1}
    assert procfs.exits == {("true", "1000", 0x100): 1}


def test_both_programs_of_an_exec_chain_in_one_drain_are_named_by_what_was_read_early(procfs: Host) -> None:
    procfs.fork(100, 400)
    procfs.exec(400, b"env")
    procfs.read_early()
    procfs.exec(400, b"true")
    procfs.read_early()
    procfs.end(400, b"true", 1000, 0x100)
    procfs.drain()
    assert procfs.execs == {("env", "1000"): 1, ("true", "1000"): 1}
    assert procfs.exits == {("true", "1000", 0x100): 1}


def test_the_child_of_a_thread_is_named_by_what_was_read_when_it_was_forked(procfs: Host) -> None:
    procfs.comms[400] = b"worker"
    procfs.fork(100, 400, by_thread=101)
    procfs.read_early()
    procfs.end(400, b"worker", 1000)
    procfs.drain()
    assert procfs.exits == {("worker", "1000", 0): 1}
    assert procfs.forks == {("sh", "1000"): 1}


def test_what_was_read_early_is_of_one_exec_only(procfs: Host) -> None:
    procfs.fork(100, 400)
    procfs.exec(400, b"old")
    procfs.read_early()
    procfs.end(400, b"old", 1000)
    procfs.fork(100, 400)
    procfs.exec(400)
    procfs.end(400, b"new", 1000, 0x100)
    procfs.drain()
    assert procfs.execs == {("old", "1000"): 1, (UNKNOWN, "1000"): 1}
    assert procfs.exits == {("old", "1000", 0): 1, (UNKNOWN, "1000", 0x100): 1}


def test_what_was_read_early_but_after_the_next_exec_is_of_the_next_name(procfs: Host) -> None:
    procfs.fork(100, 400)
    procfs.exec(400, b"first")
    procfs.exec(400, b"second")
    procfs.read_early()
    procfs.settle()
    assert procfs.execs == {(UNKNOWN, "1000"): 1, ("second", "1000"): 1}


@pytest.mark.parametrize("reused", [False, True], ids=["zombie", "another process"])
def test_a_process_that_was_gone_when_it_was_read_is_named_unless_its_pid_lives_again(
    procfs: Host, reused: bool
) -> None:
    procfs.fork(100, 400)
    procfs.exec(400)
    procfs.exit(400)
    if reused:
        procfs.fork(100, 400)
    procfs.comms[400] = b"sh" if reused else b"true"
    procfs.read_early()
    procfs.drain()
    expected = UNKNOWN if reused else "true"
    assert procfs.execs == {(expected, "1000"): 1}
    assert procfs.exits == {(expected, "1000", 0): 1}


def test_a_process_whose_pid_lived_and_died_again_before_the_drain_is_unknown(procfs: Host) -> None:
    procfs.fork(100, 400)
    procfs.exec(400)
    procfs.exit(400)
    procfs.fork(100, 400)
    procfs.comms[400] = b"sh"
    procfs.read_early()
    procfs.exit(400)
    procfs.drain()
    assert procfs.execs == {(UNKNOWN, "1000"): 1}
    assert procfs.exits == {(UNKNOWN, "1000", 0): 1, ("sh", "1000", 0): 1}


def test_what_a_drain_that_was_cut_short_has_not_met_can_still_show_that_a_pid_lives_again(procfs: Host) -> None:
    procfs.fork(100, 400)
    procfs.exec(400)
    procfs.exit(400)
    reuse = builders.fork(parent_tgid=100, child_tgid=400, timestamp_ns=procfs.now_ns + 1)
    procfs.comms[400] = b"sh"
    procfs.rest()
    procfs.read_early()
    procfs.drain(complete=False)
    procfs.event(lambda **_: reuse)
    procfs.drain()
    assert procfs.execs == {(UNKNOWN, "1000"): 1}


# -- threads, and which process has which child ---------------------------------------------------------------


def test_a_threads_child_has_the_threads_name_and_its_fork_is_the_processs(host: Host) -> None:
    host.thread(100, 101)
    host.rename(100, b"worker", thread=101)
    host.comms[400] = b"worker"
    host.fork(100, 400, by_thread=101)
    host.settle()
    host.fork(400, 401)
    host.end(401, b"worker", 1000)
    host.end(400, b"worker", 1000)
    host.drain()
    assert host.forks == {("sh", "1000"): 1, ("worker", "1000"): 1}
    assert host.exits == {("worker", "1000", 0): 2}
    assert host.live == {"sh": 1}


def test_a_threads_child_that_ends_at_once_does_not_name_its_parent(host: Host) -> None:
    host.exec(100, b"server")
    host.thread(100, 101)
    host.fork(100, 400, by_thread=101)
    host.end(400, b"worker", 1000)
    host.settle()
    assert host.execs == {("server", "1000"): 1}
    assert host.forks == {("server", "1000"): 1}
    assert host.live == {"server": 1}
    assert host.exits == {("worker" if host.mode.has_records else UNKNOWN, "1000", 0): 1}


@pytest.mark.parametrize("change", ["exec", "rename"])
def test_a_threads_child_that_changes_its_name_leaves_its_parents_alone(host: Host, change: str) -> None:
    host.exec(100, b"first")
    host.drain()
    host.fork(100, 400, by_thread=101)
    host.exec(100, b"second")
    if change == "exec":
        host.exec(400, b"child")
    else:
        host.rename(400, b"child")
    host.settle()
    execs = {("first", "1000"): 1, ("second", "1000"): 1}
    assert host.execs == (execs | {("child", "1000"): 1} if change == "exec" else execs)
    assert host.forks == {("first", "1000"): 1}


def test_children_of_kthreadd_have_names_of_their_own(host: Host) -> None:
    host.lives(2, b"kthreadd")
    host.comms[300] = b"kworker/0:1-events"
    host.fork(2, 300)
    host.settle()
    host.end(300, b"kworker/0:1-eve", 0)
    host.drain()
    assert host.forks == {("kthreadd", "0"): 1}
    assert host.exits == {("kworker", "0", 0): 1}
    assert host.live == {"kthreadd": 1, "sh": 1}


def test_threads_are_no_processes(host: Host) -> None:
    host.thread(100, 101)
    host.end(100, b"thread", 1000, last=False, thread=101)
    host.drain()
    assert (host.forks, host.exits, host.live) == ({}, {}, {"sh": 1})
    assert host.table.events.thread_fork == host.table.events.thread_exit == 1
    assert host.table.events.fork == host.table.events.exit == 0


# -- COMM, UID, COREDUMP, PTRACE --------------------------------------------------------------------------------


def test_only_the_leaders_rename_renames_the_process(host: Host) -> None:
    host.rename(100, b"thread", thread=101)
    host.fork(100, 400)
    host.rename(100, b"leader")
    host.fork(100, 401)
    host.drain()
    assert host.forks == {("sh", "1000"): 1, ("leader", "1000"): 1}
    assert host.live == {"sh": 1, "leader": 2}
    assert host.table.events.comm == 2


def test_the_parents_rename_does_not_rename_children(host: Host) -> None:
    host.fork(100, 400)
    host.rename(100, b"parent")
    host.fork(400, 401)
    host.drain()
    assert host.forks == {("sh", "1000"): 2}


def test_a_uid_change_counts_under_the_new_uid_and_moves_the_process(host: Host) -> None:
    host.fork(100, 400)
    host.set_uid(400, 33)
    host.fork(400, 401)
    host.end(401, b"sh", 33)
    host.drain()
    assert host.uid_changes == {("sh", "33"): 1}
    assert host.forks == {("sh", "1000"): 1, ("sh", "33"): 1}
    assert host.exits == {("sh", "33", 0): 1}


def test_a_uid_of_a_user_namespace_is_the_hosts(host: Host) -> None:
    host.set_uid(100, 4294967294)
    host.drain()
    assert host.uid_changes == {("sh", "4294967294"): 1}


def test_a_threads_uid_change_is_counted_and_leaves_the_process_alone(host: Host) -> None:
    host.set_uid(100, 33, thread=101)
    host.fork(100, 400)
    host.drain()
    assert host.uid_changes == {("sh", "33"): 1}
    assert host.forks == {("sh", "1000"): 1}


def test_a_uid_change_under_a_pending_name_splits_what_it_counts(host: Host) -> None:
    host.exec(100, b"su")
    host.fork(100, 400)
    host.comms[400] = b"su"
    host.set_uid(100, 33)
    host.fork(100, 401)
    host.fork(400, 402)
    host.settle()
    assert host.execs == {("su", "1000"): 1}
    assert host.uid_changes == {("su", "33"): 1}
    assert host.forks == {("su", "1000"): 2, ("su", "33"): 1}


def test_an_exec_counts_under_the_uid_that_it_was_done_with(exact: Host) -> None:
    exact.fork(100, 400)
    exact.exec(400)
    exact.set_uid(400, 0)
    exact.end(400, b"su", 0)
    exact.drain()
    assert exact.execs == {("su", "1000"): 1}
    assert exact.exits == {("su", "0", 0): 1}


def test_a_core_dump_is_counted_and_makes_no_status_of_its_own(host: Host) -> None:
    host.fork(100, 400)
    host.event(builders.coredump, tgid=400)
    host.end(400, b"sh", 1000, 0x86)
    host.fork(100, 401)
    host.end(401, b"sh", 1000, 0x06)
    host.drain()
    assert host.coredumps == {("sh", "1000"): 1}
    assert host.exits == {("sh", "1000", 0x06): 2}


def test_ptrace_attaches_are_counted_and_detaches_are_not(host: Host) -> None:
    host.event(builders.ptrace, tgid=100, tracer_tgid=1)
    host.event(builders.ptrace, tgid=100, tracer_tgid=0)
    host.drain()
    assert host.ptrace_attaches == {("sh", "1000"): 1}
    assert host.table.events.ptrace == 2


@pytest.mark.parametrize("kind", ["ptrace", "uid"])
def test_what_happens_under_a_pending_name_is_counted_under_it(host: Host, kind: str) -> None:
    host.exec(100, b"make")
    if kind == "ptrace":
        host.event(builders.ptrace, tgid=100, tracer_tgid=1)
    else:
        host.set_uid(100, 1000)
    host.drain()
    assert host.pending == {"exec": 1, kind: 1}
    host.settle()
    counts = {"ptrace": host.ptrace_attaches, "uid": host.uid_changes}
    assert counts[kind] == {("make", "1000"): 1}


@pytest.mark.parametrize("read", [True, False])
def test_a_core_dump_has_the_last_name_of_its_process_and_an_exec_before_it_need_not(
    host: Host, *, read: bool
) -> None:
    """An exec that fails after the point of no return has changed the comm, and dumps core."""
    host.fork(100, 400)
    host.exec(400, b"make")
    if read:
        host.drain()
    host.comms[400] = b"target"
    host.event(builders.coredump, tgid=400)
    host.drain()
    host.end(400, b"target", 1000, 0x8B)
    host.settle()
    assert host.execs == {("make" if read else UNKNOWN, "1000"): 1}
    assert host.coredumps == {("target", "1000"): 1}
    assert host.exits == {("target", "1000", 0xB): 1}


def test_other_events_are_counted_by_kind_only(host: Host) -> None:
    host.event(builders.gid, tgid=100, rgid=1)
    host.event(builders.sid, tgid=100)
    host.event(builders.ack, ack=7)
    host.event(lambda **header: builders.connector_datagram(0x400, b"", **header))
    host.drain()
    counts = {kind: n for kind, n in asdict(host.table.events).items() if n}
    assert counts == {"gid": 1, "sid": 1}
    assert host.table.unknown_events == 1


# -- how processes end ------------------------------------------------------------------------------------------


def test_a_leader_that_exits_first_does_not_end_its_process(host: Host) -> None:
    host.fork(100, 400)
    host.thread(400, 401)
    host.end(400, b"sh", 1000, 0x1100, last=False)
    host.drain()
    assert (host.exits, host.live) == ({}, {"sh": 2})
    host.end(400, b"worker", 1000, 0x2100, thread=401)
    host.drain()
    assert host.exits == {("sh", "1000", 0x2100): 1}
    assert host.live == {"sh": 1}


@pytest.mark.parametrize("order", list(itertools.permutations((400, 401, 402))), ids=str)
@pytest.mark.parametrize("drains", [False, True], ids=["one drain", "a drain each"])
@pytest.mark.parametrize("execd", [False, True], ids=["forked", "execd"])
def test_a_group_that_is_killed_ends_once_under_its_leaders_name_in_any_order(
    host: Host, order: tuple[int, ...], drains: bool, execd: bool
) -> None:
    host.fork(100, 400)
    if execd:
        host.exec(400, b"server")
    host.thread(400, 401)
    host.thread(400, 402)
    name = b"server" if execd else b"sh"
    for i, pid in enumerate(order):
        if pid == 400:
            host.end(400, name, 1000, 9, last=i == 2)
        else:
            host.end(400, b"worker", 1000, 9, last=i == 2, thread=pid)
        if drains:
            host.drain()
    host.drain()
    known = host.mode.has_records or not execd or host.exits == {("server", "1000", 9): 1}
    assert host.exits == {(name.decode() if known else UNKNOWN, "1000", 9): 1}
    assert host.live == {"sh": 1}


@pytest.mark.parametrize("execd", [False, True], ids=["forked", "execd"])
def test_the_leaders_exit_may_come_after_that_of_the_thread_that_was_marked_last(exact: Host, execd: bool) -> None:
    """Two CPUs: the leader was first to begin its exit, and is last to send its EXIT."""
    exact.fork(100, 400)
    if execd:
        exact.exec(400)
    exact.thread(400, 401)
    exact.record(_thread(400, b"server" if execd else b"sh"), status=9, last=False)
    exact.end(400, b"worker", 1000, 9, thread=401)
    exact.exit(400, 9)
    exact.drain()
    name = "server" if execd else "sh"
    assert exact.exits == {(name, "1000", 9): 1}
    assert exact.execs == ({(name, "1000"): 1} if execd else {})
    # Nothing of it is left to the next process with this pid.
    exact.fork(100, 400)
    exact.thread(400, 401)
    exact.rename(400, b"next")
    exact.record(_thread(400, b"next"), status=9, last=False)
    exact.end(400, b"worker", 1000, 9, thread=401)
    exact.exit(400, 9)
    exact.drain()
    assert exact.exits == {(name, "1000", 9): 1, ("next", "1000", 9): 1}


def test_the_leaders_record_may_come_after_the_exit_of_the_thread_that_was_marked_last(exact: Host) -> None:
    for name in (b"first", b"second"):
        exact.fork(100, 400)
        exact.thread(400, 401)
        exact.rename(400, name)
        exact.end(400, b"worker", 1000, 9, thread=401)
        exact.drain()
        exact.end(400, name, 1000, 9, last=False)
        exact.drain()
    assert exact.exits == {("first", "1000", 9): 1, ("second", "1000", 9): 1}
    assert exact.live == {"sh": 1}


def _thread(pid: int, comm: bytes, uid: int = 1000) -> Thread:
    return Thread(pid, comm, uid)


def test_an_exec_from_another_thread_makes_two_leader_exits_and_one_end(host: Host) -> None:
    host.fork(100, 400)
    host.thread(400, 401)
    host.thread(400, 402)
    host.end(400, b"sibling", 1000, 0, last=False, thread=402)
    host.end(400, b"sh", 1000, 0, last=False)
    host.exec(400, b"program")
    host.settle()
    assert host.exits == {}
    assert host.live == {"sh": 1, "program": 1}
    host.end(400, b"program", 1000, 0x700)
    host.drain()
    assert host.exits == {("program", "1000", 0x700): 1}
    assert host.execs == {("program", "1000"): 1}
    assert host.live == {"sh": 1}


def test_an_exec_from_another_thread_and_its_end_in_one_drain_take_their_own_records(host: Host) -> None:
    host.fork(100, 400)
    host.thread(400, 401)
    host.end(400, b"old", 1000, 0, last=False)
    host.exec(400)
    host.end(400, b"new", 1000, 0x700)
    host.drain()
    name = "new" if host.mode.has_records else UNKNOWN
    assert host.exits == {(name, "1000", 0x700): 1}
    assert host.execs == {(name, "1000"): 1}


def test_records_of_one_pid_go_to_its_exits_in_their_order(exact: Host) -> None:
    for i in range(4):
        exact.fork(100, 400)
        exact.exec(400)
        exact.end(400, b"program-%d" % i, 1000, i << 8)
    exact.drain()
    assert exact.exits == {(f"program-{i}", "1000", i << 8): 1 for i in range(4)}
    assert exact.pipeline.waiting_records() == []


def test_a_record_waits_for_its_exit_for_as_long_as_it_takes(exact: Host) -> None:
    exact.fork(100, 400)
    exact.exec(400)
    exact.record(_thread(400, b"database"), status=0x100)
    exact.drain()
    for _ in range(100):
        exact.rest(100)
        exact.drain()
    assert [record[0] for record in exact.pipeline.waiting_records()] == [400]
    exact.exit(400, 0x100)
    exact.drain()
    assert exact.exits == {("database", "1000", 0x100): 1}
    assert exact.pipeline.waiting_records() == []


def test_an_exit_without_its_record_is_counted_under_what_is_known(exact: Host) -> None:
    exact.fork(100, 400)
    exact.exit(400, 0x100)
    exact.fork(100, 401)
    exact.exec(401)
    exact.exit(401, 0x100)
    exact.drain()
    # Other threads may live on, which the record would say.
    assert exact.exits == {}
    exact.rest(600)
    exact.drain()
    assert exact.exits == {("sh", "1000", 0x100): 1, (UNKNOWN, "1000", 0x100): 1}
    assert exact.execs == {(UNKNOWN, "1000"): 1}


@pytest.mark.parametrize("gone", [False, True], ids=["again in use", "free"])
def test_a_record_whose_exit_was_lost_is_thrown_away_when_its_pid_is_free(exact: Host, gone: bool) -> None:
    exact.record(_thread(400, b"lost"), status=0x100)
    exact.drain()
    exact.pipeline.forget_records(exact.pipeline.waiting_records() if gone else [])
    exact.fork(100, 400)
    exact.end(400, b"sh", 1000, 0x100)
    exact.drain()
    assert exact.exits == {("sh" if gone else "lost", "1000", 0x100): 1}


def test_a_pid_that_is_used_again_is_another_process(host: Host) -> None:
    host.fork(100, 400)
    host.rename(400, b"first")
    host.end(400, b"first", 1000)
    host.fork(100, 400)
    host.fork(400, 401)
    host.end(400, b"sh", 1000)
    host.drain()
    assert host.exits == {("first", "1000", 0): 1, ("sh", "1000", 0): 1}
    assert host.forks == {("sh", "1000"): 3}


@pytest.mark.parametrize("first", ["the first", "the second"])
@pytest.mark.parametrize("mode", [Mode.EXACT, Mode.OLD_RECORDS], ids=lambda mode: mode.value)
def test_the_exits_of_two_processes_that_had_one_pid_come_in_any_order(mode: Mode, first: str) -> None:
    """The first is reaped, and stopped before it sends its EXIT."""
    host = Host(mode)
    host.lives(100, b"sh", 1000)
    host.fork(100, 400)
    host.exec(400)
    host.record(_thread(400, b"first"), status=0x100)
    host.fork(100, 400)
    host.exec(400)
    host.record(_thread(400, b"second"), status=0x200)
    for status in (0x100, 0x200) if first == "the first" else (0x200, 0x100):
        host.exit(400, status)
        host.drain()
    assert host.exits == {("first", "1000", 0x100): 1, ("second", "1000", 0x200): 1}
    assert host.execs == {("first", "1000"): 1, ("second", "1000"): 1}
    assert host.live == {"sh": 1}


def test_of_two_processes_that_had_one_pid_the_one_with_a_parent_is_the_second(procfs: Host) -> None:
    procfs.fork(100, 400)
    procfs.rename(400, b"first")
    procfs.fork(100, 400)
    procfs.rename(400, b"second")
    procfs.exit(400, 0x200, parent=100)
    procfs.exit(400, 0x100)
    procfs.drain()
    assert procfs.exits == {("first", "1000", 0x100): 1, ("second", "1000", 0x200): 1}
    assert procfs.live == {"sh": 1}


def test_of_two_processes_that_had_one_pid_the_first_keeps_a_name_read_before_the_second(procfs: Host) -> None:
    procfs.fork(100, 400)
    procfs.rename(400, b"first")
    looked_ns = procfs.now_ns
    procfs.fork(100, 400)
    procfs.rename(400, b"second")
    procfs.exit(400, 0x100, parent=100, timestamp_ns=looked_ns)
    procfs.exit(400, 0x200, parent=100)
    procfs.drain()
    assert procfs.exits == {("first", "1000", 0x100): 1, ("second", "1000", 0x200): 1}


def test_of_two_processes_that_had_one_pid_neither_has_a_name_if_they_cannot_be_distinguished(
    procfs: Host,
) -> None:
    procfs.fork(100, 400)
    procfs.rename(400, b"first")
    procfs.fork(100, 400)
    procfs.set_uid(400, 33)
    procfs.exec(400)
    procfs.exit(400, 0x100)
    procfs.exit(400, 0x200)
    procfs.drain()
    assert procfs.exits == {(UNKNOWN, UNKNOWN, 0x100): 1, (UNKNOWN, UNKNOWN, 0x200): 1}
    assert procfs.execs == {(UNKNOWN, "33"): 1}
    assert procfs.live == {"sh": 1}


def test_a_process_whose_pid_is_used_again_before_a_thread_ends_it_keeps_its_name(host: Host) -> None:
    host.fork(100, 400)
    host.rename(400, b"server")
    host.thread(400, 401)
    host.end(400, b"server", 1000, 9, last=False)
    host.record(_thread(401, b"worker"), status=9, tgid=400)
    host.fork(100, 400)
    host.exit(400, 9, thread=401)
    host.drain()
    assert host.exits == {("server", "1000", 9): 1}
    assert host.live == {"sh": 2}
    host.end(400, b"sh", 1000)
    host.drain()
    assert host.exits == {("server", "1000", 9): 1, ("sh", "1000", 0): 1}


def test_a_name_that_is_shared_by_two_processes_that_had_one_pid_is_counted_for_both(host: Host) -> None:
    host.exec(100, b"make")
    host.fork(100, 400)
    host.record(_thread(400, b"make"), status=0x100)
    host.fork(100, 400)
    host.exit(400, 0x100)
    host.record(_thread(400, b"make"), status=0x100)
    host.exit(400, 0x100)
    host.settle()
    assert sum(host.forks.values()) == 2
    assert sum(host.exits.values()) == 2
    if host.mode.has_records:
        assert host.exits == {("make", "1000", 0x100): 2}
    assert host.live == {"make": 1}


def test_a_thread_does_not_take_the_record_of_the_next_process_with_its_pid(exact: Host) -> None:
    """Of a thread that is not the last one no record comes."""
    exact.fork(100, 300)
    exact.rename(300, b"server")
    exact.exit(300, thread=400)
    exact.fork(100, 400)
    exact.end(400, b"make", 1000)
    exact.drain()
    assert exact.exits == {("make", "1000", 0): 1}
    assert exact.live == {"sh": 1, "server": 1}
    assert exact.pipeline.waiting_records() == []


def test_a_leader_does_not_take_the_record_of_a_last_thread_that_had_its_pid(exact: Host) -> None:
    exact.fork(100, 300)
    exact.rename(300, b"server")
    exact.end(300, b"server", 1000, last=False)
    exact.record(Thread(400, b"worker", 33), cpu_ms=700, tgid=300)
    # The thread is stopped before its EXIT, and its pid is used again.
    exact.fork(100, 400)
    exact.rename(400, b"make")
    exact.exit(400)
    exact.exit(300, thread=400)
    exact.settle()
    # Of the second no record came: it is known by its EXIT alone, and may live on.
    assert exact.exits == {("server", "1000", 0): 1}
    assert [(p.comm, p.cpu_ns[-1]) for p in exact.tallies.snapshot_programs() if sum(p.cpu_ns[:-1])] == [
        ("server", 700 * MS)
    ]


def test_a_thread_does_not_take_the_record_of_another_processs_last_thread(exact: Host) -> None:
    for tgid, comm in ((300, b"first"), (350, b"second")):
        exact.fork(100, tgid)
        exact.rename(tgid, comm)
        exact.end(tgid, comm, 1000, last=False)
    exact.record(Thread(400, b"worker", 1000), cpu_ms=700, tgid=350)
    exact.exit(300, thread=400)
    exact.drain()
    assert exact.exits == {}
    exact.exit(350, thread=400)
    exact.drain()
    assert exact.exits == {("second", "1000", 0): 1}
    assert exact.live == {"sh": 1, "first": 1}


@pytest.mark.parametrize("gone", [False, True])
def test_a_last_thread_whose_exit_is_lost_is_missed_when_its_process_is_gone(exact: Host, gone: bool) -> None:
    exact.fork(100, 300)
    exact.end(300, b"sh", 1000, last=False)
    exact.drain()
    exact.record(Thread(301, b"worker", 1000), tgid=300)
    exact.drain()
    waiting = exact.pipeline.waiting_records()
    assert [(record[0], record[-1]) for record in waiting] == [(301, 300)]
    exact.pipeline.forget_records(waiting if gone else [])
    assert exact.table.missed_events["exit"] == gone
    assert exact.pipeline.waiting_records() == ([] if gone else waiting)
    exact.exit(300, thread=301)
    exact.drain()
    assert exact.exits == ({} if gone else {("sh", "1000", 0): 1})


def test_lifetimes_run_from_fork_to_the_last_exit(host: Host) -> None:
    host.fork(100, 400)
    host.thread(400, 401)
    host.rest(40)
    host.end(400, b"sh", 1000, last=False)
    host.rest(60)
    host.end(400, b"worker", 1000, thread=401)
    host.drain()
    # A step of the clock for each of the three events after the fork.
    assert host.lifetimes == {"sh": (1, 103 * MS)}
    assert host.table.unknown_lifetimes == 0


def test_what_a_process_used_is_in_its_last_record(exact: Host) -> None:
    exact.fork(100, 400)
    exact.thread(400, 401)
    exact.record(_thread(400, b"sh"), last=False, cpu_ms=1, rss_kib=4096)
    exact.exit(400)
    exact.record(_thread(401, b"worker"), cpu_ms=700, rss_kib=8192, tgid=400)
    exact.exit(400, thread=401)
    exact.drain()
    assert [
        (p.comm, sum(p.cpu_ns[:-1]), p.cpu_ns[-1], p.max_rss_kib[-1]) for p in exact.tallies.snapshot_programs()
    ] == [("sh", 1, 700 * MS, 8192)]


# -- canaries ---------------------------------------------------------------------------------------------------


def test_a_canary_is_counted_nowhere_and_its_pid_is_any_other_processs_afterwards(host: Host) -> None:
    host.lives(OWN_TGID, b"exporter")
    host.pipeline.expect_canary(400)
    host.fork(OWN_TGID, 400)
    host.end(400, b"canary", 0, 42 << 8)
    host.drain()
    assert host.pipeline.canary_returned(400) is host.mode.has_records
    assert (host.forks, host.exits, host.live) == ({}, {}, {"sh": 1, "exporter": 1})
    assert (host.table.canaries.ended, host.table.canaries.recorded) == (1, int(host.mode.has_records))
    host.pipeline.forget_canary(400)
    host.exec(100, b"make")
    host.fork(100, 400)
    host.end(400, b"make", 1000, 0x100)
    host.settle()
    assert host.forks == {("make", "1000"): 1}
    assert sum(host.exits.values()) == 1


@pytest.mark.parametrize("recorded", [False, True])
def test_a_canary_that_was_missed_leaves_nothing_to_the_next_with_its_pid(exact: Host, recorded: bool) -> None:
    exact.pipeline.expect_canary(400)
    if recorded:
        exact.record(_thread(400, b"canary", 0), status=42 << 8)
    exact.drain()
    assert exact.pipeline.canary_returned(400) is None
    exact.pipeline.forget_canary(400)
    exact.exec(100)
    exact.fork(100, 400)
    exact.end(400, b"make", 1000, 42 << 8)
    exact.drain()
    assert exact.exits == {("make", "1000", 42 << 8): 1}
    assert exact.pipeline.waiting_records() == []


def test_bits_of_a_status_that_mean_nothing_make_no_series_of_their_own(host: Host) -> None:
    for status in (0x17C, 0xFFFFFF7C & ~0xFE00):
        host.fork(100, 400)
        host.end(400, b"sh", 1000, status)
    host.drain()
    assert host.exits == {("sh", "1000", 0x17C): 2}


# -- failures alone ---------------------------------------------------------------------------------------------


@pytest.fixture
def failures() -> Host:
    return Host(Mode.EXACT, failures_only=True)


@pytest.mark.parametrize("late", [False, True], ids=["in time", "late"])
def test_a_leader_that_ended_well_names_the_process_that_a_thread_makes_fail(failures: Host, late: bool) -> None:
    leader = _thread(400, b"server")
    if not late:
        failures.record(leader, status=0, last=False)
        failures.drain()
    failures.end(400, b"worker", 1000, 0x2100, thread=401)
    if late:
        failures.drain()
        failures.record(leader, status=0, last=False)
        failures.rest(1100)
    failures.drain()
    failures.drain()
    assert failures.exits == {("server", "1000", 0x2100): 1}
    assert failures.pipeline.waiting_records() == []


def test_a_leader_that_ended_well_names_no_later_process_with_its_pid(failures: Host) -> None:
    failures.record(_thread(400, b"first"), status=0, last=False)
    failures.drain()
    failures.end(400, b"second", 1000, 0x100)
    failures.drain()
    failures.record(_thread(400, b"third"), status=0, last=False)
    failures.record(_thread(400, b"fourth"), status=0, last=False)
    failures.end(400, b"worker", 1000, 0x200, thread=401)
    failures.drain()
    assert failures.exits == {("second", "1000", 0x100): 1, ("fourth", "1000", 0x200): 1}
    assert failures.pipeline.waiting_records() == []


def test_after_a_loss_a_leader_that_ended_well_names_no_process(failures: Host) -> None:
    failures.record(_thread(400, b"first"), status=0, last=False)
    failures.drain()
    failures.pipeline.lose_track()
    failures.end(400, b"worker", 1000, 0x200, thread=401)
    failures.drain()
    failures.rest(1100)
    failures.drain()
    assert failures.exits == {(UNKNOWN, "1000", 0x200): 1}


def test_leaders_that_ended_well_are_not_kept_for_ever(failures: Host) -> None:
    for pid in range(1000, 3000):
        failures.record(_thread(pid, b"server"), status=0, last=False)
    failures.drain()
    assert len(failures.pipeline.waiting_records()) == 1024


# -- what no event showed ----------------------------------------------------------------------------------------


def test_events_of_processes_that_are_not_known_are_counted_as_unknown(host: Host) -> None:
    host.fork(900, 901)
    host.exec(902)
    host.exit(903, 0x100)
    host.event(builders.coredump, tgid=904)
    host.set_uid(905, 33)
    host.drain()
    host.rest(600)
    host.drain()
    assert host.forks == {(UNKNOWN, UNKNOWN): 1}
    assert host.exits == {(UNKNOWN, UNKNOWN, 0x100): 1}
    assert host.coredumps == {(UNKNOWN, UNKNOWN): 1}
    assert host.uid_changes == {(UNKNOWN, "33"): 1}
    assert host.pending == {"exec": 1}
    assert host.table.unknown_lifetimes == 1


def test_an_unknown_process_is_known_from_its_exec_on(host: Host) -> None:
    host.exec(900, b"make")
    host.fork(900, 901)
    host.settle()
    assert host.execs == {("make", UNKNOWN): 1}
    assert host.forks == {("make", UNKNOWN): 1}


def test_the_record_of_an_unknown_process_says_everything(exact: Host) -> None:
    exact.exec(900)
    exact.record(_thread(900, b"make"), status=0x100, ms=30)
    exact.exit(900, 0x100)
    exact.record(_thread(901, b"cc"), status=0x200, ms=20)
    exact.exit(901, 0x200)
    exact.drain()
    assert exact.exits == {("make", "1000", 0x100): 1, ("cc", "1000", 0x200): 1}
    assert exact.execs == {("make", "1000"): 1}
    assert exact.lifetimes == {"make": (1, 30 * MS), "cc": (1, 20 * MS)}
    assert exact.table.unknown_lifetimes == 0


def test_an_adopted_process_has_lived_since_proc_says(host: Host) -> None:
    host.adopt(300, b"cron", 0, start_ns=START_NS - 60_000 * MS)
    host.drain()
    host.end(300, b"cron", 0)
    host.drain()
    ((count, total_ns),) = host.lifetimes.values()
    assert (count, total_ns // MS // 1000) == (1, 60)


def test_an_adopted_process_with_dead_leader_ends_with_its_threads(host: Host) -> None:
    host.adopt(300, b"server", 0, zombie=True, threads=(301, 302))
    host.drain()
    host.end(300, b"worker", 0, 0, last=False, thread=301)
    host.drain()
    assert (host.exits, host.live) == ({}, {"sh": 1, "server": 1})
    host.end(300, b"worker", 0, 0x700, thread=302)
    host.drain()
    assert (host.exits, host.live) == ({("server", "0", 0x700): 1}, {"sh": 1})


def test_a_zombie_whose_exit_came_before_the_subscription_is_not_counted(host: Host) -> None:
    host.adopt(300, b"zombie", 0, zombie=True)
    host.drain()
    host.drain()
    assert host.live == {"sh": 1}
    assert host.exits == {}


def test_a_zombie_whose_exit_is_still_to_come_is_counted_under_its_name(host: Host) -> None:
    host.fork(100, 300)
    host.rename(300, b"zombie")
    host.record(_thread(300, b"zombie"), status=0x100)
    host.exit(300, 0x100)
    host.adopt(300, b"zombie", 1000, zombie=True)
    host.drain()
    assert host.exits == {("zombie", "1000", 0x100): 1}
    assert host.live == {"sh": 1}


def test_a_child_that_a_scan_met_before_its_fork_was_sent_is_one_process(host: Host) -> None:
    host.adopt(300, b"sh", 1000)
    host.fork(100, 300)
    host.end(300, b"sh", 1000)
    host.drain()
    assert host.live == {"sh": 1}
    assert host.exits == {("sh", "1000", 0): 1}
    assert host.table.lost_ends == 0


def test_a_process_that_got_the_pid_of_an_adopted_zombie_lives(host: Host) -> None:
    host.adopt(300, b"zombie", 0, zombie=True)
    host.end(300, b"zombie", 0)
    host.fork(100, 300)
    host.drain()
    assert host.live == {"sh": 2}
    host.fork(300, 301)
    host.drain()
    assert host.forks == {("sh", "1000"): 2}


def test_a_scan_does_not_name_what_happened_before_an_exec_that_it_did_not_see_coming(host: Host) -> None:
    host.comms[301] = b"old"
    host.fork(300, 301)
    host.exec(300, b"new")
    host.adopt(300, b"new", 0)
    host.fork(300, 302)
    host.settle()
    # Nothing proves that the child is its own: CLONE_PARENT.
    assert host.forks == {(UNKNOWN, "0"): 1, ("new", "0"): 1}
    assert host.execs == {("new", "0"): 1}


def test_of_a_storm_of_children_whose_parent_has_just_execd_few_are_read(host: Host) -> None:
    """Most end before the next drain, and where they leave records these have their comms."""
    host.exec(300, b"storm")
    host.drain()
    host.looks.clear()
    host.step_ms = 0.01
    children = range(1000, 1500)
    for child in children:
        host.comms[child] = b"storm"
        host.fork(300, child)
    host.drain()
    assert len(host.looks) <= (9 if host.mode is Mode.EXACT else 501)
    assert host.pipeline.waits
    for child in children[:-1]:
        host.end(child, b"storm", 0)
    # The last lives on, and is read although nothing happens any more.
    host.settle()
    host.settle()
    host.settle()
    assert not host.pipeline.waits
    assert host.looks[-1] == children[-1]
    host.fork(children[-1], 2000)
    host.drain()
    assert host.forks == {("storm", UNKNOWN): 501}
    assert sum(host.exits.values()) == 499


def test_a_scan_does_not_name_what_happened_before_a_rename(host: Host) -> None:
    host.comms[301] = b"old"
    host.fork(300, 301)
    host.rename(300, b"new")
    host.adopt(300, b"new", 0)
    host.fork(300, 302)
    host.settle()
    assert host.forks == {(UNKNOWN, "0"): 1, ("new", "0"): 1}


def test_a_scan_does_not_name_what_happened_before_an_exec_whose_event_came_after_it(host: Host) -> None:
    """The comm changes before the event is sent, and the scan fell in between."""
    host.comms[301] = b"old"
    host.fork(300, 301)
    host.adopt(300, b"new", 0)
    host.exec(300, b"new")
    host.settle()
    assert ("new", "0") not in host.forks
    assert host.execs == {("new", "0"): 1}


def test_a_scan_does_not_say_the_uid_before_a_change_that_it_did_not_see_coming(host: Host) -> None:
    host.fork(300, 301)
    host.set_uid(300, 33)
    host.adopt(300, b"sshd", 33)
    host.fork(300, 302)
    host.drain()
    assert host.forks == {("sshd", UNKNOWN): 1, ("sshd", "33"): 1}


def test_what_comes_after_a_scan_does_not_make_it_doubtful(host: Host) -> None:
    host.adopt(300, b"sshd", 0)
    host.fork(300, 301)
    host.rest(1000)
    host.set_uid(300, 33)
    host.rename(300, b"session")
    host.drain()
    assert host.forks == {("sshd", "0"): 1}


def test_a_process_that_was_forked_since_is_what_its_events_say(host: Host) -> None:
    host.fork(100, 400)
    host.fork(400, 401)
    host.exec(400, b"make")
    host.fork(400, 402)
    host.adopt(400, b"make", 1000)
    host.adopt(401, b"sh", 1000)
    host.settle()
    assert host.forks == {("sh", "1000"): 2, ("make", "1000"): 1}
    assert host.execs == {("make", "1000"): 1}


def test_a_scan_of_what_is_known_changes_nothing(host: Host) -> None:
    host.fork(100, 400)
    host.exec(400, b"make")
    host.drain()
    host.adopt(400, b"make", 1000)
    host.adopt(100, b"sh", 1000)
    host.settle()
    assert host.execs == {("make", "1000"): 1}
    assert host.live == {"sh": 1, "make": 1}


# -- after a loss -----------------------------------------------------------------------------------------------


def test_after_a_loss_processes_that_are_gone_are_taken_off(host: Host) -> None:
    host.fork(100, 400)
    host.fork(100, 401)
    host.drain()
    listed_ns = host.now_ns
    host.fork(100, 402)
    host.drain()
    host.pipeline.forget(host.pipeline.missing([100, 401]), listed_ns)
    # 402 is not in the list because it is younger.
    assert host.live == {"sh": 3}
    assert host.table.lost_ends == 1
    assert host.exits == {}


def test_a_process_that_waits_for_its_leaders_record_and_is_found_gone_ends_once(
    exact: Host,
) -> None:
    exact.fork(100, 400)
    exact.thread(400, 401)
    # The record and the EXIT of the leader were lost.
    exact.end(400, b"worker", 1000, 9, thread=401)
    exact.drain()
    exact.rest(100)
    exact.pipeline.forget(exact.pipeline.missing([100]), exact.now_ns)
    exact.rest(2000)
    exact.drain()
    assert exact.exits == {("sh", "1000", 9): 1}
    assert exact.table.lost_ends == 0
    assert exact.live == {"sh": 1}


def test_the_end_of_a_process_of_which_only_its_last_thread_was_seen_is_missed(exact: Host) -> None:
    """Its EXIT can be that of a thread of an earlier process with the tgid, and the record that of a later one."""
    # The FORK of 400 was lost, and the EXIT of its leader.
    exact.end(400, b"worker", 1000, 9, thread=401)
    exact.fork(100, 400)
    exact.end(400, b"sh", 1000, 0)
    exact.drain()
    assert exact.exits == {("sh", "1000", 0): 1}
    assert exact.live == {"sh": 1}
    exact.pipeline.forget_records(exact.pipeline.waiting_records())
    assert exact.table.missed_events["exit"] == 1
    assert exact.pipeline.waiting_records() == []


@pytest.mark.parametrize("leader_comes", [False, True])
def test_the_end_of_a_process_that_is_older_than_the_first_scan_counts(exact: Host, leader_comes: bool) -> None:
    """It ends before the scan reads it, and its last thread's EXIT is the first that is seen of it."""
    exact.record(Thread(400, b"java", 1000), last=False, tgid=400)
    exact.record(Thread(401, b"worker", 1000), ms=60_000, tgid=400)
    exact.exit(400, thread=401)
    if leader_comes:
        exact.exit(400)
    exact.settle()
    exact.rest(2000)
    exact.settle()
    assert exact.exits == {("java" if leader_comes else UNKNOWN, "1000", 0): 1}
    assert exact.live == {"sh": 1}


@pytest.mark.parametrize("lived_ms", [5, 60_000])
def test_two_processes_that_threads_end_keep_their_ends_whichever_exit_comes_first(
    exact: Host, lived_ms: int
) -> None:
    """They had one tgid, and the last thread of the first was stopped before its EXIT."""
    exact.fork(100, 300)
    exact.rename(300, b"first")
    exact.rest(lived_ms)
    exact.end(300, b"first", 1000, last=False)
    exact.record(Thread(301, b"worker", 1000), cpu_ms=700, ms=lived_ms, tgid=300)
    exact.fork(100, 300)
    exact.rename(300, b"second")
    exact.end(300, b"second", 1000, last=False)
    exact.record(Thread(302, b"worker", 1000), cpu_ms=5, tgid=300)
    exact.exit(300, thread=302)
    exact.exit(300, thread=301)
    exact.settle()
    assert exact.exits == {("first", "1000", 0): 1, ("second", "1000", 0): 1}
    used = {p.comm: p.cpu_ns[-1] for p in exact.tallies.snapshot_programs() if sum(p.cpu_ns[:-1])}
    assert used == {"first": 700 * MS, "second": 5 * MS}
    assert exact.pipeline.waiting_records() == []


def test_a_thread_does_not_take_the_record_of_a_thread_with_its_pid_and_tgid(exact: Host) -> None:
    """Two processes had the tgid one after the other, and each a thread with the same pid, within one drain."""
    exact.fork(100, 302)
    exact.rename(302, b"first")
    exact.record(Thread(302, b"first", 1000), tgid=302)
    exact.exit(302)
    # It was stopped between its record, which is not kept as it was not the last one, and this EXIT.
    exact.exit(302, thread=301)
    exact.fork(100, 302)
    exact.rename(302, b"second")
    exact.end(302, b"second", 1000, last=False)
    exact.end(302, b"worker", 1000, thread=301)
    exact.drain()
    assert exact.exits == {("first", "1000", 0): 1, ("second", "1000", 0): 1}
    assert exact.live == {"sh": 1}
    assert exact.pipeline.waiting_records() == []


def test_a_thread_that_is_not_the_last_does_not_take_the_record_of_the_next_process(exact: Host) -> None:
    exact.fork(100, 302)
    exact.rename(302, b"first")
    exact.exit(302, thread=301)
    exact.end(302, b"first", 1000)
    exact.fork(100, 302)
    exact.rename(302, b"second")
    exact.end(302, b"second", 1000, last=False)
    exact.end(302, b"worker", 1000, thread=301)
    exact.drain()
    assert exact.exits == {("first", "1000", 0): 1, ("second", "1000", 0): 1}
    assert exact.live == {"sh": 1}


def test_a_record_of_a_leader_that_exits_is_not_forgotten_for_that_of_a_thread_with_its_pid(exact: Host) -> None:
    """A comparison asks /proc whether the thread of a record exits: that says nothing of the other kind."""
    exact.fork(100, 300)
    exact.end(300, b"sh", 1000, last=False)
    exact.record(Thread(301, b"worker", 1000), tgid=300)
    exact.fork(100, 301)
    exact.rename(301, b"make")
    exact.record(Thread(301, b"make", 1000))
    exact.drain()
    last_thread = [record for record in exact.pipeline.waiting_records() if len(record) == 8]
    exact.pipeline.forget_records(last_thread)
    assert [record[0] for record in exact.pipeline.waiting_records()] == [301]
    exact.exit(301)
    exact.drain()
    assert exact.exits == {("make", "1000", 0): 1}


@pytest.mark.parametrize("last", [False, True])
def test_a_thread_whose_record_waited_in_a_capture_of_before_takes_it(exact: Host, last: bool) -> None:
    """Such records do not say of which process their thread was."""
    exact.fork(100, 300)
    exact.end(300, b"sh", 1000, last=False)
    exact.drain()
    exact.pipeline.recall_record((301, 0, AGROUP if last else 0, 5, bytes(44), 0, 0), False)
    exact.exit(300, thread=301)
    exact.fork(100, 301)
    exact.end(301, b"make", 1000)
    exact.drain()
    assert exact.exits == {("make", "1000", 0): 1} | ({("sh", "1000", 0): 1} if last else {})
    assert exact.pipeline.waiting_records() == []


def test_after_a_loss_a_scan_corrects_names_and_uids(host: Host) -> None:
    host.adopt(100, b"bash", 33)
    host.drain()
    host.fork(100, 400)
    host.drain()
    assert host.forks == {("bash", "33"): 1}


def test_after_a_loss_a_scan_corrects_the_threads_of_a_process() -> None:
    host = Host(Mode.PROCFS)
    host.lives(300, b"server", 0)
    host.thread(300, 301)
    host.thread(300, 302)
    host.drain()
    # The EXIT of thread 301 was lost.
    host.adopt(300, b"server", 0, threads=(302,))
    host.drain()
    host.end(300, b"worker", 0, 9, thread=302)
    host.end(300, b"server", 0, 9)
    host.drain()
    assert host.exits == {("server", "0", 9): 1}
    assert host.live == {}


def test_after_a_loss_a_scan_shows_that_a_leader_has_exited() -> None:
    host = Host(Mode.PROCFS)
    host.lives(300, b"server", 0)
    host.thread(300, 301)
    host.drain()
    # The EXIT of the leader was lost.
    host.adopt(300, b"server", 0, zombie=True, threads=(301,))
    host.drain()
    host.end(300, b"worker", 0, 9, thread=301)
    host.drain()
    assert host.exits == {("server", "0", 9): 1}
    assert host.live == {}


def test_after_a_loss_a_scan_takes_off_zombies_whose_exit_was_lost(host: Host) -> None:
    host.fork(100, 400)
    host.drain()
    host.rest(1000)
    listed_ns = host.now_ns
    host.adopt(400, b"sh", 1000, zombie=True)
    host.drain()
    host.pipeline.forget(host.pipeline.missing([100, 400]), listed_ns)
    host.drain()
    assert host.live == {"sh": 1}


def test_after_a_loss_nothing_is_left_to_the_next_process_with_a_pid(procfs: Host) -> None:
    # The FORK of 400 was lost, and the EXITs of its threads.
    procfs.thread(400, 401)
    procfs.drain()
    procfs.pipeline.forget(procfs.pipeline.missing([100]), procfs.now_ns)
    procfs.fork(100, 400)
    procfs.end(400, b"sh", 1000)
    procfs.drain()
    assert procfs.exits == {("sh", "1000", 0): 1}
    assert procfs.live == {"sh": 1}


def test_after_a_loss_names_that_are_open_are_given_up(host: Host) -> None:
    host.exec(100, b"make")
    host.fork(100, 400)
    host.drain()
    host.pipeline.lose_track()
    assert host.pending == {}
    assert host.execs == {(UNKNOWN, "1000"): 1}
    assert host.forks == {(UNKNOWN, "1000"): 1}
    assert host.live == {UNKNOWN: 2}
    assert not host.pipeline.waits


def test_what_is_forgotten_under_an_open_name_does_not_keep_it_open(host: Host) -> None:
    host.exec(100, b"make")
    host.drain()
    host.rest(1000)
    host.pipeline.forget(host.pipeline.missing([]), host.now_ns)
    assert host.pending == {}
    assert host.execs == {(UNKNOWN, "1000"): 1}
    assert host.live == {}


def test_a_table_waits_only_while_a_name_is_open(host: Host) -> None:
    assert not host.pipeline.waits
    host.exec(100, b"make")
    host.drain()
    assert host.pipeline.waits
    host.settle()
    assert not host.pipeline.waits


def test_after_a_loss_no_record_is_left_for_the_next_process_with_the_pid(exact: Host) -> None:
    for name in (b"first", b"second", b"third"):
        # The FORKs and EXITs were lost.
        exact.record(_thread(400, name))
    exact.drain()
    exact.pipeline.forget_records(exact.pipeline.waiting_records())
    exact.fork(100, 400)
    exact.rename(400, b"next")
    exact.end(400, b"next", 1000)
    exact.drain()
    assert exact.exits == {("next", "1000", 0): 1}


def test_a_record_whose_exit_came_after_all_does_not_take_the_next_one_with_it(exact: Host) -> None:
    exact.record(_thread(400, b"late"))
    exact.drain()
    waiting = exact.pipeline.waiting_records()
    exact.exit(400)
    exact.record(_thread(400, b"next"), status=9)
    exact.drain()
    exact.pipeline.forget_records(waiting)
    assert [record[1] for record in exact.pipeline.waiting_records()] == [9]


@pytest.mark.parametrize(("arrived", "kept"), [(140_000, 140_000), (200_000, 150_000)])
def test_what_a_receive_buffer_held_waits_and_no_more(exact: Host, arrived: int, kept: int) -> None:
    exact.table.add_records([(400 + n % 20_000, 0, AGROUP, n, bytes(44), 0, 0) for n in range(arrived)], [])
    exact.table.apply([], exact.now_ns)
    waiting = exact.pipeline.waiting_records()
    assert len(waiting) == kept
    assert min(record[3] for record in waiting) == arrived - kept


def test_processes_whose_pid_is_used_again_and_again_do_not_fill_the_memory(host: Host) -> None:
    for _ in range(5000):
        host.fork(100, 400)
    host.drain()
    assert host.live == {"sh": 2 + (1 << 12)}
    assert host.table.lost_ends == 4999 - (1 << 12)


# -- sums -------------------------------------------------------------------------------------------------------


def test_every_event_is_in_exactly_one_series(host: Host) -> None:
    ends: Ends = {}
    for i in range(50):
        host.fork(100, 400 + i)
        if i % 2:
            host.exec(400 + i, b"program")
        if i % 3:
            host.end(400 + i, b"program" if i % 2 else b"sh", 1000, i << 8)
            ends["program" if i % 2 else "sh", "1000", i << 8] = 1
        if i % 7 == 0:
            host.drain()
    host.settle()
    assert sum(host.forks.values()) == host.table.events.fork == 50
    assert sum(host.execs.values()) == host.table.events.exec == 25
    assert sum(host.exits.values()) == host.table.events.exit == len(ends)
    if host.mode.has_records:
        assert host.exits == ends
    assert sum(host.live.values()) == 51 - len(ends)


# -- what the fast and the slow way once counted differently, or twice --------------------------------------------


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])
def test_a_reading_of_a_zombie_is_given_up_when_the_next_process_with_its_pid_ends(
    exact: Host, fast: bool
) -> None:
    exact.pipeline.table.has_fast_ways = fast
    exact.fork(100, 400)
    exact.drain()
    exact.exec(400)
    exact.drain(complete=False)
    # /proc shows the next process with this pid when the first one's exec has been applied.
    exact.comms[400] = b"next"
    exact.drain(complete=False)
    exact.exit(400, 0, timestamp_ns=exact.now_ns - 3 * MS)
    exact.drain(complete=False)
    exact.comms[400] = b"next"
    exact.fork(100, 400)
    exact.end(400, b"next", 1000)
    exact.drain()
    exact.settle()
    exact.rest(600)
    exact.drain()
    assert exact.execs == {(UNKNOWN, "1000"): 1}
    assert exact.exits == {(UNKNOWN, "1000", 0): 1, ("next", "1000", 0): 1}


def test_ends_that_wait_for_their_leader_count_once_when_there_are_too_many(failures: Host) -> None:
    for n in range(1100):
        tgid = 1000 + 2 * n
        failures.record(Thread(tgid + 1, b"worker"), status=0x100, tgid=tgid)
        failures.exit(tgid, 0x100, thread=tgid + 1)
    failures.drain()
    failures.rest(3000)
    failures.drain()
    assert sum(failures.exits.values()) == 1100


# -- the wait status ----------------------------------------------------------------------------------------------


def _dies_with_a_worker(host: Host, status: int, *, flags: int, rest_ms: int = 1) -> None:
    """A process with a kernel worker exits; the worker is the last one, and exits with 0."""
    host.fork(100, 400)
    host.thread(400, 401)
    host.record(Thread(400, b"sh", 1000), status=status, last=False)
    host.exit(400, status)
    host.rest(rest_ms)
    host.record(Thread(401, b"iou-sqp-400", 1000), status=0, last=True, flags=flags, tgid=400)
    host.exit(400, 0, thread=401)
    host.drain()


@pytest.mark.parametrize("status", [0xF00, 9, 0xB, 6])
def test_a_kernel_worker_decides_nothing(host: Host, status: int) -> None:
    _dies_with_a_worker(host, status, flags=AXSIG)
    assert host.exits == {("sh", "1000", status): 1}


@pytest.mark.parametrize(("flags", "decides"), [(AXSIG, 0xF00), (0, 0)])
def test_a_kernel_worker_whose_exit_overtakes_its_leaders_decides_nothing(
    exact: Host, flags: int, decides: int
) -> None:
    exact.fork(100, 400)
    exact.thread(400, 401)
    exact.record(Thread(400, b"sh", 1000), status=0xF00, last=False)
    exact.record(Thread(401, b"iou-sqp-400", 1000), status=0, last=True, flags=flags, tgid=400)
    exact.exit(400, 0, thread=401)
    exact.exit(400, 0xF00)
    exact.drain()
    assert exact.exits == {("sh", "1000", decides): 1}


def test_a_last_thread_that_exits_by_itself_decides(exact: Host) -> None:
    _dies_with_a_worker(exact, 0xF00, flags=0)
    assert exact.exits == {("sh", "1000", 0): 1}


def test_a_thread_that_named_itself_is_no_kernel_worker(procfs: Host) -> None:
    procfs.fork(100, 400)
    procfs.thread(400, 401)
    procfs.rename(400, b"survivor", thread=401)
    procfs.exit(400, 0xF00)
    procfs.exit(400, 0, thread=401)
    procfs.drain()
    assert procfs.exits == {("sh", "1000", 0): 1}


def test_a_last_thread_that_is_killed_long_after_the_leader_exited_decides(host: Host) -> None:
    _dies_with_a_worker(host, 0xF00, flags=AXSIG, rest_ms=5000)
    assert host.exits == {("sh", "1000", 0): 1}


def test_a_thread_that_ends_the_group_decides_although_a_worker_is_the_last_one(host: Host) -> None:
    host.fork(100, 400)
    host.thread(400, 401)
    host.thread(400, 402)
    host.end(400, b"sh", 1000, 0, last=False)
    host.end(400, b"sh", 1000, 0x300, thread=401, last=False)
    host.record(Thread(402, b"iou-sqp-400", 1000), status=0, last=True, flags=AXSIG, tgid=400)
    host.exit(400, 0, thread=402)
    host.drain()
    assert host.exits == {("sh", "1000", 0x300): 1}


def test_a_leader_that_exits_twice_has_ended(procfs: Host) -> None:
    """Another thread execs: the leader dies, the thread takes its pid, and the exec dies too."""
    procfs.fork(100, 400)
    procfs.thread(400, 401)
    procfs.exit(400, 0)
    procfs.exit(400, 9)
    procfs.drain()
    procfs.settle()
    assert {key[2]: count for key, count in procfs.exits.items()} == {9: 1}
    assert procfs.live == {"sh": 1}


def test_a_process_that_left_no_record_has_ended_when_its_pid_is_forked_again(exact: Host) -> None:
    exact.lives(100, b"sh", 1000)
    for status in (0x100, 0x200, 0x300):
        exact.fork(100, 400)
        exact.exit(400, status)
    exact.drain()
    assert exact.exits == {("sh", "1000", 0x100): 1, ("sh", "1000", 0x200): 1}


def test_an_exit_of_no_process_that_is_known_leaves_the_one_with_its_pid_alone(exact: Host) -> None:
    """It took its place, and the exec of the process was in no count."""
    exact.lives(100, b"sh", 1000)
    exact.fork(100, 400)
    exact.fork(100, 400)
    exact.exec(400)
    # Older than both, and not reaped.
    exact.event(builders.exit_, tgid=400, exit_code=9, parent_tgid=100, timestamp_ns=1)
    exact.drain()
    assert exact.pending == {"exec": 1}


def test_of_failures_alone_a_process_ends_when_it_is_gone_although_a_workers_exit_does_not_come(
    failures: Host,
) -> None:
    failures.end(400, b"server", 1000, 0xF00, last=False)
    failures.comms[400] = b"server"
    failures.drain()
    failures.rest(600)
    failures.drain()
    # Not reaped yet.
    assert failures.exits == {}
    del failures.comms[400]
    failures.rest(600)
    failures.drain()
    failures.rest(5000)
    failures.drain()
    assert failures.exits == {("server", "1000", 0xF00): 1}


# -- what each thread sends is counted per process ----------------------------------------------------------------


@pytest.mark.parametrize("order", [(400, 401, 402), (401, 402, 400), (401, 400, 402)], ids=str)
def test_a_change_of_uid_of_all_threads_is_one(host: Host, order: tuple[int, ...]) -> None:
    host.fork(100, 400)
    host.thread(400, 401)
    host.thread(400, 402)
    for pid in order:
        host.set_uid(400, 33, thread=None if pid == 400 else pid)
    host.drain()
    assert host.uid_changes == {("sh", "33"): 1}
    host.fork(400, 500)
    host.fork(400, 501, by_thread=401)
    host.exit(500, 0)
    host.exit(501, 0)
    host.drain()
    host.rest(600)
    host.settle()
    assert {uid for _, uid, _ in host.exits} == {"33"}


def test_a_child_has_the_uid_of_the_thread_that_forked_it(host: Host) -> None:
    host.fork(100, 400)
    host.thread(400, 401)
    host.thread(400, 402)
    host.set_uid(400, 33, thread=401)
    host.fork(400, 500, by_thread=401)
    host.fork(400, 501)
    # This one may have been started by the one with a uid of its own.
    host.fork(400, 502, by_thread=402)
    host.exit(400, 0, thread=401)
    host.fork(400, 503, by_thread=402)
    for child, status in (500, 1), (501, 2), (502, 3), (503, 4):
        host.exit(child, status)
    host.drain()
    host.rest(600)
    host.settle()
    assert {status: uid for _, uid, status in host.exits} == {1: "33", 2: "1000", 3: UNKNOWN, 4: "1000"}


def test_a_tracer_that_attaches_to_each_thread_traces_one_process(host: Host) -> None:
    host.fork(100, 400)
    for pid in 400, 401, 402:
        host.event(builders.ptrace, tgid=400, pid=pid, tracer_tgid=100, tracer_pid=100)
    host.event(builders.ptrace, tgid=400, pid=400, tracer_tgid=0, tracer_pid=0)
    host.event(builders.ptrace, tgid=400, pid=400, tracer_tgid=100, tracer_pid=100)
    host.drain()
    assert host.ptrace_attaches == {("sh", "1000"): 2}
    assert host.table.events.ptrace == 5


def test_a_process_of_which_several_threads_crash_dumps_core_once(host: Host) -> None:
    host.fork(100, 400)
    for pid in 400, 401:
        host.event(builders.coredump, tgid=400, pid=pid)
    host.drain()
    assert host.coredumps == {("sh", "1000"): 1}
    assert host.table.events.coredump == 2


# -- an EXIT that is lost, and that the kernel has not counted as lost --------------------------------------------


def _lose_an_exit(host: Host) -> None:
    """A process ends, its EXIT is lost, and time passes."""
    host.fork(100, 400)
    host.record(Thread(400, b"lost", 1000), status=0x100)
    host.drain()
    host.drain()
    host.rest(2000)
    host.drain()


def test_the_next_process_with_a_pid_does_not_take_the_record_of_one_whose_exit_was_lost(exact: Host) -> None:
    _lose_an_exit(exact)
    for name in b"second", b"third", b"fourth":
        exact.fork(100, 400)
        exact.record(Thread(400, name, 1000), status=0x100)
        exact.exit(400, 0x100, parent=100)
        exact.drain()
        exact.rest(2000)
        exact.drain()
    assert exact.exits == {(name, "1000", 0x100): 1 for name in ("second", "third", "fourth")}
    assert exact.table.uncounted_losses == 1
    exact.pipeline.forget(exact.pipeline.missing([100]), exact.now_ns)
    assert exact.live == {"sh": 1}
    assert exact.pipeline.waiting_records() == []


def test_a_record_whose_exit_cannot_come_is_a_missed_event(exact: Host) -> None:
    _lose_an_exit(exact)
    assert exact.table.missed_events["exit"] == 0
    exact.rest(2000)
    exact.drain()
    exact.fork(100, 400)
    exact.drain()
    assert exact.table.missed_events["exit"] == 1


def test_a_record_that_is_older_than_the_subscription_is_no_missed_event() -> None:
    host = Host(Mode.EXACT)
    host.record(Thread(400, b"older", 0))
    host.drain()
    host.pipeline.forget_records(host.pipeline.waiting_records())
    assert host.pipeline.waiting_records() == []
    assert host.table.missed_events["exit"] == 0


def test_a_process_that_lost_its_pid_and_sends_no_exit_is_a_lost_end(host: Host) -> None:
    host.fork(100, 400)
    host.drain()
    host.fork(100, 400)
    host.rest(9_000)
    host.drain()
    assert (host.live, host.table.lost_ends) == ({"sh": 3}, 0)
    host.rest(2_000)
    host.drain()
    assert (host.live, host.table.lost_ends) == ({"sh": 2}, 1)
    assert host.table.uncounted_losses == 1


def test_an_exit_does_not_take_the_record_of_the_next_process_with_its_pid(exact: Host) -> None:
    """Its own was lost. The wait status is in both."""
    exact.fork(100, 400)
    exact.exec(400)
    exact.exit(400, 0x100)
    exact.fork(100, 400)
    exact.exec(400)
    exact.record(Thread(400, b"second", 1000), status=0x200)
    exact.exit(400, 0x200, parent=100)
    exact.drain()
    exact.rest(600)
    exact.drain()
    assert exact.exits == {(UNKNOWN, "1000", 0x100): 1, ("second", "1000", 0x200): 1}
    assert exact.live == {"sh": 1}


def test_a_leader_whose_record_was_lost_does_not_end_a_process_that_a_thread_ends(exact: Host) -> None:
    exact.fork(100, 400)
    exact.thread(400, 401)
    exact.exit(400, 0x100)
    exact.drain()
    assert exact.exits == {}
    exact.end(400, b"worker", 1000, 0x200, thread=401)
    exact.rest(600)
    exact.drain()
    assert exact.exits == {("sh", "1000", 0x200): 1}


def test_a_record_that_waits_for_its_exit_too_long_asks_for_a_comparison_once(exact: Host) -> None:
    _lose_an_exit(exact)
    assert exact.table.uncounted_losses == 0
    for _ in range(30):
        exact.rest(1000)
        exact.drain()
    assert exact.table.uncounted_losses == 1


def test_a_record_that_was_read_before_its_fork_is_its_own(exact: Host) -> None:
    """Records are read after events: what happens in between is read a batch earlier."""
    exact.record(Thread(400, b"quick", 1000), status=0x100)
    exact.drain()
    exact.rest(3000)
    exact.fork(100, 400)
    exact.exit(400, 0x100)
    exact.drain()
    assert exact.exits == {("quick", "1000", 0x100): 1}
