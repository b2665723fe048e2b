"""exporter/processes/reconcile.py: which process a scan has read. What it corrects is in test_table.py."""

from host import MS, Host, Mode

from exporter.tallies.labels import UNKNOWN


def _an_unsure_end() -> tuple[Host, int]:
    """A process whose leader exits, and the record of that is lost; returns when it exited, too."""
    host = Host(Mode.EXACT)
    host.lives(100, b"sh", 1000)
    host.fork(100, 400)
    host.rest(100)
    host.exit(400, 0x100)
    exited_ns = host.now_ns
    host.drain()
    assert host.exits == {}
    return host, exited_ns


def test_a_process_that_has_the_pid_of_one_that_exited_does_not_name_it() -> None:
    """Its own FORK was lost."""
    host, exited_ns = _an_unsure_end()
    host.adopt(400, b"next", 1000, start_ns=exited_ns + 1)
    host.settle()
    assert host.exits == {("sh", "1000", 0x100): 1}
    assert host.live == {"sh": 1, "next": 1}
    host.end(400, b"next", 1000, 0x200)
    host.settle()
    assert host.exits == {("sh", "1000", 0x100): 1, ("next", "1000", 0x200): 1}


def test_within_a_tick_of_the_exit_either_process_can_have_been_read() -> None:
    host, exited_ns = _an_unsure_end()
    host.adopt(400, b"next", 1000, start_ns=exited_ns - 5 * MS, zombie=True)
    host.settle()
    assert host.exits == {("sh", "1000", 0x100): 1}
    assert host.live == {"sh": 1}


def test_a_leader_that_has_exited_is_named_if_it_was_not_known() -> None:
    host = Host(Mode.EXACT)
    host.fork(7, 400)
    host.rest(100)
    host.exit(400, 0x100)
    exited_ns = host.now_ns
    host.drain()
    assert host.live == {UNKNOWN: 1}
    host.adopt(400, b"cron", 1000, start_ns=exited_ns - 90 * MS, zombie=True)
    host.settle()
    assert host.exits == {("cron", "1000", 0x100): 1}
