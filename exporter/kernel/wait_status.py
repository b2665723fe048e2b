"""A wait status: what an EXIT event or an exit record says of how a thread or a process ended.

    bits 8 to 15   the exit code, of one that exited
    bit  7         core was dumped (only with a signal)
    bits 0 to 6    the signal that killed it; 0 if it exited

What is above them is undefined.

Source: wait(2), the macros WIFEXITED and WTERMSIG of <sys/wait.h>; kernel/exit.c: do_exit, do_group_exit.
"""

import signal
import sys
from functools import cache

SIGNAL_BITS = 0x7F
SIGKILL = 9
CORE_BIT = 0x80
STATUS_BITS = 0xFF7F
"""The exit code and the signal: what tells one way to end from another. The core bit makes no other series."""

# What a shell adds to the number of a signal.
_SHELL_SIGNAL = 128

# As most architectures of Linux have them, for a capture that is replayed on another system.
_LINUX_SIGNALS = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU "
    "URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
_SIGRTMIN, _SIGRTMAX = (34, 64) if sys.platform != "linux" else (int(signal.SIGRTMIN), int(signal.SIGRTMAX))
_SIGNALS = (
    {number: f"SIG{name}" for number, name in enumerate(_LINUX_SIGNALS.split(), 1)}
    if sys.platform != "linux"
    else {int(s): s.name for s in signal.Signals if s not in {signal.SIGRTMIN, signal.SIGRTMAX}}
)


def signal_number(status: int) -> int:
    """Return the number of the signal that killed the process, 0 if it exited."""
    return status & SIGNAL_BITS


def exit_code(status: int) -> int:
    """Return what a shell shows as `$?`: the exit code, or 128+n for signal n."""
    number = signal_number(status)
    return _SHELL_SIGNAL + number if number else (status >> 8) & 0xFF


def signal_name(status: int) -> str:
    """Return the name of the signal that killed the process, an empty text if it exited.

    The names are this machine's, as signal numbers differ between architectures. 32 and 33 have no name: the C
    library keeps them for itself.
    """
    number = signal_number(status)
    if number == 0:
        return ""
    if number in _SIGNALS:
        return _SIGNALS[number]
    if _SIGRTMIN <= number <= _SIGRTMAX:
        above = number - _SIGRTMIN
        return f"SIGRTMIN+{above}" if above else "SIGRTMIN"
    return f"SIG{number}"


@cache
def exit_labels(status: int) -> tuple[str, str]:
    """Return (exit_code, signal), the labels of an end; the core bit does not matter."""
    return str(exit_code(status)), signal_name(status)
