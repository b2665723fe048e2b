"""exporter/kernel/wait_status.py: exit codes, signals and their names."""

import os

import pytest

from exporter.kernel import wait_status
from exporter.kernel.wait_status import (
    CORE_BIT,
    SIGNAL_BITS,
    STATUS_BITS,
    exit_code,
    exit_labels,
    signal_name,
    signal_number,
)

# signal(7), the numbers of x86 and ARM.
SIGNALS = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
    "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
    "WINCH", "IO", "PWR", "SYS",
]  # fmt: skip
NAMES = {
    **{number: f"SIG{name}" for number, name in enumerate(SIGNALS, start=1)},
    32: "SIG32",
    33: "SIG33",
    34: "SIGRTMIN",
    **{number: f"SIGRTMIN+{number - 34}" for number in range(35, 65)},
}
STATUSES = [*(code << 8 for code in range(256)), *range(1, 65), *(number | CORE_BIT for number in range(1, 65))]


def test_an_exit_code_is_itself_and_no_signal() -> None:
    assert [exit_labels(code << 8) for code in range(256)] == [(str(code), "") for code in range(256)]


def test_a_signal_is_what_a_shell_shows_and_its_name() -> None:
    assert [exit_labels(number) for number in range(1, 65)] == [(str(128 + n), NAMES[n]) for n in range(1, 65)]


def test_a_core_dump_does_not_change_the_labels() -> None:
    assert [exit_labels(number | CORE_BIT) for number in NAMES] == [exit_labels(number) for number in NAMES]


def test_no_two_ways_to_end_have_the_same_labels() -> None:
    assert len({exit_labels(status) for status in STATUSES}) == 256 + 64


def test_a_status_is_read_as_the_c_library_reads_it() -> None:
    for status in STATUSES:
        if os.WIFSIGNALED(status):
            assert (signal_number(status), bool(status & CORE_BIT)) == (os.WTERMSIG(status), os.WCOREDUMP(status))
            assert exit_code(status) == 128 + os.WTERMSIG(status)
        else:
            assert (signal_number(status), signal_name(status)) == (0, "")
            assert exit_code(status) == os.WEXITSTATUS(status)


@pytest.mark.parametrize("status", [0x0300, 0x008B, 0x7FFF0300, 0xFFFF008B], ids=hex)
def test_what_is_above_the_exit_code_does_not_matter(status: int) -> None:
    assert (
        exit_labels(status) == exit_labels(status & (STATUS_BITS | CORE_BIT)) == exit_labels(status & STATUS_BITS)
    )


def test_the_parts_of_a_status_do_not_overlap() -> None:
    assert STATUS_BITS & CORE_BIT == 0
    assert STATUS_BITS | CORE_BIT == 0xFFFF
    assert STATUS_BITS & SIGNAL_BITS == SIGNAL_BITS


def test_on_linux_the_signals_of_other_systems_are_its_own() -> None:
    names = dict(enumerate(wait_status._LINUX_SIGNALS.split(), 1))  # noqa: SLF001 - unused on Linux but here
    signals = wait_status._SIGNALS  # noqa: SLF001 - some have names on Linux only
    assert {number: f"SIG{name}" for number, name in names.items()} == signals
