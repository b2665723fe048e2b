"""Reads the API's answers in pieces as they arrive: a list of pods, and a stream of events.

A list of a thousand pods can be 20 MB of JSON, and several times that when it is decoded as a whole. Here one pod
is decoded at a time. A pod can be 1.5 MiB where the API stores it, and six times that in JSON (`<` is \\u003c).
What is longer than LONGEST is not read.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import codecs
import json
from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple

from exporter.errors import ApiFailure
from exporter.kubernetes.pods import Pod, parse_pod

LONGEST = 16 << 20

_BLANKS = " \t\r\n"
# What comes after a value.
_ENDS = {*_BLANKS, ",", ":", "]", "}"}
_GONE = 410


class LineReader:
    """Cuts a stream of bytes into lines.

    Attributes:
        skipped: Lines that were longer than LONGEST.
    """

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._length = 0
        self.skipped = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes; yields each line that they complete, without its end and unless it is empty."""
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._append(end)
            if self._length > self._longest:
                self.skipped += 1
            elif self._length:
                yield b"".join(self._parts)
            self._parts, self._length = [], 0
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
    event = _decode(line)
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        raise ApiFailure("malformed", "a line of the watch is no event")
    kind, described = str(event.get("type")), event["object"]
    if kind == "ERROR":
        reason = "expired" if described.get("code") == _GONE else "status"
        raise ApiFailure(reason, f"{described.get('code')}: {described.get('message')}"[:300])
    return WatchEvent(
        kind,
        _text_of(described.get("metadata"), "resourceVersion"),
        parse_pod(described) if kind in {"ADDED", "MODIFIED", "DELETED"} else None,
    )


def parse_status_message(body: bytes) -> str:
    """Return what the API says of a request that it refuses; "" if it says nothing."""
    try:
        return _text_of(_decode(body), "message")[:300]
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

    Attributes:
        resource_version: Where a watch goes on from; known at the end.
        continue_token: What to ask for the next page with; "" if this is the last.
    """

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._decode_json = json.JSONDecoder().raw_decode
        self._decode_text = codecs.getincrementaldecoder("utf-8")("replace").decode
        # What is not read yet, and what came since it was last tried.
        self._text = ""
        self._parts: list[str] = []
        self._parts_length = 0
        self._at = _At.START
        self._key = ""
        self._metadata: Any = None

    @property
    def resource_version(self) -> str:
        return _text_of(self._metadata, "resourceVersion")

    @property
    def continue_token(self) -> str:
        return _text_of(self._metadata, "continue")

    def feed(self, data: bytes) -> list[Any]:
        """Take the next bytes; returns the items that are complete.

        Raises:
            ApiFailure: It is no list, or something in it is too long.
        """
        text = self._decode_text(data)
        self._parts.append(text)
        self._parts_length += len(text)
        # What is not complete is tried again only when there is twice as much, so that the work stays linear.
        if self._parts_length < len(self._text):
            return []
        return self._advance()

    def close(self) -> list[Any]:
        """Take the end of the answer; returns the last items.

        Raises:
            ApiFailure: The list is not complete.
        """
        items = self._advance()
        if self._at is not _At.END:
            raise ApiFailure("malformed", "the list of pods is not complete")
        return items

    def _advance(self) -> list[Any]:
        self._text += "".join(self._parts)
        self._parts, self._parts_length = [], 0
        items: list[Any] = []
        position = 0
        while (after := self._step(self._skip_blanks(position), items)) is not None:
            position = after
        self._text = self._text[position:]
        if len(self._text) > self._longest:
            raise ApiFailure("malformed", "a pod is too long")
        return items

    def _step(self, position: int, items: list[Any]) -> int | None:
        """Read the next part of the list; returns the position after it, None if more bytes are needed."""
        character = self._text[position : position + 1]
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
            self._expect(character == "{")
            return _At.KEY
        if self._at is _At.ITEMS:
            return {"]": _At.KEY, ",": _At.ITEMS}.get(character)
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
        if after == len(self._text):
            return None
        self._expect(self._text[after] == ":")
        self._key, self._at = key, _At.VALUE
        return after + 1

    def _read_value(self, position: int) -> tuple[Any, int | None]:
        try:
            value, after = self._decode_json(self._text, position)
        except ValueError:
            # Incomplete, or no JSON: the end of the answer, or its length, will show.
            return None, None
        except RecursionError:
            raise ApiFailure("malformed", "the list of pods is nested too deeply") from None
        # Of a number that the bytes so far cut there is more: -0 of -0.5.
        return value, after if self._text[after : after + 1] in _ENDS else None

    def _skip_blanks(self, position: int) -> int:
        while position < len(self._text) and self._text[position] in _BLANKS:
            position += 1
        return position

    @staticmethod
    def _expect(is_so: bool) -> None:
        if not is_so:
            raise ApiFailure("malformed", "the answer is no list of pods")


def _decode(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ApiFailure("malformed", "an answer is no JSON") from None


def _text_of(value: Any, key: str) -> str:
    """Return a text of a JSON object; "" if there is none."""
    text = value.get(key) if isinstance(value, dict) else None
    return text if isinstance(text, str) else ""
