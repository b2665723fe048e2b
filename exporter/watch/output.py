"""Standard output, written without waiting for a reader that has gone away."""

import os
import select
import sys
from collections.abc import Callable

from exporter.errors import SetupError

# How long a reader may pause after a request to stop.
_PATIENCE_SECONDS = 0.5


def is_screen() -> bool:
    """Return whether standard output is a terminal that can show colors and move the cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Output:
    """Standard output. A reader that has gone away is no error.

    Args:
        on_end: Called when the reader has gone away, or when a write failed.

    Attributes:
        problem: Why a write failed; None if no write failed, or if only the reader has gone away.

    Raises:
        SetupError: Standard output is closed.
    """

    def __init__(self, on_end: Callable[[], None]) -> None:
        # Python sets it to None where the descriptor is closed; the next socket would get that descriptor.
        if sys.stdout is None:
            raise SetupError("there is no standard output")
        self._fd = sys.stdout.fileno()
        self._on_end = on_end
        self._ended = False
        self._hurries = False
        self.problem: str | None = None

    def hurry(self) -> None:
        """From now on give up on a reader that does not read for half a second."""
        self._hurries = True

    def write(self, text: str) -> None:
        """Write all of the text, however long that takes.

        Meanwhile events wait in the kernel's receive buffers, and the kernel counts those that do not fit.
        """
        data = memoryview(text.encode())
        try:
            while data and not self._ended:
                # A pipe that select calls writable takes PIPE_BUF bytes without blocking.
                if select.select((), (self._fd,), (), _PATIENCE_SECONDS)[1]:
                    data = data[os.write(self._fd, data[: select.PIPE_BUF]) :]
                elif self._hurries:
                    self._end()
        except BrokenPipeError:
            self._end()
        except OSError as error:
            self.problem = error.strerror
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._on_end()
