"""A pid that process after process has, as with clone3's set_tid: hundreds of them can wait in one drain."""

from collections import Counter

import pytest
from host import Host, Mode
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporter.tallies.labels import UNKNOWN

PARENT, PID = 100, 400
# The exit code of each process in turn; the same few programs exec.
CODES = st.lists(st.integers(0, 3), min_size=1, max_size=12)


@pytest.mark.parametrize("sideband", [False, True], ids=["events", "side-band"])
@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=20, deadline=None)
@given(codes=CODES, processes=st.integers(1, 1000), each=st.sampled_from([40, 300, 1000]))
@example(codes=[0, 1, 2], processes=750, each=1000)
def test_every_end_is_that_of_its_own_process(
    mode: Mode, sideband: bool, codes: list[int], processes: int, each: int
) -> None:
    host = Host(mode, sideband=sideband)
    host.lives(PARENT, b"sh", 1000)
    truth: Counter[tuple[str, str, int]] = Counter()
    for number in range(processes):
        comm, status = f"program-{number % 5}", codes[number % len(codes)] << 8
        host.fork(PARENT, PID)
        host.exec(PID, comm.encode())
        host.end(PID, comm.encode(), 1000, status)
        truth[comm, "1000", status] += 1
        if number % each == each - 1:
            host.drain()
    host.settle()
    ends = Counter(host.exits)
    assert ends.total() == processes
    named = Counter({row: count for row, count in ends.items() if row[0] != UNKNOWN})
    assert named <= truth
    if mode.has_records or sideband:
        assert named == truth
    assert host.live == {"sh": 1}
    assert host.pipeline.waiting_records() == []
