"""What other programs do on the host while the tests run: a test that fails says so."""

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

NETLINK_CONNECTOR = 11
CN_IDX_PROC_GROUP = 1
# Of all CPUs: a desktop or a server that does little.
QUIET_SHARE = 0.1


def parents() -> dict[int, int]:
    """Return each process's parent."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = path.read_text(errors="replace").rpartition(") ")
        except OSError:  # it has just ended
            continue
        found[int(head.split()[0])] = int(rest.split()[1])
    return found


def descends_from(pid: int, ancestor: int, parent_of: dict[int, int]) -> bool:
    while pid and pid != ancestor:
        pid = parent_of.get(pid, 0)
    return pid == ancestor


def _inodes_of_listeners() -> set[str]:
    rows = [line.split() for line in Path("/proc/net/netlink").read_text().splitlines()[1:]]
    return {row[9] for row in rows if int(row[1]) == NETLINK_CONNECTOR and int(row[3], 16) & CN_IDX_PROC_GROUP}


def _inodes_of_sockets(pid: int) -> Iterator[str]:
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            link = str(Path(f"/proc/{pid}/fd/{fd}").readlink())
            if link.startswith("socket:["):
                yield link[8:-1]
    except OSError:  # it has just ended
        return


def other_listeners() -> dict[int, str]:
    """Return pid and command of the processes that listen to the process connector and are not of this run."""
    listening = _inodes_of_listeners()
    parent_of = parents()
    found = {}
    for pid in parent_of:
        if not listening.isdisjoint(_inodes_of_sockets(pid)) and not descends_from(pid, os.getpid(), parent_of):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:
                continue
            found[pid] = command.decode(errors="backslashreplace").strip()
    return found


def _busy_seconds() -> float:
    """CPU time of all processes of the host, and what a hypervisor took."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Bystanders:
    """Notes what other programs do from its construction on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy = _busy_seconds()
        self._own = _own_seconds()
        self.listeners: dict[int, str] = {}

    def look(self) -> None:
        """Note who listens now."""
        self.listeners |= other_listeners()

    def cpu_share(self) -> float:
        """Return the share of the host's CPU time that other programs took, children that still run included."""
        elapsed = time.monotonic() - self._began
        others = _busy_seconds() - self._busy - (_own_seconds() - self._own)
        return max(0.0, others / (elapsed * (os.cpu_count() or 1))) if elapsed else 0.0

    def lines(self) -> list[str]:
        """Return a line for each reason why the host is not quiet."""
        found = []
        if (share := self.cpu_share()) > QUIET_SHARE:
            found.append(f"other programs used {share:.0%} of the CPU time")
        if self.listeners:
            found.append(f"{len(self.listeners)} other listeners to the process connector:")
            found += [f"  pid {pid}: {command[:100]}" for pid, command in sorted(self.listeners.items())[:5]]
        return found
