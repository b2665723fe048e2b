"""exporter/tallies/tallies.py: which cell is whose, their limit, and what a snapshot copies."""

import gc
import re
import struct
import weakref

import pytest

from exporter.tallies import groups
from exporter.tallies.cells import count_events
from exporter.tallies.counters import COUNTERS, values_of
from exporter.tallies.histograms import CPU_NS, LIFETIME_NS, MAX_RSS_KIB, observe
from exporter.tallies.labels import OTHER, OTHER_UID, UNKNOWN, uid_label
from exporter.tallies.rules import Rule, Rules, Selection
from exporter.tallies.tallies import LEAST_LIMIT, Tallies


def test_there_is_one_cell_for_a_comm_and_uid_and_one_program_for_a_comm() -> None:
    tallies = Tallies()
    cell = tallies.claim_cell(b"sh", 0)
    assert tallies.claim_cell(b"sh", 0) is cell
    other = tallies.claim_cell(b"sh", 33)
    assert other is not cell
    assert other.program is cell.program
    assert tallies.claim_sibling(cell, 33) is other
    assert tallies.claim_cell(b"bash", 0).program is not cell.program


def test_an_unknown_process_shares_no_cell_with_one_that_calls_itself_unknown() -> None:
    tallies = Tallies()
    tallies.claim_cell(None, None).forks += 1
    tallies.claim_cell(b"<unknown>", None).forks += 10
    assert tallies.unattributed()["fork"] == 1


def test_bytes_that_look_alike_are_one_cell() -> None:
    tallies = Tallies()
    assert tallies.claim_cell(b"\xff", 0) is tallies.claim_cell(rb"\xff", 0)
    assert tallies.claim_cell(b"kworker/0:1", 0) is tallies.claim_cell(b"kworker/u8:3-ev", 0)


@pytest.mark.parametrize("junk", [b"", b"left over"], ids=["clean", "junk after the NUL"])
def test_a_record_names_the_cell_of_its_comm_and_uid(junk: bytes) -> None:
    tallies = Tallies()
    comm_uid = struct.pack("=32sB7xI", b"make\0" + junk, 0, 1000)
    cell = tallies.claim_cell_of_record(comm_uid)
    assert cell is tallies.claim_cell(b"make", 1000)
    assert tallies.claim_cell_of_record(comm_uid) is cell


def test_hostile_names_in_records_do_not_fill_the_memory_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_REMEMBERED", 10)
    tallies = Tallies()
    records = [struct.pack("=32sB7xI", b"same", i, 0) for i in range(100)]
    assert {id(tallies.claim_cell_of_record(record)) for record in records} == {id(tallies.claim_cell(b"same", 0))}
    assert len(tallies.groups.base.by_record) <= 10


def test_absorbing_adds_everything() -> None:
    tallies = Tallies()
    mine, its = tallies.claim_cell(b"a", 0), tallies.claim_cell(b"b", 0)
    for cell, n in ((mine, 1), (its, 10)):
        for i, row in enumerate(COUNTERS, start=1):
            setattr(cell, row.field, n * i)
        tallies.count_end(cell, 0, n)
        tallies.count_end(cell, n, n)
        observe(cell.lifetime_ns, LIFETIME_NS, n)
        observe(cell.cpu_ns, CPU_NS, n)
        observe(cell.max_rss_kib, MAX_RSS_KIB, n)
    tallies.absorb(mine, its)
    assert values_of(mine) == tuple(11 * i for i in range(1, len(COUNTERS) + 1))
    assert mine.exits == {0: 11, 1: 1, 10: 10}
    assert [(h[0], h[-1]) for h in (mine.lifetime_ns, mine.cpu_ns, mine.max_rss_kib)] == [(2, 11)] * 3
    counted = {row.event: 11 * i for i, row in enumerate(COUNTERS, start=1) if row.event}
    assert count_events([mine]) == counted | {"exit": 22}


def test_a_snapshot_does_not_change_when_counting_goes_on() -> None:
    tallies = Tallies()
    cell = tallies.claim_cell(b"sh", None)
    cell.forks = 1
    tallies.count_end(cell, 0)
    observe(cell.lifetime_ns, LIFETIME_NS, 5)
    cells, programs = tallies.snapshot_cells(), tallies.snapshot_programs()
    cell.forks += 1
    cell.exits[0] += 1
    observe(cell.lifetime_ns, LIFETIME_NS, 5)
    tallies.claim_cell(b"new", 0)
    at = cells.keys.index(("sh", None))
    assert cells.labels[at] == f'comm="sh",uid="{UNKNOWN}"'
    assert (cells.counters["forks"][at], cells.exits[at]) == (1, {0: 1})
    assert ("new", 0) not in cells.keys
    assert [(p.comm, p.lifetime_ns[-1]) for p in programs] == [("sh", 5)]


def test_labels_are_escaped_as_an_exposition_needs_it() -> None:
    assert Tallies().claim_cell(b'a"b\\c\n', 0).labels == r'comm="a\"b\\c\\x0a",uid="0"'


# -- series at their limit -----------------------------------------------------------------------------------


def fill(tallies: Tallies) -> None:
    """Use up all cells that there may be."""
    for n in range(tallies.limit):
        tallies.claim_cell(b"fill-%d" % n, 0)


def forks(tallies: Tallies) -> dict[tuple[str, str], int]:
    cells = tallies.snapshot_cells()
    column = cells.counters["forks"]
    return {(comm, uid_label(uid)): n for (comm, uid), n in zip(cells.keys, column, strict=True) if n}


def test_beyond_the_limit_a_name_is_counted_as_other_and_keeps_its_identity() -> None:
    tallies = Tallies(LEAST_LIMIT)
    fill(tallies)
    assert tallies.full
    late = tallies.claim_cell(b"late", 7)
    late.forks += 2
    assert forks(tallies) == {(OTHER, "7"): 2}
    assert (late.comm, late.uid, late.program.comm) == ("late", 7, OTHER)
    assert tallies.claim_cell(b"late", 7) is late
    assert tallies.claim_cell(b"later", 7) is not late
    sibling = tallies.claim_sibling(late, 8)
    assert (sibling.comm, sibling.uid) == ("late", 8)
    # A name that had come before is as it was.
    tallies.claim_cell(b"fill-1", 0).forks += 1
    assert forks(tallies)["fill-1", "0"] == 1


def test_the_unknown_stay_unknown_beyond_the_limit() -> None:
    tallies = Tallies(LEAST_LIMIT)
    fill(tallies)
    tallies.claim_cell(None, None).forks += 1
    tallies.claim_cell(None, 7).forks += 1
    assert forks(tallies) == {(UNKNOWN, UNKNOWN): 1, (UNKNOWN, OTHER): 1}
    assert tallies.unattributed()["fork"] == 2


def test_of_others_so_many_uids_have_a_cell_each() -> None:
    tallies = Tallies(LEAST_LIMIT)
    fill(tallies)
    for uid in range(200):
        tallies.claim_cell(b"late", uid).forks += 1
    assert forks(tallies) == {**{(OTHER, str(uid)): 1 for uid in range(64)}, (OTHER, OTHER): 136}


def test_statuses_beyond_the_limit_are_counted_under_other_with_their_code() -> None:
    tallies = Tallies(LEAST_LIMIT)
    statuses = [code << 8 for code in range(256)]
    for comm in (b"a", b"b"):
        for status in statuses:
            tallies.count_end(tallies.claim_cell(comm, 0), status)
    unknown = tallies.claim_cell(None, 5)
    tallies.count_end(unknown, 9)
    counted = {key: sum(n.values()) for key, n in zip(*_exits(tallies), strict=True) if n}
    assert counted == {("a", 0): 256, ("b", 0): 104, (OTHER, OTHER_UID): 152, (UNKNOWN, OTHER_UID): 1}
    assert tallies.unattributed()["exit"] == 1


def _exits(tallies: Tallies) -> tuple[list[tuple[str, int | None]], list[dict[int, int]]]:
    cells = tallies.snapshot_cells()
    return cells.keys, cells.exits


def test_programs_beyond_the_limit_share_the_histograms_of_other() -> None:
    tallies = Tallies(LEAST_LIMIT)
    for n in range(200):
        cell = tallies.claim_cell(b"p%d" % n, 0)
        tallies.count_end(cell, 0)
        observe(cell.lifetime_ns, LIFETIME_NS, 1)
    programs = tallies.snapshot_programs()
    assert len(programs) == 1000 // 18 - 1
    assert {p.comm: p.lifetime_ns[0] for p in programs}[OTHER] == 200 - len(programs) + 1


def test_a_program_that_never_ends_takes_no_histograms() -> None:
    tallies = Tallies(LEAST_LIMIT)
    for n in range(500):
        tallies.claim_cell(b"p%d" % n, 0).forks += 1
    assert not tallies.full
    last = tallies.claim_cell(b"last", 0)
    tallies.count_end(last, 0)
    assert last.program.histograms is not tallies.claim_cell(b"p1", 0).program.histograms


def test_a_folded_name_is_forgotten_with_the_last_process_that_has_it() -> None:
    tallies = Tallies(LEAST_LIMIT)
    fill(tallies)
    late = []
    for n in range(10_000):
        cell = tallies.claim_cell(b"late-%d" % n, 0)
        cell.forks += 1
        late.append(weakref.ref(cell))
    gc.collect()
    assert [ref() for ref in late[:-1] if ref() is not None] == []
    assert late[-1]() is cell


# -- rules ---------------------------------------------------------------------------------------------------


def test_a_process_that_is_excluded_by_uid_is_counted_again_when_that_changes() -> None:
    tallies = Tallies(rules=Rules(exclude=Selection(uids=(range(1),))))
    root = tallies.claim_cell(b"su", 0)
    root.forks += 3
    tallies.count_end(root, 0)
    observe(root.lifetime_ns, LIFETIME_NS, 1)
    user = tallies.claim_sibling(root, 1000)
    user.forks += 1
    assert forks(tallies) == {("su", "1000"): 1}
    assert (tallies.excluded()["fork"], tallies.excluded()["exit"]) == (3, 1)
    assert tallies.snapshot_programs() == []
    assert tallies.claim_sibling(user, 0) is root


def test_a_process_that_is_excluded_by_comm_stays_so_under_every_uid() -> None:
    tallies = Tallies(rules=Rules([Rule(re.compile("a.*"), None)]))
    tallies.claim_sibling(tallies.claim_cell(b"ab", 0), 1000).forks += 1
    assert (forks(tallies), tallies.excluded()["fork"]) == ({}, 1)


def test_new_rules_hold_for_further_processes_and_for_records() -> None:
    tallies = Tallies()
    record = struct.pack("=32sB7xI", b"name", 0, 0)
    before = tallies.claim_cell_of_record(record)
    before.forks += 1
    tallies.apply_rules(Rules([Rule(re.compile("name"), ("other name",))]))
    tallies.claim_cell_of_record(record).forks += 1
    before.forks += 1
    assert forks(tallies) == {("name", "0"): 2, ("other name", "0"): 1}


# -- series that are gone ------------------------------------------------------------------------------------


def room(tallies: Tallies) -> tuple[int, int, int]:
    """How many more cells, ends and histograms have a place of their own."""
    # To fill all three up needs as many series again, of which each is also one of another kind.
    cells, statuses, programs = tallies.rooms.free
    return cells, statuses, programs


def test_what_is_dropped_makes_room_and_stays_in_the_sums() -> None:
    tallies = Tallies(LEAST_LIMIT)
    fill(tallies)
    old = tallies.claim_cell(b"fill-1", 0)
    old.forks += 5
    tallies.count_end(old, 0)
    tallies.count_end(old, 9)
    before = room(tallies)
    tallies.drop([old])
    assert room(tallies) == (1, before[1] + 2, before[2] + 1)
    assert (tallies.expired()["fork"], tallies.expired()["exit"]) == (5, 2)
    assert forks(tallies) == {}
    again = tallies.claim_cell(b"fill-1", 0)
    assert again is not old
    assert again.forks == 0


def test_names_without_series_are_remembered_up_to_a_number_and_keep_no_other_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(groups, "_FOLDED_REMEMBERED", 10)
    tallies = Tallies(LEAST_LIMIT)
    base = tallies.groups.base
    known = tallies.claim_cell_of_exec(b"known", 0, base)
    fill(tallies)
    record = struct.pack("=32sB7xI", b"fill-1", 0, 0)
    of_record = tallies.claim_cell_of_record(record)
    late = []
    for n in range(1000):
        tallies.claim_cell_of_exec(b"late-%d" % n, 0, base).execs += 1
        cell = tallies.claim_cell_of_record(struct.pack("=32sB7xI", b"late-%d" % n, 0, 0))
        cell.forks += 1
        late.append(weakref.ref(cell))
        assert base.known_exec((b"late-%d" % n, 0)) in {cell, None}
        del cell
    gc.collect()
    assert len([ref for ref in late if ref() is not None]) <= 10
    assert (base.known_exec((b"known", 0)), base.known_record(record)) == (known, of_record)
    assert forks(tallies)[OTHER, "0"] == 1000


# -- copies --------------------------------------------------------------------------------------------------


def test_the_columns_of_ends_stand_beside_those_of_cells() -> None:
    tallies = Tallies()
    for comm, statuses in ((b"sh", (0, 9)), (b"lives", ()), (b"make", (0x200,))):
        cell = tallies.claim_cell(comm, 0)
        cell.forks += 1
        for status in statuses:
            tallies.count_end(cell, status, status + 1)
    cells = tallies.snapshot_cells()
    rows = zip(cells.for_ends(cells.keys), cells.statuses, cells.ends, strict=True)
    assert [*rows] == [(("sh", 0), 0, 1), (("sh", 0), 9, 10), (("make", 0), 0x200, 0x201)]
    exits = dict(zip(cells.keys, cells.exits, strict=True))
    assert (exits["sh", 0], exits["lives", 0], exits["make", 0]) == ({0: 1, 9: 10}, {}, {0x200: 0x201})
    places = [cells.keys.index(key) for key in (("make", 0), ("lives", 0), ("sh", 0))]
    assert [*cells.ends_of(places)] == [(0x200, 0x201), (0, 1), (9, 10)]


def test_a_copy_stays_as_it_was_while_counting_goes_on() -> None:
    tallies = Tallies()
    cell = tallies.claim_cell(b"sh", 0)
    tallies.count_end(cell, 0)
    cells = tallies.snapshot_cells()
    tallies.count_end(cell, 0)
    tallies.count_end(cell, 9)
    tallies.claim_cell(b"late", 0)
    assert (sum(cells.ends), cells.statuses) == (1, [0])
    assert ("late", 0) not in cells.keys
