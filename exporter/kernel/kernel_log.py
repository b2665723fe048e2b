r"""Kernel log records to the pids of the processes that the OOM killer chose.

The kernel logs one record for each process that it chooses, with the pid in the host's pid namespace, before the
process can end: `Memory cgroup out of memory: Killed process 4711 (java) total-vm:...`.

A comm is a stranger's text, and other records quote longer ones (a mount option, say). So only the beginning of a
whole record is looked at, and only of a record that the kernel wrote itself. /dev/kmsg writes a newline within a
record as `\x0a`. syslog(2) breaks the line there, and repeats what it has before each record: the level and the
time. So lines of syslog that follow each other and begin alike are one record.

Source: mm/oom_kill.c: __oom_kill_process(); kernel/printk/printk.c: info_print_ext_header(), print_prefix();
Documentation/ABI/testing/dev-kmsg.
"""

import re
from collections.abc import Collection, Iterator
from itertools import groupby
from typing import NamedTuple

# Without a reason before Linux 5.3; with a uid behind the comm in RHEL 7.
_KILLED = re.compile(
    rb"(?:(?:Memory cgroup out|Out) of memory(?: \(oom_kill_allocating_task\))?: )?"
    rb"Killed process ([1-9][0-9]{0,9}) \(.*\),? (?:UID:? ?[0-9]+,? )?total-vm:[0-9]+kB, ",
    re.DOTALL,
)
# Facility and level, sequence number, microseconds, flag; what may be added later is skipped.
_KMSG = re.compile(rb"([0-9]{1,9}),[0-9]+,[0-9]+,-[^;\n]*;([^\n]*)")
# With CONFIG_PRINTK_CALLER there is a thread or a CPU behind the time.
_SYSLOG = re.compile(rb"(<[0-9]{1,9}>\[ *[0-9]+\.[0-9]{6}\](?:\[ *[TC][0-9]+\])? )(.*)", re.DOTALL)
_LEVELS = 8
# The highest pid that a kernel gives (PID_MAX_LIMIT).
_MOST_PID = 1 << 22


def parse_kmsg(record: bytes) -> int | None:
    """Return the pid that a record of /dev/kmsg says was chosen; None if it says no such thing."""
    match = _KMSG.match(record)
    if match is None or int(match[1]) >= _LEVELS:
        return None
    return _chosen(match[2])


class SyslogKill(NamedTuple):
    """A record of syslog(2) that says that a process was chosen."""

    time: bytes
    """What the kernel wrote before it: level and time."""
    pid: int


def iter_syslog(text: bytes) -> Iterator[SyslogKill]:
    """Yield the kills in what syslog(2) has returned.

    Args:
        text: Whole lines, the oldest first.
    """
    matches = [match for match in map(_SYSLOG.match, text.split(b"\n")) if match is not None]
    for start, lines in groupby(matches, _start_of):
        level = int(start[1 : start.index(b">")])
        pid = _chosen(b"\n".join([line[2] for line in lines])) if level < _LEVELS else None
        if pid is not None:
            yield SyslogKill(start, pid)


def _start_of(match: re.Match[bytes]) -> bytes:
    return match[1]


def new_kills(text: bytes, seen: Collection[SyslogKill]) -> list[SyslogKill]:
    """Return the kills that an earlier reading did not have."""
    return [kill for kill in iter_syslog(text) if kill not in seen]


def _chosen(message: bytes) -> int | None:
    match = _KILLED.match(message)
    pid = 0 if match is None else int(match[1])
    return pid if 0 < pid <= _MOST_PID else None
