"""Ends counted twice."""

from exporter.kernel.procfs import TaskTotals
from exporter.live.crosscheck import ExitCheck


def test_what_was_created_and_is_not_there_any_more_has_ended() -> None:
    check = ExitCheck()
    assert check.ended is None
    check.look(TaskTotals(created=1000, present=100), 7)
    assert check.ended == {"events": 0, "kernel": 0}
    check.look(TaskTotals(created=1500, present=120), 447)
    assert check.ended == {"events": 440, "kernel": 480}


def test_canaries_are_in_neither_count() -> None:
    check = ExitCheck()
    check.look(TaskTotals(created=1000, present=100), 7, 2)
    check.look(TaskTotals(created=1013, present=100), 17, 5)
    assert check.ended == {"events": 10, "kernel": 10}


def test_the_kernels_count_never_goes_backwards() -> None:
    """Its totals are not of one moment."""
    check = ExitCheck()
    check.look(TaskTotals(created=1000, present=100), 0)
    check.look(TaskTotals(created=1010, present=100), 10)
    check.look(TaskTotals(created=1010, present=103), 10)
    assert check.ended == {"events": 10, "kernel": 10}


def test_where_the_kernel_does_not_say_nothing_is_claimed() -> None:
    check = ExitCheck()
    check.look(TaskTotals(created=1000, present=100), 0)
    check.look(None, 5)
    assert check.ended is None
    check.look(TaskTotals(created=1006, present=100), 6)
    assert check.ended == {"events": 6, "kernel": 6}
