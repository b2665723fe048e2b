"""What the values of flags mean.

Each parser takes the name of what was set, a flag or its variable, and a text. It raises ConfigError, which names
what was set, if the text is not such a value. Parsers that have bounds show them: the Helm chart's own check of
arguments is made of them.
"""

import grp
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from exporter.errors import ConfigError
from exporter.quantities import parse_bytes, parse_duration_ns

_T = TypeVar("_T")

# (uid_t)-1 and (gid_t)-1 mean "do not change".
_NO_ID = 0xFFFFFFFF
_SLOWEST, _FASTEST = 1e-6, 1_000_000
_GROUPS_OF = frozenset({"unit", "pod"})
_NS = 1_000_000_000
_SIZE_UNITS = ((1 << 50, "PiB"), (1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_DURATION_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


@dataclass(frozen=True, slots=True)
class MayBeEmpty(Generic[_T]):
    """A parser that turns an empty text into None, and gives another to a parser."""

    parse: Callable[[str, str], _T]

    def __call__(self, flag: str, text: str) -> _T | None:
        """Parse."""
        return self.parse(flag, text) if text else None


def parse_text(_: str, text: str) -> str:
    """Take the text as it is."""
    return text


def parse_path(_: str, text: str) -> Path:
    """Take the text as the name of a file."""
    return Path(text)


@dataclass(frozen=True, slots=True)
class CountBetween:
    """A parser of whole numbers."""

    least: int
    most: int

    @property
    def what(self) -> str:
        """Say what it takes."""
        return f"a number from {self.least} to {self.most}"

    def __call__(self, flag: str, text: str) -> int:
        """Parse."""
        is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(self.most))
        if not is_number or not self.least <= int(text) <= self.most:
            raise ConfigError(f"{flag} must be {self.what}, got {text!r}")
        return int(text)


@dataclass(frozen=True, slots=True)
class SizeBetween:
    """A parser of sizes, in bytes."""

    least: int
    most: int

    @property
    def what(self) -> str:
        """Say what it takes."""
        bounds = f"{_shown(self.least, _SIZE_UNITS)} to {_shown(self.most, _SIZE_UNITS)}"
        return f"a size from {bounds}, such as 64MiB or 67108864"

    def __call__(self, flag: str, text: str) -> int:
        """Parse."""
        size = parse_bytes(text)
        if size is None or not self.least <= size <= self.most:
            raise ConfigError(f"{flag} must be {self.what}, got {text!r}{self._meant(text)}")
        return size

    def _meant(self, text: str) -> str:
        """Return a question that has the size with its unit in the right case, or nothing."""
        right = text.upper().replace("I", "i")
        size = parse_bytes(right)
        return f"; did you mean {right}?" if right != text and size and self.least <= size <= self.most else ""


@dataclass(frozen=True, slots=True)
class IntervalBetween:
    """A parser of durations, in seconds: 0, or between two bounds."""

    least: int
    most: int

    @property
    def what(self) -> str:
        """Say what it takes."""
        bounds = f"{_shown(self.least, _DURATION_UNITS, 's')} to {_shown(self.most, _DURATION_UNITS, 's')}"
        return f"0, or a duration from {bounds}, such as 15s or 1h"

    def __call__(self, flag: str, text: str) -> float:
        """Parse."""
        ns = parse_duration_ns(text)
        if ns is None or not (ns == 0 or self.least * _NS <= ns <= self.most * _NS):
            raise ConfigError(f"{flag} must be {self.what}, got {text!r}")
        return ns / _NS


def parse_duration(flag: str, text: str) -> float:
    """Parse a duration above 0, in seconds."""
    ns = parse_duration_ns(text)
    if not ns:
        raise ConfigError(f"{flag} must be a duration above 0, such as 15s or 1h, got {text!r}")
    return ns / _NS


def _shown(number: int, units: tuple[tuple[int, str], ...], base: str = "") -> str:
    """Return a bound in the largest unit that divides it."""
    for factor, unit in units:
        if number % factor == 0:
            return f"{number // factor}{unit}"
    return f"{number}{base}"


def number_up_to(most: float) -> Callable[[str, str], float]:
    """Return a parser of numbers above 0."""

    def parse(flag: str, text: str) -> float:
        number = _number(text)
        if not 0 < number <= most:
            raise ConfigError(f"{flag} must be a number above 0 and at most {most:g}, got {text!r}")
        return number

    return parse


def whole_up_to(most: int) -> Callable[[str, str], int]:
    """Return a parser of whole numbers above 0, written in any way."""
    parse_number = number_up_to(most)

    def parse(flag: str, text: str) -> int:
        number = parse_number(flag, text)
        if number != int(number):
            raise ConfigError(f"{flag} must be a whole number, got {text!r}")
        return int(number)

    return parse


def parse_speed(flag: str, text: str) -> float:
    """Parse a factor, 0 or more."""
    speed = _number(text)
    if not (speed == 0 or _SLOWEST <= speed <= _FASTEST):
        raise ConfigError(f"{flag} must be 0, or a factor from {_SLOWEST:f} to {_FASTEST}, got {text!r}")
    return speed


def parse_mode(flag: str, text: str) -> int:
    """Parse permissions in octal."""
    if not re.fullmatch("0?[0-7]{3}", text):
        raise ConfigError(f"{flag} must be permissions in octal such as 0660, got {text!r}")
    return int(text, 8)


def parse_uids(flag: str, text: str) -> frozenset[int]:
    """Parse a comma-separated list of uids."""
    words = [word.strip() for word in text.split(",")]
    if not all(map(_is_id, words)):
        raise ConfigError(f"{flag} must be uids such as 0,1000, got {text!r}")
    return frozenset(map(int, words))


def find_group(flag: str, text: str) -> int:
    """Look up a group by name or gid."""
    if _is_id(text):
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError as error:
        raise ConfigError(f"{flag}: there is no group {text!r}") from error


def parse_group_by(flag: str, text: str) -> frozenset[str]:
    """Parse a comma-separated list of what groups are made of, or none."""
    words = frozenset(word.strip() for word in text.split(","))
    if words == {"none"}:
        return frozenset()
    if not words <= _GROUPS_OF:
        raise ConfigError(f"{flag} must be none, or of {', '.join(sorted(_GROUPS_OF))}, got {text!r}")
    return words


def parse_page_path(flag: str, text: str) -> str:
    """Parse the path of a page."""
    if not text.startswith("/") or text.startswith("//") or text == "/":
        raise ConfigError(f"{flag} must begin with / and name a page other than /, got {text!r}")
    if text.startswith("/-/"):
        raise ConfigError(f"{flag} must not be below /-/, got {text!r}")
    if any(c in text for c in "{}?#"):
        raise ConfigError(f"{flag} must be a plain path without {{}}?#, got {text!r}")
    return text


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 11 and int(text) < _NO_ID


def _number(text: str) -> float:
    """Return a number, one below 0 for what is none."""
    try:
        return float(text)
    except ValueError:
        return -1.0
