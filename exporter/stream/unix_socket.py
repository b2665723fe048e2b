"""The Unix socket of the stream: opened with its mode and group, and removed."""

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from exporter.errors import AddressError

_BACKLOG = 128


def open_stream_socket(path: Path, mode: int, gid: int | None) -> socket.socket:
    """Open the Unix socket. A socket in its place that no process listens on is removed.

    Raises:
        AddressError: The socket cannot be opened.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        _remove_dead(path)
        # No client can connect before mode and group are what they should be.
        umask = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(umask)
        if gid is not None:
            os.chown(path, -1, gid)
        path.chmod(mode)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        # The error for a path that is too long has no errno.
        reason = error.strerror or error
        raise AddressError(f"cannot listen on {path}: {reason}; choose another --stream.socket") from error
    return sock


def _remove_dead(path: Path) -> None:
    if not path.exists() or not stat.S_ISSOCK(path.lstat().st_mode):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        # The process that listens may be stopped by a signal: do not wait for it.
        probe.setblocking(False)
        if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()


def remove_socket(path: Path) -> None:
    """Remove the socket. After --user its folder may be closed to us; then the next start removes it."""
    with contextlib.suppress(OSError):
        path.unlink()
