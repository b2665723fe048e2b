"""exporter/tallies/expiry.py: idle series go, and nothing is lost with them."""

from host import Host

from exporter.groups.cgroup_path import NOWHERE, Placement
from exporter.tallies.expiry import Expiry, GoneGroups

HOUR = 3600.0


def sweep(expiry: Expiry, now: float) -> int:
    """Sweep once; how often others could have had their turn."""
    return sum(1 for _ in expiry.sweep(now))


def test_a_series_goes_when_it_did_not_change_for_long_enough() -> None:
    host = Host()
    expiry = Expiry(host.tallies, host.table.cells_in_use, HOUR)
    idle, busy = host.tallies.claim_cell(b"idle", 0), host.tallies.claim_cell(b"busy", 0)
    idle.forks = busy.forks = 1
    for now in (0.0, HOUR - 1):
        sweep(expiry, now)
        busy.forks += 1
    assert host.forks == {("idle", "0"): 1, ("busy", "0"): 3}
    sweep(expiry, HOUR)
    assert host.forks == {("busy", "0"): 3}
    assert host.tallies.expired()["fork"] == 1
    sweep(expiry, 2 * HOUR)
    assert host.forks == {}
    assert host.tallies.expired()["fork"] == 4


def test_a_process_that_runs_keeps_its_series_and_the_last_one_of_a_program_does() -> None:
    host = Host()
    expiry = Expiry(host.tallies, host.table.cells_in_use, HOUR)
    host.lives(1, b"init")
    host.lives(400, b"daemon", 7)
    host.fork(400, 401)
    host.drain()
    for now in range(10):
        sweep(expiry, now * HOUR)
    assert host.forks == {("daemon", "7"): 1}
    host.end(400, b"daemon", 7)
    host.drain()
    for now in range(10, 13):
        sweep(expiry, now * HOUR)
    # The child never had a name of its own.
    assert host.forks == {("daemon", "7"): 1}
    host.end(401, b"daemon", 7)
    host.drain()
    for now in range(13, 15):
        sweep(expiry, now * HOUR)
    assert host.forks == {}
    assert host.tallies.expired()["exit"] == 2
    assert host.tallies.snapshot_programs() == []


def test_a_record_that_comes_later_finds_a_new_series() -> None:
    host = Host()
    expiry = Expiry(host.tallies, host.table.cells_in_use, HOUR)
    host.lives(1, b"init")
    for end in range(2):
        host.fork(1, 400)
        host.exec(400)
        host.end(400, b"job")
        host.drain()
        assert host.exits["job", "0", 0] == 1
        for now in range(3):
            sweep(expiry, (10 * end + now) * HOUR)
        assert ("job", "0", 0) not in host.exits
    assert host.tallies.expired()["exit"] == 2


def test_a_program_that_counts_between_two_slices_keeps_its_series() -> None:
    host = Host()
    expiry = Expiry(host.tallies, host.table.cells_in_use, HOUR)
    host.lives(1, b"init")
    cell = host.tallies.claim_cell(b"late", 0)
    sweep(expiry, 0.0)
    slices = expiry.sweep(HOUR)
    next(slices)
    host.fork(1, 400)
    host.rename(400, b"late")
    host.drain()
    assert sum(1 for _ in slices) > 0
    assert host.tallies.claim_cell(b"late", 0) is cell


def test_a_program_that_counts_and_ends_between_two_slices_keeps_its_series() -> None:
    host = Host()
    expiry = Expiry(host.tallies, host.table.cells_in_use, HOUR)
    cell = host.tallies.claim_cell(b"late", 0)
    sweep(expiry, 0.0)
    slices = expiry.sweep(HOUR)
    next(slices)
    cell.forks += 1
    assert sum(1 for _ in slices) > 0
    assert host.forks == {("late", "0"): 1}


def test_unknown_never_goes_and_many_series_are_looked_at_in_slices() -> None:
    host = Host()
    expiry = Expiry(host.tallies, host.table.cells_in_use, HOUR)
    host.tallies.claim_cell(None, 5).forks = 1
    for n in range(2500):
        host.tallies.claim_cell(b"c%d" % n, 0).forks = 1
    assert sweep(expiry, 0.0) == 3
    assert sweep(expiry, HOUR) == 6
    assert host.forks == {("<unknown>", "5"): 1}


# -- groups ----------------------------------------------------------------------------------------------------

MINUTE = 60.0
IN_CONTAINER = Placement("", 64 * "a", "", "")
IN_UNIT = Placement("", "", "job.service", "")


def test_a_container_in_which_no_process_lives_goes_and_a_unit_stays() -> None:
    host = Host(sideband=True, group_by=frozenset({"pod", "unit"}))
    grouping = host.table.grouping
    assert grouping.places is not None
    gone = GoneGroups(
        host.tallies, grouping.groups_in_use, grouping.places.is_container, grouping.places.forget, MINUTE
    )
    for tgid, placement in ((1, NOWHERE), (20, IN_CONTAINER), (30, IN_UNIT)):
        host.lives_in(tgid, b"main", placement)
        host.fork(tgid, 400 + tgid)
        host.end(400 + tgid, b"main")
    host.drain()
    for now in (0.0, MINUTE, 2 * MINUTE):
        gone.sweep(now)
    assert len(host.by_group) == 3
    for tgid in (20, 30):
        host.end(tgid, b"main")
    host.drain()
    gone.sweep(3 * MINUTE)
    assert len(host.by_group) == 3
    gone.sweep(4 * MINUTE)
    assert set(host.by_group) == {("", "", "", ""), ("", "", "", "job.service")}
    assert (host.tallies.expired()["fork"], host.tallies.expired()["exit"]) == (1, 2)
    # A process that comes there later begins anew.
    host.lives_in(21, b"main", IN_CONTAINER)
    host.fork(21, 421)
    host.drain()
    assert host.by_group["", "", 12 * "a", ""] == {"forks": 1}


def test_a_container_that_has_a_process_again_in_time_stays() -> None:
    host = Host(sideband=True, group_by=frozenset({"pod"}))
    grouping = host.table.grouping
    assert grouping.places is not None
    gone = GoneGroups(
        host.tallies, grouping.groups_in_use, grouping.places.is_container, grouping.places.forget, MINUTE
    )
    host.lives_in(20, b"main", IN_CONTAINER)
    host.end(20, b"main")
    host.drain()
    gone.sweep(0.0)
    host.lives_in(21, b"main", IN_CONTAINER)
    gone.sweep(MINUTE)
    host.end(21, b"main")
    host.drain()
    gone.sweep(1.5 * MINUTE)
    gone.sweep(2 * MINUTE)
    assert host.by_group["", "", 12 * "a"] == {"exits": 2}
