"""One event or loss as a line of text in columns, for a terminal of 80 columns."""

import unicodedata
from bisect import bisect_right
from itertools import accumulate

from exporter.kernel.wait_status import exit_code, signal_name, signal_number
from exporter.processes.observer import Happening, Loss, News
from exporter.stream.wall_clock import WallClock
from exporter.tallies.labels import short_group

_NS_PER_SECOND = 1_000_000_000

COMM_COLUMNS = 15
HEAD = f"{'TIME':12} {'EVENT':8} {'PID':>7} {'UID':>5} {'COMM':15} {'END':9} {'LIVED':>5} {'CPU':>5} {'RSS':>5}"
WHERE = " WHERE"
"""What follows the head where lines say where processes ran."""
_RED, _BOLD_RED, _GREEN, _DIM, _YELLOW, _PLAIN = (
    "\x1b[31m",
    "\x1b[1;31m",
    "\x1b[32m",
    "\x1b[2m",
    "\x1b[33m",
    "\x1b[0m",
)


def text_line(news: News, clock: WallClock, *, color: bool) -> str:
    """Return one line. It has at most 80 columns, unless a number is very long, or it says where a process ran."""
    when = clock.local(news.time_ns)
    if isinstance(news, Loss):
        what = f"{when} LOST     {news.messages} messages of {news.socket}: their events are missing here"
        return f"{_YELLOW}{what}{_PLAIN}" if color else what
    end = ""
    if news.status is not None:
        how = signal_name(news.status).removeprefix("SIG") or str(exit_code(news.status))
        end = how + ("+core" if news.core else " oom" if news.oom else "")
    comm = fit(_or_unknown(news.comm), COMM_COLUMNS)
    line = (
        f"{when} {news.event:8} {news.pid:7} {_or_unknown(news.uid):>5} {comm} {end:9}"
        f" {short_duration(news.lifetime_ns):>5} {short_duration(news.cpu_ns):>5} {_size(news.max_rss_kib):>5}"
        f" {short_group(news.group)}"
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
    """Cut a printable text, or fill it with spaces, so that it takes this many columns of a terminal."""
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
    """Return a duration in at most five characters: 12us, 1.5s, 99m. None gives an empty text."""
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
