"""exporter/tallies/expiry.py: idle series go, and nothing is lost with them."""

from host import Host

from exporter.tallies.expiry import Expiry

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
