"""The command.

Exit codes: 0 after a clean stop, 1 if this host does not allow it or lacks an address to listen on, 2 if a setting
is wrong, 3 if an address is in use, wrong or not permitted, or systemd passed no socket, 4 if a capture cannot be
read or written, 5 if the kernel sends no process events to it, 70 after a bug (sysexits.h).
"""

import asyncio
import logging
import os
import signal
import sys

from exporter.arguments import unknown_variables
from exporter.bundle import write_dashboards
from exporter.command_line import chosen_log_format, named_as_set, parse_args
from exporter.config import ROWS
from exporter.errors import AddressError, CaptureError, ConfigError, ConnectorError, ExporterError, SetupError
from exporter.service.logs import configure_logging, flush_or_drop
from exporter.watch.flags import parse_watch_args

_LOG = logging.getLogger("exporter")

# The first that an error is an instance of.
_EXIT_CODES = (
    (ConfigError, 2, "wrong setting"),
    (AddressError, 3, "cannot start"),
    (CaptureError, 4, "cannot start"),
    (ConnectorError, 5, "cannot start"),
)
_CANNOT_RUN = (1, "cannot start")
_BUG = 70


def _serve(argv: list[str]) -> int:
    config = parse_args(argv)
    configure_logging(config.logging.level, config.logging.format)
    for variable in unknown_variables(ROWS, os.environ):
        _LOG.warning("unknown variable", extra={"variable": variable})
    from exporter.app import run  # noqa: PLC0415 - takes most of a start, which --version and a mistake do without

    try:
        asyncio.run(run(config))
    except (ConfigError, SetupError, CaptureError) as error:
        raise type(error)(named_as_set(str(error), argv)) from error
    return 0


def _watch(argv: list[str]) -> int:
    config = parse_watch_args(argv)
    configure_logging(config.log_level, config.log_format)
    from exporter.watch.command import watch  # noqa: PLC0415 - as above

    return 0 if asyncio.run(watch(config)) else 1


_SUBCOMMANDS = {"watch": _watch, "dashboards": write_dashboards}


def main() -> int:
    """Run what the process's arguments ask for; returns the exit code."""
    argv = sys.argv[1:]
    # A shell's `trap '' CHLD` is inherited: the kernel would reap the canary before it can be looked at.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # What goes wrong before the settings are known is logged too.
    configure_logging("info", chosen_log_format(argv))
    try:
        return _run(argv)
    finally:
        # A log that cannot be written must not change the exit code: Python makes it 120 if its last flush fails.
        flush_or_drop(sys.stdout)
        flush_or_drop(sys.stderr)


def _run(argv: list[str]) -> int:
    subcommand = _SUBCOMMANDS.get(argv[0]) if argv else None
    try:
        return _serve(argv) if subcommand is None else subcommand(argv[1:])
    except KeyboardInterrupt:
        return 1
    except (ConfigError, SetupError, CaptureError) as error:
        code, text = _meaning(error)
        _LOG.error(text, extra={"error": error})
        return code
    except Exception:  # noqa: BLE001 - logged whole, and the exit code says so
        # Python's own exit code would be 1, which says that another host may do.
        _LOG.exception("a bug")
        return _BUG


def _meaning(error: ExporterError) -> tuple[int, str]:
    """Return the exit code and the text of an error."""
    for kind, code, text in _EXIT_CODES:
        if isinstance(error, kind):
            return code, text
    return _CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main())
