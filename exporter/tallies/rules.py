"""The user's rules: what is shown under which name, and what is not counted at all.

Expressions meet comms, which are strangers' bytes, on the one thread that counts. Python's matcher tries one way
after the other, so a careless expression can take it for ever. How many steps it can take at most with a comm,
which has at most 15 characters, is worked out before an expression is accepted: see `most_steps`. Names of pods
and units are longer, but are looked at once for each group.
"""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from re import _constants as sre  # type: ignore[attr-defined]  # the only way to see what an expression is made of
from re import _parser  # type: ignore[attr-defined]
from types import MappingProxyType
from typing import Any, NamedTuple

from exporter.errors import ConfigError
from exporter.tallies.labels import GROUP_LABELS, UNKNOWN, plain, printable

STEPS = 50_000
"""What all expressions together may take with one comm: some 0.25 ms."""

GROUP_STEPS = 20_000_000
"""What all expressions together may take with one label of groups: some 0.1 s."""

LABELS = tuple(name for names in GROUP_LABELS.values() for name in names)
"""The labels of groups, of which a file can have rules."""
PARTS = ("comm", *LABELS, "include", "exclude")
"""Of a file of rules."""

_COMM_CHARACTERS = 15
# Of the name of a folder; names of pods are shorter.
_LABEL_CHARACTERS = 255
_MOST_CHARACTERS = 200
_CACHED_NAMES = 4096
_CONSUMES_ONE = frozenset({sre.LITERAL, sre.NOT_LITERAL, sre.IN, sre.ANY})
_REPEATS = frozenset({sre.MAX_REPEAT, sre.MIN_REPEAT})

Ways = list[int]
"""At i, the number of ways to have come somewhere in an expression with i characters used up."""


class Budget(NamedTuple):
    """What expressions may take."""

    what: str
    """What they are held against, as a message has it."""
    characters: int
    """The most that such a text has."""
    steps: int
    """The most that all expressions together may take."""


COMM = Budget("comm", _COMM_CHARACTERS, STEPS)
GROUP = Budget("label of a group", _LABEL_CHARACTERS, GROUP_STEPS)


class _Steps:
    """Walks an expression as a matcher would that never succeeds, in all ways at once."""

    def __init__(self, budget: Budget) -> None:
        self.total = 0
        self._budget = budget

    def of(self, items: Iterable[tuple[Any, Any]]) -> int:
        """Return the steps through a whole expression."""
        self._count(self._through(items, [1] + [0] * self._budget.characters))
        return self.total

    def _count(self, ways: Ways) -> None:
        self.total += sum(ways)
        if self.total > self._budget.steps:
            # An expression can be made whose steps could not even be counted in time.
            raise ConfigError(f"it can take more than {self._budget.steps} steps with one {self._budget.what}")

    def _through(self, items: Iterable[tuple[Any, Any]], ways: Ways) -> Ways:
        for op, argument in items:
            self._count(ways)
            ways = self._through_one(op, argument, ways)
        return ways

    def _through_one(self, op: Any, argument: Any, ways: Ways) -> Ways:
        if op in _CONSUMES_ONE:
            return [0, *ways[:-1]]
        if op is sre.AT:
            return ways
        if op is sre.SUBPATTERN:
            return self._through(argument[3], ways)
        if op is sre.BRANCH:
            return _sum([self._through(branch, ways) for branch in argument[1]])
        if op in _REPEATS:
            least, most, repeated = argument
            return self._through_repeat(least, most, repeated, ways)
        raise ConfigError("it may not look around, refer back or be possessive")

    def _through_repeat(self, least: int, most: int, items: Any, ways: Ways) -> Ways:
        if most > 1 and items.getwidth()[0] == 0:
            raise ConfigError("what it repeats may not be empty")
        ends = [ways] if least == 0 else []
        times = 0
        while times < most and any(ways):
            ways = self._through(items, ways)
            self._count(ways)
            times += 1
            if times >= least:
                ends.append(ways)
        return _sum(ends) if ends else [0] * len(ways)


def _sum(rows: Sequence[Ways]) -> Ways:
    return [sum(column) for column in zip(*rows, strict=True)]


def most_steps(expression: str, budget: Budget = COMM) -> int:
    """Return how many steps a backtracking matcher takes at most with an expression and any text.

    Args:
        expression: What is to be matched.
        budget: Says how long a text can be.

    Raises:
        ConfigError: It is no expression, of a kind whose steps are not known, or takes more than the budget.
    """
    if len(expression) > _MOST_CHARACTERS:
        raise ConfigError(f"it is longer than {_MOST_CHARACTERS} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            parsed = _parser.parse(expression)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise ConfigError(str(error)) from error
    return _Steps(budget).of(parsed)


class Rule(NamedTuple):
    """What happens to the comms, or labels of groups, that an expression matches as a whole."""

    match: re.Pattern[str]
    replace: tuple[str | int, ...] | None
    """The new name: texts, and numbers of groups. None: they are not counted."""


class Selection(NamedTuple):
    """Some comms, uids and groups."""

    comms: tuple[re.Pattern[str], ...] = ()
    uids: tuple[range, ...] = ()
    labels: Mapping[str, tuple[re.Pattern[str], ...]] = MappingProxyType({})
    """Of groups: expressions by the name of the label."""

    def has_comm(self, text: str) -> bool:
        """Return whether a comm is among them."""
        return any(pattern.fullmatch(text) for pattern in self.comms)

    def has_uid(self, uid: int) -> bool:
        """Return whether a uid is among them."""
        return any(uid in uids for uids in self.uids)

    def entries(self, part: str) -> list[str]:
        """Return what it has, an entry each, under the name of its part of the file."""
        comms = [f"{part}.comm {pattern.pattern!r}" for pattern in self.comms]
        labels = [f"{part}.{name} {each.pattern!r}" for name, patterns in self.labels.items() for each in patterns]
        return comms + labels + [f"{part}.uid {uids.start}-{uids.stop - 1}" for uids in self.uids]


NOTHING = Selection()
_NO_RULES: Mapping[str, Sequence[Rule]] = MappingProxyType({})


class Rules:
    """All rules of a file.

    Args:
        rules: The first one that matches a comm is the only one that counts.
        include: Where it has comms, no others are counted; where it has uids or a label of groups, no others.
        exclude: What is not counted.
        labels: Rules of labels of groups, by name. The first one that matches a value is the only one that counts.
    """

    def __init__(
        self,
        rules: Sequence[Rule] = (),
        include: Selection = NOTHING,
        exclude: Selection = NOTHING,
        labels: Mapping[str, Sequence[Rule]] = _NO_RULES,
    ) -> None:
        self._rules = rules
        self._labels = labels
        self._include = include
        self._exclude = exclude
        self.name = lru_cache(_CACHED_NAMES)(self._name)

    def entries(self) -> list[str]:
        """Return what stands in the file, an entry each: `exclude.comm 'a.*'`; of a rule what it matches."""
        rules = [
            f"{part} {rule.match.pattern!r}{' drop' if rule.replace is None else ''}"
            for part, of_part in (("comm", self._rules), *self._labels.items())
            for rule in of_part
        ]
        return rules + self._include.entries("include") + self._exclude.entries("exclude")

    def _name(self, comm: bytes) -> str | None:
        """Return the label of a comm; None if it is not counted, whatever its uid."""
        text = plain(comm)
        include, exclude = self._include, self._exclude
        if (include.comms and not include.has_comm(text)) or exclude.has_comm(text):
            return None
        named = _renamed(text, self._rules)
        return None if named is None else printable(named)

    def group(self, names: Iterable[str], values: Iterable[str]) -> tuple[str, ...] | None:
        """Return the labels of a group; None if what runs there is not counted.

        Args:
            names: Of its labels.
            values: They as they are found. One that is not known is as if no rule were about it.
        """
        shown = []
        for name, value in zip(names, values, strict=True):
            named = value if value == UNKNOWN else self._label(name, value)
            if named is None:
                return None
            shown.append(named)
        return tuple(shown)

    def _label(self, name: str, value: str) -> str | None:
        include, exclude = (selection.labels.get(name, ()) for selection in (self._include, self._exclude))
        if include and not any(pattern.fullmatch(value) for pattern in include):
            return None
        if any(pattern.fullmatch(value) for pattern in exclude):
            return None
        # What is in no pod has none that could be renamed.
        return _renamed(value, self._labels.get(name, ())) if value else value

    def counts(self, uid: int | None) -> bool:
        """Return whether events of a uid are counted, as those of an unknown one always are."""
        include, exclude = self._include, self._exclude
        return uid is None or ((not include.uids or include.has_uid(uid)) and not exclude.has_uid(uid))


def _renamed(text: str, rules: Sequence[Rule]) -> str | None:
    """Return what the first rule that matches makes of a text; None if it is not counted."""
    for match, replace in rules:
        found = match.fullmatch(text)
        if found is not None:
            if replace is None:
                return None
            return "".join([part if isinstance(part, str) else found[part] or "" for part in replace])
    return text


class RulesFile(NamedTuple):
    """A file of rules at one moment."""

    rules: Rules
    data: bytes
    """What it holds."""
    said: frozenset[str]
    """The parts that stand in it, if only as `exclude: {}`; all of them in the file `{}`."""

    def ended(self, before: Rules) -> list[str]:
        """Return the entries of the rules before that this file has not."""
        has = set(self.rules.entries())
        return [entry for entry in before.entries() if entry not in has]

    def ended_without_a_word(self, before: Rules) -> list[str]:
        """Return the parts that had rules before, and in this file neither have one nor stand there.

        A file that was cut, or is just being written, often parses.
        """
        had, has = (
            {entry.split()[0].partition(".")[0] for entry in rules.entries()} for rules in (before, self.rules)
        )
        return [part for part in PARTS if part in had - has - self.said]
