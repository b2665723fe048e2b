"""Side-band records that wait for their events."""

import random

import pytest

from exporter.kernel.perf_event import ExecName, Fork, SidebandRecords
from exporter.processes.sideband import Sideband, Waiting

SECOND_NS = 1_000_000_000


@pytest.fixture
def sideband() -> Sideband:
    return Sideband(is_active=True)


def execs(*records: ExecName) -> SidebandRecords:
    return SidebandRecords(list(records), [], 0)


def forks(*records: Fork) -> SidebandRecords:
    return SidebandRecords([], list(records), 0)


# -- the name of an exec ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after_ns", "until_ns", "comm"),
    [
        pytest.param(0, 9, None, id="before the record"),
        pytest.param(0, 10, b"first", id="at the time of the record"),
        pytest.param(0, 19, b"first", id="just before the next one"),
        pytest.param(0, 20, b"second", id="the latest of two"),
        pytest.param(0, 1000, b"third", id="the latest of all"),
        pytest.param(10, 15, None, id="forked at the time of the record"),
        pytest.param(9, 15, b"first", id="forked just before the record"),
        pytest.param(30, 40, None, id="forked after all"),
    ],
)
def test_the_name_of_an_exec_is_the_latest_record_between_its_fork_and_itself(
    sideband: Sideband, after_ns: int, until_ns: int, comm: bytes | None
) -> None:
    sideband.add(execs((10, 400, b"first"), (20, 400, b"second"), (30, 400, b"third")))
    assert sideband.take_exec(400, after_ns, until_ns) == comm


def test_each_exec_of_a_chain_has_its_own_name_whatever_the_order_of_the_rings(sideband: Sideband) -> None:
    records: list[ExecName] = [(10 * i, 400, b"stage-%d" % i) for i in range(1, 11)]
    chance = random.Random(3)  # noqa: S311 - repeatable, not secret
    for _ in range(50):
        chance.shuffle(records)
        cut = chance.randrange(11)
        sideband.add(execs(*records[:cut]))
        sideband.add(execs(*records[cut:]))
        named = [sideband.take_exec(400, 0, 10 * i + 5) for i in range(1, 11)]
        assert named == [b"stage-%d" % i for i in range(1, 11)]
        assert len(sideband.execs) == 0


def test_a_record_names_one_exec_only(sideband: Sideband) -> None:
    sideband.add(execs((10, 400, b"once")))
    assert sideband.take_exec(400, 0, 15) == b"once"
    assert sideband.take_exec(400, 0, 25) is None


def test_records_of_other_processes_are_left_alone(sideband: Sideband) -> None:
    sideband.add(execs((10, 400, b"mine"), (11, 401, b"other"), (12, 402, b"third")))
    assert sideband.take_exec(400, 0, 100) == b"mine"
    assert sideband.take_exec(402, 0, 100) == b"third"
    assert sideband.take_exec(401, 0, 100) == b"other"


def test_the_next_process_with_a_pid_does_not_get_the_name_of_the_last_one(sideband: Sideband) -> None:
    sideband.add(execs((10, 400, b"older"), (30, 400, b"younger")))
    # The EXEC of the older one was lost; the pid was forked again at 20.
    assert sideband.take_exec(400, 20, 25) is None
    assert sideband.take_exec(400, 20, 35) == b"younger"


def test_an_exec_that_died_names_nothing_and_goes_with_its_process(sideband: Sideband) -> None:
    sideband.add(execs((10, 400, b"never ran"), (40, 400, b"next owner")))
    assert sideband.end(400, 5, 30) == [(10, b"never ran")]
    assert sideband.take_exec(400, 35, 45) == b"next owner"
    assert sideband.end(400, 35, 50) == []
    assert sideband.missed_execs == 0


def test_an_exec_after_which_its_process_lived_on_and_that_had_no_exec_event_is_missed(sideband: Sideband) -> None:
    sideband.add(execs((10, 400, b"first"), (20, 400, b"second"), (40, 400, b"third")))
    assert sideband.take_exec(400, 5, 30) == b"second"
    assert sideband.missed_execs == 1
    assert sideband.end(400, 5, 50) == [(40, b"third")]


def test_a_process_without_an_unfinished_exec_ends_without_one(sideband: Sideband) -> None:
    sideband.add(execs((10, 400, b"of the one before")))
    assert sideband.end(400, 20, 30) == []
    assert len(sideband.execs) == 0


def test_an_exec_record_waits_for_ten_seconds_and_no_longer(sideband: Sideband) -> None:
    sideband.add(execs((SECOND_NS, 400, b"old"), (2 * SECOND_NS, 400, b"young"), (SECOND_NS, 401, b"old too")))
    assert sideband.end_batch(11 * SECOND_NS) == 0
    assert len(sideband.execs) == 3
    assert sideband.end_batch(11 * SECOND_NS + 1) == 0
    assert len(sideband.execs) == 1
    assert sideband.take_exec(400, 0, 3 * SECOND_NS) == b"young"


# -- the forker of a process ------------------------------------------------------------------------------------


def take_fork(sideband: Sideband, tgid: int, timestamp_ns: int) -> Fork | None:
    return sideband.fork_of(tgid, sideband.forks.first.pop(tgid, None), timestamp_ns)


def test_a_fork_has_the_next_record_after_it(sideband: Sideband) -> None:
    sideband.add(forks((31, 400, 102, 102), (11, 400, 100, 100), (21, 400, 101, 105)))
    assert take_fork(sideband, 400, 10) == (11, 400, 100, 100)
    assert take_fork(sideband, 400, 20) == (21, 400, 101, 105)
    assert take_fork(sideband, 400, 30) == (31, 400, 102, 102)
    assert take_fork(sideband, 400, 40) is None


def test_the_record_of_an_earlier_fork_with_that_pid_is_not_taken_for_this_one(sideband: Sideband) -> None:
    sideband.add(forks((11, 400, 100, 100)))
    assert take_fork(sideband, 400, 20) is None
    assert sideband.forks.first == {}


def test_a_record_of_the_next_process_with_that_pid_is_left_to_it(sideband: Sideband) -> None:
    sideband.add(forks((2 * SECOND_NS + 1, 400, 101, 105)))
    assert take_fork(sideband, 400, SECOND_NS) is None
    assert take_fork(sideband, 400, 2 * SECOND_NS) == (2 * SECOND_NS + 1, 400, 101, 105)


def test_a_fork_without_a_record_has_none(sideband: Sideband) -> None:
    sideband.add(forks((11, 401, 100, 100)))
    assert take_fork(sideband, 400, 10) is None
    assert list(sideband.forks.first) == [401]


def test_forks_whose_event_never_came_are_counted_when_all_events_before_them_have(sideband: Sideband) -> None:
    sideband.add(forks((10, 400, 1, 1), (20, 401, 1, 1), (30, 402, 1, 1), (40, 402, 1, 1)))
    assert sideband.end_batch(10) == 0
    assert sideband.end_batch(21) == 2
    assert sideband.end_batch(0) == 0
    assert sideband.end_batch(100) == 2
    assert sideband.end_batch(200) == 0


def test_forks_before_the_subscription_are_not_missed() -> None:
    sideband = Sideband(is_active=True, since_ns=20)
    sideband.add(forks((18, 400, 1, 1), (19, 401, 1, 1), (20, 402, 1, 1), (21, 403, 1, 1)))
    assert sideband.end_batch(19) == 0
    assert sideband.end_batch(100) == 2


# -- both -------------------------------------------------------------------------------------------------------


def test_all_records_that_were_taken_are_counted(sideband: Sideband) -> None:
    sideband.add(SidebandRecords([(10, 400, b"a")], [(5, 400, 1, 1), (6, 401, 1, 1)], 9))
    assert sideband.records == 3


def test_after_a_loss_nothing_is_left(sideband: Sideband) -> None:
    sideband.add(SidebandRecords([(10, 400, b"a"), (11, 400, b"b")], [(5, 400, 1, 1), (6, 400, 1, 1)], 0))
    sideband.clear()
    assert sideband.take_exec(400, 0, 100) is None
    assert take_fork(sideband, 400, 0) is None
    assert sideband.end_batch(100) == 0


def test_a_process_with_later_records_has_a_first_one(sideband: Sideband) -> None:
    """The hot loop looks at the first ones only."""
    chance = random.Random(5)  # noqa: S311 - repeatable, not secret
    for step in range(500):
        tgid = chance.randrange(400, 404)
        if chance.random() < 0.6:
            sideband.add(execs(*[(step, chance.randrange(400, 404), b"x") for _ in range(chance.randrange(4))]))
        elif chance.random() < 0.5:
            sideband.take_exec(tgid, step - 20, step - chance.randrange(10))
        else:
            sideband.execs.drop(step - chance.randrange(30))
        assert sideband.execs.later.keys() <= sideband.execs.first.keys()
        assert all(sideband.execs.later.values())


# -- many records of one process --------------------------------------------------------------------------------


def test_records_come_out_in_the_order_of_time_whatever_order_they_came_in() -> None:
    chance = random.Random(5)  # noqa: S311 - repeatable, not secret
    for _ in range(200):
        waiting: Waiting[ExecName] = Waiting()
        records: list[ExecName] = [(at, 400, b"%d" % at) for at in range(1, 9)]
        chance.shuffle(records)
        cut, until = chance.randrange(9), chance.randrange(10)
        waiting.add(records[:cut])
        first = waiting.take_until(400, until)
        waiting.add(records[cut:])
        rest = waiting.take_until(400, 100)
        assert first == sorted(record for record in records[:cut] if record[0] <= until)
        assert rest == sorted(set(records) - set(first))
        assert (waiting.first, waiting.later) == ({}, {})


def test_the_oldest_record_is_taken_if_it_is_old_enough() -> None:
    waiting: Waiting[ExecName] = Waiting()
    waiting.add([(3, 400, b"c"), (2, 400, b"b"), (5, 401, b"x")])
    assert [waiting.take_oldest(400, until) for until in (1, 2, 2, 3, 9)] == [
        None, (2, 400, b"b"), None, (3, 400, b"c"), None,
    ]  # fmt: skip
    assert list(waiting.first) == [401]


# -- too many ---------------------------------------------------------------------------------------------------


def test_records_whose_events_were_lost_do_not_fill_the_memory(sideband: Sideband) -> None:
    dropped, most = 0, 0
    for n in range(300):
        dropped += sideband.add(forks(*((n * SECOND_NS, 400 + at % 50, 1, 1) for at in range(1000))))
        most = max(most, len(sideband.forks))
    assert most <= 1 << 16
    assert dropped + len(sideband.forks) == 300_000


def test_so_do_not_those_of_one_process_that_execs_without_end(sideband: Sideband) -> None:
    dropped = sum(sideband.add(execs(*((1000 * n + at, 400, b"name") for at in range(1000)))) for n in range(300))
    assert dropped + len(sideband.execs) == 300_000
    assert len(sideband.execs) <= 1 << 16
    # What comes then is as exact as ever.
    sideband.add(execs((300_000, 500, b"next")))
    assert sideband.take_exec(500, 0, 300_000) == b"next"
