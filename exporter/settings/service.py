"""The flags of the service: its user and its log."""

from dataclasses import dataclass

from exporter.flag_parsers import MayBeEmpty
from exporter.flags import flag
from exporter.service.privileges import User, find_user

LOG_LEVELS = ("debug", "info", "warn", "error")
LOG_FORMATS = ("logfmt", "json")


@dataclass(frozen=True, slots=True)
class Privileges:
    """As which user to run."""

    user: User | None = flag(
        "--user",
        "USER",
        "",
        "Name or uid of the user that the exporter becomes, for good, once all sockets are open; empty: it keeps "
        "its user.",
        MayBeEmpty(find_user),
    )


@dataclass(frozen=True, slots=True)
class Logging:
    """How to log."""

    level: str = flag(
        "--log.level",
        "LEVEL",
        "info",
        "Least severity to log.",
        choices=LOG_LEVELS,
    )
    format: str = flag(
        "--log.format",
        "FORMAT",
        "logfmt",
        "How to log, on stderr.",
        choices=LOG_FORMATS,
    )
