"""Reads an API's answers in pieces as they arrive: a list of pods or containers, and a stream of events.

A list of a thousand pods can be 20 MB of JSON, and several times that when it is decoded as a whole. Here one pod
is decoded at a time. One that would take too much memory (json_values.py) is left out, and counted: a user who
can make such a pod keeps no other from its name.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import json
from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple

from exporter.errors import ApiFailure
from exporter.kubernetes.json_values import LONGEST, MOST_VALUES, Skipping, as_written, cut, decode, text_of
from exporter.kubernetes.pods import Pod, parse_pod

# Where to go on is part of a request's line. It is a number, or some hundred characters.
_LONGEST_VERSION = 4096
_BLANKS = " \t\r\n"
# What comes after a value.
_ENDS = {*_BLANKS, ",", ":", "]", "}"}
_GONE = 410


class LineReader:
    """Cuts a stream of bytes into lines, a JSON value each.

    Attributes:
        skipped: Lines that were too long, or had too many values.
    """

    def __init__(self, longest: int = LONGEST, most_values: int = MOST_VALUES) -> None:
        self._longest = longest
        self._most_values = most_values
        self._parts: list[bytes] = []
        self._length = 0
        self.skipped = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes; yields each line that they complete, without its end and unless it is empty."""
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._append(end)
            line, length = b"".join(self._parts), self._length
            self._parts, self._length = [], 0
            if length > self._longest or sum(map(line.count, (b"[", b"{", b","))) > self._most_values:
                self.skipped += 1
            elif line:
                yield line
        self._append(rest)

    def _append(self, part: bytes) -> None:
        self._length += len(part)
        if self._length > self._longest:
            self._parts = []
        elif part:
            self._parts.append(part)


class WatchEvent(NamedTuple):
    """A line of a watch.

    Attributes:
        kind: ADDED, MODIFIED, DELETED, BOOKMARK, or another word that a later API may have.
        resource_version: Where to go on after it; "" if it does not say.
        pod: The pod; None of a bookmark, or of a pod without names.
    """

    kind: str
    resource_version: str
    pod: Pod | None


def parse_event(line: bytes) -> WatchEvent:
    """Parse a line of a watch.

    Raises:
        ApiFailure: It is an error of the API's (`expired` for 410), or no event.
    """
    event = decode(line)
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        raise ApiFailure("malformed", "a line of the watch is no event")
    kind, described = _text_of(event, "type"), event["object"]
    if kind == "ERROR":
        code = described.get("code")
        reason = "expired" if code == _GONE else "status"
        shown = code if isinstance(code, int) else "no code"
        raise ApiFailure(reason, f"{shown}: {as_written(_text_of(described, 'message'))}"[:300])
    return WatchEvent(
        kind,
        _version_of(described.get("metadata"), "resourceVersion"),
        parse_pod(described) if kind in {"ADDED", "MODIFIED", "DELETED"} else None,
    )


def parse_status_message(body: bytes) -> str:
    """Return what the API says of a request that it refuses; "" if it says nothing."""
    try:
        return as_written(_text_of(decode(body), "message"))[:300]
    except ApiFailure:
        return ""


class _At(Enum):
    """Where in the answer the next character is."""

    START = "start"
    KEY = "key"
    VALUE = "value"
    ITEMS = "items"
    END = "end"


class ListReader:
    """Reads one list of the API, an item at a time: {..., "metadata": {...}, "items": [...]}.

    Args:
        longest: The most bytes of an item.
        most_values: The most values in an item.
        is_bare: There are the items alone: [...].

    Attributes:
        resource_version: Where a watch goes on from; known at the end.
        continue_token: What to ask for the next page with; "" if this is the last.
        skipped: Items that were too long, or had too many values.
    """

    def __init__(self, longest: int = LONGEST, most_values: int = MOST_VALUES, *, is_bare: bool = False) -> None:
        self._longest = longest
        self._most_values = most_values
        self._is_bare = is_bare
        self._decode_json = json.JSONDecoder().raw_decode
        # What is not read yet, and what came since it was last tried.
        self._text = ""
        self._parts: list[bytes] = []
        self._parts_length = 0
        # As much of the text as may be decoded at once.
        self._window = ""
        self._at = _At.START
        self._key = ""
        self._metadata: Any = None
        self._skipping: Skipping | None = None
        self.skipped = 0

    @property
    def resource_version(self) -> str:
        return _version_of(self._metadata, "resourceVersion")

    @property
    def continue_token(self) -> str:
        return _version_of(self._metadata, "continue")

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take the next bytes; yields the items that are complete, each decoded when it is asked for.

        Raises:
            ApiFailure: It is no list, or something in it beside an item is too long.
        """
        self._parts.append(data)
        self._parts_length += len(data)
        # What is not complete is tried again only when there is twice as much, so that the work stays linear.
        if self._parts_length >= len(self._text):
            yield from self._advance()

    def close(self) -> Iterator[Any]:
        """Take the end of the answer; yields the last items.

        Raises:
            ApiFailure: The list is not complete.
        """
        yield from self._advance()
        if self._at is not _At.END:
            raise ApiFailure("malformed", "the list is not complete")

    def _advance(self) -> Iterator[Any]:
        data, self._parts, self._parts_length = b"".join(self._parts), [], 0
        self._text += text_of(data)
        while self._skip():
            end = cut(self._text, self._most_values)
            is_all = end == len(self._text)
            self._window = self._text[:end]
            position = 0
            items: list[Any] = []
            while (after := self._step(self._skip_blanks(position), items)) is not None:
                position = after
                if items:
                    yield items.pop()
            self._text, self._window = self._text[position:], ""
            if not (is_all or position) or (is_all and len(self._text) > self._longest):
                self._begin_to_skip()
            elif is_all:
                return

    def _begin_to_skip(self) -> None:
        """Leave out the item that is next.

        Raises:
            ApiFailure: It is no item that is too long.
        """
        self._text = self._text.lstrip(_BLANKS)
        if self._at is not _At.ITEMS or not self._text.startswith("{"):
            raise ApiFailure("malformed", "something in the list is too long")
        self._skipping = Skipping()
        self.skipped += 1

    def _skip(self) -> bool:
        """Skip what is left out; returns whether that is over."""
        if self._skipping is not None:
            after = self._skipping.feed(self._text)
            self._text = "" if after is None else self._text[after:]
            if after is None:
                return False
            self._skipping = None
        return True

    def _step(self, position: int, items: list[Any]) -> int | None:
        """Read the next part of the list; returns the position after it, None if more bytes are needed."""
        character = self._window[position : position + 1]
        if not character or self._at is _At.END:
            return None
        if self._at is _At.KEY:
            return self._step_key(position, character)
        opened = self._open(character)
        if opened is not None:
            self._at = opened
            return position + 1
        value, after = self._read_value(position)
        if after is None:
            return None
        if self._at is _At.ITEMS:
            items.append(value)
        else:
            self._metadata = value if self._key == "metadata" else self._metadata
            self._at = _At.KEY
        return after

    def _open(self, character: str) -> _At | None:
        """Return what follows a character that is no part of a value, None if it is one."""
        if self._at is _At.START:
            self._expect(character == ("[" if self._is_bare else "{"))
            return _At.ITEMS if self._is_bare else _At.KEY
        if self._at is _At.ITEMS:
            return {"]": _At.END if self._is_bare else _At.KEY, ",": _At.ITEMS}.get(character)
        return _At.ITEMS if self._key == "items" and character == "[" else None

    def _step_key(self, position: int, character: str) -> int | None:
        if character == "}":
            self._at = _At.END
            return position + 1
        if character == ",":
            return position + 1
        self._expect(character == '"')
        key, after = self._read_value(position)
        if after is None:
            return None
        after = self._skip_blanks(after)
        if after == len(self._window):
            return None
        self._expect(self._window[after] == ":")
        self._key, self._at = key, _At.VALUE
        return after + 1

    def _read_value(self, position: int) -> tuple[Any, int | None]:
        try:
            value, after = self._decode_json(self._window, position)
        except ValueError:
            # Incomplete, or no JSON: the end of the answer, or its length, will show.
            return None, None
        except RecursionError:
            raise ApiFailure("malformed", "the list is nested too deeply") from None
        # Of a number that the bytes so far cut there is more: -0 of -0.5.
        return value, after if self._window[after : after + 1] in _ENDS else None

    def _skip_blanks(self, position: int) -> int:
        while position < len(self._window) and self._window[position] in _BLANKS:
            position += 1
        return position

    @staticmethod
    def _expect(is_so: bool) -> None:
        if not is_so:
            raise ApiFailure("malformed", "the answer is no such list")


def _version_of(value: Any, key: str) -> str:
    text = _text_of(value, key)
    return text if len(text) <= _LONGEST_VERSION else ""


def _text_of(value: Any, key: str) -> str:
    """Return a text of a JSON object; "" if there is none."""
    text = value.get(key) if isinstance(value, dict) else None
    return text if isinstance(text, str) else ""
