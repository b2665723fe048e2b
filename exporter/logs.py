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
    handler.setFormatter(JsonFormatter() if log_format == "json" else LogfmtFormatter())
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)
    # A line for each scrape says nothing that the metrics do not.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


class LogLimiter:
    """Lets a few lines of each kind through in a minute, so that whoever sends garbage cannot fill the disk."""

    def __init__(self, per_minute: int = 5) -> None:
        self._per_minute = per_minute
        self._windows: dict[str, tuple[float, int]] = {}

    def allows(self, kind: str, now_seconds: float) -> bool:
        """Tell whether one more line of this kind may be written."""
        began, lines = self._windows.get(kind, (now_seconds, 0))
        if now_seconds - began >= 60:
            began, lines = now_seconds, 0
        self._windows[kind] = (began, lines + 1)
        return lines < self._per_minute
