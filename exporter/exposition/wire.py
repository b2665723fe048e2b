"""The encoding of protobuf: numbers, and the fields and messages of client_model that all metrics have.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from functools import lru_cache
from struct import Struct

VARINT, _FIXED64, _BYTES = 0, 1, 2
double = Struct("<d").pack
SHORT = [bytes([number]) for number in range(0x80)]
"""The numbers of one byte."""
_TIMES_KEPT = 1 << 16


def varint(number: int) -> bytes:
    """Encode an unsigned integer."""
    if number < 0x80:
        return SHORT[number]
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number: int) -> bytes:
    """Encode a signed integer as sint32 and sint64."""
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)


def tag(field: int, wire_type: int) -> bytes:
    """Encode what comes before the value of a field."""
    return varint(field << 3 | wire_type)


def message(field: int, content: bytes) -> bytes:
    """Encode a field of bytes: a message, a text, packed numbers."""
    return tag(field, _BYTES) + varint(len(content)) + content


def number(field: int, value: int) -> bytes:
    """Encode a field with an unsigned integer."""
    return tag(field, VARINT) + varint(value)


def real(field: int, value: float) -> bytes:
    """Encode a field with a double."""
    return tag(field, _FIXED64) + double(value)


def label(name: str, value: str) -> bytes:
    """Encode a label of a metric."""
    return message(1, message(1, name.encode()) + message(2, value.encode()))


@lru_cache(_TIMES_KEPT)
def timestamp(field: int, seconds: float | None) -> bytes:
    """Encode a google.protobuf.Timestamp; nothing if it is not known."""
    if not seconds:
        return b""
    whole, rest = divmod(round(seconds * 1e9), 10**9)
    return message(field, number(1, whole) + number(2, rest))
