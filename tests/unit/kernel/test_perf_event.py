"""exporter/kernel/perf_event.py against records laid out by hand."""

import random
import struct
import sys

import builders
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import MalformedMessage
from exporter.kernel.perf_event import SidebandRecords, decode_records, encode_attr

T = 123_456_789_012_345_678
NOTHING = SidebandRecords([], [], 0)

RECORDS = {
    "an exec": (
        builders.perf_comm(time_ns=T, tgid=400, comm=b"make"),
        SidebandRecords([(T, 400, b"make")], [], 0),
    ),
    "an exec, 7 bytes": (
        builders.perf_comm(time_ns=T, tgid=400, comm=b"seven b"),
        SidebandRecords([(T, 400, b"seven b")], [], 0),
    ),
    "an exec, 8 bytes": (
        builders.perf_comm(time_ns=T, tgid=400, comm=b"eight by"),
        SidebandRecords([(T, 400, b"eight by")], [], 0),
    ),
    "an exec, 15 bytes": (
        builders.perf_comm(time_ns=T, tgid=400, comm=b"fifteen bytes!!"),
        SidebandRecords([(T, 400, b"fifteen bytes!!")], [], 0),
    ),
    "an exec, no bytes": (
        builders.perf_comm(time_ns=T, tgid=400, comm=b""),
        SidebandRecords([(T, 400, b"")], [], 0),
    ),
    "an exec, no text": (
        builders.perf_comm(time_ns=T, tgid=400, comm=b"\xff\n\x1b"),
        SidebandRecords([(T, 400, b"\xff\n\x1b")], [], 0),
    ),
    "a rename": (builders.perf_comm(time_ns=T, tgid=400, comm=b"make", is_exec=False), NOTHING),
    "a fork": (
        builders.perf_fork(time_ns=T, tgid=400, forker_tgid=100),
        SidebandRecords([], [(T, 400, 100, 100)], 0),
    ),
    "a fork by a thread": (
        builders.perf_fork(time_ns=T, tgid=400, forker_tgid=100, forker_pid=101),
        SidebandRecords([], [(T, 400, 100, 101)], 0),
    ),
    "a thread": (builders.perf_fork(time_ns=T, tgid=400, forker_tgid=400, pid=401), NOTHING),
    "an exit": (builders.perf_exit(time_ns=T, tgid=400), NOTHING),
    "a loss": (builders.perf_lost(lost=7, time_ns=T), SidebandRecords([], [], 7)),
    "a kind that was not asked for": (builders.perf_record(16, bytes(144)), NOTHING),
}
SOUND = [record for record, _ in RECORDS.values()]
TASKS = [record for kind, (record, _) in RECORDS.items() if kind in {"a fork", "a fork by a thread", "a thread"}]


def by_steps_alone(data: bytes) -> SidebandRecords:
    """Decode behind a record that no ring of tasks alone has: then columns are not tried."""
    return decode_records(builders.perf_lost(lost=0) + data)


def expected(records: list[bytes]) -> SidebandRecords:
    """What the records mean, one by one."""
    meanings = dict(RECORDS.values())
    execs, forks, lost = [], [], 0
    for record in records:
        meaning = meanings[record]
        execs += meaning.execs
        forks += meaning.forks
        lost += meaning.lost
    return SidebandRecords(execs, forks, lost)


@pytest.mark.parametrize(("record", "meaning"), RECORDS.values(), ids=RECORDS)
def test_a_record_is_decoded(record: bytes, meaning: SidebandRecords) -> None:
    assert decode_records(record) == meaning


def test_nothing_is_decoded_as_nothing() -> None:
    assert decode_records(b"") == NOTHING


def test_records_that_lie_end_to_end_are_decoded_in_their_order() -> None:
    chance = random.Random(9)  # noqa: S311 - repeatable, not secret
    for count in (2, 3, 50):
        records = chance.choices(SOUND, k=count)
        assert decode_records(b"".join(records)) == expected(records)


@pytest.mark.parametrize("record", SOUND, ids=RECORDS)
def test_a_record_cut_anywhere_is_malformed(record: bytes) -> None:
    before = builders.perf_fork(time_ns=1, tgid=7, forker_tgid=1)
    for length in range(1, len(record)):
        for data in (record[:length], before + record[:length]):
            with pytest.raises(MalformedMessage):
                decode_records(data)


@pytest.mark.parametrize("size", range(8))
def test_a_record_that_is_shorter_than_its_header_is_malformed(size: int) -> None:
    record = struct.pack("=IHH", 9, 0, size) + bytes(32)
    with pytest.raises(MalformedMessage):
        decode_records(record)


@pytest.mark.parametrize("records", [TASKS, TASKS * 200, [SOUND[-4]] * 3], ids=["few", "many", "no process"])
def test_a_ring_of_tasks_alone_is_read_by_columns_as_it_is_by_steps(records: list[bytes]) -> None:
    data = b"".join([*records, builders.perf_exit(time_ns=T, tgid=400)])
    by_steps = by_steps_alone(data)
    assert decode_records(data) == by_steps
    assert len(by_steps.forks) == sum(len(expected([record]).forks) for record in records)


def test_bytes_that_only_look_like_tasks_in_columns_are_read_by_steps() -> None:
    # 5 times 32 bytes are 4 times 40: where a column of 40 would find a kind or a size, there is something else.
    records = [builders.perf_comm(time_ns=T, tgid=400 + i, comm=b"sh") for i in range(5)]
    assert decode_records(b"".join(records)).execs == [(T, 400 + i, b"sh") for i in range(5)]
    # A kind of more than a byte, which no kernel has, is the same to both.
    odd = bytearray(TASKS[0])
    odd[3 if sys.byteorder == "little" else 0] = 1
    assert decode_records(bytes(odd)) == by_steps_alone(bytes(odd))
    # As many exits as forks, and one that is neither but of the same length.
    long_exec = builders.perf_comm(time_ns=T, tgid=1, comm=b"a long comm")
    data = TASKS[0] + long_exec + builders.perf_exit(time_ns=T, tgid=400)
    assert decode_records(data) == SidebandRecords([(T, 1, b"a long comm")], [(T, 400, 100, 100)], 0)


def damaged(sound: list[bytes]) -> st.SearchStrategy[bytes]:
    """Records end to end, with some bytes changed, and cut."""
    changes = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6)

    def damage(records: list[bytes], changed: list[tuple[int, int]], cut: int) -> bytes:
        data = bytearray(b"".join(records))
        for offset, byte in changed:
            if offset < len(data):
                data[offset] = byte
        return bytes(data[: len(data) - cut])

    return st.builds(damage, st.lists(st.sampled_from(sound), max_size=12), changes, st.integers(0, 50))


@given(st.binary(max_size=400) | damaged(SOUND) | damaged(TASKS))
def test_any_bytes_are_records_or_malformed(data: bytes) -> None:
    try:
        records = decode_records(data)
    except MalformedMessage:
        with pytest.raises(MalformedMessage):
            by_steps_alone(data)
        return
    assert records == by_steps_alone(data)
    assert len(records.execs) + len(records.forks) <= len(data) // 8
    assert all(len(comm) <= 16 for _, _, comm in records.execs)


@pytest.mark.skipif(sys.byteorder != "little", reason="bits are counted from the other end")
def test_the_attributes_are_those_of_the_header() -> None:
    attr = encode_attr()
    kind, size, config, period, sample_type, read_format, flags = struct.unpack_from("=IIQQQQQ", attr)
    assert len(attr) == size == 96
    # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY, no sampling, PERF_SAMPLE_TIME.
    assert (kind, config, period, sample_type, read_format) == (1, 9, 0, 4, 0)
    # exclude_kernel, exclude_hv, comm, task, sample_id_all, comm_exec, use_clockid.
    assert [bit for bit in range(64) if flags >> bit & 1] == [5, 6, 9, 13, 18, 24, 25]
    assert struct.unpack_from("=i", attr, 92) == (1,)
    assert not any(attr[48:92])


def namespaces(tgid: int, pid: int, inode: int, time_ns: int, number: int = 7) -> bytes:
    links = b"".join(struct.pack("=QQ", 4, inode if n == 5 else 7000 + n) for n in range(number))
    body = struct.pack("=IIQ", tgid, pid, number) + links + struct.pack("=Q", time_ns)
    return struct.pack("=IHH", 16, 0, 8 + len(body)) + body


def test_a_record_of_namespaces_says_the_mount_namespace_of_a_process() -> None:
    data = namespaces(400, 400, 4026532001, 50) + namespaces(400, 401, 1, 51) + namespaces(7, 7, 2, 52, number=8)
    assert len(namespaces(400, 400, 1, 1)) == 144
    assert decode_records(data) == SidebandRecords([], [], 0, ((50, 400, 4026532001), (52, 7, 2)))


def test_a_record_of_namespaces_that_is_cut_is_refused() -> None:
    data = namespaces(400, 400, 1, 1)
    for length in range(1, len(data)):
        with pytest.raises(MalformedMessage):
            decode_records(data[:length])


def test_records_of_namespaces_are_one_bit_more() -> None:
    flags = [struct.unpack_from("=Q", encode_attr(mounts=mounts), 40)[0] for mounts in (False, True)]
    assert flags[0] ^ flags[1] == 1 << (28 if sys.byteorder == "little" else 63 - 28)
