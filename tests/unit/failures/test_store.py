"""What is kept of many failures, and in how much memory."""

import gc
import tracemalloc
from collections import Counter

import pytest
from unit.failures.made import ALL, FAILED, GROUPED, IN_POD, IN_UNIT, NOW_NS, NOWHERE

from exporter.failures.store import FailureStore
from exporter.processes.bad_ends import MOST_OF_A_KIND, Failure


@pytest.mark.parametrize("failure", (ALL | GROUPED).values(), ids=ALL | GROUPED)
def test_a_failure_comes_out_as_it_went_in(failure: Failure) -> None:
    store = FailureStore(10)
    store.take([failure])
    assert store.newest() == [failure]


@pytest.mark.parametrize(
    "fields",
    [
        {"uid": 0xFFFFFFFF, "pid": 0x7FFFFFFF, "status": 0xFF00},
        {"comm": "日本語", "parent_comm": "<empty>", "execs": ("<unknown>", "\\x00", "a b")},
        {"lifetime_ns": 0, "cpu_ns": 0, "max_rss_kib": 0, "uid": 0},
        {"time_ns": 1 << 62, "lifetime_ns": 1 << 62, "cpu_ns": 1 << 62, "max_rss_kib": 1 << 50},
    ],
    ids=["numbers", "names", "zeros", "large"],
)
def test_the_ends_of_all_ranges_come_out_as_they_went_in(fields: dict[str, object]) -> None:
    store = FailureStore(10)
    failure = FAILED._replace(**fields)  # type: ignore[arg-type]
    store.take([failure])
    assert store.newest() == [failure]


def test_the_newest_come_first_whenever_they_became_known() -> None:
    store = FailureStore(1000)
    failures = [FAILED._replace(time_ns=t, comm=f"p{t % 7}") for t in range(100)]
    # 37 and 100 have no common divisor: each of them once.
    store.take(failures[at * 37 % 100] for at in range(100))
    assert store.newest() == failures[::-1]


def test_a_hundred_thousand_failures_of_one_program_do_not_push_the_one_of_another_out() -> None:
    store = FailureStore(1000)
    rare = FAILED._replace(time_ns=0, comm="rare")
    store.take([rare])
    for t in range(1, 100_001):
        store.take([FAILED._replace(time_ns=t)])
    newest = store.newest()
    assert [failure.time_ns for failure in newest] == [*range(100_000, 100_000 - MOST_OF_A_KIND, -1), 0]
    assert newest[-1] == rare
    assert len(store) == MOST_OF_A_KIND + 1


def test_of_one_program_each_status_has_its_own_place() -> None:
    store = FailureStore(1000)
    store.take([FAILED._replace(time_ns=0, status=9)])
    store.take([FAILED._replace(time_ns=t) for t in range(1, 100)])
    assert [failure.time_ns for failure in store.newest()] == [*range(99, 99 - MOST_OF_A_KIND, -1), 0]


def test_of_a_kind_the_oldest_goes_even_if_it_became_known_last() -> None:
    store = FailureStore(1000)
    store.take([FAILED._replace(time_ns=t) for t in range(10, 10 + MOST_OF_A_KIND)])
    store.take([FAILED._replace(time_ns=5)])
    assert [failure.time_ns for failure in store.newest()] == [*range(9 + MOST_OF_A_KIND, 9, -1)]


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_of_all_the_newest_are_kept(most: int) -> None:
    store = FailureStore(most)
    for t in range(5000):
        store.take([FAILED._replace(time_ns=t, comm=f"p{t}")])
    assert [failure.time_ns for failure in store.newest()] == list(range(4999, 4999 - most, -1))
    assert len(store) == most


def test_with_the_longest_names_a_thousand_take_less_than_a_mebibyte() -> None:
    """A byte that is not UTF-8 is printed as four characters; a comm has fifteen bytes."""

    def hostile(number: int) -> str:
        return "".join(f"\\x{0x80 + (number >> shift & 0x7F):02x}" for shift in range(0, 105, 7))

    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        store = FailureStore(1000)
        for number in range(20_000):
            names = [hostile(number << 40 | of << 90) for of in range(5)]
            store.take(
                [FAILED._replace(time_ns=number, comm=names[0], parent_comm=names[1], execs=tuple(names[2:]))]
            )
        _, peak = tracemalloc.get_traced_memory()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(store) == 1000
    assert after - before < 1 << 20
    assert peak - before < (1 << 20) + (1 << 18)


def test_a_storm_in_one_group_leaves_the_failures_of_another() -> None:
    store = FailureStore(1000)
    store.take([IN_UNIT])
    store.take(IN_POD._replace(time_ns=NOW_NS + n) for n in range(500))
    store.take([NOWHERE])
    kept = store.newest()
    assert Counter(failure.group for failure in kept) == {IN_POD.group: 20, IN_UNIT.group: 1, NOWHERE.group: 1}
    assert IN_UNIT in kept
