"""The arguments of the program.

Every flag has a variable: `--web.listen-address` is PROC_CONNECTOR_EXPORTER_WEB_LISTEN_ADDRESS. The flag wins.
"""

import argparse
import itertools
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence

from exporter import __version__
from exporter.arguments import Parser, ShowVersion, parse_rows
from exporter.config import ROWS, Config
from exporter.errors import ConfigError
from exporter.flags import with_sections
from exporter.revision import REVISION
from exporter.settings.service import LOG_FORMATS

SUBCOMMANDS = ("watch", "dashboards")
"""What may stand in the first place instead of a flag."""

VERSION_TEXT = f"""\
proc-connector-exporter, version {__version__} (revision: {REVISION})
  python version:   {platform.python_version()}
  platform:         {sys.platform}/{platform.machine()}"""
"""What --version prints, in the form of other exporters."""


def parse_args(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> Config:
    """Build the settings.

    Args:
        argv: Without the program's name.
        environment: Where variables are looked up.

    Raises:
        ConfigError: A flag is not known, a value is wrong, or a setting has no effect.
        SystemExit: --help or --version was given.
    """
    values = parse_rows(ROWS, make_parser().read(argv), environment)
    try:
        return with_sections(Config, values)
    except ConfigError as error:
        raise ConfigError(named_as_set(str(error), argv, environment)) from error


def named_as_set(complaint: str, argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> str:
    """Return a complaint in which flags that the user has set by their variables are named by these.

    The parts that open files and sockets do not know how a setting was set.
    """
    given = make_parser().read(argv)
    for field, row in ROWS.items():
        if field not in given and row.variable in environment:
            complaint = re.sub(rf"(?<![\w.-]){re.escape(row.name)}(?![\w-]|\.\w)", row.variable, complaint)
    return complaint


def chosen_log_format(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> str:
    """Return the format of log lines for the case that the settings are wrong, by looking for its flag alone."""
    row = ROWS["logging.format"]
    chosen = environment.get(row.variable, "")
    for word, following in itertools.pairwise([*argv, ""]):
        name, equals, value = word.partition("=")
        if name == row.name:
            chosen = value if equals else following
    return chosen if chosen in LOG_FORMATS else LOG_FORMATS[0]


def make_parser() -> Parser:
    """Return the parser of the program's arguments."""
    parser = Parser(
        prog="proc-connector-exporter",
        usage="%(prog)s [FLAG ...]\n       %(prog)s watch [FLAG ...]\n       %(prog)s dashboards --output DIR",
        description="Prometheus exporter of process life, from the kernel's process connector. "
        "`watch` prints events as they happen: see `%(prog)s watch --help`; `dashboards` writes the "
        "dashboards and rules that came with the program.",
        epilog="Durations are 15s, 2m, 1h30m, 1d or plain seconds; sizes 64MiB, 64M, 1G or plain bytes. "
        "--no-NAME turns off a flag that needs no value. Each flag can be set by a variable too: "
        f"--web.listen-address is {ROWS['web.listen_addresses'].variable}. The flag wins.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32),
        words=SUBCOMMANDS,
    )
    parser.add_argument(
        "--version", action=ShowVersion, nargs=0, const=VERSION_TEXT, help="print the version and exit"
    )
    for field, row in ROWS.items():
        parser.add(row, field)
    return parser
