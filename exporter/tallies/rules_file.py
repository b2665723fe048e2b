"""The file of rules (--config.file): YAML in, Rules out, or a ConfigError with its line and the reason."""

import re
from collections.abc import Callable, Collection
from typing import NoReturn, TypeVar

import yaml

from exporter.errors import ConfigError
from exporter.files import read_file
from exporter.tallies.labels import GROUP_LABELS
from exporter.tallies.rules import (
    COMM,
    GROUP,
    LABELS,
    NOTHING,
    PARTS,
    Budget,
    Rule,
    Rules,
    RulesFile,
    Selection,
    most_steps,
)

_MOST_BYTES = 1 << 16
_MOST_UID = 0xFFFFFFFE
# $$, $1, ${1}, ${name}; a dollar that is none of them is a mistake.
_REFERENCE = re.compile(r"\$(?:(\$)|(\d+)|\{(\w+)\}|)")

_T = TypeVar("_T")


class RulesReader:
    """Reads a file of rules again and again; what it holds is parsed only when it has changed.

    Args:
        path: Its name.
        labels: Of groups, those that there are: a rule about another one would do nothing.
    """

    def __init__(self, path: str, labels: Collection[str] = LABELS) -> None:
        self._path = path
        self._labels = labels
        self._held: bytes | None = None
        self._found: RulesFile | ConfigError = ConfigError("not read yet")

    def read(self) -> RulesFile:
        """Read the file.

        Raises:
            ConfigError: It cannot be read, is empty, or says something that is no rule.
        """
        data = _read(self._path)
        if data != self._held:
            self._held = data
            try:
                self._found = _parse(data, self._path, self._labels)
            except ConfigError as error:
                self._found = error
        if isinstance(self._found, ConfigError):
            raise ConfigError(f"--config.file: {self._found}")
        return self._found


def _read(path: str) -> bytes:
    try:
        data = read_file(path, _MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"--config.file: cannot read {path}: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"--config.file: {path} is longer than {_MOST_BYTES} bytes")
    if not data.strip():
        # Editors and `cp` empty a file before they write it, and a full disk leaves one behind.
        raise ConfigError(f"--config.file: {path} is empty; to do without rules, write {{}}")
    return data


def _parse(data: bytes, path: str, labels: Collection[str]) -> RulesFile:
    file = _File(path, labels)
    rules = file.rules(data)
    return RulesFile(rules, data, file.said)


def parse_rules(data: bytes, path: str) -> Rules:
    """Parse the bytes of a file of rules; raises ConfigError as RulesReader does."""
    return _parse(data, path, LABELS).rules


class _File:
    """Walks the nodes of a file, which know their lines."""

    def __init__(self, path: str, labels: Collection[str]) -> None:
        self._path = path
        self._labels = labels
        self._steps = dict.fromkeys((COMM, GROUP), 0)
        self.said: frozenset[str] = frozenset()

    def _refuse(self, node: yaml.Node, why: str) -> NoReturn:
        raise ConfigError(f"{self._path}:{node.start_mark.line + 1}: {why}")

    def rules(self, data: bytes) -> Rules:
        try:
            root = yaml.compose(data, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = 1 if error.problem_mark is None else error.problem_mark.line + 1
            raise ConfigError(f"{self._path}:{line}: not YAML: {error.problem}") from error
        except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
            # The last two are of an escape like "\UFFFFFFFF", which is no character.
            raise ConfigError(f"{self._path}:1: not YAML: {' '.join(str(error).split())}") from error
        if root is None:
            return Rules()
        parts = self._mapping(root, PARTS)
        self.said = frozenset(parts or PARTS)
        return Rules(
            self._list(parts["comm"], self._rule) if "comm" in parts else (),
            self._selection(parts["include"]) if "include" in parts else NOTHING,
            self._selection(parts["exclude"]) if "exclude" in parts else NOTHING,
            {name: self._list(parts[name], self._group_rule) for name in self._of_groups(parts)},
        )

    def _of_groups(self, parts: dict[str, yaml.Node]) -> list[str]:
        """Return the keys that are labels of groups."""
        names = [name for name in parts if name in LABELS]
        for name in names:
            if name not in self._labels:
                by = next(by for by, labels in GROUP_LABELS.items() if name in labels)
                self._refuse(parts[name], f"{name} has no effect without --group.by {by}")
        return names

    def _mapping(self, node: yaml.Node, keys: tuple[str, ...]) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self._refuse(node, f"a mapping is wanted here, of {', '.join(keys)}")
        parts: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = self._text(key)
            if name not in keys:
                self._refuse(key, f"unknown key {name!r}; there are {', '.join(keys)}")
            if name in parts:
                self._refuse(key, f"{name} is here twice")
            parts[name] = value
        return parts

    def _list(self, node: yaml.Node, parse: Callable[[yaml.Node], _T]) -> tuple[_T, ...]:
        if not isinstance(node, yaml.SequenceNode):
            self._refuse(node, "a list is wanted here")
        return tuple(parse(item) for item in node.value)

    def _text(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            self._refuse(node, "a text is wanted here")
        value: str = node.value
        return value

    def _group_rule(self, node: yaml.Node) -> Rule:
        return self._rule(node, GROUP)

    def _rule(self, node: yaml.Node, budget: Budget = COMM) -> Rule:
        parts = self._mapping(node, ("match", "replace", "drop"))
        if "match" not in parts:
            self._refuse(node, "a rule wants match")
        match = self._expression(parts["match"], budget)
        if ("replace" in parts) == ("drop" in parts):
            self._refuse(node, "a rule wants either replace or drop: true")
        if "drop" in parts:
            if self._text(parts["drop"]) != "true":
                self._refuse(parts["drop"], "drop can only be true")
            return Rule(match, None)
        return Rule(match, self._replacement(parts["replace"], match))

    def _group_expression(self, node: yaml.Node) -> re.Pattern[str]:
        return self._expression(node, GROUP)

    def _expression(self, node: yaml.Node, budget: Budget = COMM) -> re.Pattern[str]:
        text = self._text(node)
        try:
            self._steps[budget] += most_steps(text, budget)
        except ConfigError as error:
            self._refuse(node, f"expression {text!r}: {error}")
        if self._steps[budget] > budget.steps:
            self._refuse(
                node, f"the expressions up to here can take more than {budget.steps} steps with one {budget.what}"
            )
        return re.compile(text, re.DOTALL)

    def _replacement(self, node: yaml.Node, match: re.Pattern[str]) -> tuple[str | int, ...]:
        text = self._text(node)
        parts: list[str | int] = []
        end = 0
        for found in _REFERENCE.finditer(text):
            parts.append(text[end : found.start()])
            end = found.end()
            dollar, number, name = found.groups()
            group = number or name
            if dollar:
                parts.append("$")
            elif group is None:
                self._refuse(node, f"replacement {text!r}: a dollar is written $$")
            elif group.isdecimal() and int(group) <= match.groups:
                parts.append(int(group))
            elif group in match.groupindex:
                parts.append(match.groupindex[group])
            else:
                self._refuse(node, f"replacement {text!r}: the expression has no group {group}")
        parts.append(text[end:])
        return tuple(part for part in parts if part != "")

    def _selection(self, node: yaml.Node) -> Selection:
        parts = self._mapping(node, ("comm", "uid", *LABELS))
        selection = Selection(
            self._list(parts["comm"], self._expression) if "comm" in parts else (),
            self._list(parts["uid"], self._uids) if "uid" in parts else (),
            {name: self._list(parts[name], self._group_expression) for name in self._of_groups(parts)},
        )
        for name, value in parts.items():
            if not value.value:
                self._refuse(value, f"{name} is an empty list")
        return selection

    def _uids(self, node: yaml.Node) -> range:
        text = self._text(node)
        found = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", text)
        if found is None:
            self._refuse(node, f"a uid or FIRST-LAST is wanted here, got {text!r}")
        first = int(found[1])
        last = int(found[2] or first)
        if not first <= last <= _MOST_UID:
            self._refuse(node, f"uids go up to {_MOST_UID}, the smaller one first, got {text!r}")
        return range(first, last + 1)
