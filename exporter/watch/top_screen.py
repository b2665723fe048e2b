"""`watch --top`: the table in the terminal, refreshed every second."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Callable
from typing import Any

from exporter.processes.observer import News
from exporter.stream.wall_clock import WallClock
from exporter.watch.output import is_screen
from exporter.watch.top_table import SORT_KEYS, TopTable

REFRESH_SECONDS = 1.0
_NS_PER_SECOND = 1_000_000_000

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
_INVERSE, _PLAIN = "\x1b[7m", "\x1b[0m"


class TopScreen:
    """The table in the terminal; made while an event loop runs.

    Args:
        sort: The column to sort by at first.
        write: Writes text to the terminal.
        quit_: Called when the user presses q, or when the terminal is gone.
        now_ns: CLOCK_MONOTONIC of the host where the events happen. In a replay it runs at the replay's speed.
        clock: Returns the clock that turns it into the time of day.
        mode: Where names come from, for the first line.
        grouped: Show where processes run, too.
    """

    def __init__(
        self,
        sort: str,
        write: Callable[[str], None],
        quit_: Callable[[], None],
        *,
        now_ns: Callable[[], int],
        clock: Callable[[], WallClock],
        mode: str,
        grouped: bool = False,
    ) -> None:
        self._table = TopTable(sort, grouped=grouped)
        self._write = write
        self._quit = quit_
        self._now_ns = now_ns
        self._clock = clock
        self._mode = mode
        self._screen = is_screen()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._since_ns = 0
        self._saved: list[Any] | None = None
        self._last: list[str] = []

    def begin(self) -> None:
        """Take over the terminal, if standard output is one, and start the refresh timer."""
        if self._screen:
            self._take()
            self._loop.add_signal_handler(signal.SIGTSTP, self._pause)
        self._since_ns = self._now_ns()
        self._timer = self._loop.call_later(REFRESH_SECONDS, self._refresh)

    def _take(self) -> None:
        self._write(_ENTER)
        if sys.stdin is not None and sys.stdin.isatty():
            self._saved = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
            self._loop.add_reader(sys.stdin.fileno(), self._read_key)

    def _give_back(self) -> None:
        if self._saved is not None:
            self._loop.remove_reader(sys.stdin.fileno())
            # The terminal can have been closed.
            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin, termios.TCSANOW, self._saved)
            self._saved = None
        self._write(_LEAVE)

    def _pause(self) -> None:
        """Handle Ctrl-Z: give the terminal to the shell until the shell continues this process."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    def show(self, news: list[News]) -> None:
        """Count some news."""
        self._table.add(news)

    def end(self) -> None:
        """Give the terminal back, with the last table on it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._screen:
            self._give_back()
        if not self._screen or not self._last:
            self._draw()
        self._write("".join(f"{line}\n" for line in self._last))

    def _read_key(self) -> None:
        keys = b""
        with contextlib.suppress(OSError):
            keys = os.read(sys.stdin.fileno(), 64)
        # A read without a byte means that the terminal is gone.
        for key in (keys or b"q").decode("ascii", "ignore"):
            if key == "q":
                self._quit()
            elif key in SORT_KEYS:
                self._table.sort = SORT_KEYS[key]

    def _refresh(self) -> None:
        self._timer = self._loop.call_later(REFRESH_SECONDS, self._refresh)
        self._draw()
        if self._screen:
            head = f"{_INVERSE}{self._last[2]}{_PLAIN}"
            shown = [*self._last[:2], head, *self._last[3:]]
            self._write(_HOME + "\n".join(f"{line}{_CLEAR_LINE}" for line in shown) + _CLEAR_REST)
        else:
            self._write("".join(f"{line}\n" for line in [*self._last, ""]))

    def _draw(self) -> None:
        now_ns = self._now_ns()
        seconds, self._since_ns = max(now_ns - self._since_ns, 1) / _NS_PER_SECOND, now_ns
        title = f"{self._clock().local(now_ns)[:8]} {self._mode}"
        self._last = self._table.lines(seconds, shutil.get_terminal_size(), title)
