"""The command: exit code 0 after a clean stop, 1 if it cannot run here, 2 if a setting is wrong."""

import asyncio
import logging
import signal
import sys

from exporter.app import run
from exporter.config import parse_args
from exporter.errors import CaptureError, ConfigError, SetupError
from exporter.service.logs import configure_logging
from exporter.watch.command import watch
from exporter.watch.flags import parse_watch_args

_LOG = logging.getLogger("exporter")


def _serve(argv: list[str]) -> int:
    config = parse_args(argv)
    configure_logging(config.log_level, config.log_format)
    asyncio.run(run(config))
    return 0


def _watch(argv: list[str]) -> int:
    config = parse_watch_args(argv)
    configure_logging(config.log_level, "logfmt")
    return 0 if asyncio.run(watch(config)) else 1


def main() -> int:
    """Run what the process's arguments ask for; returns the exit code."""
    # A shell's `trap '' CHLD` is inherited: the kernel would reap the canary before it can be looked at.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # What goes wrong before the settings are known is logged too.
    configure_logging("info", "logfmt")
    try:
        return _watch(sys.argv[2:]) if sys.argv[1:2] == ["watch"] else _serve(sys.argv[1:])
    except KeyboardInterrupt:
        return 1
    except ConfigError as error:
        _LOG.error("wrong setting", extra={"error": error})
        return 2
    except (SetupError, CaptureError) as error:
        _LOG.error("cannot start", extra={"error": error})
        return 1


if __name__ == "__main__":
    sys.exit(main())
