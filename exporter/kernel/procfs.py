"""What /proc tells of processes that live.

Source: proc(5): /proc/PID/stat, /proc/PID/status, /proc/PID/comm, /proc/PID/task. Every read is one open and one
read, so that what it returns is of one moment. A process that is gone is None, never an error.
"""

import os
from typing import NamedTuple

from exporter.errors import MalformedMessage, SetupError

_READ_BYTES = 4096
# TASK_COMM_LEN without its NUL. /proc shows longer names of kernel threads, exit records and events do not.
_COMM_BYTES = 15
# Fields of stat behind the comm, up to starttime (field 22).
_FIELDS_NEEDED = 20


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that are used here."""

    comm: bytes
    state: str
    """One letter; Z is a zombie."""
    num_threads: int
    starttime: int
    """Clock ticks (USER_HZ) after boot, time in suspend included."""


class ProcessInfo(NamedTuple):
    """A live process as /proc shows it at one moment."""

    comm: bytes
    uid: int
    """Real uid, in the user namespace of whoever mounted /proc."""
    starttime: int
    zombie: bool
    """The leader has exited; other threads may live on."""
    threads: frozenset[int]
    """Thread ids besides the leader's."""


def parse_stat(text: bytes) -> Stat:
    """Parse /proc/PID/stat. The comm in its brackets may itself hold brackets, blanks and newlines.

    Raises:
        MalformedMessage: It does not look like stat. No input raises anything else.
    """
    start, end = text.find(b"("), text.rfind(b")")
    if not 0 <= start < end:
        raise MalformedMessage("/proc/PID/stat", 2, 0)
    # Numbered from field 3, state, on.
    fields = text[end + 1 :].split()
    # A last field can be cut short, and then look like a smaller number.
    if len(fields) <= _FIELDS_NEEDED:
        raise MalformedMessage("/proc/PID/stat", _FIELDS_NEEDED, len(fields))
    try:
        return Stat(text[start + 1 : end][:_COMM_BYTES], fields[0].decode(), int(fields[17]), int(fields[19]))
    except ValueError as error:
        raise MalformedMessage("/proc/PID/stat", _FIELDS_NEEDED, len(fields)) from error


def parse_status_uid(text: bytes) -> int:
    """Return the real uid in /proc/PID/status.

    Raises:
        MalformedMessage: There is no Uid line. No input raises anything else.
    """
    # Name comes first, with newlines escaped, so no comm can forge a line.
    start = text.find(b"\nUid:\t")
    fields = text[start:].split(None, 3) if start >= 0 else []
    # The effective uid behind it shows that the real one is whole.
    if len(fields) < 3 or not fields[1].isdigit():
        raise MalformedMessage("/proc/PID/status Uid", 3, len(fields))
    return int(fields[1])


class Procfs:
    """A mounted proc file system.

    Args:
        root: Where it is mounted.
    """

    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/")

    def check(self) -> None:
        """Raise SetupError unless root is a proc file system that shows other users' processes."""
        if self._read("self/stat") is None:
            raise SetupError(
                f"{self._root or '/'} is not a proc file system: mount proc there or set --path.procfs"
            )
        # Process 1 is always there, and another user's unless we are root.
        if self._read("1/stat") is None:
            raise SetupError(
                f"hidepid hides the processes of others in {self._root}: "
                "mount it with hidepid=0, or with gid= of a group of ours, or run as root"
            )

    def _read(self, path: str) -> bytes | None:
        try:
            fd = os.open(f"{self._root}/{path}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # Gone (ENOENT), or hidden by hidepid (ENOENT, EPERM): the caller cannot know it either way.
            return None
        try:
            return os.read(fd, _READ_BYTES)
        except OSError:
            # ESRCH: it ended between open and read.
            return None
        finally:
            os.close(fd)

    def read_comm(self, tgid: int) -> bytes | None:
        """Return a process's comm, or None if it is gone."""
        text = self._read(f"{tgid}/comm")
        return None if text is None else text[:-1][:_COMM_BYTES]

    def read_process(self, tgid: int) -> ProcessInfo | None:
        """Return what /proc says of a process, or None if it is gone."""
        text = self._read(f"{tgid}/stat")
        status = self._read(f"{tgid}/status")
        if not text or not status:
            return None
        stat = parse_stat(text)
        threads = self._threads(tgid) if stat.num_threads > 1 else frozenset[int]()
        return ProcessInfo(stat.comm, parse_status_uid(status), stat.starttime, stat.state == "Z", threads)

    def _threads(self, tgid: int) -> frozenset[int]:
        try:
            names = os.listdir(f"{self._root}/{tgid}/task")
        except OSError:
            return frozenset()
        return frozenset(int(name) for name in names) - {tgid}

    def list_processes(self) -> list[int]:
        """Return the tgids that are there now, zombies among them."""
        return [int(name) for name in os.listdir(self._root or "/") if name.isdecimal()]

    def exists(self, pid: int) -> bool:
        """Tell whether a thread or process with this id is there."""
        return self._read(f"{pid}/comm") is not None
