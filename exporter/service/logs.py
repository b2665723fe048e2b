"""Log lines, as Prometheus' own programs write them: logfmt or JSON, one line each, on stderr.

What is logged can hold bytes of strangers: both forms escape everything that does not print.
"""

import json
import logging
import sys
import time
import traceback

# What every LogRecord has; the rest came in by `extra`.
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "taskName"}

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
# What the library says for each broken request, and we for each broken message; and how many kinds there can be.
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
        return " ".join(f"{key}={_quote(str(value))}" for key, value in _fields(record).items())


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
    # A line for each scrape says nothing that the metrics do not.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


class RateLimit(logging.Filter):
    """Lets a few lines of each kind through in a minute, so that whoever sends garbage cannot fill the disk.

    A kind is a logger, a level and a text without its fields. The first line of a minute says how many of its kind
    were left out before.

    Args:
        per_minute: Lines of a kind.
    """

    def __init__(self, per_minute: int = _LINES_PER_MINUTE) -> None:
        super().__init__()
        self._per_minute = per_minute
        self._windows: dict[tuple[str, int, object], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the line may be written."""
        kind = (record.name, record.levelno, record.msg)
        began, lines = self._windows.get(kind, (record.created, 0))
        # Wall clocks are set back, too.
        if not 0 <= record.created - began < _MINUTE_SECONDS:
            if lines > self._per_minute:
                record.left_out = lines - self._per_minute
            began, lines = record.created, 0
        if len(self._windows) >= _KINDS:
            self._windows.clear()
        self._windows[kind] = (began, lines + 1)
        return lines < self._per_minute
