"""Processes with threads that share three pids: each EXIT finds its own record, or none, within one drain."""

from random import Random

from host import MS, Host, Mode, Thread
from hypothesis import given
from hypothesis import strategies as st

_PIDS = [300, 301, 302]


@given(chance=st.randoms(use_true_random=False), processes=st.integers(1, 6))
def test_processes_that_follow_one_another_with_three_pids_are_told_apart(chance: Random, processes: int) -> None:
    host = Host(Mode.EXACT)
    host.lives(100, b"sh", 1000)
    truth: dict[tuple[str, str, int], int] = {}
    stopped: list[tuple[int, int, int]] = []
    for number in range(processes):
        tgid, name = chance.choice(_PIDS), f"p{number}"
        host.fork(100, tgid)
        for of_tgid, pid, status in stopped:
            host.exit(of_tgid, status, thread=pid)
        stopped.clear()
        host.rename(tgid, name.encode())
        others = [pid for pid in chance.sample(_PIDS, chance.randint(0, 2)) if pid != tgid]
        for pid in others:
            host.thread(tgid, pid)
        status = chance.choice([0, 0, 0x100])
        # Each thread may be stopped between its record and its EXIT.
        recorded, exited = ([*others, tgid] for _ in range(2))
        chance.shuffle(recorded)
        chance.shuffle(exited)
        for pid in recorded:
            thread = Thread(pid, name.encode() if pid == tgid else b"worker", 1000)
            host.record(thread, status=status, last=pid == recorded[-1], cpu_ms=number + 1, tgid=tgid)
        for pid in exited:
            if pid == exited[-1] != tgid and chance.random() < 0.3:
                # Until its process was reaped and another one forked.
                stopped.append((tgid, pid, status))
            else:
                host.exit(tgid, status, thread=None if pid == tgid else pid, parent=100 if pid == tgid else 0)
        truth[name, "1000", status] = 1
    for of_tgid, pid, status in stopped:
        host.exit(of_tgid, status, thread=pid)
    host.settle()
    assert host.exits == truth
    assert host.live == {"sh": 1}
    assert host.pipeline.waiting_records() == []
    used = {p.comm: p.cpu_ns[-1] for p in host.tallies.snapshot_programs() if sum(p.cpu_ns[:-1])}
    assert used == {f"p{number}": (number + 1) * MS for number in range(processes)}
