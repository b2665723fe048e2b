"""The Unix socket of the stream: opened with its mode and group, and removed."""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from exporter.errors import AddressError, SetupError

_BACKLOG = 128
_LOCK_SECONDS, _LOCK_LOOK_SECONDS = 2.0, 0.02


def open_stream_socket(path: Path, mode: int, gid: int | None, trusted_uid: int | None = None) -> socket.socket:
    """Open the Unix socket. A socket in its place that no process listens on is removed.

    Args:
        path: Its name.
        mode: Its permissions.
        gid: Its group; None for this process's.
        trusted_uid: A user whose directory it may be in, besides root's and this process's.

    Raises:
        AddressError: The socket cannot be opened, or cannot get its group.
        SetupError: Other users can replace what is in its directory.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        with _locked_directory(path.parent, trusted_uid) as directory:
            _remove_dead(path)
            # It has its mode from the beginning, and no name is followed: another file cannot get mode or group.
            umask = os.umask(0o777 & ~mode)
            try:
                sock.bind(str(path))
            finally:
                os.umask(umask)
            if gid is not None:
                _give_to_group(path, gid, directory)
            # No client can connect before.
            sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        # The error for a path that is too long has no errno.
        reason = error.strerror or error
        raise AddressError(f"cannot listen on {path}: {reason}; choose another --stream.socket") from error
    except SetupError:
        sock.close()
        raise
    return sock


def _give_to_group(path: Path, gid: int, directory: int) -> None:
    try:
        os.chown(path.name, -1, gid, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        # Another path would not help: a process without CAP_CHOWN can give its files to its own groups only, and a
        # filter of system calls can forbid that too.
        raise AddressError(
            f"cannot give {path} to group {gid}: {error.strerror}; the exporter's user has to be in that group, "
            "and a systemd unit has to permit @chown (docs/stream.md), or change --stream.group"
        ) from error


@contextlib.contextmanager
def _locked_directory(path: Path, trusted_uid: int | None) -> Iterator[int]:
    """Hold the directory while the block runs, so that of two exporters one finds the socket of the other."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(directory)
        if status.st_uid not in {0, os.geteuid(), trusted_uid}:
            raise AddressError(
                f"cannot listen in {path}: it belongs to uid {status.st_uid}, who could replace the socket; "
                "choose a --stream.socket in a directory of root's or of the exporter's user"
            )
        # In a directory like /tmp (S_ISVTX) only its owner can replace a file.
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
            raise AddressError(
                f"cannot listen in {path}: others can write to it, and replace the socket; "
                "take that away (chmod go-w) or choose another --stream.socket"
            )
        _lock(directory)
        yield directory
    finally:
        os.close(directory)


def _lock(directory: int) -> None:
    ends = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < ends:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Any process that can read the directory can hold this lock, so it is not waited for for ever.
            time.sleep(_LOCK_LOOK_SECONDS)
        else:
            return


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
