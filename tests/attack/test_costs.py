"""What one process can make an event cost: not more, however often it does the same, or with how many threads.

Where an event costs as much as there were such events before it, a process that repeats it holds up the event loop
for minutes, and messages are lost.
"""

import time
from collections.abc import Callable

import builders
import pytest
from host import Host, Mode

FEW, MANY = 250, 8000
# A cost that grows with the number would grow by 32. What is no longer in a cache costs up to four times as much,
# where others use the caches.
AT_MOST = 8


def execs(host: Host, times: int) -> None:
    for n in range(times):
        host.exec(100, b"a%d" % n)


def renames(host: Host, times: int) -> None:
    for n in range(times):
        host.rename(100, b"a%d" % n)


def uids(host: Host, times: int) -> None:
    for n in range(times):
        host.set_uid(100, 5000 + n)


def uids_of_threads(host: Host, times: int) -> None:
    for n in range(times):
        host.set_uid(100, 5000 + n, thread=10_000 + n)


def names_of_threads(host: Host, times: int) -> None:
    for n in range(times):
        host.thread(100, 10_000 + n)
        host.rename(100, b"a%d" % n, thread=10_000 + n)


def ends_of_threads(host: Host, times: int) -> None:
    for n in range(times):
        host.thread(100, 10_000 + n)
    host.exit(100)
    for n in range(times):
        host.exit(100, thread=10_000 + n)


def children_before_a_name_is_known(host: Host, times: int) -> None:
    host.exec(100)
    for n in range(times):
        host.fork(100, 10_000 + n)
    for n in range(times):
        host.exec(10_000 + n)


def children_of_threads(host: Host, times: int) -> None:
    for n in range(times):
        host.event(builders.fork, parent_pid=777, parent_tgid=100, child_tgid=10_000 + n)


def children_with_few_pids(host: Host, times: int) -> None:
    for n in range(times):
        host.fork(100, 10_000 + n % 3)
        host.end(10_000 + n % 3, b"sh", 1000)


def ends_of_strangers(host: Host, times: int) -> None:
    for n in range(times):
        host.exit(500_000 + n, thread=900_000 + n)


def tracers(host: Host, times: int) -> None:
    for n in range(times):
        host.event(builders.ptrace, tgid=100, tracer_tgid=200 + n % 2)


def seconds_per_event(host: Host, act: Callable[[Host, int], None], times: int) -> float:
    act(host, times)
    began = time.process_time()
    # What is looked for later counts, too.
    for _ in range(3):
        host.drain()
    return (time.process_time() - began) / times


@pytest.mark.parametrize("sideband", [False, True], ids=["events", "side-band"])
@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: str(mode.name).lower())
@pytest.mark.parametrize(
    "act",
    [
        execs, renames, uids, uids_of_threads, names_of_threads, ends_of_threads, children_before_a_name_is_known,
        children_of_threads, children_with_few_pids, ends_of_strangers, tracers,
    ],
    ids=lambda act: act.__name__,
)  # fmt: skip
def test_an_event_costs_the_same_however_often_a_process_causes_it(
    act: Callable[[Host, int], None], mode: Mode, *, sideband: bool
) -> None:
    def cost(times: int) -> float:
        host = Host(mode, sideband=sideband)
        host.step_ms = 0.001
        host.lives(100, b"sh", 1000)
        return seconds_per_event(host, act, times)

    # CPU time of this process alone; the least of some, as others use the caches.
    few = min(cost(FEW) for _ in range(5))
    many: list[float] = []
    while not many or many[-1] >= AT_MOST * few:
        assert len(many) < 5, f"{few=}, {many=}"
        many.append(cost(MANY))
