"""What happened, as lines: JSON for programs, columns for people."""

import json
import time
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate

from exporter.kernel.wait_status import exit_code, signal_name, signal_number
from exporter.processes.observer import Happening, Loss, News

_NS_PER_SECOND = 1_000_000_000
_NS_PER_US = 1000

COMM_COLUMNS = 15
HEAD = f"{'TIME':12} {'EVENT':8} {'PID':>7} {'UID':>5} {'COMM':15} {'END':9} {'LIVED':>5} {'CPU':>5} {'RSS':>5}"
_RED, _BOLD_RED, _GREEN, _DIM, _YELLOW, _PLAIN = (
    "\x1b[31m",
    "\x1b[1;31m",
    "\x1b[32m",
    "\x1b[2m",
    "\x1b[33m",
    "\x1b[0m",
)


class WallClock:
    """Turns CLOCK_MONOTONIC into the time of day.

    Args:
        wall_ns: The time of day at a moment.
        monotonic_ns: CLOCK_MONOTONIC at the same moment.
    """

    def __init__(self, wall_ns: int, monotonic_ns: int) -> None:
        self._offset_ns = wall_ns - monotonic_ns
        self._second = -1
        self._utc = self._local = ""

    @classmethod
    def now(cls) -> "WallClock":
        """The clock of this machine, as it is set now."""
        return cls(time.time_ns(), time.monotonic_ns())

    def _look(self, time_ns: int) -> int:
        second, ns = divmod(time_ns + self._offset_ns, _NS_PER_SECOND)
        if second != self._second:
            self._second = second
            self._utc = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._local = time.strftime("%H:%M:%S", time.localtime(second))
        return ns // _NS_PER_US

    def utc(self, time_ns: int) -> str:
        """Return the time as RFC 3339 has it."""
        us = self._look(time_ns)
        return f"{self._utc}.{us:06}Z"

    def local(self, time_ns: int) -> str:
        """Return the time of day, to the millisecond."""
        us = self._look(time_ns)
        return f"{self._local}.{us // 1000:03}"


def json_line(news: News, clock: WallClock) -> str:
    """Return one JSON object, without the line's end. What is not known is null."""
    if isinstance(news, Loss):
        told: dict[str, object] = {
            "time": clock.utc(news.time_ns), "event": "lost", "socket": news.socket, "messages": news.messages,
        }  # fmt: skip
        return json.dumps(told)
    status = news.status
    return json.dumps(
        {
            "time": clock.utc(news.time_ns),
            "event": news.event,
            "pid": news.pid,
            "tgid": news.tgid,
            "ppid": news.ppid,
            "uid": news.uid,
            "comm": news.comm,
            "exit_code": None if status is None else exit_code(status),
            "signal": None if status is None else signal_name(status) or None,
            "core": news.core,
            "lifetime_seconds": None if news.lifetime_ns is None else news.lifetime_ns / _NS_PER_SECOND,
            "cpu_seconds": None if news.cpu_ns is None else news.cpu_ns / _NS_PER_SECOND,
            "max_rss_bytes": None if news.max_rss_kib is None else news.max_rss_kib << 10,
        },
        ensure_ascii=False,
    )


def text_line(news: News, clock: WallClock, *, color: bool) -> str:
    """Return one line of at most 80 columns, unless a number is very long."""
    when = clock.local(news.time_ns)
    if isinstance(news, Loss):
        what = f"{when} LOST     {news.messages} messages of {news.socket}: what they told is missing here"
        return f"{_YELLOW}{what}{_PLAIN}" if color else what
    end = ""
    if news.status is not None:
        how = signal_name(news.status).removeprefix("SIG") or str(exit_code(news.status))
        end = how + ("+core" if news.core else "")
    comm = fit(_or_unknown(news.comm), COMM_COLUMNS)
    line = (
        f"{when} {news.event:8} {news.pid:7} {_or_unknown(news.uid):>5} {comm} {end:9}"
        f" {short_duration(news.lifetime_ns):>5} {short_duration(news.cpu_ns):>5} {_size(news.max_rss_kib):>5}"
    ).rstrip()
    if not color:
        return line
    return f"{_color(news)}{line}{_PLAIN}"


def _color(happening: Happening) -> str:
    if happening.status:
        return _BOLD_RED if signal_number(happening.status) else _RED
    return {"exec": _GREEN, "fork": _DIM, "coredump": _BOLD_RED}.get(happening.event, "")


def _or_unknown(value: object) -> str:
    return "?" if value is None else str(value)


def fit(text: str, columns: int) -> str:
    """Cut a printable text, or fill it with spaces, to so many columns of a terminal."""
    if text.isascii() and len(text) <= columns:
        return text.ljust(columns)
    ends = list(accumulate(map(_columns, text)))
    if ends[-1] <= columns:
        return text + " " * (columns - ends[-1])
    kept = bisect_right(ends, columns - 1)
    return f"{text[:kept]}…" + " " * (columns - 1 - (ends[kept - 1] if kept else 0))


def _columns(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def short_duration(ns: int | None) -> str:
    """Return at most five characters: 12us, 1.5s, 100h."""
    if ns is None:
        return ""
    if ns == 0:
        return "0"
    for unit_ns, unit in ((1000, "us"), (1_000_000, "ms"), (_NS_PER_SECOND, "s")):
        if ns < 999.5 * unit_ns and not (unit == "s" and ns >= 60 * _NS_PER_SECOND):
            value = ns / unit_ns
            return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"
    seconds = ns // _NS_PER_SECOND
    for per, unit in ((60, "m"), (3600, "h")):
        if seconds < 100 * per:
            return f"{seconds // per}{unit}"
    return f"{seconds // 86400}d"


def _size(kib: int | None) -> str:
    if kib is None:
        return ""
    value = float(kib)
    for unit in "KMGT":
        if value < 999.5:
            return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"
        value /= 1024
    return f"{value:.0f}P"


class Summary:
    """Counts what was told, for the end."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._nonzero = 0
        self._lost = 0

    def add(self, news: Iterable[News]) -> None:
        """Count."""
        for one in news:
            if isinstance(one, Loss):
                self._lost += one.messages
                continue
            self._counts[one.event] = self._counts.get(one.event, 0) + 1
            self._nonzero += one.event == "exit" and bool(one.status)

    def rows(self) -> Iterator[tuple[str, int]]:
        """Return (what, how many)."""
        for event, count in self._counts.items():
            yield event, count
            if event == "exit":
                yield "nonzero_exit", self._nonzero
        yield "lost", self._lost

    def json_line(self) -> str:
        """Return one JSON object."""
        return json.dumps({"event": "summary"} | dict(self.rows()))

    def text(self) -> str:
        """Return a line for each."""
        return "".join(f"{count:10} {what}\n" for what, count in self.rows())
