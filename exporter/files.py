"""Reads files that a user or the kubelet writes, and never waits for one.

To open a pipe would wait until a program writes into it, and /dev/zero has no end: a user who can replace a file
that is read again while the exporter runs could stop it.
"""

import errno
import os
import stat
from pathlib import Path


def read_file(path: str | Path, most_bytes: int) -> bytes:
    """Return a file's bytes, one more than the most if there are more.

    Raises:
        OSError: It cannot be read, or is no regular file.
        ValueError: No file can have that name.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        _require_regular(os.fstat(fd))
        return file.read(most_bytes + 1)


def require_regular(path: str | Path) -> None:
    """Refuse what is no regular file, for a library that opens it itself.

    Raises:
        OSError: It is not there, or is no regular file.
        ValueError: No file can have that name.
    """
    _require_regular(Path(path).stat())


def _require_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
