"""The filters of `watch` and of /events: which events a user or a client wants."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from typing import NamedTuple

from exporter.errors import ConfigError
from exporter.events import EVENTS
from exporter.kernel.wait_status import exit_code, signal_name
from exporter.processes.observer import Happening
from exporter.quantities import parse_duration_ns
from exporter.tallies.labels import known_group

_ENDS = frozenset({"exit", "nonzero_exit"})
_HAVE_STATUS = _ENDS | {"thread_exit"}
# A comm has 15 bytes, and each of them can be printed as four characters.
_MOST_GLOBS, _LONGEST_GLOB = 16, 64
# A name of a pod has 253 characters, that of a unit 255 bytes.
_LONGEST_LABEL = 255
_SIGNALS = {name: number for number in range(1, 65) for name in (signal_name(number), str(number))}
_SIGNAL_NAMES = {name: signal_name(number) for name, number in _SIGNALS.items()}


class FilterSpec(NamedTuple):
    """One filter as its users see it: `--min-lifetime` and `?min_lifetime=`."""

    name: str
    metavar: str
    help: str


FILTERS = (
    FilterSpec("events", "LIST", f"Only these events: any of {', '.join(EVENTS)}."),
    FilterSpec("comm", "GLOB", "Only events of processes whose comm matches; may be given more than once."),
    FilterSpec("uid", "LIST", "Only events of processes of these uids."),
    FilterSpec(
        "exit_code", "LIST", "Only ends with one of these exit codes, as a shell shows them: 128 + N for signal N."
    ),
    FilterSpec("signal", "LIST", "Only ends by one of these signals: SIGKILL, KILL or 9."),
    FilterSpec("oom", "BOOL", "Only ends of processes that the OOM killer had chosen (true), or had not (false)."),
    FilterSpec("min_lifetime", "TIME", "Only ends of processes that lived at least so long: 1.5, 200ms, 5m, 1h."),
    FilterSpec("max_lifetime", "TIME", "Only ends of processes that lived at most so long."),
)


GROUP_FILTERS = (
    FilterSpec("namespace", "GLOB", "Only events of processes in pods of a namespace that matches."),
    FilterSpec("pod", "GLOB", "Only events of processes in a pod whose name matches."),
    FilterSpec("container", "GLOB", "Only events of processes in a container whose name or short id matches."),
    FilterSpec("unit", "GLOB", "Only events of processes in a systemd unit that matches."),
)
"""Where it is known in which group processes run."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The events to show.

    A filter that is None lets every event through. Any other filter stops an event whose field is not known.
    """

    events: frozenset[str] | None = None
    comm: re.Pattern[str] | None = None
    uids: frozenset[int] | None = None
    exit_codes: frozenset[int] | None = None
    signals: frozenset[str] | None = None
    oom: bool | None = None
    min_lifetime_ns: int | None = None
    max_lifetime_ns: int | None = None
    groups: tuple[tuple[str, re.Pattern[str]], ...] = ()
    """Labels of groups."""

    def with_default(self, events: frozenset[str]) -> "Selection":
        """Return the same filters, with these events if the user named no events."""
        return self if self.events is not None else replace(self, events=events)

    def matches(self, happening: Happening) -> bool:
        """Return whether the filters let an event through."""
        events = self.events
        if (
            events is not None
            and happening.event not in events
            and not (happening.event == "exit" and happening.status and "nonzero_exit" in events)
        ):
            return False
        if self.comm is not None and (happening.comm is None or self.comm.match(happening.comm) is None):
            return False
        if self.uids is not None and happening.uid not in self.uids:
            return False
        if self.groups and not self._group_matches(known_group(happening.group)):
            return False
        return not self._ends_only or self._end_matches(happening)

    def _group_matches(self, group: Mapping[str, str | None]) -> bool:
        values = ((pattern, group.get(name)) for name, pattern in self.groups)
        return all(value is not None and pattern.match(value) is not None for pattern, value in values)

    @property
    def _ends_only(self) -> bool:
        return self._status_matters or self._process_matters

    @property
    def _process_matters(self) -> bool:
        return self.oom is not None or self.min_lifetime_ns is not None or self.max_lifetime_ns is not None

    @property
    def _status_matters(self) -> bool:
        return self.exit_codes is not None or self.signals is not None

    def _end_matches(self, happening: Happening) -> bool:
        if happening.status is None:
            return False
        if self.exit_codes is not None and exit_code(happening.status) not in self.exit_codes:
            return False
        if self.signals is not None and signal_name(happening.status) not in self.signals:
            return False
        return (self.oom is None or happening.oom is self.oom) and self._lifetime_matches(happening.lifetime_ns)

    def _lifetime_matches(self, lifetime_ns: int | None) -> bool:
        if self.min_lifetime_ns is None and self.max_lifetime_ns is None:
            return True
        if lifetime_ns is None:
            return False
        return (self.min_lifetime_ns or 0) <= lifetime_ns and (
            self.max_lifetime_ns is None or lifetime_ns <= self.max_lifetime_ns
        )

    def wanted(self, available: frozenset[str]) -> frozenset[str]:
        """Return the events that can match, so that the kernel can leave out the others.

        Args:
            available: The events to choose from if the user named no events.
        """
        wanted = available if self.events is None else self.events
        if self._process_matters:
            wanted &= _ENDS
        elif self._status_matters:
            wanted &= _HAVE_STATUS
        fails = self.oom or self.signals is not None or (self.exit_codes is not None and 0 not in self.exit_codes)
        if fails and "exit" in wanted:
            wanted = wanted - {"exit"} | {"nonzero_exit"}
        return wanted


def unavailable(selection: Selection, available: frozenset[str]) -> list[str]:
    """Return the events that a selection asks for and that are not available."""
    implied = {"nonzero_exit"} if "exit" in available else set()
    return sorted(selection.wanted(available) - available - implied)


def parse_selection(
    values: Mapping[str, Sequence[str]], *, flags: bool = False, labels: Sequence[str] = ()
) -> Selection:
    """Parse filters.

    Args:
        values: Filter name -> its values; each filter may be given more than once.
        flags: Name a filter in error messages as a flag: --min-lifetime, not min_lifetime.
        labels: The labels of groups that are known.

    Raises:
        ConfigError: A filter is not known, has a value that it cannot take, or lets nothing through.
    """
    known = [*(spec.name for spec in FILTERS), *labels]
    for name in values:
        if name not in known:
            raise ConfigError(f"there is no filter {name!r}; there are {', '.join(known)}")
    given = _GivenFilters(values, flags=flags)
    globs = given.globs("comm", _LONGEST_GLOB)
    groups = ((name, given.globs(name, _LONGEST_LABEL)) for name in labels)
    selection = Selection(
        events=given.events(),
        comm=None if globs is None else _pattern(globs),
        uids=given.numbers("uid", 0xFFFFFFFF),
        exit_codes=given.numbers("exit_code", 255),
        signals=given.signals(),
        oom=given.truth("oom"),
        min_lifetime_ns=given.duration("min_lifetime"),
        max_lifetime_ns=given.duration("max_lifetime"),
        groups=tuple((name, _pattern(globs)) for name, globs in groups if globs is not None),
    )
    shortest_ns, longest_ns = selection.min_lifetime_ns, selection.max_lifetime_ns
    if shortest_ns is not None and longest_ns is not None and shortest_ns > longest_ns:
        raise ConfigError(
            f"nothing can match: {given.shown('min_lifetime')} is above {given.shown('max_lifetime')}"
        )
    if not selection.wanted(frozenset(EVENTS)):
        events = ", ".join(sorted(selection.events or ()))
        raise ConfigError(f"nothing can match: {events} have no exit code, signal or lifetime")
    return selection


def _pattern(globs: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, globs)))


class _GivenFilters:
    """Parses the values of one filter after the other. Each method returns None if the filter was not given."""

    def __init__(self, values: Mapping[str, Sequence[str]], *, flags: bool) -> None:
        self._values = values
        self._flags = flags

    def shown(self, name: str) -> str:
        """Return the name of a filter as the user wrote it."""
        return f"--{name.replace('_', '-')}" if self._flags else name

    def _words(self, name: str) -> list[str] | None:
        given = self._values.get(name)
        if given is None:
            return None
        found = [word.strip() for text in given for word in text.split(",") if word.strip()]
        if not found:
            raise ConfigError(f"{self.shown(name)} is empty")
        return found

    def globs(self, name: str, longest: int) -> Sequence[str] | None:
        """Return patterns, each once. Of a client only few: each event is held against each of them.

        Raises:
            ConfigError: They are too many, or one is longer than any value.
        """
        globs = self._values.get(name)
        if globs is None:
            return None
        if not self._flags and (len(globs) > _MOST_GLOBS or max(map(len, globs)) > longest):
            raise ConfigError(f"{name} may be given {_MOST_GLOBS} times, with {longest} characters each")
        return list(dict.fromkeys(globs))

    def events(self) -> frozenset[str] | None:
        """Return names of EVENTS."""
        events = self._words("events")
        unknown = sorted(set(events or ()) - set(EVENTS))
        if unknown:
            raise ConfigError(
                f"{self.shown('events')} does not know {', '.join(unknown)}; there are {', '.join(EVENTS)}"
            )
        return None if events is None else frozenset(events)

    def signals(self) -> frozenset[str] | None:
        """Return signals, by the names that exit_labels gives them."""
        words = self._words("signal")
        if words is None:
            return None
        names = set()
        for word in words:
            name = _SIGNAL_NAMES.get(word.upper()) or _SIGNAL_NAMES.get(f"SIG{word.upper()}")
            if name is None:
                raise ConfigError(
                    f"{self.shown('signal')} must be names such as SIGKILL or numbers from 1 to 64, got {word!r}"
                )
            names.add(name)
        return frozenset(names)

    def truth(self, name: str) -> bool | None:
        """Return whether it is true."""
        words = self._words(name)
        if words is None:
            return None
        if words[-1] not in {"true", "false"}:
            raise ConfigError(f"{self.shown(name)} must be true or false, got {words[-1]!r}")
        return words[-1] == "true"

    def numbers(self, name: str, most: int) -> frozenset[int] | None:
        """Return numbers from 0 to `most`."""
        found = self._words(name)
        if found is None:
            return None
        for word in found:
            if not (word.isascii() and word.isdecimal() and len(word) < 11 and int(word) <= most):
                raise ConfigError(f"{self.shown(name)} must be numbers from 0 to {most}, got {word!r}")
        return frozenset(map(int, found))

    def duration(self, name: str) -> int | None:
        """Return ns."""
        given = self._values.get(name)
        if given is None:
            return None
        ns = parse_duration_ns(given[-1].strip())
        if ns is None:
            raise ConfigError(f"{self.shown(name)} must be a time such as 1.5, 200ms, 5m or 1h, got {given[-1]!r}")
        return ns
