"""Decodes the JSON of others in bounded memory.

A value can take forty times as many bytes in memory as it has characters (`{"":0}`), so a text is decoded only if
it is short and has few values. A byte becomes a character: of one that is not ASCII some text comes out that is
not ASCII either, and no name is such a text. As UTF-8 one emoji would make four bytes of each character.
"""

import json
import re
from typing import Any

from exporter.errors import ApiFailure

LONGEST = 10 << 20
"""The most bytes of a value. A pod can be 1.5 MiB where the API stores it, and six times that in JSON (`<` is
\\u003c)."""
MOST_VALUES = 1 << 18
"""The most values in one value: they take up to 56 MiB. A pod with 100 containers has some 40,000."""

_MARKS = "[{,"
_STRIDE = 1 << 16
_OPEN, _CLOSED = frozenset("[{"), frozenset("]}")
_SKIPPED_OVER = re.compile(r'["\\\[\]{}]')


def text_of(data: bytes) -> str:
    """Return bytes as a text of as many characters, which has the same structure."""
    return data.decode("latin-1")


def as_written(text: str) -> str:
    """Return a text of a decoded value for people to read: what was UTF-8 is again."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        # It was written in ASCII, with escapes.
        return text


def decode(data: bytes) -> Any:
    """Decode a value.

    Raises:
        ApiFailure: It is no JSON, or has too many values.
    """
    text = text_of(data)
    if cut(text) < len(text):
        raise ApiFailure("malformed", "an answer has too many values")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ApiFailure("malformed", "an answer is no JSON") from None


def cut(text: str, most_values: int = MOST_VALUES) -> int:
    """Return how much of a text may be decoded at once: its length if it has not too many values.

    Each value but the first follows a bracket or a comma. Those within texts are counted too: it is quick, and
    more than are needed are permitted. What is returned can have some thousands more than the most.
    """
    values = end = 0
    while end < len(text) and values <= most_values:
        values += sum(text.count(mark, end, end + _STRIDE) for mark in _MARKS)
        end += _STRIDE
    return min(end, len(text))


class Skipping:
    """Finds the end of an object or array that is not decoded, in constant memory."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_text = False
        # Whether the next character belongs to a backslash before it.
        self._is_escaped = False

    def feed(self, text: str) -> int | None:
        """Take more of it, first its beginning; returns the position after its end, None if it goes on."""
        ignored = 0 if self._is_escaped else -1
        self._is_escaped = False
        for match in _SKIPPED_OVER.finditer(text):
            at, mark = match.start(), match[0]
            if at == ignored:
                continue
            if self._in_text:
                self._in_text = mark != '"'
                if mark == "\\":
                    ignored = at + 1
                    self._is_escaped = ignored == len(text)
            elif mark == '"':
                self._in_text = True
            elif mark in _OPEN:
                self._depth += 1
            elif mark in _CLOSED:
                self._depth -= 1
                if self._depth <= 0:
                    return at + 1
        return None
