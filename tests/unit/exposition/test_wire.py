"""exporter/exposition/wire.py: numbers of protobuf."""

import pytest

from exporter.exposition.wire import timestamp, varint, zigzag


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02"), (2**64 - 1, b"\xff" * 9 + b"\x01")],
)
def test_a_varint_has_seven_bits_in_each_byte(number: int, encoded: bytes) -> None:
    assert varint(number) == encoded


@pytest.mark.parametrize(("number", "unsigned"), [(0, 0), (-1, 1), (1, 2), (-2, 3), (2147483647, 4294967294)])
def test_a_signed_number_is_folded_into_an_unsigned_one(number: int, unsigned: int) -> None:
    assert zigzag(number) == varint(unsigned)


@pytest.mark.parametrize(
    ("seconds", "encoded"),
    [
        (None, b""),
        (0.0, b""),
        (1.0, b"\x1a\x04\x08\x01\x10\x00"),
        (300.5, b"\x1a\x09\x08\xac\x02\x10\x80\xca\xb5\xee\x01"),
    ],
)
def test_a_timestamp_is_seconds_and_nanoseconds(seconds: float | None, encoded: bytes) -> None:
    assert timestamp(3, seconds) == encoded
