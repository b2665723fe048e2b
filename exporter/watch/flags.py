"""The flags of `proc-connector-exporter watch`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.config import ATTRIBUTIONS, LOG_LEVELS
from exporter.flag_parsers import number_up_to, parse_path, parse_speed, whole_up_to
from exporter.flags import flag, flags_of, switch
from exporter.stream.selection import FILTERS, Selection, parse_selection
from exporter.watch.top import SORT_KEYS

_MOST_SECONDS = 1e9
_MOST_COUNT = 10**15


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """Everything that a user of `watch` can set: the filters, and a row for each other flag."""

    selection: Selection
    output: str = flag("--output", None, "text", "Columns, or an object a line.", choices=("text", "json"))
    summary: bool = switch("--summary", "Count what was printed, and say so at the end.")
    duration_seconds: float | None = flag(
        "--duration", "SECONDS", None, "Stop after that time.", number_up_to(_MOST_SECONDS)
    )
    count: int | None = flag("--count", "N", None, "Stop after so many.", whole_up_to(_MOST_COUNT))
    top: bool = switch("--top", "A table by comm instead, refreshed every second.")
    sort: str = flag("--sort", None, "exits", "What --top sorts by.", choices=tuple(SORT_KEYS.values()))
    replay: Path | None = flag(
        "--replay", "FILE", None, "Print a capture. Needs no kernel and no privilege.", parse_path
    )
    given_speed: float | None = flag(
        "--speed", "FACTOR", None, "How fast to replay: 1 as it happened, 0 all at once.", parse_speed
    )
    attribution: str = flag("--attribution", None, "auto", "As for the exporter.", choices=ATTRIBUTIONS)
    procfs_path: str = flag("--path.procfs", "DIR", "/proc", "As there.")
    log_level: str = flag("--log.level", None, "warn", "As there.", choices=LOG_LEVELS)

    @property
    def speed(self) -> float:
        """How many times as fast as it happened to replay: a table is to be looked at, lines are not."""
        if self.given_speed is not None:
            return self.given_speed
        return 1.0 if self.top else 0.0


_FLAGS = flags_of(WatchConfig)


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
