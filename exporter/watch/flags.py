"""The flags of `proc-connector-exporter watch`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.config import parse_speed
from exporter.errors import ConfigError
from exporter.stream.selection import FILTERS, Selection, parse_selection
from exporter.watch.top import SORT_KEYS

_MOST_SECONDS = 1e9
_MOST_COUNT = 10**15


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """Everything that a user of `watch` can set."""

    selection: Selection
    output: str = "text"
    summary: bool = False
    duration_seconds: float | None = None
    count: int | None = None
    top: bool = False
    sort: str = "exits"
    replay: Path | None = None
    speed: float = 0.0
    attribution: str = "auto"
    procfs_path: str = "/proc"
    log_level: str = "warn"


def parse_watch_args(argv: Sequence[str]) -> WatchConfig:
    """Build the settings.

    Args:
        argv: What stands behind `watch`.

    Raises:
        ConfigError: A value is wrong.
        SystemExit: --help (0), an unknown flag or choice (2), after a word on stderr.
    """
    parser = argparse.ArgumentParser(
        prog="proc-connector-exporter watch",
        description="Print what happens on this host, or what happened when a capture was taken.",
        allow_abbrev=False,
    )
    for spec in FILTERS:
        flag = f"--{spec.name.replace('_', '-')}"
        parser.add_argument(flag, metavar=spec.metavar, dest=spec.name, action="append", help=spec.help)
    parser.add_argument("--output", choices=("text", "json"), default="text", help="Columns, or an object a line.")
    parser.add_argument("--summary", action="store_true", help="Count what was printed, and say so at the end.")
    parser.add_argument("--duration", metavar="SECONDS", help="Stop after that time.")
    parser.add_argument("--count", metavar="N", help="Stop after so many.")
    parser.add_argument("--top", action="store_true", help="A table by comm instead, refreshed every second.")
    parser.add_argument("--sort", choices=list(SORT_KEYS.values()), default="exits", help="What --top sorts by.")
    parser.add_argument("--replay", metavar="FILE", help="Print a capture. Needs no kernel and no privilege.")
    parser.add_argument("--speed", metavar="FACTOR", help="How fast to replay: 1 as it happened, 0 all at once.")
    parser.add_argument(
        "--attribution", choices=("auto", "taskstats", "procfs"), default="auto", help="As for the exporter."
    )
    parser.add_argument("--path.procfs", dest="procfs_path", metavar="DIR", default="/proc", help="As there.")
    parser.add_argument(
        "--log.level",
        dest="log_level",
        choices=("debug", "info", "warn", "error"),
        default="warn",
        help="As there.",
    )
    given = parser.parse_args(argv)
    filters = {spec.name: vars(given)[spec.name] for spec in FILTERS if vars(given)[spec.name] is not None}
    default_speed = "1" if given.top else "0"
    return WatchConfig(
        selection=parse_selection(filters, flags=True),
        output=given.output,
        summary=given.summary,
        duration_seconds=_parse_number("--duration", given.duration, _MOST_SECONDS),
        count=_parse_count(given.count),
        top=given.top,
        sort=given.sort,
        replay=None if given.replay is None else Path(given.replay),
        speed=parse_speed(default_speed if given.speed is None else given.speed),
        attribution=given.attribution,
        procfs_path=given.procfs_path,
        log_level=given.log_level,
    )


def _parse_number(flag: str, text: str | None, most: float) -> float | None:
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number <= most:
        raise ConfigError(f"{flag} must be a number above 0, got {text!r}")
    return number


def _parse_count(text: str | None) -> int | None:
    number = _parse_number("--count", text, _MOST_COUNT)
    if number is not None and number != int(number):
        raise ConfigError(f"--count must be a whole number, got {text!r}")
    return None if number is None else int(number)
