"""Which ends are handed on as failures, and what is said of each."""

import re

import builders
import pytest
from host import MS, Host, Mode, Thread

from exporter.processes.bad_ends import MOST_OF_A_KIND, Failure, PlainNote
from exporter.tallies.rules import Rule, Rules
from exporter.tallies.tallies import Tallies


class Taken:
    """A host, and the failures that a client took."""

    def __init__(self, mode: Mode = Mode.EXACT, *, at_once: bool = True, **options: object) -> None:
        self.failures: list[Failure] = []
        self.host = Host(mode, **options)  # type: ignore[arg-type]
        self.host.lives(100, b"sh", 1000)
        self.host.pipeline.take_failures(self.failures.extend, at_once=at_once)

    @property
    def last(self) -> Failure:
        return self.failures[-1]

    @property
    def pids(self) -> list[int]:
        return [failure.pid for failure in self.failures]

    def hand_on(self) -> None:
        self.host.pipeline.hand_on_failures(self.host.now_ns)


def fails(host: Host, tgid: int, comm: bytes = b"make", status: int = 0x200, *, parent: int = 100) -> None:
    """A child of `parent` executes a program and fails."""
    host.fork(parent, tgid)
    host.exec(tgid)
    host.record(Thread(tgid, comm, 1000), status=status)
    host.exit(tgid, status, parent=parent)


def test_a_failure_is_handed_on_with_all_that_is_known_of_it() -> None:
    taken = Taken()
    host = taken.host
    host.fork(100, 400)
    forked_ns = host.now_ns
    host.exec(400)
    host.record(Thread(400, b"make", 1000), status=0x200, cpu_ms=3, rss_kib=2048)
    host.exit(400, 0x200, parent=100)
    ended_ns = host.now_ns
    host.drain()
    assert taken.failures == [
        Failure(
            ended_ns,
            400,
            100,
            "sh",
            1000,
            "make",
            0x200,
            False,
            ended_ns - forked_ns,
            3 * MS,
            2048,
            ("sh",),
            False,
        )
    ]


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_a_process_that_ends_well_is_no_failure(mode: Mode) -> None:
    taken = Taken(mode)
    taken.host.fork(100, 400)
    taken.host.end(400, b"sh", 1000)
    taken.host.fork(100, 401)
    taken.host.end(401, b"sh", 1000, 0x900)
    taken.host.drain()
    assert taken.pids == [401]


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_the_fast_ways_hand_on_what_the_slow_ones_do(mode: Mode) -> None:
    both = [Taken(mode) for _ in range(2)]
    both[1].host.pipeline.table.has_fast_ways = False
    for taken in both:
        taken.host.fork(100, 400)
        taken.host.record(Thread(400, b"sh", 1000), status=0x8B, rss_kib=70_000)
        taken.host.exit(400, 0x8B, parent=100)
        fails(taken.host, 401)
        taken.host.settle()
        taken.hand_on()
    assert both[0].failures == both[1].failures
    assert both[0].pids == [400, 401]
    assert both[0].failures[0].core


def test_the_parent_has_the_comm_that_it_had_when_its_child_failed() -> None:
    taken = Taken()
    host = taken.host
    fails(host, 400)
    host.rename(100, b"later")
    fails(host, 401)
    host.drain()
    assert [failure.parent_comm for failure in taken.failures] == ["sh", "later"]


def test_a_parent_that_has_ended_in_the_same_batch_is_named() -> None:
    taken = Taken()
    host = taken.host
    host.fork(100, 400)
    fails(host, 401, parent=400)
    host.end(400, b"sh", 1000)
    host.drain()
    assert (taken.last.ppid, taken.last.parent_comm) == (400, "sh")


def test_a_failure_waits_for_the_comm_of_its_parent() -> None:
    taken = Taken()
    host = taken.host
    host.fork(100, 400)
    host.exec(400, b"server")
    fails(host, 401, parent=400)
    host.drain()
    assert taken.failures == []
    host.settle()
    assert (taken.last.pid, taken.last.parent_comm) == (401, "server")


def test_a_failure_does_not_wait_for_ever_for_a_comm_of_its_parent_that_proc_hides() -> None:
    taken = Taken()
    host = taken.host
    host.fork(100, 400)
    host.exec(400)
    fails(host, 401, parent=400)
    host.settle()
    assert taken.failures == []
    host.rest(1000)
    host.drain()
    assert (taken.last.pid, taken.last.ppid, taken.last.parent_comm) == (401, 400, None)


def test_a_parent_that_has_execd_and_has_no_name_yet_is_not_called_what_it_was_before() -> None:
    taken = Taken()
    host = taken.host
    host.fork(100, 400)
    host.fork(400, 401)
    host.exec(400, b"server")
    host.record(Thread(401, b"sh", 1000), status=0x100)
    host.exit(401, 0x100, parent=400)
    host.settle()
    assert (taken.last.pid, taken.last.parent_comm) == (401, None)


def test_a_parent_that_was_read_amid_a_change_of_its_comm_has_no_comm() -> None:
    taken = Taken()
    host = taken.host
    host.adopt(400, b"server", 1000)
    host.adopt(401, b"sh", 1000)
    host.record(Thread(401, b"sh", 1000), status=0x100)
    host.exit(401, 0x100, parent=400)
    # The scan read the comm of the exec whose event is sent only now.
    host.exec(400, b"server")
    host.settle()
    assert (taken.last.pid, taken.last.ppid, taken.last.parent_comm) == (401, 400, None)


def test_a_process_that_was_reaped_before_its_exit_has_no_parent() -> None:
    taken = Taken()
    fails(taken.host, 400, parent=100)
    taken.host.fork(100, 401)
    taken.host.end(401, b"sh", 1000, 0x100)
    taken.host.drain()
    assert [(failure.ppid, failure.parent_comm) for failure in taken.failures] == [(100, "sh"), (None, None)]


def test_a_name_that_is_open_is_waited_for() -> None:
    taken = Taken(Mode.PROCFS)
    host = taken.host
    host.fork(100, 400)
    host.exec(400, b"server")
    host.drain()
    host.exit(400, 0x700)
    host.comms[400] = b"server"
    host.drain()
    host.settle()
    assert [(f.pid, f.comm, f.status) for f in taken.failures] == [(400, "server", 0x700)]


def test_a_name_that_will_never_be_known_is_unknown() -> None:
    taken = Taken(Mode.PROCFS)
    taken.host.fork(100, 400)
    taken.host.exec(400)
    taken.host.exit(400, 9)
    taken.host.drain()
    assert (taken.last.comm, taken.last.uid, taken.last.cpu_ns) == ("<unknown>", 1000, None)


@pytest.mark.parametrize("sideband", [False, True], ids=["no side-band", "side-band"])
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])
@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_a_chain_of_execs_is_kept_from_its_beginning(mode: Mode, fast: bool, sideband: bool) -> None:
    taken = Taken(mode, sideband=sideband)
    host = taken.host
    host.pipeline.table.has_fast_ways = fast
    host.fork(100, 400)
    for comm in (b"env", b"wrapper", b"python3"):
        host.exec(400, comm)
        host.read_early()
        host.settle()
    host.record(Thread(400, b"python3", 1000), status=0x100)
    host.exit(400, 0x100)
    host.settle()
    assert (taken.last.comm, taken.last.execs) == ("python3", ("sh", "env", "wrapper"))


def test_of_execs_that_were_not_seen_in_time_the_chain_has_an_unknown_name() -> None:
    taken = Taken()
    host = taken.host
    host.fork(100, 400)
    host.exec(400)
    host.exec(400)
    host.record(Thread(400, b"python3", 1000), status=0x100)
    host.exit(400, 0x100)
    host.settle()
    assert taken.last.execs == ("sh", "<unknown>")


def test_side_band_records_name_a_chain_without_a_look_into_proc() -> None:
    taken = Taken(sideband=True)
    host = taken.host
    host.fork(100, 400)
    for comm in (b"env", b"python3"):
        host.exec(400, comm)
        host.drain()
    host.record(Thread(400, b"python3", 1000), status=0x100)
    host.exit(400, 0x100)
    host.drain()
    assert taken.last.execs == ("sh", "env")
    assert 400 not in host.looks


def test_of_a_process_that_execs_for_ever_the_last_few_names_are_kept() -> None:
    taken = Taken(sideband=True)
    host = taken.host
    host.fork(100, 400)
    for number in range(100):
        host.exec(400, b"p%d" % number)
        host.drain()
    host.record(Thread(400, b"p99", 1000), status=0x100)
    host.exit(400, 0x100)
    host.settle()
    assert taken.last.execs == ("p96", "p97", "p98")


def test_a_child_does_not_have_the_execs_of_its_parent() -> None:
    taken = Taken(sideband=True)
    host = taken.host
    host.fork(100, 400)
    host.exec(400, b"env")
    host.drain()
    host.fork(400, 401)
    host.record(Thread(401, b"env", 1000), status=0x100)
    host.exit(401, 0x100)
    host.drain()
    assert taken.last.execs == ()


def test_the_core_bit_is_found_on_whichever_thread_has_it() -> None:
    taken = Taken()
    host = taken.host
    host.thread(100, 101)
    host.event(builders.coredump, tgid=100, pid=101)
    host.event(builders.exit_, tgid=100, pid=101, exit_code=0x8B)
    host.record(Thread(100, b"sh", 1000), status=0x0B)
    host.exit(100, 0x0B)
    host.drain()
    assert (taken.last.status, taken.last.core) == (0x0B, True)


def test_a_core_dump_that_was_not_written_is_none() -> None:
    taken = Taken()
    taken.host.event(builders.coredump, tgid=100, pid=100)
    taken.host.record(Thread(100, b"sh", 1000), status=0x0B)
    taken.host.exit(100, 0x0B)
    taken.host.drain()
    assert (taken.last.status, taken.last.core) == (0x0B, False)


def test_of_failures_alone_the_record_says_what_there_is() -> None:
    taken = Taken(failures_only=True)
    taken.host.record(Thread(400, b"make", 33), status=0x200, ms=7)
    taken.host.exit(400, 0x200, parent=100)
    taken.host.drain()
    assert (taken.last.comm, taken.last.uid, taken.last.lifetime_ns, taken.last.ppid) == ("make", 33, 7 * MS, 100)


def test_what_the_rules_exclude_is_neither_a_failure_nor_a_parent() -> None:
    rules = Rules((Rule(re.compile("secret"), None),))
    taken = Taken(tallies=Tallies(rules=rules))
    host = taken.host
    fails(host, 400, b"secret")
    host.fork(100, 401)
    host.rename(401, b"secret")
    fails(host, 402, parent=401)
    host.drain()
    assert [(f.pid, f.ppid, f.parent_comm) for f in taken.failures] == [(402, 401, None)]
    assert taken.host.table.bad_ends.noted == 1


def test_a_canary_is_no_failure() -> None:
    taken = Taken()
    taken.host.pipeline.expect_canary(500)
    taken.host.fork(4000, 500)
    taken.host.end(500, b"canary", 0, 0x2A00)
    taken.host.drain()
    assert taken.failures == []


def test_nothing_is_noted_while_no_client_takes_it() -> None:
    taken = Taken()
    taken.host.pipeline.take_failures(None)
    fails(taken.host, 400)
    taken.host.drain()
    taken.host.pipeline.take_failures(taken.failures.extend)
    taken.hand_on()
    assert taken.failures == []


@pytest.mark.parametrize("mode", list(Mode))
def test_without_a_client_ends_by_sigkill_alone_are_noted(mode: Mode) -> None:
    host = Host(mode, oom_source="kmsg")
    host.lives(100, b"sh", 1000)
    noted: list[int] = []

    class Notes(list[PlainNote]):
        def append(self, note: PlainNote) -> None:
            noted.append(note[3])
            super().append(note)

    host.table.bad_ends.notes = Notes()
    for tgid, status in enumerate([0x100, 9, 15, 9 | 0x80, 0x900], 400):
        fails(host, tgid, status=status)
    host.fork(100, 500)
    host.record(Thread(500, b"sh", 1000), status=9)
    host.exit(500, 9, parent=100)
    host.drain()
    assert noted == [401, 403, 500]


def test_until_they_are_asked_for_they_stay_notes() -> None:
    taken = Taken(at_once=False)
    fails(taken.host, 400)
    taken.host.drain()
    assert taken.failures == []
    taken.hand_on()
    assert taken.pids == [400]
    taken.hand_on()
    assert taken.pids == [400]


def storm(host: Host, tgids: range) -> None:
    for tgid in tgids:
        host.fork(100, tgid)
        host.record(Thread(tgid, b"sh", 1000), status=0x100)
        host.exit(tgid, 0x100)


def test_of_a_storm_the_newest_are_handed_on_and_the_one_of_another_kind_too() -> None:
    taken = Taken(at_once=False)
    storm(taken.host, range(10_000, 11_000))
    fails(taken.host, 400)
    taken.host.drain()
    for first in range(11_000, 31_000, 1000):
        storm(taken.host, range(first, first + 1000))
        taken.host.drain()
    taken.hand_on()
    assert taken.pids == [400, *range(31_000 - MOST_OF_A_KIND, 31_000)]
    assert taken.host.table.bad_ends.noted == 21_001


def test_many_kinds_are_handed_on_before_their_notes_take_much_memory() -> None:
    taken = Taken(at_once=False)
    for number in range(3000):
        fails(taken.host, 1000 + number, b"p%d" % number)
        if number % 100 == 99:
            taken.host.drain()
    assert len(taken.failures) > 1900
    taken.hand_on()
    assert taken.pids == list(range(1000, 4000))


def test_those_that_wait_for_their_own_name_are_few() -> None:
    taken = Taken(Mode.PROCFS, at_once=False)
    host = taken.host
    host.step_ms = 0.01
    ended_ns = []
    for tgid in range(200, 2200):
        host.fork(100, tgid)
        host.exec(tgid, b"server")
        if tgid % 1000 == 199:
            # So many are read in /proc at a time.
            ended_ns += [host.now_ns] * 1000
            host.drain()
    for tgid in range(200, 2200):
        # Read as a zombie: whether it was this one is known at the end of the batch.
        host.exit(tgid, 0x100, timestamp_ns=ended_ns[tgid - 200])
    host.drain()
    taken.hand_on()
    assert taken.host.table.bad_ends.noted == 2000
    # The others are left out.
    assert taken.pids == list(range(2200 - len(taken.failures), 2200))
    assert 100 < len(taken.failures) < 1600
    assert {failure.comm for failure in taken.failures} == {"server"}


def test_too_many_that_wait_for_the_names_of_their_parents_do_without() -> None:
    taken = Taken(Mode.PROCFS, at_once=False)
    host = taken.host
    for tgid in range(200, 2200):
        host.fork(100, 10_000 + tgid)
    host.step_ms = 0.01
    for tgid in range(200, 2200):
        host.fork(100, tgid)
        host.exec(tgid, b"server")
        if tgid % 1000 == 199:
            # So many are read in /proc at a time. What it shows then is believed after 100 ms.
            host.drain()
    for tgid in range(200, 2200):
        # Their parent is another one now, as after the end of the first.
        host.exit(10_000 + tgid, (tgid % 255 + 1) << 8, parent=tgid)
        if tgid % 50 == 49:
            host.drain()
    host.settle()
    taken.hand_on()
    assert taken.pids == list(range(10_200, 12_200))
    assert {failure.parent_comm for failure in taken.failures} == {None, "server"}
