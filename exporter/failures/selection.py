"""The filters of /failures: `?comm=make&signal=SIGKILL&since=1h`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import translate

from exporter.errors import ConfigError
from exporter.kernel.wait_status import exit_code, signal_name
from exporter.processes.bad_ends import Failure
from exporter.quantities import parse_duration_ns
from exporter.tallies.labels import OTHER, UNKNOWN, uid_label

FILTERS = ("comm", "uid", "exit_code", "signal", "oom", "since")
"""Beside the labels of groups, where there are any."""
FORMATS = ("html", "json")

_SIGNALS = {name: signal_name(number) for number in range(1, 65) for name in (signal_name(number), str(number))}
_NS_PER_SECOND = 1_000_000_000
# A comm has 15 bytes, and each of them can be printed as four characters.
_LONGEST = 64
# A name of a pod has 253 characters, that of a unit 255 bytes.
_LONGEST_LABEL = 255
_MOST_VALUES = 16


@dataclass(frozen=True, slots=True)
class Selection:
    """The failures to show. A filter that is empty lets all through.

    The filters are labels of proc_connector_nonzero_exits_total, so that an alert can link here with its own.
    """

    comms: frozenset[str] = frozenset()
    """As they are printed."""
    globs: re.Pattern[str] | None = None
    """The same as globs: a comm can have the characters of one."""
    uids: frozenset[str] = frozenset()
    exit_codes: frozenset[int] = frozenset()
    signals: frozenset[str] = frozenset()
    oom: bool | None = None
    groups: tuple[tuple[str, frozenset[str], re.Pattern[str]], ...] = ()
    """Labels of groups: the name, values, and the same as globs."""
    since_ns: int | None = None
    """Time before the request."""
    since_wall_ns: int | None = None
    """Time of day, ns since the epoch."""

    def matches(self, failure: Failure) -> bool:
        """Return whether the filters let a failure through, without that of the time."""
        if self.uids and uid_label(failure.uid) not in self.uids:
            return False
        if not self._status_matches(failure):
            return False
        if self.groups and not self._group_matches(dict(failure.group)):
            return False
        if self.globs is None or failure.comm in self.comms:
            return True
        return self.globs.match(failure.comm) is not None

    def _status_matches(self, failure: Failure) -> bool:
        if self.exit_codes and exit_code(failure.status) not in self.exit_codes:
            return False
        if self.signals and signal_name(failure.status) not in self.signals:
            return False
        return self.oom is None or failure.oom is self.oom

    def _group_matches(self, group: Mapping[str, str]) -> bool:
        return all(
            value in wanted or globs.match(value) is not None
            for name, wanted, globs in self.groups
            for value in (group.get(name, UNKNOWN),)
        )


def parse_selection(values: Mapping[str, Sequence[str]], labels: Sequence[str] = ()) -> Selection:
    """Parse the query of a request, `format` left out. An empty value is no filter.

    Args:
        values: Name of a filter -> its values, each of which can be a list with commas, except of `comm` and
            labels.
        labels: The labels of groups.

    Raises:
        ConfigError: A filter is not known, or has a value that it cannot take.
    """
    filters = (*FILTERS, *labels)
    unknown = [name for name in values if name not in filters]
    if unknown:
        raise ConfigError(f"there is no filter {unknown[0]!r}; there are {', '.join(filters)}, and format")
    comms = _globs(values, "comm", _LONGEST)
    groups = {name: _globs(values, name, _LONGEST_LABEL) for name in labels}
    since_ns, since_wall_ns = _parse_since(values.get("since", ()))
    return Selection(
        frozenset(comms),
        _pattern(comms) if comms else None,
        _uids(_words(values, "uid")),
        frozenset(int(word) for word in _numbers(values, "exit_code", 255)),
        frozenset(_signal(word) for word in _words(values, "signal")),
        _parse_oom(_words(values, "oom")),
        tuple((name, frozenset(globs), _pattern(globs)) for name, globs in groups.items() if globs),
        since_ns,
        since_wall_ns,
    )


def _globs(values: Mapping[str, Sequence[str]], name: str, longest: int) -> list[str]:
    globs = list(dict.fromkeys(text for text in values.get(name, ()) if text))
    if len(globs) > _MOST_VALUES or any(len(text) > longest for text in globs):
        raise ConfigError(f"{name} may be given {_MOST_VALUES} times, with {longest} characters each")
    # What is folded has no name of its own in the metrics, but here.
    return [] if OTHER in globs else globs


def _pattern(globs: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, globs)))


def _words(values: Mapping[str, Sequence[str]], name: str) -> list[str]:
    return [word.strip() for text in values.get(name, ()) for word in text.split(",") if word.strip()]


def _uids(words: list[str]) -> frozenset[str]:
    if OTHER in words:
        return frozenset()
    for word in words:
        if word != uid_label(None) and not _is_number(word, 0xFFFFFFFF):
            raise ConfigError(f"uid must be numbers from 0 to {0xFFFFFFFF}, or {uid_label(None)}, got {word!r}")
    return frozenset(words)


def _numbers(values: Mapping[str, Sequence[str]], name: str, most: int) -> list[str]:
    words = _words(values, name)
    for word in words:
        if not _is_number(word, most):
            raise ConfigError(f"{name} must be numbers from 0 to {most}, got {word!r}")
    return words


def _is_number(word: str, most: int) -> bool:
    return word.isascii() and word.isdecimal() and len(word) < 11 and int(word) <= most


def _signal(word: str) -> str:
    name = _SIGNALS.get(word.upper()) or _SIGNALS.get(f"SIG{word.upper()}")
    if name is None:
        raise ConfigError(f"signal must be names such as SIGKILL or numbers from 1 to 64, got {word!r}")
    return name


def _parse_oom(words: list[str]) -> bool | None:
    if not words:
        return None
    if words[-1] not in {"true", "false"}:
        raise ConfigError(f"oom must be true or false, got {words[-1]!r}")
    return words[-1] == "true"


def _parse_since(texts: Sequence[str]) -> tuple[int | None, int | None]:
    text = next((text.strip() for text in reversed(texts)), "")
    if not text:
        return None, None
    ns = parse_duration_ns(text)
    if ns is not None:
        return ns, None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None:
        raise ConfigError(
            "since must be a duration such as 90s, 15m, 2h or 1d, or a time such as 2026-11-29T10:00:00Z, "
            f"got {text!r}"
        )
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return None, round(moment.timestamp() * _NS_PER_SECOND)
