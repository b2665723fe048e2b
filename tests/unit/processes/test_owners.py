"""exporter/processes/owners.py: whose EXIT it is."""

from host import Host, Mode, Thread


def test_the_exit_of_a_process_that_has_a_parent_is_not_that_of_one_that_lost_its_pid_before() -> None:
    """The EXIT of the first with the pid was lost, and the FORK of the third."""
    host = Host(Mode.EXACT)
    host.lives(100, b"sh", 1000)
    host.fork(100, 400)
    host.record(Thread(400, b"first", 1000), status=0x300)
    host.fork(100, 400)
    host.record(Thread(400, b"second", 1000), status=0x100)
    host.exit(400, 0x100, parent=100)
    host.record(Thread(400, b"third", 1000), status=0x200)
    host.exit(400, 0x200, parent=100)
    host.settle()
    assert host.exits == {("second", "1000", 0x100): 1, ("third", "1000", 0x200): 1}


def test_the_exit_of_a_process_that_had_a_parent_when_it_sent_it_can_come_after_the_fork_of_the_next_one() -> None:
    host = Host(Mode.EXACT)
    host.lives(100, b"sh", 1000)
    host.fork(100, 400)
    host.record(Thread(400, b"first", 1000), status=0x100)
    host.rest()
    sent_ns = host.now_ns
    host.fork(100, 400)
    host.exit(400, 0x100, parent=100, timestamp_ns=sent_ns)
    host.end(400, b"second", 1000, 0x200)
    host.settle()
    assert host.exits == {("first", "1000", 0x100): 1, ("second", "1000", 0x200): 1}
    assert host.live == {"sh": 1}
