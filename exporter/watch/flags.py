"""The flags of `proc-connector-exporter watch`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.config import ATTRIBUTIONS, LOG_LEVELS
from exporter.flag_parsers import number_up_to, parse_path, parse_speed, whole_up_to
from exporter.flags import flag, flags_of, switch
from exporter.stream.selection import FILTERS, Selection, parse_selection
from exporter.watch.top_table import SORT_KEYS

_MOST_SECONDS = 1e9
_MOST_COUNT = 10**15


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """The settings of `watch`: the filters, and a row for each other flag."""

    selection: Selection
    output: str = flag(
        "--output", None, "text", "text: columns; json: one JSON object a line.", choices=("text", "json")
    )
    summary: bool = switch("--summary", "At the end print how many of each event were printed.")
    duration_seconds: float | None = flag(
        "--duration", "SECONDS", None, "Stop after this many seconds.", number_up_to(_MOST_SECONDS)
    )
    count: int | None = flag("--count", "N", None, "Stop after this many events.", whole_up_to(_MOST_COUNT))
    top: bool = switch("--top", "Show a table of counts by comm instead, refreshed every second.")
    sort: str = flag("--sort", None, "exits", "The column that --top sorts by.", choices=tuple(SORT_KEYS.values()))
    replay: Path | None = flag(
        "--replay", "FILE", None, "Print the events of a capture. Needs no privilege.", parse_path
    )
    given_speed: float | None = flag(
        "--speed",
        "FACTOR",
        None,
        "Speed of --replay: 1 (default with --top) as it happened, 0 (default without) as fast as possible.",
        parse_speed,
    )
    attribution: str = flag(
        "--attribution",
        None,
        "auto",
        "Where names come from: exit records (needs CAP_NET_ADMIN), or /proc.",
        choices=ATTRIBUTIONS,
    )
    procfs_path: str = flag("--path.procfs", "DIR", "/proc", "Where proc is mounted.")
    log_level: str = flag("--log.level", None, "warn", "The least severe log lines to write.", choices=LOG_LEVELS)

    @property
    def speed(self) -> float:
        """The speed of --replay. A table is shown at its real speed, lines are printed as fast as possible."""
        if self.given_speed is not None:
            return self.given_speed
        return 1.0 if self.top else 0.0


_FLAGS = flags_of(WatchConfig)


def parse_watch_args(argv: Sequence[str]) -> WatchConfig:
    """Build the settings.

    Args:
        argv: The arguments after `watch`.

    Raises:
        ConfigError: A value is wrong.
        SystemExit: --help (0), an unknown flag or choice (2), after a line on stderr.
    """
    parser = argparse.ArgumentParser(
        prog="proc-connector-exporter watch",
        description="Print the process events of this host as they happen, or those of a capture.",
        allow_abbrev=False,
    )
    for spec in FILTERS:
        name = f"--{spec.name.replace('_', '-')}"
        parser.add_argument(name, metavar=spec.metavar, dest=spec.name, action="append", help=spec.help)
    for field, row in _FLAGS.items():
        if row.is_switch:
            parser.add_argument(row.name, dest=field, action="store_const", const="true", help=row.help)
        else:
            parser.add_argument(row.name, dest=field, metavar=row.metavar, choices=row.choices, help=row.help)
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    selection = parse_selection(
        {spec.name: given[spec.name] for spec in FILTERS if spec.name in given}, flags=True
    )
    values = {field: row.parse(row.name, given[field]) for field, row in _FLAGS.items() if field in given}
    return WatchConfig(selection, **values)
