"""The flags of `proc-connector-exporter watch`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.arguments import Parser, parse_rows
from exporter.errors import ConfigError
from exporter.flag_parsers import MayBeEmpty, parse_duration, parse_group_by, parse_path, parse_speed, whole_up_to
from exporter.flags import flag, flags_of, switch
from exporter.settings.groups import CONTAINERS_SOCKET
from exporter.settings.names import ATTRIBUTIONS
from exporter.settings.service import LOG_FORMATS, LOG_LEVELS
from exporter.stream.selection import FILTERS, GROUP_FILTERS, Selection, parse_selection
from exporter.tallies.labels import GROUP_LABELS
from exporter.watch.top_table import SORT_KEYS

_MOST_COUNT = 10**15
WATCH_FILTERS = (*FILTERS, *GROUP_FILTERS)
"""The flags of the events to print."""
_OUTPUT, _SOURCE, _END, _LOGGING = "output", "source", "end", "logging"


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """The settings of `watch`: the filters, and a row for each other flag.

    Raises:
        ConfigError: Two settings do not go together.
    """

    selection: Selection
    output: str = flag(
        "--output",
        "FORM",
        "text",
        "text: columns; json: one JSON object a line.",
        choices=("text", "json"),
        group=_OUTPUT,
    )
    group_by: frozenset[str] = flag(
        "--group.by",
        "LIST",
        "none",
        "Say where processes ran: in which unit (of systemd), pod (namespace, pod and container; the container "
        "without Kubernetes too), both, or none. A filter by one of these implies it.",
        parse_group_by,
        group=_OUTPUT,
    )
    summary: bool = switch("--summary", "At the end print how many of each event were printed.", group=_OUTPUT)
    duration_seconds: float | None = flag(
        "--duration", "DURATION", None, "Stop after this time, such as 90 or 5m.", parse_duration, group=_END
    )
    count: int | None = flag(
        "--count", "N", None, "Stop after this many events.", whole_up_to(_MOST_COUNT), group=_END
    )
    top: bool = switch("--top", "Show a table of counts by comm instead, refreshed every second.", group=_OUTPUT)
    sort: str = flag(
        "--sort",
        "COLUMN",
        "exits",
        "The column that --top sorts by.",
        choices=tuple(SORT_KEYS.values()),
        group=_OUTPUT,
        needs="--top",
    )
    replay: Path | None = flag(
        "--replay",
        "FILE",
        None,
        "Print the events of a capture. Needs no privilege.",
        parse_path,
        group=_SOURCE,
    )
    given_speed: float | None = flag(
        "--speed",
        "FACTOR",
        None,
        "Speed of --replay: 1 (default with --top) as it happened, 0 (default without) as fast as possible.",
        parse_speed,
        group=_SOURCE,
        needs="--replay",
    )
    attribution: str = flag(
        "--attribution",
        "MODE",
        "auto",
        "Where names come from: exit records (needs CAP_NET_ADMIN), or /proc.",
        choices=ATTRIBUTIONS,
        group=_SOURCE,
        no_effect_with=("--replay",),
    )
    procfs_path: str = flag(
        "--path.procfs",
        "DIR",
        "/proc",
        "Where proc is mounted.",
        group=_SOURCE,
        no_effect_with=("--replay",),
    )
    containers_socket: Path | None = flag(
        CONTAINERS_SOCKET,
        "PATH",
        "",
        "API socket of Docker or Podman, to ask for the names of containers; without it their short ids are their "
        "names.",
        MayBeEmpty(parse_path),
        group=_SOURCE,
        no_effect_with=("--replay",),
    )
    log_level: str = flag(
        "--log.level", "LEVEL", "warn", "The least severe log lines to write.", choices=LOG_LEVELS, group=_LOGGING
    )
    log_format: str = flag(
        "--log.format", "FORMAT", "logfmt", "How to log, on stderr.", choices=LOG_FORMATS, group=_LOGGING
    )

    def __post_init__(self) -> None:
        """Check what goes together."""
        if self.top and self.output == "json":
            raise ConfigError("--top has no effect with --output json: a table that is refreshed is text")
        if self.containers_socket is not None and "pod" not in self.groups:
            raise ConfigError(f"{CONTAINERS_SOCKET} has no effect unless --group.by has pod")

    @property
    def groups(self) -> frozenset[str]:
        """What groups are made of: what is shown, and what is filtered by."""
        filtered = {name for name, _ in self.selection.groups}
        return self.group_by | {by for by, names in GROUP_LABELS.items() if filtered & set(names)}

    @property
    def speed(self) -> float:
        """The speed of --replay. A table is shown at its real speed, lines are printed as fast as possible."""
        if self.given_speed is not None:
            return self.given_speed
        return 1.0 if self.top else 0.0


ROWS = flags_of(WatchConfig)
"""The flags by field, without the filters."""


def parse_watch_args(argv: Sequence[str]) -> WatchConfig:
    """Build the settings.

    Args:
        argv: The arguments after `watch`.

    Raises:
        ConfigError: A flag is not known, a value is wrong, or a setting has no effect.
        SystemExit: --help was given.
    """
    given = make_watch_parser().read(argv)
    selection = parse_selection(
        {spec.name: given[spec.name] for spec in WATCH_FILTERS if spec.name in given},
        flags=True,
        labels=[spec.name for spec in GROUP_FILTERS],
    )
    # The variables are the exporter's: they say how it serves.
    return WatchConfig(selection, **parse_rows(ROWS, given, {}))


def make_watch_parser() -> Parser:
    """Return the parser of the arguments of `watch`."""
    parser = Parser(
        prog="proc-connector-exporter watch",
        usage="%(prog)s [FLAG ...]",
        description="Print the process events of this host as they happen, or those of a capture.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32),
    )
    filters = parser.add_argument_group("filters")
    for spec in WATCH_FILTERS:
        name = f"--{spec.name.replace('_', '-')}"
        filters.add_argument(name, metavar=spec.metavar, dest=spec.name, action="append", help=spec.help)
    for field, row in ROWS.items():
        parser.add(row, field)
    return parser
