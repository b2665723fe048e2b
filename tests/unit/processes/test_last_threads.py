"""Exit records of last threads that do not lead their process."""

from exporter.kernel.taskstats import AGROUP, LastRecord
from exporter.processes.last_threads import LastThreads

SECOND = 1_000_000_000


def record(pid: int, tgid: int, status: int = 0, cpu_ns: int = 0) -> LastRecord:
    return (pid, status, AGROUP, cpu_ns, b"job", 0, 0, tgid)


def waiting(*records: LastRecord) -> LastThreads:
    result = LastThreads()
    # From here on what waits came while events were received.
    result.age(1)
    result.add(records)
    return result


def test_a_record_is_taken_by_the_exit_of_its_own_thread_alone() -> None:
    threads = waiting(record(401, 400), record(401, 300))
    assert threads.take(400, 402, 0, 0) is None
    assert threads.take(401, 401, 0, 0) is None
    assert threads.take(400, 401, 9, 0) is None
    assert threads.take(400, 401, 0, 0) == record(401, 400)[:-1]
    assert threads.take(400, 401, 0, 0) is None
    assert list(threads) == [record(401, 300)]
    assert (threads.stale, threads.missed, threads.overdue) == (0, 0, 0)


def test_records_of_two_processes_that_had_a_tgid_are_told_apart_by_thread_and_status() -> None:
    first, second = record(401, 400), record(405, 400, 9)
    threads = waiting(first, second)
    assert threads.take(400, 405, 9, 0) == second[:-1]
    assert threads.take(400, 401, 0, 0) == first[:-1]
    assert not threads.by_tgid


def test_the_record_of_a_process_that_was_released_long_ago_is_not_the_next_ones() -> None:
    threads = waiting(record(401, 400, cpu_ns=1))
    for seconds in (1, 2, 3):
        threads.age(seconds * SECOND)
    threads.add([record(401, 400, cpu_ns=2)])
    assert threads.take(400, 401, 0, 5 * SECOND) == record(401, 400, cpu_ns=2)[:-1]
    assert (threads.stale, threads.missed) == (1, 1)
    assert not threads.by_tgid


def test_a_process_that_began_before_its_records_exit_was_due_takes_it_however_late() -> None:
    threads = waiting(record(401, 400))
    for seconds in (1, 2, 3, 9):
        threads.age(seconds * SECOND)
    assert threads.take(400, 401, 0, SECOND // 2) is not None


def test_a_record_is_overdue_once_after_ten_seconds() -> None:
    threads = waiting(record(401, 400))
    for seconds in (1, 2, 3, 12, 13):
        threads.age(seconds * SECOND)
        assert threads.overdue == 0
    for seconds in (14, 15, 30):
        threads.age(seconds * SECOND)
        assert threads.overdue == 1


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
    threads.drop_of(999)
    assert threads.holds(lost)
    threads.drop_of(401)
    assert not threads.holds(lost)
    assert list(threads) == [kept]
    assert threads.missed == 1


def test_one_from_before_the_first_events_is_not_missed() -> None:
    threads = LastThreads()
    threads.add([record(401, 400)])
    threads.age(SECOND)
    threads.drop_of(401)
    assert (list(threads), threads.missed) == ([], 0)


def test_of_one_tgid_no_more_wait_than_can_be_looked_through_for_each_exit() -> None:
    threads = waiting(*(record(401, 400, cpu_ns=n) for n in range(300)))
    assert [each[3] for each in threads] == list(range(44, 300))
    assert threads.missed == 44


def test_beyond_a_number_of_processes_the_oldest_are_thrown_away() -> None:
    threads = waiting(*(record(n + 1, n) for n in range(10, 20)))
    threads.keep(3)
    assert [each[-1] for each in threads] == [17, 18, 19]
    threads.clear()
    assert not list(threads)
