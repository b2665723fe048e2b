"""Reads arguments and variables by the rows of a dataclass, and says in one line what is wrong with them.

A setting that is wrong is named as the user wrote it: as the flag, or as the variable.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from exporter.errors import ConfigError
from exporter.flags import ENVIRONMENT_PREFIX, Flag, variable_of

# Below this two names have too little in common for one to be meant by the other.
_LEAST_LIKENESS = 0.6
_MOST_LIKELY = 3
# What other programs call it.
_SHORT_FORMS = {"-V": "--version", "-v": "--version"}
_NO_VALUE = re.compile(r"(?P<name>\S+): expected one argument")
_NEEDLESS_VALUE = re.compile(r"(?P<name>\S+): ignored explicit argument (?P<value>.*)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises what is wrong, instead of printing its usage.

    Args:
        words: What may stand in place of flags: subcommands.
    """

    def __init__(self, *, words: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)
        self._words = words
        self._groups: dict[str, Any] = {"": self}

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would have printed.

        Raises:
            ConfigError: Always.
        """
        message = message.removeprefix("argument ")
        if lacks := _NO_VALUE.fullmatch(message):
            # A value that begins with a hyphen was taken for a flag.
            message = f"{lacks['name']} wants a value; write {lacks['name']}=VALUE"
        elif has := _NEEDLESS_VALUE.fullmatch(message):
            message = f"{has['name']} takes no value, got {has['value']}"
        raise ConfigError(message)

    def add(self, row: Flag, field: str) -> None:
        """Add a flag, under the heading of its group; a switch has a --no- form too."""
        if row.group not in self._groups:
            self._groups[row.group] = self.add_argument_group(row.group)
        group = self._groups[row.group]
        choices = f" One of {', '.join(row.choices)}." if row.choices and not row.is_switch else ""
        default = "" if row.default in {None, "", "false"} else f" [default {row.default}]"
        group.add_argument(
            row.name,
            dest=field,
            metavar=row.metavar,
            action="append" if row.repeatable else "store",
            nargs="?" if row.is_switch else None,
            const="true" if row.is_switch else None,
            help=f"{row.help}{choices}{default}".replace("%", "%%"),
        )
        if row.is_switch:
            group.add_argument(
                no_form(row.name), dest=field, action="store_const", const="false", help=argparse.SUPPRESS
            )

    def read(self, argv: Sequence[str]) -> dict[str, Any]:
        """Return what was given, by field.

        Raises:
            ConfigError: A flag is not known, or lacks its value.
            SystemExit: --help or --version was given.
        """
        given, rest = self.parse_known_args(argv)
        if rest:
            raise ConfigError(self._unknown(rest[0]))
        return {name: value for name, value in vars(given).items() if value is not None}

    def _unknown(self, text: str) -> str:
        name = text.partition("=")[0]
        if name.startswith("-") and name != "-":
            known = self._option_string_actions
            short = _SHORT_FORMS.get(name)
            return f"unknown flag {name}{f'; did you mean {short}?' if short in known else _meant(name, known)}"
        if text in self._words:
            return f"unexpected argument {text!r}; it comes first: {self.prog} {text} [FLAG ...]"
        return f"unexpected argument {text!r}{_meant(text, self._words)}"


class ShowVersion(argparse.Action):
    """Prints a text as it is, which argparse's own action wraps, and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print and exit."""
        sys.stdout.write(f"{self.const}\n")
        parser.exit()


def no_form(name: str) -> str:
    """Return the flag that turns a switch off."""
    return f"--no-{name.removeprefix('--')}"


def _meant(text: str, names: Iterable[str]) -> str:
    """Return a question that has the names most like a text, or nothing."""
    plain = {_plain(name): name for name in names}
    wanted = _plain(text)
    if not wanted:
        return ""
    # Of a name whose first or last parts are left out, the shortest that there are. The --no- forms repeat others.
    parts = sorted((name for name in plain if f" {wanted} " in f" {name} "), key=len)
    if not wanted.startswith("no "):
        parts = [name for name in parts if not name.startswith("no ")]
    likely = parts[:_MOST_LIKELY] or difflib.get_close_matches(wanted, plain, n=1, cutoff=_LEAST_LIKENESS)
    *first, last = [plain[name] for name in likely] or [""]
    names_of_all = f"{', '.join(first)} or {last}" if first else last
    return f"; did you mean {names_of_all}?" if likely else ""


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", "-").strip("-").replace(".", "-").split("-"))


def parse_rows(
    rows: Mapping[str, Flag], given: Mapping[str, str | list[str]], environment: Mapping[str, str]
) -> dict[str, Any]:
    """Return the values of all fields that were set.

    Args:
        rows: The flags by field.
        given: What arguments say, by field.
        environment: Where variables are looked up.

    Raises:
        ConfigError: A value is wrong, or a setting has no effect.
    """
    texts = {
        field: found for field, row in rows.items() if (found := _text_of(row, given.get(field), environment))
    }
    values = {field: _value_of(rows[field], *text) for field, text in texts.items()}
    _check_effects([(rows[field], source) for field, (source, text) in texts.items() if text not in {"", "false"}])
    return values


# What Kubernetes adds for a service that has the program's name.
_SERVICE_LINK = re.compile(r"(SERVICE|PORT)(_.*)?")


def unknown_variables(rows: Mapping[str, Flag], environment: Mapping[str, str]) -> list[str]:
    """Return the variables that look like a flag's and are none, each with the one that was likely meant."""
    known = {row.variable.removeprefix(ENVIRONMENT_PREFIX): row.variable for row in rows.values()}
    unknown = []
    for name in sorted(environment):
        word = name.removeprefix(ENVIRONMENT_PREFIX)
        if word != name and word not in known and not _SERVICE_LINK.fullmatch(word):
            likely = difflib.get_close_matches(word, known, n=1, cutoff=_LEAST_LIKENESS)
            unknown.append(f"{name}; did you mean {known[likely[0]]}?" if likely else name)
    return unknown


def _text_of(row: Flag, given: str | list[str] | None, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return what the user wrote for a flag, after the name that it was written to."""
    if isinstance(given, list):
        return row.name, ",".join(given)
    if given is not None:
        return row.name, given
    text = environment.get(row.variable)
    return None if text is None else (row.variable, text)


def _value_of(row: Flag, source: str, text: str) -> Any:
    if row.choices is not None and text not in row.choices:
        likely = difflib.get_close_matches(text.lower(), row.choices, n=1, cutoff=_LEAST_LIKENESS)
        meant = f"; did you mean {likely[0]}?" if likely else ""
        raise ConfigError(f"{source} must be one of {', '.join(row.choices)}, got {text!r}{meant}")
    return row.parse(source, text)


def _check_effects(settings: Sequence[tuple[Flag, str]]) -> None:
    """Refuse what has no effect.

    Args:
        settings: Each flag that was set, and the name that it was set by.
    """
    set_by = {row.name: source for row, source in settings}
    for row, source in settings:
        if row.needs is not None and row.needs not in set_by:
            variable = "" if source == row.name else f" ({variable_of(row.needs)})"
            raise ConfigError(f"{source} has no effect without {row.needs}{variable}")
        for other in row.no_effect_with:
            if other in set_by:
                raise ConfigError(f"{source} has no effect with {set_by[other]}")
