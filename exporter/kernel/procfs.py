"""What /proc says of processes that live.

Source: proc(5): /proc/PID/stat, /proc/PID/status, /proc/PID/comm, /proc/PID/task. What is returned is of one
read, and so of one moment.
A process that is gone is None, never an error. That no descriptor or memory is free says nothing of a process.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from exporter.errors import ConfigError, MalformedMessage, SetupError, ShortageError

_T = TypeVar("_T")

_READ_BYTES = 4096
# A process can be in 65,536 groups (NGROUPS_MAX), which all stand in its status, each with ten digits.
_MOST_BYTES = 1 << 20
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
# A listing of processes, one of threads, a file.
_SPARE = 3
# TASK_COMM_LEN without its NUL. /proc shows longer names of kernel threads, exit records and events do not.
_COMM_BYTES = 15
# Fields of stat behind the comm, up to starttime (field 22).
_FIELDS_NEEDED = 20
# include/linux/sched.h
_PF_EXITING = 0x00000004
_CREATED = re.compile(rb"^processes ([0-9]{1,19})\n", re.MULTILINE)
_PRESENT = re.compile(rb"[0-9.]+ [0-9.]+ [0-9.]+ [0-9]+/([0-9]{1,19}) [0-9]+\n")
# A clock's name and its offset to the host's, of a time namespace: time_namespaces(7).
_OFFSET = re.compile(rb"^(?:monotonic|1|boottime|7)\s+(-?[0-9]+)\s+([0-9]+)$", re.MULTILINE)
_OOM_KILLS = re.compile(rb"^oom_kill ([0-9]{1,19})\n", re.MULTILINE)
# Signals that wait for a thread and for its process, as bits; that of SIGKILL.
_PENDING = re.compile(rb"^S(?:ig|hd)Pnd:\t([0-9a-f]{16})$", re.MULTILINE)
_SIGKILL_BIT = 1 << 8
_ESCAPED = re.compile(rb"\\[n\\]")


class Status(NamedTuple):
    """The fields of /proc/PID/status that are used here."""

    comm: bytes
    state: str
    """One letter; Z is a zombie."""
    uid: int
    """Real uid, in the user namespace of the reader."""
    threads: int


class ProcessInfo(NamedTuple):
    """A live process as /proc shows it at one moment."""

    comm: bytes
    uid: int
    starttime: int | None
    """Clock ticks (USER_HZ) after boot, time in suspend included; None if it was not asked for."""
    zombie: bool
    """The leader has exited; other threads may live on."""
    threads: frozenset[int]
    """Thread ids besides the leader's."""


class TaskTotals(NamedTuple):
    """The kernel's totals of threads, those of processes among them."""

    created: int
    """Since boot."""
    present: int


def parse_task_totals(stat: bytes, loadavg: bytes) -> TaskTotals:
    """Parse /proc/stat and /proc/loadavg.

    Raises:
        MalformedMessage: What is needed is not there, or not whole. No input raises anything else.
    """
    created = _CREATED.search(stat)
    present = _PRESENT.fullmatch(loadavg)
    if created is None or present is None:
        raise MalformedMessage("/proc/stat" if created is None else "/proc/loadavg", 1, 0)
    return TaskTotals(int(created[1]), int(present[1]))


def parse_starttime(text: bytes) -> int:
    """Return the start time in /proc/PID/stat, in clock ticks (USER_HZ) after boot.

    Raises:
        MalformedMessage: It does not look like stat. No input raises anything else.
    """
    # The comm in its brackets may itself hold brackets, blanks and newlines.
    fields = text[text.rfind(b")") + 1 :].split(None, _FIELDS_NEEDED)
    # A last field can be cut short, and then look like a smaller number.
    if len(fields) <= _FIELDS_NEEDED or not fields[_FIELDS_NEEDED - 1].isdigit():
        raise MalformedMessage("/proc/PID/stat", _FIELDS_NEEDED, len(fields))
    return int(fields[_FIELDS_NEEDED - 1])


def parse_status(text: bytes) -> Status:
    """Parse /proc/PID/status.

    Raises:
        MalformedMessage: A line that is needed is not there, or not whole. No input raises anything else.
    """
    # Name comes first, with newlines and backslashes escaped, so no comm can forge a line.
    name, state, uid, threads = (
        _field(text, key) for key in (b"Name:\t", b"\nState:\t", b"\nUid:\t", b"\nThreads:\t")
    )
    ruid = uid.partition(b"\t")[0]
    if not (ruid.isdigit() and threads.isdigit() and state):
        raise MalformedMessage("/proc/PID/status", 1, 0)
    comm = _ESCAPED.sub(lambda match: b"\n" if match[0] == b"\\n" else b"\\", name)
    return Status(comm[:_COMM_BYTES], chr(state[0]), int(ruid), int(threads))


def _field(text: bytes, key: bytes) -> bytes:
    start = text.find(key)
    end = text.find(b"\n", start + len(key))
    if start < 0 or end < 0 or (start > 0) != key.startswith(b"\n"):
        raise MalformedMessage("/proc/PID/status", 1, 0)
    return text[start + len(key) : end]


class Procfs:
    """A mounted proc file system.

    Args:
        root: Where it is mounted.
    """

    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/")
        # Descriptors that are given up when no other is free, so that processes can be read all the same.
        self._spare: list[int] = []
        self._keep_spare()

    def _keep_spare(self) -> None:
        try:
            while len(self._spare) < _SPARE:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            pass

    def close(self) -> None:
        """Give up the descriptors that are kept."""
        while self._spare:
            os.close(self._spare.pop())

    def _with_spare(self, opens: Callable[[], _T]) -> _T:
        """Open something; if no descriptor is free, with one of those that are kept.

        Raises:
            ShortageError: That did not help.
            OSError: There is no such file, or it may not be read.
        """
        try:
            return opens()
        except OSError as error:
            if error.errno not in _SHORTAGES:
                raise
        if self._spare:
            os.close(self._spare.pop())
        try:
            return opens()
        except OSError as error:
            if error.errno in _SHORTAGES:
                raise ShortageError(error.strerror) from error
            raise

    def check(self) -> None:
        """Check that root is a proc file system that shows others' processes, and the host's time.

        Raises:
            ConfigError: It is none.
            SetupError: It does not show them, or there is none in its usual place.
        """
        try:
            os.close(os.open(f"{self._root}/self/stat", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise SetupError(f"cannot open a file ({error.strerror}): raise the limit (ulimit -n)") from error
        self._keep_spare()
        if self._read("self/stat") is None:
            what = f"{self._root or '/'} is not a proc file system"
            if self._root == "/proc":
                raise SetupError(f"{what}: mount proc there or set --path.procfs")
            raise ConfigError(f"--path.procfs: {what}")
        # Process 1 is always there, and another user's unless we are root.
        if self._read("1/stat") is None:
            raise SetupError(
                f"hidepid hides the processes of others in {self._root}: "
                "mount it with hidepid=0, or with gid= of a group of ours, or run as root"
            )
        self._check_clocks()

    def _check_clocks(self) -> None:
        """Raise SetupError in a time namespace whose clocks are not those of the kernel's events."""
        offsets = self._read("self/timens_offsets")
        if offsets and any(seconds != b"0" or ns != b"0" for seconds, ns in _OFFSET.findall(offsets)):
            raise SetupError(
                "the clocks of this time namespace are not the host's, by which the kernel's events are timed: "
                "run in the host's time namespace"
            )

    def _read(self, path: str) -> bytes | None:
        try:
            fd = self._with_spare(lambda: os.open(f"{self._root}/{path}", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            # Gone (ENOENT), or hidden by hidepid (ENOENT, EPERM): the caller cannot know it either way.
            return None
        try:
            data = os.read(fd, _READ_BYTES)
            if len(data) == _READ_BYTES:
                # From the beginning, for it has to be of one moment.
                data = os.pread(fd, _MOST_BYTES, 0)
            return data
        except OSError as error:
            if error.errno in _SHORTAGES:
                raise ShortageError(error.strerror) from error
            # ESRCH: it ended between open and read.
            return None
        finally:
            os.close(fd)
            if len(self._spare) < _SPARE:
                self._keep_spare()

    def read_comm(self, tgid: int) -> bytes | None:
        """Return a process's comm; None if it is not known: it is gone, or nothing can be opened now."""
        try:
            text = self._read(f"{tgid}/comm")
        except ShortageError:
            return None
        return None if text is None else text[:-1][:_COMM_BYTES]

    def read_cgroup(self, tgid: int) -> bytes | None:
        """Return /proc/PID/cgroup of a process; None if it is gone.

        Raises:
            ShortageError: Nothing can be opened now.
        """
        return self._read(f"{tgid}/cgroup") or None

    def is_alive(self, tgid: int) -> bool:
        """Return whether a process is there, and its leader has not begun to exit.

        Raises:
            ShortageError: Nothing can be opened now.
        """
        # state, ppid, pgrp, session, tty_nr, tpgid, flags
        fields = (self._read(f"{tgid}/stat") or b"").rpartition(b")")[2].split(None, 7)
        return len(fields) > 7 and fields[6].isdigit() and not int(fields[6]) & _PF_EXITING

    def read_process(self, tgid: int, *, with_start: bool = True) -> ProcessInfo | None:
        """Return what /proc says of a process, or None if it is gone.

        Args:
            tgid: The process.
            with_start: Read when it started, which takes another file.

        Raises:
            MalformedMessage: A file does not look as it should.
            ShortageError: Nothing can be opened now.
        """
        text = self._read(f"{tgid}/status")
        stat = self._read(f"{tgid}/stat") if with_start else None
        if not text or (with_start and not stat):
            return None
        status = parse_status(text)
        return ProcessInfo(
            status.comm,
            status.uid,
            parse_starttime(stat) if stat else None,
            status.state == "Z",
            self._threads(tgid) if status.threads > 1 else frozenset(),
        )

    def _threads(self, tgid: int) -> frozenset[int]:
        try:
            names = self._with_spare(lambda: os.listdir(f"{self._root}/{tgid}/task"))
        except OSError:
            return frozenset()
        return frozenset(int(name) for name in names) - {tgid}

    def read_task_totals(self) -> TaskTotals | None:
        """Return the kernel's totals of threads, or None where they cannot be read."""
        try:
            stat = Path(self._root, "stat").read_bytes()
            return parse_task_totals(stat, Path(self._root, "loadavg").read_bytes())
        except (OSError, MalformedMessage):
            return None

    def read_oom_kills(self) -> int | None:
        """Return how many processes the OOM killer has chosen since the host booted; None if that is not there."""
        try:
            text = self._read("vmstat")
        except ShortageError:
            return None
        match = _OOM_KILLS.search(text or b"")
        return None if match is None else int(match[1])

    def restricts_log(self) -> bool:
        """Return whether the kernel log is only for privileged readers (kernel.dmesg_restrict)."""
        return self._read("sys/kernel/dmesg_restrict") != b"0\n"

    def is_dying(self, tgid: int) -> bool:
        """Return whether a process is there and may be about to end: SIGKILL waits for it, or it exits.

        A zombie has sent its end, unless other threads of it live on. What stands still for a tracer may have been
        killed, and stand still because it exits.

        Raises:
            ShortageError: Nothing can be opened now.
        """
        fields = (self._read(f"{tgid}/stat") or b"").rpartition(b")")[2].split(None, 18)
        if len(fields) < 19 or fields[0] == b"X":
            return False
        # state, ppid, pgrp, session, tty_nr, tpgid, flags, ten more, num_threads
        flags, threads = int(fields[6]), int(fields[17])
        if fields[0] == b"Z":
            return threads > 1
        pending = _PENDING.findall(self._read(f"{tgid}/status") or b"")
        return (
            fields[0] == b"t" or bool(flags & _PF_EXITING) or any(int(bits, 16) & _SIGKILL_BIT for bits in pending)
        )

    def iter_processes(self) -> Iterator[int]:
        """Yield the tgids that are there, zombies among them; a process that lives all the while is met once.

        Raises:
            ShortageError: Nothing can be opened now.
        """
        with self._with_spare(lambda: os.scandir(self._root or "/")) as entries:
            for entry in entries:
                if entry.name.isdecimal():
                    yield int(entry.name)

    def is_exiting(self, pid: int) -> bool:
        """Return whether a thread is there and has begun to exit; a kernel thread may have.

        An exiting thread gives up its memory first, and its status then shows none.

        Raises:
            ShortageError: Nothing can be opened now.
        """
        status = self._read(f"{pid}/status")
        return status is not None and b"\nVmSize:" not in status
