"""The command: exit code 0 after a clean stop, 1 if it cannot run here, 2 if a setting is wrong."""

import asyncio
import logging
import sys

from exporter.app import run
from exporter.config import parse_args
from exporter.errors import ConfigError, SetupError
from exporter.logs import configure_logging

_LOG = logging.getLogger("exporter")


def main() -> int:
    """Run the exporter with the process's arguments; returns the exit code."""
    try:
        config = parse_args(sys.argv[1:])
    except ConfigError as error:
        configure_logging("info", "logfmt")
        _LOG.error("wrong setting", extra={"error": error})
        return 2
    configure_logging(config.log_level, config.log_format)
    try:
        asyncio.run(run(config))
    except ConfigError as error:
        _LOG.error("wrong setting", extra={"error": error})
        return 2
    except SetupError as error:
        _LOG.error("cannot start", extra={"error": error})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
