"""What a guest says of the tests that ran in it."""

import sys
import time
from collections import Counter
from typing import NamedTuple

import pytest
from kernels.guests import Guest

RUN = ("python3", "tests/kernels/guest/run.py")


class Heard(NamedTuple):
    """What a guest told: how many tests had which outcome, why those that did not pass, and how pytest ended."""

    outcomes: Counter[str]
    reasons: list[str]
    end: str | None


def hear(guest: Guest, capsys: pytest.CaptureFixture[str]) -> Heard:
    """Show what the guest tells while it runs (guest/run.py has the form of it), to its end."""
    outcomes: Counter[str] = Counter()
    reasons: list[str] = []
    end = None
    began = time.monotonic()

    def show(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"{time.monotonic() - began:7.1f} {line}\n")

    show(f"{guest.name}:")
    for line in guest.lines():
        show(line)
        kind, _, rest = line.partition(" ")
        outcome = rest.partition(" ")[0]
        if kind == "test":
            outcomes[outcome] += 1
        if kind == "end":
            end = outcome
        elif (kind, outcome) != ("test", "passed"):
            reasons.append(line)
    # One that was silent for too long still runs.
    guest.kill()
    return Heard(outcomes, reasons, end)


def assert_passed(guest: Guest, capsys: pytest.CaptureFixture[str]) -> None:
    """Hear a guest to its end; assert that its tests ran and passed."""
    heard = hear(guest, capsys)
    assert heard.end is not None, f"it never came to its end\n{guest.last_words()}"
    assert heard.outcomes["passed"], f"it ran nothing\n{guest.last_words()}"
    # One that skips is one that was meant to run: what cannot is not asked for.
    assert (heard.end, set(heard.outcomes)) == ("0", {"passed"}), "\n".join(heard.reasons)
