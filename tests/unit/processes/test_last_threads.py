"""Exit records of last threads that do not lead their process."""

import pytest

from exporter.kernel.cn_proc import PROC_EVENT_EXIT
from exporter.kernel.taskstats import AGROUP, LastRecord, Record
from exporter.processes.last_threads import LastThreads
from exporter.processes.process import Process
from exporter.tallies.tallies import Tallies

SECOND = 1_000_000_000
CELL = Tallies().claim_cell(b"job", 0)


def record(pid: int, tgid: int, status: int = 0, cpu_ns: int = 0, *, elapsed_us: int = 0) -> LastRecord:
    return (pid, status, AGROUP, cpu_ns, b"job", 0, elapsed_us, tgid)


def waiting(*records: LastRecord) -> LastThreads:
    result = LastThreads()
    # From here on what waits came while events were received.
    result.age(1)
    result.add(records)
    return result


def take(
    threads: LastThreads,
    tgid: int,
    pid: int,
    status: int = 0,
    *,
    start_ns: int = 0,
    at_ns: int = 0,
    is_only_owner: bool = True,
) -> Record | None:
    """Take the record of a thread whose EXIT comes."""
    event = (PROC_EVENT_EXIT, at_ns or start_ns, pid, tgid, status, 0, 0, 0)
    return threads.take(event, Process(tgid, CELL, start_ns), is_only_owner=is_only_owner)


def test_a_record_is_taken_by_the_exit_of_its_own_thread_alone() -> None:
    threads = waiting(record(401, 400), record(401, 300))
    assert take(threads, 400, 402) is None
    assert take(threads, 401, 401) is None
    assert take(threads, 400, 401, 9) is None
    assert take(threads, 400, 401) == record(401, 400)[:-1]
    assert take(threads, 400, 401) is None
    assert list(threads) == [record(401, 300)]
    assert (threads.stale, threads.missed, threads.overdue, len(threads)) == (0, 0, 0, 1)


def test_of_one_owner_of_a_tgid_the_first_record_is_the_end() -> None:
    """The second is of the next process with the tgid: a thread of the first which had its pid takes none."""
    first, second = record(401, 400), record(405, 400)
    threads = waiting(first, second)
    assert take(threads, 400, 405) is None
    assert take(threads, 400, 401) == first[:-1]
    assert take(threads, 400, 405) == second[:-1]


def test_records_of_two_processes_that_can_send_exits_are_told_apart_by_thread_and_status() -> None:
    first, second = record(401, 400), record(405, 400, 9)
    threads = waiting(first, second)
    assert take(threads, 400, 405, 9, is_only_owner=False) == second[:-1]
    assert take(threads, 400, 401, is_only_owner=False) == first[:-1]
    assert not threads.by_tgid


def test_a_record_that_is_younger_than_an_exit_is_of_another_process() -> None:
    threads = waiting(record(401, 400, elapsed_us=30_000_000))
    assert take(threads, 400, 401, start_ns=5 * SECOND, at_ns=8 * SECOND) is None
    # The process's time begins a moment before its FORK is sent.
    assert take(threads, 400, 401, start_ns=5 * SECOND + SECOND // 2, at_ns=35 * SECOND + 1) is not None


def test_the_record_of_a_process_that_was_released_long_ago_is_not_the_next_ones() -> None:
    threads = waiting(record(401, 400, cpu_ns=1))
    for seconds in (1, 2, 3):
        threads.age(seconds * SECOND)
    assert take(threads, 400, 401, start_ns=5 * SECOND) is None
    assert (threads.stale, threads.missed) == (1, 1)
    assert not threads.by_tgid


def test_an_old_record_is_dropped_when_another_process_with_the_tgid_has_one() -> None:
    threads = waiting(record(401, 400, cpu_ns=1))
    for seconds in (1, 2, 3, 5):
        threads.age(seconds * SECOND)
    threads.add([record(401, 400, cpu_ns=2)])
    assert [each[3] for each in threads] == [2]
    assert (threads.stale, threads.missed, len(threads)) == (1, 1, 1)


def test_a_record_from_before_a_process_began_does_not_stand_before_its_own() -> None:
    threads = waiting(record(401, 400))
    for seconds in (1, 2, 3):
        threads.age(seconds * SECOND)
    threads.add([record(405, 400)])
    assert take(threads, 400, 405, start_ns=3 * SECOND + SECOND // 2) is not None
    assert list(threads) == [record(401, 400)]


def test_a_process_that_began_before_its_records_exit_was_due_takes_it_however_late() -> None:
    threads = waiting(record(401, 400))
    for seconds in (1, 2, 3, 9):
        threads.age(seconds * SECOND)
    assert take(threads, 400, 401, start_ns=SECOND // 2, at_ns=10 * SECOND) is not None


def test_a_record_is_overdue_once_after_ten_seconds() -> None:
    threads = waiting(record(401, 400))
    for seconds in (1, 2, 3, 12, 13):
        threads.age(seconds * SECOND)
        assert threads.overdue == 0
    for seconds in (14, 15, 30):
        threads.age(seconds * SECOND)
        assert threads.overdue == 1


def test_one_that_is_overdue_does_not_stand_before_the_records_of_the_next_process() -> None:
    threads = waiting(record(401, 400))
    for seconds in (1, 2, 3, 14):
        threads.age(seconds * SECOND)
    assert threads.overdue == 1
    threads.add([record(405, 400)])
    assert take(threads, 400, 405, start_ns=13 * SECOND) is not None
    assert threads.missed == 1


def test_a_stranger_takes_the_record_of_a_process_that_is_older_than_its_exit() -> None:
    """A younger process's is that of the next one with the tgid."""
    for elapsed_seconds, is_taken in ((9, False), (11, True), (3600, True)):
        threads = waiting(record(401, 400, elapsed_us=elapsed_seconds * 1_000_000))
        event = (PROC_EVENT_EXIT, 5 * SECOND, 401, 400, 0, 0, 0, 0)
        assert (threads.take_of_stranger(event) is not None) == is_taken
    threads = waiting(record(401, 400, elapsed_us=3600_000_000))
    assert threads.take_of_stranger((PROC_EVENT_EXIT, 5 * SECOND, 402, 400, 0, 0, 0, 0)) is None
    assert threads.take_of_stranger((PROC_EVENT_EXIT, 5 * SECOND, 401, 402, 0, 0, 0, 0)) is None


def test_time_that_stands_still_ages_nothing() -> None:
    threads = waiting(record(401, 400))
    for _ in range(5):
        threads.age(SECOND)
    threads.age(20 * SECOND)
    assert threads.overdue == 0


def test_in_an_overload_no_record_ages() -> None:
    threads = waiting(*(record(n, n - 1) for n in range(2, 5000)))
    for seconds in range(1, 60):
        threads.age(seconds * SECOND)
    assert threads.overdue == 0


def test_one_whose_exit_was_lost_is_dropped_and_missed() -> None:
    kept, lost = record(402, 400), record(401, 400)
    threads = waiting(kept, lost)
    for tgid, pid in ((400, 999), (401, 401)):
        threads.drop(tgid, pid)
    assert threads.holds(lost)
    threads.drop(400, 401)
    assert not threads.holds(lost)
    assert list(threads) == [kept]
    assert threads.missed == 1


def test_one_from_before_the_first_events_is_not_missed() -> None:
    threads = LastThreads()
    threads.add([record(401, 400)])
    threads.age(SECOND)
    threads.drop(400, 401)
    assert (list(threads), threads.missed) == ([], 0)


def test_of_one_tgid_no_more_wait_than_can_be_looked_through_for_each_exit() -> None:
    threads = waiting(*(record(401, 400, cpu_ns=n) for n in range(30)))
    assert [each[3] for each in threads] == list(range(22, 30))
    assert (threads.missed, len(threads)) == (22, 8)


@pytest.mark.parametrize("of_each", [1, 5])
def test_beyond_a_number_of_records_the_oldest_are_thrown_away(of_each: int) -> None:
    threads = waiting(*(record(n + 1, n) for n in range(1000) for _ in range(of_each)))
    threads.keep(30)
    assert 30 - of_each < len(threads) == len(list(threads)) <= 30
    assert {each[-1] for each in threads} == set(range(1000 - 30 // of_each, 1000))
