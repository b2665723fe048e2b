"""The events that a user can ask for."""

from exporter.errors import ConfigError

EVENTS = (
    "fork",
    "exec",
    "exit",
    "nonzero_exit",
    "uid",
    "gid",
    "sid",
    "ptrace",
    "comm",
    "coredump",
    "thread_fork",
    "thread_exit",
)
"""What --events takes. `exit` includes `nonzero_exit`."""

DEFAULT_EVENTS = frozenset({"fork", "exec", "exit", "uid", "ptrace", "comm", "coredump"})
"""What the metrics need by default."""

_IN_WORDS = {
    "nonzero_exit": "non-zero exit",
    "uid": "change of uid",
    "gid": "change of gid",
    "sid": "new session",
    "comm": "change of comm",
    "coredump": "core dump",
    "thread_fork": "fork of a thread",
    "thread_exit": "exit of a thread",
}


def in_words(events: frozenset[str]) -> str:
    """Return the names of events as a sentence has them, such as `fork, exec and core dump`."""
    counted = events | ({"nonzero_exit"} if "exit" in events else set())
    *first, last = [_IN_WORDS.get(name, name) for name in EVENTS if name in counted]
    return f"{', '.join(first)} and {last}" if first else last


def parse_events(flag: str, text: str) -> frozenset[str]:
    """Parse a comma-separated list, which is the value of a flag.

    Raises:
        ConfigError: It is empty, or names something else than an event.
    """
    events = frozenset(name.strip() for name in text.split(",") if name.strip())
    unknown = sorted(events - set(EVENTS))
    if unknown or not events:
        what = f"does not know {', '.join(unknown)}" if unknown else "wants at least one event"
        raise ConfigError(f"{flag} {what}; there are {', '.join(EVENTS)}")
    return events
