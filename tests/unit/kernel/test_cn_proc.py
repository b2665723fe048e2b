"""exporter/kernel/cn_proc.py against datagrams laid out by hand."""

import random
import struct

import builders
import pytest
from builders import connector_datagram

from exporter.errors import MalformedMessage
from exporter.kernel.cn_proc import (
    DATAGRAM_BYTES,
    PROC_CN_MCAST_IGNORE,
    PROC_CN_MCAST_LISTEN,
    PROC_EVENT_ALL,
    Ack,
    ProcEvent,
    decode_ack,
    decode_comm,
    decode_proc_event,
    encode_request,
    iter_proc_events,
    sound_datagrams,
)

T = 123_456_789_012_345_678

# Event bits and the order of the numbers: include/uapi/linux/cn_proc.h.
EVENTS = {
    "fork of a process": (
        builders.fork(parent_tgid=10, parent_pid=11, child_tgid=20, timestamp_ns=T),
        (0x1, T, 11, 10, 20, 20, 0, 0),
    ),
    "fork of a thread": (
        builders.fork(parent_tgid=1, child_tgid=20, child_pid=21, timestamp_ns=T),
        (0x1, T, 1, 1, 21, 20, 0, 0),
    ),
    "exec": (builders.exec_(tgid=20, timestamp_ns=T), (0x2, T, 20, 20, 0, 0, 0, 0)),
    "uid": (
        builders.uid(tgid=20, pid=21, ruid=1000, euid=0xFFFFFFFE, timestamp_ns=T),
        (0x4, T, 21, 20, 1000, 0xFFFFFFFE, 0, 0),
    ),
    "gid": (builders.gid(tgid=20, rgid=5, egid=6, timestamp_ns=T), (0x40, T, 20, 20, 5, 6, 0, 0)),
    "sid": (builders.sid(tgid=20, pid=21, timestamp_ns=T), (0x80, T, 21, 20, 0, 0, 0, 0)),
    "ptrace": (
        builders.ptrace(tgid=20, tracer_tgid=30, tracer_pid=31, timestamp_ns=T),
        (0x100, T, 20, 20, 31, 30, 0, 0),
    ),
    "comm": (
        builders.comm(tgid=20, pid=21, comm=b"abcdefgh", timestamp_ns=T),
        (0x200, T, 21, 20, *struct.unpack("=II", b"abcdefgh"), 0, 0),
    ),
    "coredump": (
        builders.coredump(tgid=20, pid=22, parent_pid=11, parent_tgid=10, timestamp_ns=T),
        (0x40000000, T, 22, 20, 11, 10, 0, 0),
    ),
    "exit of a leader": (
        builders.exit_(tgid=20, exit_code=0x8B, parent_pid=11, parent_tgid=10, timestamp_ns=T),
        (0x80000000, T, 20, 20, 0x8B, 17, 11, 10),
    ),
    "exit of a thread": (
        builders.exit_(tgid=20, pid=21, exit_code=0x700, timestamp_ns=T),
        (0x80000000, T, 21, 20, 0x700, 0xFFFFFFFF, 0, 0),
    ),
    "ack": (builders.ack(ack=8, err=22, timestamp_ns=T), (0x0, T, 22, 0, 0, 0, 0, 0)),
    "of a later kernel": (
        connector_datagram(0x400, struct.pack("=6I", 1, 2, 3, 4, 5, 6), timestamp_ns=T),
        (0x400, T, 1, 2, 3, 4, 5, 6),
    ),
}

SOUND = [datagram for datagram, _ in EVENTS.values()]
FOREIGN = {
    "another connector's idx": connector_datagram(0x1, b"", idx=2),
    "another connector's idx in its high byte": connector_datagram(0x1, b"", idx=0x01000001),
    "another val": connector_datagram(0x1, b"", val=3),
    "cn_msg.len too small": connector_datagram(0x1, b"", cn_len=39),
    "cn_msg.len too large": connector_datagram(0x1, b"", cn_len=0x0128),
    "nlmsg_len too small": connector_datagram(0x1, b"", nlmsg_len=75),
    "nlmsg_len too large": connector_datagram(0x1, b"", nlmsg_len=0x0001004C),
    "another program's request": encode_request(PROC_CN_MCAST_LISTEN, 1),
    "zeros": bytes(76),
    "nothing": b"",
}


def one_by_one(datagrams: list[bytes]) -> tuple[list[ProcEvent], int]:
    """What decode_proc_event makes of each: (events, how many were malformed)."""
    events = []
    for datagram in datagrams:
        try:
            events.append(decode_proc_event(datagram))
        except MalformedMessage:
            continue
    return events, len(datagrams) - len(events)


@pytest.mark.parametrize(("datagram", "event"), EVENTS.values(), ids=EVENTS)
def test_an_event_is_its_kind_its_time_and_its_six_numbers(datagram: bytes, event: ProcEvent) -> None:
    assert len(datagram) == DATAGRAM_BYTES == 76
    assert decode_proc_event(datagram) == event


@pytest.mark.parametrize("datagram", SOUND, ids=EVENTS)
def test_an_event_cut_anywhere_or_too_long_is_malformed(datagram: bytes) -> None:
    for wrong in [*(datagram[:length] for length in range(76)), datagram + b"\0"]:
        with pytest.raises(MalformedMessage):
            decode_proc_event(wrong)
        with pytest.raises(MalformedMessage):
            decode_ack(wrong)


@pytest.mark.parametrize("datagram", FOREIGN.values(), ids=FOREIGN)
def test_what_is_not_the_process_connectors_is_malformed(datagram: bytes) -> None:
    for decode in (decode_proc_event, decode_ack):
        with pytest.raises(MalformedMessage):
            decode(datagram)


@pytest.mark.parametrize(
    "comm",
    [b"", b"sh", b"fifteen bytes!!", b"new\nline", b"\xff\xfe \x1b", b"name (sd-pam)"],
    ids=["empty", "short", "15 bytes", "newline", "no text", "brackets"],
)
def test_the_comm_of_a_comm_event_is_its_bytes_up_to_the_nul(comm: bytes) -> None:
    assert decode_comm(decode_proc_event(builders.comm(tgid=20, comm=comm))) == comm


def test_what_stands_behind_the_nul_of_a_comm_is_not_part_of_it() -> None:
    datagram = connector_datagram(0x200, struct.pack("=ii16s", 20, 20, b"sh\0remains"))
    assert decode_comm(decode_proc_event(datagram)) == b"sh"


@pytest.mark.parametrize(("ack", "err"), [(1, 0), (0x80000000, 22), (0xFFFFFFFF, 1)])
def test_an_acknowledgement_has_its_number_and_a_positive_errno(ack: int, err: int) -> None:
    assert decode_ack(builders.ack(ack=ack, err=err, seq=99)) == Ack(ack, err)


def test_an_event_is_no_acknowledgement() -> None:
    assert [decode_ack(datagram) for kind, (datagram, _) in EVENTS.items() if kind != "ack"] == [None] * 12


@pytest.mark.parametrize("stride", [76, 128], ids=["strides of the datagrams' size", "larger strides"])
@pytest.mark.parametrize(
    "datagrams",
    [
        [],
        SOUND,
        SOUND * 40,
        list(FOREIGN.values()),
        [*SOUND, *FOREIGN.values(), *SOUND],
        [datagram[:75] for datagram in SOUND],
        [b"", *SOUND],
    ],
    ids=["empty", "sound", "many", "foreign", "mixed", "all cut", "one empty"],
)
def test_a_batch_is_decoded_as_its_datagrams_one_by_one(datagrams: list[bytes], stride: int) -> None:
    data, errors = sound_datagrams(builders.batch(datagrams, stride))
    assert (list(iter_proc_events(data)), len(errors)) == one_by_one(datagrams)


@pytest.mark.parametrize("offset", [*range(4), *range(16, 24), 32, 33])
def test_one_wrong_byte_in_the_middle_of_a_batch_costs_that_datagram_only(offset: int) -> None:
    wrong = bytearray(SOUND[5])
    wrong[offset] ^= 0x80
    data, errors = sound_datagrams(builders.batch([*SOUND[:5], bytes(wrong), *SOUND[6:]]))
    assert (data, len(errors)) == (b"".join(SOUND[:5] + SOUND[6:]), 1)


def test_a_batch_whose_bytes_are_right_only_on_the_whole_is_not_taken_for_sound() -> None:
    # Each constant byte occurs as often as it should, counted over both datagrams and not by column.
    swapped = connector_datagram(0x1, b"", idx=0x00010000, val=0x00010000)
    assert sound_datagrams(builders.batch([SOUND[0], swapped]))[0] == SOUND[0]


def test_batches_of_random_damage_are_decoded_as_their_datagrams_one_by_one() -> None:
    chance = random.Random(76)  # noqa: S311 - the same damage every time
    for _ in range(100):
        datagrams = []
        for datagram in chance.choices(SOUND, k=8):
            damaged = bytearray(datagram)
            if chance.random() < 0.3:
                damaged[chance.randrange(76)] ^= 1 << chance.randrange(8)
            datagrams.append(bytes(damaged[: chance.choice([76, 76, 76, 76, 75, 36])]))
        data, errors = sound_datagrams(builders.batch(datagrams))
        assert (list(iter_proc_events(data)), len(errors)) == one_by_one(datagrams)


def test_a_batch_may_be_shorter_than_its_buffer() -> None:
    batch = builders.batch(SOUND)
    assert sound_datagrams(batch._replace(lengths=[76, 76])) == (SOUND[0] + SOUND[1], [])


@pytest.mark.parametrize(
    ("op", "mask", "size", "data"),
    [
        (PROC_CN_MCAST_LISTEN, None, 40, struct.pack("=I", 1)),
        (PROC_CN_MCAST_IGNORE, None, 40, struct.pack("=I", 2)),
        (PROC_CN_MCAST_LISTEN, PROC_EVENT_ALL, 44, struct.pack("=II", 1, 0xE00003C7)),
        (PROC_CN_MCAST_LISTEN, 0, 44, struct.pack("=II", 1, 0)),
    ],
    ids=["listen", "ignore", "listen to all by mask", "an empty mask is a mask"],
)
def test_a_request_is_encoded_to_the_byte(op: int, mask: int | None, size: int, data: bytes) -> None:
    header = struct.pack("=IHHII", size, 3, 0, 0, 0) + struct.pack("=IIIIHH", 1, 1, 0, 0xABCD, len(data), 0)
    assert encode_request(op, 0xABCD, mask) == header + data
