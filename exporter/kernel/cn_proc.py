"""The process connector: requests to it and events from it.

Source: include/uapi/linux/cn_proc.h, include/uapi/linux/connector.h. Integers are in host byte order.
"pid" is a thread and "tgid" a process, as in the header.

An event is one datagram of 76 bytes: nlmsghdr (16), cn_msg (20), proc_event (40). On a busy host there are
tens of thousands in a second, so `iter_proc_events` hands them out as plain tuples, decoded a batch at a time.
The meaning of the last six numbers depends on `what`:

    what               0           1            2          3           4           5
    PROC_EVENT_FORK    parent_pid  parent_tgid  child_pid  child_tgid
    PROC_EVENT_EXEC    pid         tgid
    PROC_EVENT_UID     pid         tgid         ruid       euid
    PROC_EVENT_GID     pid         tgid         rgid       egid
    PROC_EVENT_SID     pid         tgid
    PROC_EVENT_PTRACE  pid         tgid         tracer_pid tracer_tgid
    PROC_EVENT_COMM    pid         tgid         16 bytes of comm: see decode_comm
    PROC_EVENT_COREDUMP pid        tgid         parent_pid parent_tgid
    PROC_EVENT_EXIT    pid         tgid         exit_code  exit_signal parent_pid  parent_tgid
    PROC_EVENT_NONE    err         (an acknowledgement; see decode_ack)
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from exporter.errors import MalformedMessage
from exporter.kernel.netlink import NLMSG_DONE, NLMSGHDR, Batch, encode_message

CN_IDX_PROC = 1
CN_VAL_PROC = 1

PROC_CN_MCAST_LISTEN = 1
PROC_CN_MCAST_IGNORE = 2

PROC_EVENT_NONE = 0x00000000
PROC_EVENT_FORK = 0x00000001
PROC_EVENT_EXEC = 0x00000002
PROC_EVENT_UID = 0x00000004
PROC_EVENT_GID = 0x00000040
PROC_EVENT_SID = 0x00000080
PROC_EVENT_PTRACE = 0x00000100
PROC_EVENT_COMM = 0x00000200
PROC_EVENT_COREDUMP = 0x40000000
PROC_EVENT_EXIT = 0x80000000
# Only in masks: the event that is sent is PROC_EVENT_EXIT.
PROC_EVENT_NONZERO_EXIT = 0x20000000
PROC_EVENT_ALL = 0xE00003C7

# id.idx, id.val, seq, ack, len, flags
_CN_MSG = struct.Struct("=IIIIHH")
# The whole datagram as the tuple that this module promises: what, timestamp_ns (CLOCK_MONOTONIC), six numbers.
_DATAGRAM = struct.Struct("=36xI4xQIIIIII")
DATAGRAM_BYTES = _DATAGRAM.size

_CN_MSG_OFFSET = NLMSGHDR.size
_PROC_EVENT_BYTES = DATAGRAM_BYTES - NLMSGHDR.size - _CN_MSG.size
# More are looked at one by one.
_MOST_IN_COLUMNS = 512
# The bytes that are the same in every datagram (nlmsg_len, cn_msg.id, cn_msg.len): where, and a column of them.
_COLUMNS = [
    (offset + i, bytes([byte]) * _MOST_IN_COLUMNS)
    for offset, field in (
        (0, struct.pack("=I", DATAGRAM_BYTES)),
        (_CN_MSG_OFFSET, struct.pack("=II", CN_IDX_PROC, CN_VAL_PROC)),
        (_CN_MSG_OFFSET + 16, struct.pack("=H", _PROC_EVENT_BYTES)),
    )
    for i, byte in enumerate(field)
]
_TASK_COMM = struct.Struct("=IIII")
# Fewer datagrams are looked at one by one.
_WORTH_COLUMNS = 8

ProcEvent = tuple[int, int, int, int, int, int, int, int]


class Ack(NamedTuple):
    """The kernel's answer to a request: `ack` is the request's plus one, `err` a positive errno or 0."""

    ack: int
    err: int


def encode_request(op: int, ack: int, mask: int | None = None) -> bytes:
    """Build a LISTEN or IGNORE request.

    Args:
        op: PROC_CN_MCAST_LISTEN or PROC_CN_MCAST_IGNORE.
        ack: A number by which the answer is recognised (`ack + 1`); the kernel does not echo seq.
        mask: The events wanted (struct proc_input, Linux 6.6 and later; older kernels drop such a request
            without a word), or None for the 4-byte request that every kernel takes and that means all events.
    """
    data = struct.pack("=I", op) if mask is None else struct.pack("=II", op, mask)
    cn_msg = _CN_MSG.pack(CN_IDX_PROC, CN_VAL_PROC, 0, ack, len(data), 0)
    return encode_message(NLMSG_DONE, 0, 0, cn_msg + data)


def check_datagram(datagram: bytes) -> None:
    """Raise MalformedMessage unless the bytes are one datagram of the process connector."""
    if len(datagram) != DATAGRAM_BYTES:
        raise MalformedMessage("struct proc_event datagram", DATAGRAM_BYTES, len(datagram))
    (length,) = struct.unpack_from("=I", datagram)
    if length != DATAGRAM_BYTES:
        raise MalformedMessage("nlmsg_len", DATAGRAM_BYTES, length)
    idx, val, _, _, size, _ = _CN_MSG.unpack_from(datagram, _CN_MSG_OFFSET)
    if (idx, val) != (CN_IDX_PROC, CN_VAL_PROC):
        raise MalformedMessage("cn_msg.id", CN_IDX_PROC, idx)
    if size != _PROC_EVENT_BYTES:
        raise MalformedMessage("cn_msg.len", _PROC_EVENT_BYTES, size)


def sound_datagrams(batch: Batch) -> tuple[bytes, list[MalformedMessage]]:
    """Copy a batch's datagrams, those that are not the process connector's left out.

    Returns:
        The sound ones end to end, DATAGRAM_BYTES each, and what was wrong with each of the others.
    """
    count = len(batch.lengths)
    if batch.stride == DATAGRAM_BYTES and count >= _WORTH_COLUMNS:
        data = bytes(batch.data[: count * DATAGRAM_BYTES])
        # One byte's column over all datagrams is a slice: a few comparisons check a whole batch, without a loop.
        if batch.lengths.count(DATAGRAM_BYTES) == count:
            for offset, column in _COLUMNS:
                if not column.startswith(data[offset::DATAGRAM_BYTES]):
                    break
            else:
                return data, []
    sound, errors = [], []
    for index in range(len(batch.lengths)):
        datagram = batch.datagram(index)
        try:
            check_datagram(datagram)
        except MalformedMessage as error:
            errors.append(error)
        else:
            sound.append(datagram)
    return b"".join(sound), errors


def iter_proc_events(data: bytes) -> Iterator[ProcEvent]:
    """Decode datagrams that lie end to end.

    Args:
        data: A multiple of DATAGRAM_BYTES, from sound_datagrams.

    Yields:
        (what, timestamp_ns, six numbers), the numbers as in the table above.
    """
    return _DATAGRAM.iter_unpack(data)


def decode_proc_event(datagram: bytes) -> ProcEvent:
    """Decode one datagram.

    Raises:
        MalformedMessage: It is not a datagram of the process connector. No input raises anything else.
    """
    check_datagram(datagram)
    return _DATAGRAM.unpack(datagram)


def decode_comm(event: ProcEvent) -> bytes:
    """Return the comm of a PROC_EVENT_COMM: up to 15 arbitrary bytes."""
    return _TASK_COMM.pack(*event[4:8]).partition(b"\0")[0]


def decode_ack(datagram: bytes) -> Ack | None:
    """Return the acknowledgement in a datagram, or None if it is an event.

    Raises:
        MalformedMessage: It is not a datagram of the process connector.
    """
    event = decode_proc_event(datagram)
    if event[0] != PROC_EVENT_NONE:
        return None
    return Ack(_CN_MSG.unpack_from(datagram, _CN_MSG_OFFSET)[3], event[2])
