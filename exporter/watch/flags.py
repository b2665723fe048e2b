"""The flags of `proc-connector-exporter watch`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.config import parse_speed
from exporter.errors import ConfigError
from exporter.stream.selection import FILTERS, Selection, parse_selection
from exporter.watch.top_table import SORT_KEYS

_MOST_SECONDS = 1e9
_MOST_COUNT = 10**15


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """The settings of `watch`."""

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
        argv: The arguments after `watch`.

    Raises:
        ConfigError: A value is wrong.
        SystemExit: --help (0), or an unknown flag or choice (2), after a line on stderr.
    """
    given = _make_parser().parse_args(argv)
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


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="proc-connector-exporter watch",
        description="Print the process events of this host as they happen, or those of a capture.",
        allow_abbrev=False,
    )
    for spec in FILTERS:
        flag = f"--{spec.name.replace('_', '-')}"
        parser.add_argument(flag, metavar=spec.metavar, dest=spec.name, action="append", help=spec.help)
    parser.add_argument(
        "--output", choices=("text", "json"), default="text", help="text: columns; json: one JSON object a line."
    )
    parser.add_argument(
        "--summary", action="store_true", help="At the end print how many of each event were printed."
    )
    parser.add_argument("--duration", metavar="SECONDS", help="Stop after this many seconds.")
    parser.add_argument("--count", metavar="N", help="Stop after this many events.")
    parser.add_argument(
        "--top", action="store_true", help="Show a table of counts by comm instead, refreshed every second."
    )
    parser.add_argument(
        "--sort", choices=list(SORT_KEYS.values()), default="exits", help="The column that --top sorts by."
    )
    parser.add_argument("--replay", metavar="FILE", help="Print the events of a capture. Needs no privilege.")
    parser.add_argument(
        "--speed",
        metavar="FACTOR",
        help="Speed of --replay: 1 (default with --top) as it happened, 0 (default without) as fast as possible.",
    )
    parser.add_argument(
        "--attribution",
        choices=("auto", "taskstats", "procfs"),
        default="auto",
        help="Where names come from: exit records of the kernel (needs CAP_NET_ADMIN), or /proc.",
    )
    parser.add_argument(
        "--path.procfs", dest="procfs_path", metavar="DIR", default="/proc", help="Where proc is mounted."
    )
    parser.add_argument(
        "--log.level",
        dest="log_level",
        choices=("debug", "info", "warn", "error"),
        default="warn",
        help="The least severe log lines to write.",
    )
    return parser


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
