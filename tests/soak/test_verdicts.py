"""What the soak calls kept and broken."""

import pytest
from soak.__main__ import Sample, balance, verdicts

ALWAYS = frozenset({("3", "socket:[7]"), ("4", "anon_inode:[eventpoll]")})
PROMISE = "file descriptors stay the same"


def is_kept(*more: set[tuple[str, str]]) -> bool:
    """Tell whether the soak finds nothing wrong with what was open at its looks, beside what always is."""
    taken = [Sample(2.0 * n, 1 << 26, ALWAYS | at, 0.1, 1e6 * n, 0, 5000) for n, at in enumerate(more)]
    return {promise: kept for promise, _, kept in verdicts(taken)}[PROMISE]


def socket(number: int, inode: int) -> tuple[str, str]:
    return str(number), f"socket:[{inode}]"


def test_what_is_open_at_one_look_and_gone_at_the_next_is_no_leak() -> None:
    assert is_kept(*[set()] * 20)
    # A scrape's connection, each time another one under the same number.
    assert is_kept(*({socket(5, 100 + n)} if n % 3 else set() for n in range(20)))


@pytest.mark.parametrize("scrapes_per_leak", [1, 5])
def test_a_connection_that_stays_is_a_leak(scrapes_per_leak: int) -> None:
    assert not is_kept(*({socket(5 + n, 100 + n) for n in range(at // scrapes_per_leak)} for at in range(20)))


@pytest.mark.parametrize(
    ("received", "lost", "kept"),
    [
        (2_400_000, 600_000, True),
        (2_410_000, 600_000, True),
        (2_399_000, 600_000, False),
        (2_500_000, 600_000, False),
    ],
)
def test_a_message_that_is_neither_received_nor_counted_as_lost_is_found_among_many_losses(
    received: int, lost: int, kept: bool
) -> None:
    assert balance(3_000_000, received, lost)[2] is kept
