"""`watch --top`: a table by comm that is refreshed every second."""

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

from exporter.processes.observer import Happening, Loss, News
from exporter.stream.lines import COMM_COLUMNS, WallClock, fit, short_duration

REFRESH_SECONDS = 1.0
# Names are set by anybody: beyond so many, those that nothing happened to lately are given up.
_MOST_ROWS = 4096
_NS_PER_SECOND = 1_000_000_000

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
_INVERSE, _PLAIN = "\x1b[7m", "\x1b[0m"

SORT_KEYS = {"f": "forks", "e": "execs", "x": "exits", "n": "failed", "l": "lived", "c": "cpu", "a": "comm"}
"""What a key sorts by."""


def is_screen() -> bool:
    """Tell whether standard output is a terminal that knows colours and a cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Row:
    """What happened to the processes of one name."""

    __slots__ = ("cpu_ns", "execs", "exits", "failed", "forks", "lifetime_ns", "lifetimes", "recent")

    def __init__(self) -> None:
        self.forks = self.execs = self.exits = self.failed = 0
        self.lifetime_ns = self.lifetimes = self.cpu_ns = 0
        self.recent = {"fork": 0, "exec": 0, "exit": 0}

    def add(self, happening: Happening) -> None:
        """Count."""
        event = happening.event
        if event in self.recent:
            self.recent[event] += 1
        if event == "fork":
            self.forks += 1
        elif event == "exec":
            self.execs += 1
        elif event == "exit":
            self.exits += 1
            self.failed += bool(happening.status)
            if happening.lifetime_ns is not None:
                self.lifetimes += 1
                self.lifetime_ns += happening.lifetime_ns
            self.cpu_ns += happening.cpu_ns or 0

    @property
    def lived(self) -> float:
        """The mean lifetime in ns; 0 if none is known."""
        return self.lifetime_ns / self.lifetimes if self.lifetimes else 0.0


class Table:
    """All rows.

    Args:
        sort: One of SORT_KEYS' values.
    """

    def __init__(self, sort: str) -> None:
        self.sort = sort
        self._rows: dict[str, Row] = {}
        self._lost = 0

    def add(self, news: list[News]) -> None:
        """Count."""
        for one in news:
            if isinstance(one, Loss):
                self._lost += one.messages
                continue
            name = "?" if one.comm is None else one.comm
            row = self._rows.get(name)
            if row is None:
                row = self._rows[name] = Row()
            row.add(one)

    def _key(self, item: tuple[str, Row]) -> tuple[float, int]:
        _, row = item
        value = {
            "forks": row.recent["fork"],
            "execs": row.recent["exec"],
            "exits": row.recent["exit"],
            "failed": row.failed,
            "lived": row.lived,
            "cpu": row.cpu_ns,
        }[self.sort]
        return -value, -row.exits

    def lines(self, seconds: float, size: tuple[int, int], title: str) -> list[str]:
        """Return the table as it is now, and begin a new interval.

        Args:
            seconds: How long the interval was.
            size: Columns and lines that there are.
            title: For the first line.
        """
        columns, height = size
        ordered = sorted(self._rows.items(), key=None if self.sort == "comm" else self._key)
        if self.sort == "comm":
            ordered.sort(key=lambda item: item[0])
        lines = [
            f"{title}  {len(self._rows)} names  {self._lost} lost  by {self.sort}",
            "keys: " + " ".join(f"{key} {name}" for key, name in SORT_KEYS.items()) + ", q quit",
            f"{'COMM':15} {'FORKS/S':>9} {'EXECS/S':>9} {'EXITS/S':>9} {'FAILED':>9} {'LIVED':>7} {'CPU':>7}",
        ]
        for comm, row in ordered[: max(0, height - len(lines))]:
            forks, execs, exits = (f"{row.recent[event] / seconds:9.1f}" for event in ("fork", "exec", "exit"))
            lived = short_duration(round(row.lived)) if row.lifetimes else ""
            cpu = short_duration(row.cpu_ns) if row.exits else ""
            name = fit(comm, COMM_COLUMNS)
            lines.append(f"{name} {forks} {execs} {exits} {row.failed:9} {lived:>7} {cpu:>7}".rstrip())
        if len(self._rows) > _MOST_ROWS:
            self._rows = {name: row for name, row in self._rows.items() if any(row.recent.values())}
        for row in self._rows.values():
            row.recent = dict.fromkeys(row.recent, 0)
        return [fit(line, columns).rstrip() for line in lines]


class Top:
    """The table in the terminal; made while an event loop runs.

    Args:
        sort: What to sort by at first.
        write: Writes text to the terminal.
        quit_: Called when the user has seen enough.
        now_ns: CLOCK_MONOTONIC where things happen; in a replay it goes as fast as that does.
        clock: Returns what turns it into the time of day.
        mode: Where names come from.
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
    ) -> None:
        self._table = Table(sort)
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
        """Take the terminal over, if it is one."""
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
            # It can be gone for good.
            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin, termios.TCSANOW, self._saved)
            self._saved = None
        self._write(_LEAVE)

    def _pause(self) -> None:
        """Control-Z: the shell has the terminal until it continues us."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    def show(self, news: list[News]) -> None:
        """Count some."""
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
        # None at all: the terminal is gone.
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
