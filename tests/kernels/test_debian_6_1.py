"""The exporter on Debian's Linux 6.1, which knows no event masks and lets nobody listen without CAP_NET_ADMIN."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from kernels import image
from kernels.guests import Guest, booted

RUN = ("python3", "tests/kernels/guest/run.py")

# What takes long under emulation, for what it says of a kernel; of the processes that are older than the exporter,
# each mode with the hardest remains. `used_again`: if the host takes the guest's CPU away between the waking of a
# parent and the EXIT of its child, the FORK of the pid's next owner comes before that EXIT.
LEFT_OUT = "large or kernel_thread_that_ends or living or cpu_seconds or (older_than and not loses)"

COMMANDS = {
    "without_masks": (*RUN, "tests/kernel/test_without_masks.py"),
    "truth_table": (*RUN, "-k", f"not ({LEFT_OUT})", "tests/kernel/test_truth_table.py"),
}

pytestmark = pytest.mark.kernels


@pytest.fixture(scope="module")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Guest]]:
    if missing := image.what_is_missing():
        pytest.skip(missing)
    with booted(image.linux_6_1(), COMMANDS, tmp_path_factory.mktemp("guests")) as running:
        yield running


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

    show(f"{guest.name} boots")
    for line in guest.lines():
        show(line)
        kind, _, rest = line.partition(" ")
        outcome = rest.partition(" ")[0]
        if kind == "test":
            outcomes[outcome] += 1
        if kind == "end":
            end = rest
        elif (kind, outcome) != ("test", "passed"):
            reasons.append(line)
    return Heard(outcomes, reasons, end)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_tests_of_the_guest_pass(
    name: str, guests: dict[str, Guest], capsys: pytest.CaptureFixture[str]
) -> None:
    guest = guests[name]
    heard = hear(guest, capsys)
    assert heard.end is not None, f"it never came to its end\n{guest.last_words()}"
    assert heard.outcomes["passed"], f"it ran nothing\n{guest.last_words()}"
    # One that skips is one that was meant to run: what cannot is not asked for.
    assert (heard.end, set(heard.outcomes)) == ("0", {"passed"}), "\n".join(heard.reasons)
