"""Netlink messages and attributes: build one, take one apart.

Source: include/uapi/linux/netlink.h, netlink(7). Integers are in host byte order.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from exporter.errors import MalformedMessage

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04

# nlmsg_len u32, nlmsg_type u16, nlmsg_flags u16, nlmsg_seq u32, nlmsg_pid u32
NLMSGHDR = struct.Struct("=IHHII")
# nla_len u16 (header included, padding not), nla_type u16
NLATTR = struct.Struct("=HH")
_NLMSGERR = struct.Struct("=i")

# The two high bits of nla_type are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
_NLA_TYPE_MASK = 0x3FFF


class Message(NamedTuple):
    """One netlink message: its header fields and the bytes after the header."""

    type: int
    flags: int
    seq: int
    payload: bytes


class Batch(NamedTuple):
    """Datagrams side by side in one buffer, as recvmmsg(2) leaves them.

    Datagram i begins at `i * stride` and is `lengths[i]` bytes long. The buffer belongs to the socket that
    filled it, so a batch must be used up before that socket is read again.
    """

    data: memoryview
    stride: int
    lengths: list[int]

    @classmethod
    def of(cls, datagrams: list[bytes], stride: int) -> "Batch":
        """Lay datagrams out as a socket with this stride would."""
        data = b"".join(datagram.ljust(stride, b"\0") for datagram in datagrams)
        return cls(memoryview(data), stride, [len(datagram) for datagram in datagrams])

    def datagram(self, index: int) -> bytes:
        """Copy out one datagram."""
        start = index * self.stride
        return bytes(self.data[start : start + self.lengths[index]])


def align(length: int) -> int:
    """NLMSG_ALIGN and NLA_ALIGN: both round up to 4."""
    return (length + 3) & ~3


def encode_message(message_type: int, flags: int, seq: int, payload: bytes) -> bytes:
    """Put a header before a payload; nlmsg_pid stays 0: the kernel knows the sender."""
    return NLMSGHDR.pack(NLMSGHDR.size + len(payload), message_type, flags, seq, 0) + payload


def encode_attribute(attribute_type: int, value: bytes) -> bytes:
    """Build one struct nlattr with its value and the padding behind it."""
    size = NLATTR.size + len(value)
    return NLATTR.pack(size, attribute_type) + value + bytes(align(size) - size)


def decode_message(datagram: bytes) -> Message:
    """Decode the one message of a datagram.

    Raises:
        MalformedMessage: Shorter than a header, or than the length in the header.
    """
    if len(datagram) < NLMSGHDR.size:
        raise MalformedMessage("struct nlmsghdr", NLMSGHDR.size, len(datagram))
    length, message_type, flags, seq, _ = NLMSGHDR.unpack_from(datagram)
    if not NLMSGHDR.size <= length <= len(datagram):
        raise MalformedMessage("nlmsg_len", length, len(datagram))
    return Message(message_type, flags, seq, datagram[NLMSGHDR.size : length])


def decode_error(payload: bytes) -> int:
    """Read the errno of a struct nlmsgerr: 0 for an acknowledgement, else positive.

    Raises:
        MalformedMessage: The payload is too short.
    """
    if len(payload) < _NLMSGERR.size:
        raise MalformedMessage("struct nlmsgerr", _NLMSGERR.size, len(payload))
    (error,) = _NLMSGERR.unpack_from(payload)
    return -int(error)


def iter_attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Walk attributes.

    Yields:
        (nla_type without flag bits, where the value starts, where it ends), as offsets into data.

    Raises:
        MalformedMessage: An attribute does not fit between start and end.
    """
    while start + NLATTR.size <= end:
        length, attribute_type = NLATTR.unpack_from(data, start)
        if length < NLATTR.size or start + length > end:
            raise MalformedMessage("struct nlattr", length, end - start)
        yield attribute_type & _NLA_TYPE_MASK, start + NLATTR.size, start + length
        start += align(length)
