"""Reading the kernel log: a descriptor of /dev/kmsg, which survives the loss of all privileges, or syslog(2).

Opening /dev/kmsg needs CAP_SYSLOG if kernel.dmesg_restrict is 1; what is open can be read for good. syslog(2)
needs no file, so it works in a container, but it asks for CAP_SYSLOG each time, and returns the whole log.

Source: Documentation/ABI/testing/dev-kmsg, syslog(2), kernel/printk/printk.c: check_syslog_permissions().
"""

import ctypes
import os
from typing import NamedTuple, Protocol

from exporter.errors import SetupError
from exporter.kernel.kernel_log import SyslogKill, iter_syslog, new_kills, parse_kmsg

_KMSG = "/dev/kmsg"
# The longest record with its escapes (PRINTK_MESSAGE_MAX; CONSOLE_EXT_LOG_MAX before Linux 6.4).
_RECORD_BYTES = 8192
# So many records are read at once, a few milliseconds' worth; a log that is written faster is read on later.
_MOST_RECORDS = 2000
# Most that a kernel can be told to keep (LOG_BUF_LEN_MAX is higher on 64 bits; a reading is of the newest).
_MOST_LOG_BYTES = 1 << 24
_READ_ALL = 3
_SIZE_BUFFER = 10

_libc = ctypes.CDLL(None, use_errno=True)


class NewKills(NamedTuple):
    """What was new in the log."""

    pids: list[int]
    """The processes that the OOM killer chose, in the order of their records."""
    is_whole: bool
    """No record was lost."""
    is_all: bool = True
    """Nothing more was there."""


class KernelLog(Protocol):
    """A way to read it.

    Attributes:
        is_stream: A reading costs what is new, not what is there.
    """

    is_stream: bool

    def read(self) -> NewKills:
        """Return what was logged since the last call; the first one returns all that is there."""

    def close(self) -> None:
        """Give it up."""


class Kmsg:
    """/dev/kmsg.

    Args:
        path: Where it is.

    Raises:
        SetupError: It cannot be read.
    """

    is_stream = True

    def __init__(self, path: str = _KMSG) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise SetupError(f"cannot open {path} ({error.strerror}): it needs CAP_SYSLOG") from error

    def read(self) -> NewKills:
        """Return what was logged since the last call, or so much of it as is read at once."""
        pids: list[int] = []
        is_whole = True
        for _ in range(_MOST_RECORDS):
            try:
                record = os.read(self._fd, _RECORD_BYTES)
            except BlockingIOError:
                break
            except BrokenPipeError:
                # Records were overwritten; the next read returns the oldest that there is.
                is_whole = False
                continue
            except OSError:
                return NewKills(pids, is_whole=False)
            if not record:
                break
            pid = parse_kmsg(record)
            if pid is not None:
                pids.append(pid)
        else:
            return NewKills(pids, is_whole, is_all=False)
        return NewKills(pids, is_whole)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)


class Syslog:
    """syslog(2).

    Raises:
        SetupError: It is not permitted.
    """

    is_stream = False

    def __init__(self) -> None:
        self._seen: list[SyslogKill] = []
        self._last = b""
        size = _syslog(_SIZE_BUFFER, None, 0)
        if size <= 0 or _syslog(_READ_ALL, ctypes.create_string_buffer(1), 1) < 0:
            raise SetupError("not permitted to read the kernel log (syslog): it needs CAP_SYSLOG")
        # What is kept in so many bytes takes more when each record has its time before it.
        self._buffer = ctypes.create_string_buffer(min(2 * size, _MOST_LOG_BYTES))

    def read(self) -> NewKills:
        """Return what was logged since the last call."""
        length = _syslog(_READ_ALL, self._buffer, len(self._buffer))
        if length < 0:
            return NewKills([], is_whole=False)
        text = self._buffer.raw[:length]
        # If nothing is left of what was there before, there can have been more in between.
        is_whole = self._last in text
        kills = new_kills(text, self._seen)
        self._seen = list(iter_syslog(text))
        self._last = text[:-1].rpartition(b"\n")[2]
        return NewKills([kill.pid for kill in kills], is_whole)

    def close(self) -> None:
        """Do nothing: nothing is open."""


def _syslog(kind: int, buffer: "ctypes.Array[ctypes.c_char] | None", size: int) -> int:
    answer: int = _libc.klogctl(kind, buffer, size)
    return answer
