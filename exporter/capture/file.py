"""The file that a capture is written to, and the one that it is read from.

Source: docs/capture.md.
"""

import errno
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from exporter.capture.format import Frame, Header, encode_frame, encode_header, read_header
from exporter.errors import CaptureError

_LOG = logging.getLogger(__name__)


class CaptureFile:
    """Appends frames to a file; the file before it is kept as `FILE.1`.

    When the file cannot be written any more, the capture ends and counting goes on.

    Args:
        path: The file. A file that is there already becomes `FILE.1`.
        max_bytes: About how long the file gets.
        header: Its header, but for the time.

    Raises:
        CaptureError: The file cannot be written.
    """

    def __init__(self, path: Path, max_bytes: int, header: Header) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._header = header
        self._bytes = 0
        self._fd: int | None = None
        try:
            self._open(continued=False)
        except OSError as error:
            raise CaptureError(f"--capture: cannot write {path}: {error.strerror}") from error

    def _open(self, *, continued: bool) -> None:
        if os.path.lexists(self._path):
            if not stat.S_ISREG(self._path.lstat().st_mode):
                # A wrong file name must not cost the user a directory, or /dev/null.
                raise OSError(errno.EINVAL, "not a regular file")
            self._keep_old(continued=continued)
        # A capture says which user ran what, so only its owner may read it.
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        header = self._header._replace(
            wall_ns=time.time_ns(), monotonic_ns=time.monotonic_ns(), continued=continued
        )
        self._bytes = os.write(self._fd, encode_header(header))

    def _keep_old(self, *, continued: bool) -> None:
        try:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        except OSError as error:
            if not continued:
                raise
            # Another user put something in its place. A capture that goes on is worth more than its first part.
            _LOG.warning(
                "the capture before cannot be kept", extra={"file": str(self._path), "why": error.strerror}
            )
            self._path.unlink()

    @property
    def full(self) -> bool:
        """The file has its full length."""
        return self._fd is not None and self._bytes >= self._max_bytes

    def write(self, frame: Frame) -> None:
        """Append a frame."""
        if self._fd is None:
            return
        data = encode_frame(frame)
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            self._give_up(error.strerror)
            return
        self._bytes += written
        if written < len(data):
            self._give_up("no room for a whole frame")

    def begin_next(self) -> None:
        """Go on in a new file."""
        self.close()
        try:
            self._open(continued=True)
        except OSError as error:
            self._give_up(error.strerror)

    def _give_up(self, why: str | None) -> None:
        _LOG.error("the capture ends here", extra={"file": str(self._path), "why": why})
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


@contextmanager
def open_capture(path: Path) -> Iterator[tuple[Header, BinaryIO]]:
    """Open a capture to read it.

    Returns:
        Its header, and the file at its first frame.

    Raises:
        CaptureError: The file cannot be read, or is no capture.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise CaptureError(f"--replay: cannot read {path}: {error.strerror}") from error
    with file:
        try:
            header = read_header(file.read)
        except CaptureError as error:
            raise CaptureError(f"--replay: {path}: {error}") from error
        yield header, file
