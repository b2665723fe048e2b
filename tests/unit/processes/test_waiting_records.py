"""Exit records that wait for their EXIT."""

from exporter.kernel.taskstats import AGROUP, Record
from exporter.processes.waiting_records import WaitingRecords


def record(pid: int, status: int = 0, cpu_ns: int = 0) -> Record:
    return (pid, status, AGROUP, cpu_ns, b"job", 0, 0)


def waiting(*records: Record) -> WaitingRecords:
    result = WaitingRecords()
    result.add(records)
    return result


def test_a_pid_without_a_record_has_none_to_take() -> None:
    records = waiting(record(1))
    assert records.of(2) == []
    assert records.take(2, 0) is None
    assert list(records) == [record(1)]


def test_owners_of_a_pid_that_ended_alike_take_their_records_in_order() -> None:
    first, second, third = (record(1, cpu_ns=ns) for ns in (1, 2, 3))
    records = waiting(first, second)
    records.add([third])
    assert records.of(1) == [first, second, third]
    assert [records.take(1, 0) for _ in range(4)] == [first, second, third, None]
    assert not records.later


def test_an_exit_that_overtook_takes_the_record_with_its_own_status() -> None:
    stopped, overtaking, last = record(1), record(1, 0x100), record(1)
    records = waiting(stopped, overtaking, last)
    assert records.places(1, 0x100) == [1]
    assert records.places(1, 0) == [0, 2]
    assert records.take(1, 0x100) is overtaking
    assert records.of(1) == [stopped, last]


def test_a_status_that_no_record_has_takes_none() -> None:
    """The record with that status was lost: others are of other processes that had the pid."""
    records = waiting(record(1), record(1, 0x100))
    assert records.take(1, 9) is None
    assert records.take(2, 9) is None
    assert records.of(1) == [record(1), record(1, 0x100)]


def test_a_thread_of_an_old_kernel_has_no_status_in_its_record() -> None:
    records = waiting(record(1), record(2, 0x100))
    assert records.take_of_thread(1, 9) == record(1)
    assert records.take_of_thread(2, 9) is None


def test_successes_are_forgotten_up_to_the_first_failure() -> None:
    records = waiting(record(1), record(1), record(1, 0x100), record(1))
    records.forget_successes(1)
    assert records.of(1) == [record(1, 0x100), record(1)]


def test_beyond_a_number_of_records_the_oldest_are_thrown_away() -> None:
    records = waiting(*(record(pid) for pid in range(1, 6)))
    records.keep(2)
    assert list(records) == [record(4), record(5)]


def test_records_of_pids_that_come_round_again_are_as_many_as_others() -> None:
    records = waiting(*(record(pid, cpu_ns=ns) for ns in range(20) for pid in range(50)))
    assert len(records) == 1000
    records.keep(100)
    assert len(records) == len(list(records)) == 100
    assert {ns for _, _, _, ns, *_ in records} == {18, 19}


def test_its_length_is_right_whatever_is_taken() -> None:
    records = waiting(*(record(pid, pid << 8, ns) for ns in range(300) for pid in range(3)), record(9))
    for pid, status in ((0, 0), (1, 0), (2, 0x200), (7, 0), (9, 0), (9, 0)):
        records.take(pid, status)
        assert len(records) == len(list(records))
    records.clear()
    assert len(records) == 0


def test_all_owners_of_a_pid_find_their_records_however_many_there_were() -> None:
    all_records = [record(1, (ns % 7) << 8, ns) for ns in range(10_000)]
    records = waiting(*all_records)
    assert [records.take(1, (ns % 7) << 8) for ns in range(10_000)] == all_records
    assert len(records) == 0


def test_the_exit_that_overtakes_hundreds_does_not_look_through_thousands() -> None:
    records = waiting(*(record(1, cpu_ns=ns) for ns in range(256)), record(1, 0x100))
    assert records.places(1, 0x100) == [256]
    assert waiting(*(record(1) for _ in range(257)), record(1, 0x100)).places(1, 0x100) == []


def test_the_last_of_as_many_as_there_are_is_taken_alone() -> None:
    records = waiting(*(record(1, cpu_ns=ns) for ns in range(200)), record(1, 0x100))
    before = records.of(1)
    assert records.take(1, 0x100) == record(1, 0x100)
    assert records.of(1) == before[:-1]


def test_all_can_be_thrown_away() -> None:
    records = waiting(record(1), record(1), record(2))
    records.clear()
    assert list(records) == []


# -- records that were left by a thread before ------------------------------------------------------------------

SECOND_NS = 1_000_000_000


def test_a_record_is_stale_a_second_after_the_time_up_to_which_events_are_counted_has_passed_it() -> None:
    records = waiting(record(1))
    for until_ns in (10, 20, 30):
        records.age(until_ns)
    assert not records.is_stale(1, 30 + SECOND_NS)
    assert records.is_stale(1, 31 + SECOND_NS)


def test_a_record_is_not_stale_while_events_from_before_it_are_counted() -> None:
    """In a flood records are read seconds before the FORK of their process: it dropped the record of each."""
    records = waiting()
    records.age(10)
    records.add([record(1)])
    for until_ns in (10, 10, 10, 20, 20, 20):
        # 20 is when the queue was looked at last, before the record was read.
        records.age(until_ns)
    assert not records.is_stale(1, 100 * SECOND_NS)
    records.age(30)
    assert not records.is_stale(1, 30 + SECOND_NS)
