"""`proc-connector-exporter dashboards`: writes the dashboards and rules that came with the program."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from exporter.arguments import Parser
from exporter.errors import ConfigError

_HERE = Path(__file__).parent
# Where a package has them, and where a checkout has them.
_FOLDERS = (_HERE / "data", _HERE.parent / "dashboards")
_PATTERNS = ("*.json", "rules/*.yaml")


def make_dashboards_parser() -> Parser:
    """Return the parser of the arguments of `dashboards`."""
    parser = Parser(
        prog="proc-connector-exporter dashboards",
        usage="%(prog)s --output DIR",
        description="Write Grafana's dashboards, and the recording rules and alerts for Prometheus, to a folder.",
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument("--output", metavar="DIR", help="The folder; it is made if it is not there.")
    return parser


def write_dashboards(argv: Sequence[str]) -> int:
    """Write the files, and print their names.

    Args:
        argv: The arguments after `dashboards`.

    Returns:
        The exit code.

    Raises:
        ConfigError: A flag is wrong, or the folder cannot be written.
        SystemExit: --help was given.
    """
    output = make_dashboards_parser().read(argv).get("output")
    if not output:
        raise ConfigError("--output is missing: the folder to write to")
    if Path(output).exists() and not Path(output).is_dir():
        raise ConfigError(f"--output: {output} is a file, not a folder")
    source = next(folder for folder in _FOLDERS if folder.is_dir())
    for path in sorted(path for pattern in _PATTERNS for path in source.glob(pattern)):
        target = Path(output) / path.relative_to(source)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"--output: cannot write {target}: {error.strerror}") from error
        sys.stdout.write(f"{target}\n")
    return 0
