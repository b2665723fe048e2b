"""exporter/kubernetes/pauses.py."""

from exporter.kubernetes.pauses import Pauses


def test_pauses_grow_up_to_the_longest() -> None:
    pauses = Pauses(0.8, 5.0, lambda: 1.0)
    assert [pauses.next_seconds() for _ in range(5)] == [0.8, 1.6, 3.2, 5.0, 5.0]


def test_pauses_begin_anew_after_a_success() -> None:
    pauses = Pauses(0.8, 5.0, lambda: 1.0)
    assert [pauses.next_seconds(), pauses.next_seconds()] == [0.8, 1.6]
    pauses.reset()
    assert pauses.next_seconds() == 0.8


def test_each_pause_has_its_own_jitter_which_does_not_add_up() -> None:
    factors = iter((0.5, 1.5, 1.0))
    pauses = Pauses(1.0, 60.0, lambda: next(factors))
    assert [pauses.next_seconds() for _ in range(3)] == [0.5, 3.0, 4.0]
