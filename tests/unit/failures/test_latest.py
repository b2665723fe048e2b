"""The last failure of each series."""

from unit.failures.made import CLOCK, FAILED, IN_POD, IN_UNIT, KILLED, SECOND

from exporter.exposition.exemplars import Exemplar
from exporter.failures.latest import Latest
from exporter.stream.wall_clock import WallClock

MAKE = ("make", 1000, (), 0x200)


def test_each_comm_uid_and_status_has_its_last_failure() -> None:
    latest = Latest(lambda: CLOCK)
    latest.take([FAILED, KILLED, FAILED._replace(pid=500, time_ns=FAILED.time_ns + 1), FAILED._replace(uid=0)])
    latest.take([FAILED._replace(pid=501, ppid=None, time_ns=FAILED.time_ns + SECOND)])
    assert latest.exemplars() == {
        MAKE: Exemplar(501, None, 1_795_946_311.0),
        ("oracle_1", 0, (), 9): Exemplar(401, 100, 1_795_946_340.0),
        ("make", 0, (), 0x200): Exemplar(400, 100, 1_795_946_310.0),
    }


def test_each_pod_container_and_unit_has_its_own() -> None:
    latest = Latest(lambda: CLOCK)
    latest.take([IN_POD, IN_UNIT])
    assert {(group, exemplar.pid) for (_, _, group, _), exemplar in latest.exemplars().items()} == {
        (("shop", "cart-1", "web", ""), IN_POD.pid),
        (("", "", "", "cron.service"), IN_UNIT.pid),
    }


def test_one_that_became_known_late_does_not_take_the_place_of_a_newer_one() -> None:
    latest = Latest(lambda: CLOCK)
    latest.take([FAILED, FAILED._replace(pid=1, time_ns=FAILED.time_ns - 1)])
    assert latest.exemplars()[MAKE].pid == FAILED.pid


def test_a_failure_has_the_same_time_of_day_in_each_scrape_although_the_clock_is_set() -> None:
    clocks = [CLOCK, WallClock(0, 0)]
    latest = Latest(lambda: clocks.pop(0))
    latest.take([FAILED])
    latest.take([KILLED])
    assert latest.exemplars()[MAKE].seconds == 1_795_946_310.0


def test_of_series_without_end_those_that_failed_last_are_kept() -> None:
    latest = Latest(lambda: CLOCK)
    for number in range(1500):
        latest.take([FAILED._replace(comm=f"p{number}"), FAILED._replace(time_ns=FAILED.time_ns + number)])
    comms = [comm for comm, _, _, _ in latest.exemplars()]
    assert len(comms) == 1000
    assert comms[-1] == "make"
    assert set(comms) == {"make", *(f"p{number}" for number in range(501, 1500))}
