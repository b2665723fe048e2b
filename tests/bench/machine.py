"""What the benchmark reads from the machine, and the little that it changes there for a while."""

import os
import platform
import re
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.programs import Programs

NETLINK_CONNECTOR = 11
_CN_IDX_PROC = 1
_LISTEN = struct.pack("=IHHIIIIIIHHI", 40, 3, 0, 0, 0, 1, 1, 0, 0, 4, 0, 1)

_PID_MAX = Path("/proc/sys/kernel/pid_max")
_NETLINK = Path("/proc/net/netlink")


def cpu_ns(pid: int) -> int:
    """Return the CPU time of all threads a process has or had, to the ns.

    Source: clock_getcpuclockid(3); the clock of a process is ~pid << 3 | CPUCLOCK_SCHED.
    """
    return time.clock_gettime_ns(~pid << 3 | 2)


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return _status_kib(pid, "VmRSS") << 10


def peak_rss_bytes(pid: int) -> int:
    """Return the most memory that a process had resident."""
    return _status_kib(pid, "VmHWM") << 10


def forget_peak_rss(pid: int) -> None:
    """Let the peak begin anew, with what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def _status_kib(pid: int, field: str) -> int:
    match = re.search(
        rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"), re.MULTILINE
    )
    if match is None:
        raise LookupError(f"no {field} in /proc/{pid}/status")
    return int(match[1])


def is_asleep(pid: int) -> bool:
    """Tell whether a process waits for something."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] == b"S"


class NetlinkSocket(NamedTuple):
    """A row of /proc/net/netlink."""

    protocol: int
    portid: int
    groups: int
    receive_bytes: int
    drops: int
    inode: int


def netlink_sockets() -> list[NetlinkSocket]:
    """Return all netlink sockets of this network namespace."""
    rows = [line.split() for line in _NETLINK.read_text(encoding="ascii").splitlines()[1:]]
    return [NetlinkSocket(int(r[1]), int(r[2]), int(r[3], 16), int(r[4]), int(r[8]), int(r[9])) for r in rows]


def sockets_of(pid: int) -> set[int]:
    """Return the inodes of a process's sockets."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(int(target[8:-1]))
    return inodes


def connector_listeners() -> int:
    """Count the sockets that are bound to the process connector's group."""
    return sum(row.protocol == NETLINK_CONNECTOR and bool(row.groups & _CN_IDX_PROC) for row in netlink_sockets())


def count_processes() -> int:
    """Count what lives."""
    return sum(name.isdecimal() for name in os.listdir("/proc"))


def leave_events_on() -> None:
    """Let a listener die without saying goodbye.

    The kernel makes events from then on, whether anybody listens or not. Many a host is in that state after its
    first forkstat or auditd; it must be the same for all rounds, those without a reader too.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_CONNECTOR) as sock:
        sock.bind((0, _CN_IDX_PROC))
        sock.sendto(_LISTEN, (0, 0))
        select.select([sock], [], [], 1.0)


@contextmanager
def pid_max_at_least(programs: Programs, pids: int) -> Iterator[None]:
    """Raise kernel.pid_max where it is lower; it is put back even if this process is killed."""
    if int(_PID_MAX.read_text(encoding="ascii")) >= pids:
        yield
        return
    command = [str(programs.reader), "keep", str(_PID_MAX)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        if keeper.stdout.readline():
            _PID_MAX.write_text(str(pids), encoding="ascii")
        try:
            yield
        finally:
            keeper.stdin.close()
            keeper.wait()


def describe() -> str:
    """Say on what this runs."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return (
        f"Linux {platform.release()}, {os.cpu_count()} x {cpu[1] if cpu else platform.machine()}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )
