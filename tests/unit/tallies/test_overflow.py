"""exporter/tallies/overflow.py: where that counts which has no series of its own."""

from exporter.tallies.cells import Group
from exporter.tallies.histograms import CLASSIC_BOUNDS
from exporter.tallies.labels import OTHER, OTHER_UID, UNKNOWN
from exporter.tallies.overflow import MOST_OTHER_UIDS, Overflow

BASE = Group()


def overflow() -> Overflow:
    return Overflow(BASE, CLASSIC_BOUNDS, None)


def test_the_first_uids_without_series_keep_their_label_and_all_others_share_one() -> None:
    cells = overflow()
    for uid in range(MOST_OTHER_UIDS + 10):
        cells.fold("a", uid, BASE).forks += 1
    shown = [(cell.comm, cell.uid, cell.forks) for cell in cells if cell.forks]
    assert shown == [(OTHER, OTHER_UID, 10), *((OTHER, uid, 1) for uid in range(MOST_OTHER_UIDS))]


def test_an_unknown_comm_counts_as_unknown_whatever_its_uid() -> None:
    cells = overflow()
    cells.fold(UNKNOWN, 7, BASE).execs += 1
    assert cells.unknown.execs == 1
    assert cells.behind(UNKNOWN, BASE) is cells.unknown


def test_a_folded_cell_is_the_same_for_as_long_as_it_is_used_and_knows_its_name() -> None:
    cells = overflow()
    cell = cells.fold("a", 7, BASE)
    assert cells.fold("a", 7, BASE) is cell
    assert (cell.comm, cell.uid) == ("a", 7)
    assert cells.fold("b", 7, BASE) is not cell


def test_a_group_has_an_other_of_its_own() -> None:
    cells, group = overflow(), Group(("web",), ("unit",))
    cells.fold("a", 7, group).forks += 1
    assert group.others[OTHER].forks == 1
    assert cells.behind("a", group) is group.others[OTHER]
    assert cells.other.forks == 0


def test_what_is_excluded_is_not_shown() -> None:
    cells = overflow()
    cells.exclude(None, 7, BASE).forks += 1
    assert cells.excluded.forks == 1
    assert [cell for cell in cells if cell.forks] == []
