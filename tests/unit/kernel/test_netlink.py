"""exporter/kernel/netlink.py against messages laid out by hand."""

import struct

import pytest
from builders import nlattr, nlmsg, nlmsg_error

from exporter.errors import MalformedMessage
from exporter.kernel.netlink import (
    Batch,
    Message,
    align,
    decode_error,
    decode_message,
    encode_attribute,
    encode_message,
    iter_attributes,
)


def walk(data: bytes) -> list[tuple[int, bytes]]:
    return [(kind, data[start:end]) for kind, start, end in iter_attributes(data, 0, len(data))]


@pytest.mark.parametrize(("length", "aligned"), [(0, 0), (1, 4), (3, 4), (4, 4), (5, 8), (19, 20)])
def test_lengths_are_rounded_up_to_four(length: int, aligned: int) -> None:
    assert align(length) == aligned


def test_a_message_is_its_header_and_its_payload() -> None:
    assert encode_message(0x1F, 5, 77, b"abc") == struct.pack("=IHHII", 19, 0x1F, 5, 77, 0) + b"abc"


def test_a_decoded_message_has_the_headers_fields_and_only_its_own_payload() -> None:
    datagram = nlmsg(31, b"payload", flags=2, seq=9)
    assert decode_message(datagram) == Message(type=31, flags=2, seq=9, payload=b"payload")
    assert decode_message(datagram + b"next") == decode_message(datagram)


@pytest.mark.parametrize("length", range(23))
def test_a_message_cut_anywhere_is_malformed(length: int) -> None:
    with pytest.raises(MalformedMessage):
        decode_message(nlmsg(31, b"payload")[:length])


@pytest.mark.parametrize("length", [0, 1, 15, 24, 0xFFFFFFFF])
def test_a_header_with_a_wrong_length_is_malformed(length: int) -> None:
    with pytest.raises(MalformedMessage):
        decode_message(nlmsg(31, b"payload", nlmsg_len=length))


@pytest.mark.parametrize("errno", [0, 1, 22, 111])
def test_an_error_message_has_its_errno_as_a_positive_number(errno: int) -> None:
    message = decode_message(nlmsg_error(errno, seq=3))
    assert (message.type, message.seq, decode_error(message.payload)) == (2, 3, errno)


@pytest.mark.parametrize("length", range(4))
def test_an_error_message_cut_anywhere_is_malformed(length: int) -> None:
    with pytest.raises(MalformedMessage):
        decode_error(struct.pack("=i", -22)[:length])


@pytest.mark.parametrize("value", [b"", b"1", b"12", b"123", b"1234", b"12345"])
def test_an_attribute_is_padded_to_four_bytes(value: bytes) -> None:
    attribute = encode_attribute(3, value)
    assert attribute == struct.pack("=HH", 4 + len(value), 3) + value + bytes(-len(value) % 4)
    assert walk(attribute) == [(3, value)]


def test_attributes_are_walked_in_order_and_without_their_flag_bits() -> None:
    # 0x8000 is NLA_F_NESTED, 0x4000 NLA_F_NET_BYTEORDER.
    data = nlattr(1, b"a") + nlattr(0x8000 | 2, b"") + nlattr(0x4000 | 3, b"long enough")
    assert walk(data) == [(1, b"a"), (2, b""), (3, b"long enough")]


def test_the_last_attribute_needs_no_padding() -> None:
    assert walk(nlattr(1, b"abcde")[:9]) == [(1, b"abcde")]


@pytest.mark.parametrize("length", range(28))
def test_attributes_cut_anywhere_are_those_that_are_whole_or_malformed(length: int) -> None:
    whole = [(1, b"abcd"), (2, b"efghij"), (3, b"kl")]
    data = b"".join(nlattr(kind, value) for kind, value in whole)
    seen = []
    # An attribute of which not even the header is there ends the walk, as in the kernel (nla_ok).
    malformed = 4 <= length < 8 or 12 <= length < 18 or 24 <= length < 26
    try:
        for kind, start, end in iter_attributes(data, 0, length):
            seen.append((kind, data[start:end]))
    except MalformedMessage:
        assert malformed
    else:
        assert not malformed
    assert seen == whole[: sum(end <= length for end in (8, 18, 26))]


@pytest.mark.parametrize("length", [0, 1, 3, 9, 0xFFFF])
def test_an_attribute_with_a_wrong_length_is_malformed(length: int) -> None:
    with pytest.raises(MalformedMessage):
        walk(nlattr(1, b"abcd", nla_len=length))


def test_a_batch_gives_each_datagram_back_without_its_neighbours() -> None:
    datagrams = [b"first", b"", b"exactly8"]
    batch = Batch.of(datagrams, 8)
    assert bytes(batch.data) == b"first\0\0\0" + bytes(8) + b"exactly8"
    assert [batch.datagram(i) for i in range(3)] == datagrams
