"""Where no side-band records are permitted: what is not known is `<unknown>`, and nothing is wrong."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.harness import UNKNOWN, Exporter, Programs, World, running

EVENTS_ONLY = ("--exec-names", "events")


@pytest.fixture(params=["taskstats", "procfs"])
def events_only(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Exporter]:
    """An exporter without side-band records."""
    with running(str(request.param), tmp_path / "log", *EVENTS_ONLY) as exporter:
        yield exporter


def test_an_exec_that_died_after_the_point_of_no_return_is_not_counted_for_its_target(
    events_only: Exporter, programs: Programs
) -> None:
    """The address space is too small for the target, which the kernel finds out when there is no way back."""
    world = World(events_only, programs)
    target = world.program("target")
    shell = world.programs.script("shell", f"#!/bin/sh\nulimit -v 300\nexec {target} exit 0\n")
    world.comms.add(shell.name)
    ended = world.spawn(*[[shell]] * 10, count_exits=False)
    if {child.status & 0x7F for child in ended} - {signal.SIGSEGV, signal.SIGKILL}:
        pytest.skip(f"the exec fails otherwise here: {ended}")
    # The kernel has renamed it, so where the end is named it is named after the target or the shell.
    world.may_be_unknown |= {"execs", "exits"}
    for child in ended:
        world.count("exits", target.name, status=child.status)
        if child.status & 0x7F == signal.SIGSEGV:
            world.count("coredumps", target.name)
    world.may_be_unknown.add("coredumps")
    execs = {row: n for row, n in world.truth["execs"].items() if row[0] == target.name}
    assert execs == {}
    rows = events_only.wait_for(
        lambda scrape: sum(n for row, n in scrape.rows("exits").items() if row[1] == str(world.uid)) >= 11,
        "all ends",
    ).rows("execs")
    assert rows[target.name, str(world.uid)] == 0
    named = rows[shell.name, str(world.uid)]
    assert named + rows[UNKNOWN, str(world.uid)] >= 10
    assert named <= 10
    events_only.worlds.clear()


def test_a_sibling_that_is_cloned_gives_its_name_to_no_other_process(
    events_only: Exporter, programs: Programs
) -> None:
    """The connector's event has its parent, which did not fork (CLONE_PARENT)."""
    world = World(events_only, programs)
    program = world.program("sibling")
    world.spawn(*[(program, "sibling", "3", "7")] * 10)
    scrape = events_only.wait_for(
        lambda scrape: sum(n for row, n in scrape.rows("exits").items() if row[1] == str(world.uid)) >= 51,
        "all ends",
    )
    execs = {row[0]: n for row, n in scrape.rows("execs").items() if row[1] == str(world.uid)}
    assert "stage" not in execs
    exits = {row[0]: n for row, n in scrape.rows("exits").items() if row[1] == str(world.uid) and row[2] == "7"}
    if events_only.mode == "taskstats":
        # Its own record names it.
        assert exits == {"stage": 30}
    else:
        # Or it has its parent's name, if that was settled: docs/numbers.md.
        assert sum(exits.values()) == 30
        assert set(exits) <= {"stage", UNKNOWN, program.name}
    events_only.worlds.clear()
