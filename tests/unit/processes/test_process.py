"""exporter/processes/process.py: what is unusual about a process, and when that is over."""

from collections.abc import Callable

import pytest

from exporter.kernel.cn_proc import PROC_EVENT_EXIT
from exporter.processes.open_names import OpenNames
from exporter.processes.process import MERE_STRANGER, Children, Odd, OpenCell, Process, UnnamedEnd
from exporter.tallies.tallies import Tallies

TALLIES = Tallies()
EVENT = (PROC_EVENT_EXIT, 1, 401, 400, 9, 0, 1, 1)
RECORD = (401, 9, 0, 0, bytes(44), 0, 0)


def process() -> Process:
    return Process(400, TALLIES.claim_cell(b"sh", 0), 1)


ODDITIES: dict[str, Callable[[Odd], None]] = {
    "stranger": lambda odd: setattr(odd, "stranger", True),
    "children": lambda odd: setattr(odd, "children", Children.STRANGERS),
    "threads": lambda odd: setattr(odd, "threads", {401}),
    "leader": lambda odd: setattr(odd, "leader_exited", True),
    "end": lambda odd: setattr(odd, "unnamed_end", UnnamedEnd(EVENT, RECORD)),
    "adopted": lambda odd: setattr(odd, "adopted_ns", 1),
    "late": lambda odd: setattr(odd, "late_number", 1),
    "glimpsed": lambda odd: setattr(odd, "glimpsed", True),
}


@pytest.mark.parametrize("make", ODDITIES.values(), ids=ODDITIES)
def test_each_oddity_keeps_a_process_out_of_the_fast_ways(make: Callable[[Odd], None]) -> None:
    one = process()
    make(one.make_odd())
    one.tidy()
    assert one.odd is not None


def test_a_process_is_usual_again_when_nothing_is_unusual() -> None:
    one = process()
    odd = one.make_odd()
    assert one.make_odd() is odd
    one.tidy()
    assert one.odd is None


def test_what_is_unusual_about_a_mere_stranger_is_never_changed() -> None:
    one, other = process(), process()
    one.odd = other.odd = MERE_STRANGER
    one.make_odd().core = True
    assert one.odd is not None
    assert (one.is_stranger, one.odd.core) == (True, True)
    assert (other.is_stranger, MERE_STRANGER.core) == (True, False)
    with pytest.raises(AttributeError, match="make_odd"):
        MERE_STRANGER.core = True


def test_a_mere_stranger_is_usual_once_it_is_settled() -> None:
    one = process()
    one.odd = MERE_STRANGER
    one.settle(TALLIES.claim_cell(b"make", 7))
    assert one.odd is None


def test_settling_closes_a_name_and_leaves_the_rest() -> None:
    one = process()
    name = OpenNames(TALLIES).new(one)
    one.cell = name.cell(7, TALLIES.groups.base)
    odd = one.make_odd()
    odd.name = name
    odd.threads = {401}
    assert isinstance(one.cell, OpenCell)
    name.close(lambda uid, group: TALLIES.claim_cell(b"make", uid, group))
    assert (one.cell.comm, one.cell.uid) == ("make", 7)
    assert one.open_name is None
    assert odd.threads == {401}


def test_the_carriers_of_a_name_stay_in_their_order() -> None:
    names = OpenNames(TALLIES)
    first, others = process(), [process() for _ in range(50)]
    name = names.new(first)
    for one in others:
        name.carriers[one] = None
    assert list(name.carriers) == [first, *others]
