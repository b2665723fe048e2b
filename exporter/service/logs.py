"""Log lines in the formats of Prometheus: logfmt or JSON, one line each, on stderr.

A log line can have bytes that came from a client or a process: both formats escape what does not print.
"""

import json
import logging
import os
import sys
import time
import traceback
from typing import TextIO

# The attributes of every LogRecord; all others came in by `extra`.
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "taskName"}

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
# Lines of one kind, such as those for malformed messages, and how many kinds are remembered.
_LINES_PER_MINUTE = 10
_MINUTE_SECONDS = 60
_KINDS = 1000

_LEVEL_NAMES = {number: name for name, number in _LEVELS.items()} | {logging.CRITICAL: "error"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    fields: dict[str, object] = {
        "time": f"{seconds}.{int(record.msecs):03d}Z",
        "level": _LEVEL_NAMES.get(record.levelno, record.levelname.lower()),
        "msg": record.getMessage(),
    }
    fields |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
    if record.exc_info:
        fields["error"] = "".join(traceback.format_exception(*record.exc_info)).strip()
    return fields


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return json.dumps(_fields(record), default=str)


class LogfmtFormatter(logging.Formatter):
    """key=value pairs; a value is quoted, with JSON's escapes, where it is not one plain word."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return " ".join(f"{key}={_quote(_text(value))}" for key, value in _fields(record).items())


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quote(value: str) -> str:
    plain = value.isascii() and value.isprintable() and not any(c in value for c in ' ="\\')
    return value if value and plain else json.dumps(value)


def configure_logging(level: str, log_format: str) -> None:
    """Send all logging to stderr.

    Args:
        level: debug, info, warn or error.
        log_format: logfmt or json.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RateLimit())
    handler.setFormatter(JsonFormatter() if log_format == "json" else LogfmtFormatter())
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)
    # aiohttp would log a line for each scrape.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def log_all_of(logger: str) -> None:
    """Log all lines of a logger, whatever --log.level is: the user asked for them. It limits them itself."""
    logging.getLogger(logger).setLevel(logging.INFO)
    for handler in logging.getLogger().handlers:
        for limit in handler.filters:
            if isinstance(limit, RateLimit):
                limit.exempt(logger)


def flush_or_drop(stream: TextIO | None) -> None:
    """Flush a stream; if it cannot be written, send what is left of it to /dev/null.

    Args:
        stream: None is what Python makes of a descriptor that was closed when it started.
    """
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class RateLimit(logging.Filter):
    """Lets a few lines of each kind through in a minute, so that a client that sends garbage cannot fill the disk.

    A kind is a logger, a level and a text without its fields. The first line of a minute has a field with the
    number of lines of its kind that were left out before.

    Args:
        per_minute: The most lines of a kind in a minute.
    """

    def __init__(self, per_minute: int = _LINES_PER_MINUTE) -> None:
        super().__init__()
        self._per_minute = per_minute
        self._exempt: set[str] = set()
        self._windows: dict[tuple[str, int, object], tuple[float, int]] = {}

    def exempt(self, logger: str) -> None:
        """Let all lines of a logger through from now on."""
        self._exempt.add(logger)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line may be written, and count it."""
        if record.name in self._exempt:
            return True
        kind = (record.name, record.levelno, record.msg)
        began, lines = self._windows.get(kind, (record.created, 0))
        # The clock can be set back.
        if not 0 <= record.created - began < _MINUTE_SECONDS:
            if lines > self._per_minute:
                record.left_out = lines - self._per_minute
            began, lines = record.created, 0
        if len(self._windows) >= _KINDS:
            self._windows.clear()
        self._windows[kind] = (began, lines + 1)
        return lines < self._per_minute
