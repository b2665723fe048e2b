"""exporter/kernel/taskstats.py against messages laid out by hand."""

import struct
from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import NamedTuple

import pytest
from builders import (
    FAMILY_ID,
    TASKSTATS_STRIDE,
    TgidStats,
    batch,
    family_reply,
    nlattr,
    nlmsg,
    nlmsg_error,
    taskstats_datagram,
    taskstats_offset,
    taskstats_size,
    taskstats_struct,
)

from exporter.errors import MalformedMessage
from exporter.kernel.netlink import decode_message
from exporter.kernel.taskstats import (
    AGROUP,
    LastRecord,
    Record,
    RecordDecoder,
    TaskExit,
    decode_comm_uid,
    decode_family_id,
    encode_get,
    encode_get_family,
    encode_register,
    layout_of,
)

VERSIONS = range(8, 17)

# Numbers that need their whole width, none of them equal to another field's.
DEATH = partial(
    taskstats_datagram,
    pid=4_194_303,
    comm=b"fifteen bytes!!",
    uid=0xFFFFFFFE,
    exit_code=0x8B,
    ac_flag=0x38,
    cpu_ns=0x1_2345_6789_ABCD,
    max_rss_kib=0x2_0000_0001,
    elapsed_us=0x3_0000_0002,
)
EXPECTED = TaskExit(
    pid=4_194_303,
    exit_code=0x8B,
    ac_flag=0x38,
    cpu_ns=0x1_2345_6789_ABCD,
    comm_uid=b"fifteen bytes!!".ljust(40, b"\0") + struct.pack("=I", 0xFFFFFFFE),
    max_rss_kib=0x2_0000_0001,
    elapsed_us=0x3_0000_0002,
)
GROUP = TgidStats(tgid=4_194_300, cpu_ns=0x4_0000_0003)


def set_nlmsg_len(datagram: bytes) -> bytes:
    """Let the outermost header agree with what is left."""
    return struct.pack("=I", len(datagram)) + datagram[4:]


class Sorted(NamedTuple):
    """What a batch has, and how many of its datagrams were malformed."""

    records: list[Record]
    last_threads: list[LastRecord]
    malformed: int


def one_by_one(datagrams: list[bytes]) -> Sorted:
    """What a decoder that never learns makes of each."""
    records: list[Record] = []
    last_threads: list[LastRecord] = []
    malformed = 0
    for datagram in datagrams:
        try:
            record, tgid = RecordDecoder(FAMILY_ID).decode(datagram)
        except MalformedMessage:
            malformed += 1
            continue
        if record[0] == tgid:
            records.append(record)
        elif record[2] & AGROUP:
            last_threads.append((*record, tgid))
    return Sorted(records, last_threads, malformed)


def in_batches(datagrams: list[bytes], decoder: RecordDecoder, stride: int) -> Sorted:
    records, last_threads, errors = decoder.decode_batch(batch(datagrams, stride))
    return Sorted(records, last_threads, len(errors))


# -- requests and their answers ------------------------------------------------------------------------------


def test_the_family_is_asked_for_by_its_name() -> None:
    name = struct.pack("=HH", 14, 2) + b"TASKSTATS\0" + b"\0\0"
    header = struct.pack("=IHHII", 36, 0x10, 1, 55, 0)
    assert encode_get_family(55) == header + struct.pack("=BBH", 3, 1, 0) + name


@pytest.mark.parametrize(
    ("cpus", "attribute"),
    [
        ("0-1", struct.pack("=HH", 8, 3) + b"0-1\0"),
        ("0", struct.pack("=HH", 6, 3) + b"0\0\0\0"),
        ("0-63,128", struct.pack("=HH", 13, 3) + b"0-63,128\0\0\0\0"),
    ],
)
def test_cpus_are_registered_as_a_string_with_its_nul_and_an_answer_wanted(cpus: str, attribute: bytes) -> None:
    header = struct.pack("=IHHII", 20 + len(attribute), 31, 5, 56, 0)
    assert encode_register(31, 56, cpus) == header + struct.pack("=BBH", 1, 1, 0) + attribute


def test_a_living_threads_record_is_asked_for_by_its_pid() -> None:
    header = struct.pack("=IHHII", 28, 31, 1, 57, 0) + struct.pack("=BBH", 1, 1, 0)
    assert encode_get(31, 57, 4_194_303) == header + struct.pack("=HHI", 8, 1, 4_194_303)


def test_the_familys_number_is_found_among_the_attributes() -> None:
    assert decode_family_id(decode_message(family_reply(0x1234)).payload) == 0x1234


def test_a_familys_answer_cut_anywhere_has_the_number_or_is_malformed() -> None:
    payload = decode_message(family_reply(0x1234)).payload
    # genlmsghdr 4, the name 16, then 4 + 2 bytes of the number.
    for length in range(4 + 16 + 6):
        with pytest.raises(MalformedMessage):
            decode_family_id(payload[:length])
    assert {decode_family_id(payload[:length]) for length in range(26, len(payload) + 1)} == {0x1234}


def test_a_family_number_of_one_byte_is_malformed() -> None:
    with pytest.raises(MalformedMessage):
        decode_family_id(bytes(4) + nlattr(1, b"\x1f"))


# -- one record ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("null_pad", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_record_of_each_version_says_the_same(version: int, null_pad: bool) -> None:
    decoder = RecordDecoder(FAMILY_ID)
    assert decoder.version == 0
    assert TaskExit._make(decoder.decode(DEATH(version=version, null_pad=null_pad))[0]) == EXPECTED
    assert decoder.version == version


@pytest.mark.parametrize("version", VERSIONS)
def test_where_sums_of_the_process_are_given_the_cpu_time_is_the_processs(version: int) -> None:
    record, tgid = RecordDecoder(FAMILY_ID).decode(DEATH(version=version, tgid_stats=GROUP))
    assert TaskExit._make(record) == EXPECTED._replace(cpu_ns=GROUP.cpu_ns)
    # Before version 12 it is in no struct taskstats; what is beside that is not looked at.
    assert tgid == (GROUP.tgid if version >= 12 else EXPECTED.pid)


@pytest.mark.parametrize("null_pad", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("version", VERSIONS)
def test_where_the_struct_begins_is_known_from_the_first_record_on(version: int, null_pad: bool) -> None:
    decoder = RecordDecoder(FAMILY_ID)
    assert decoder.stats_offset == 0
    decoder.decode(DEATH(version=version, null_pad=null_pad))
    assert decoder.stats_offset == (40 if null_pad else 36)


@pytest.mark.parametrize(("version", "size"), [(17, 688), (18, 1000), (0xFFFF, 560)])
def test_a_later_version_is_read_as_one_that_added_to_the_end(version: int, size: int) -> None:
    assert TaskExit._make(RecordDecoder(FAMILY_ID).decode(DEATH(version=version, size=size))[0]) == EXPECTED


@pytest.mark.parametrize("version", range(8))
def test_a_version_before_8_is_malformed(version: int) -> None:
    with pytest.raises(MalformedMessage):
        RecordDecoder(FAMILY_ID).decode(DEATH(version=version))
    with pytest.raises(MalformedMessage):
        layout_of(version, 1000)


@pytest.mark.parametrize("version", [*VERSIONS, 17])
def test_the_layout_of_a_version_is_the_headers(version: int) -> None:
    layout = layout_of(version, taskstats_size(version))
    fields = ("cpu_run_virtual_total", "ac_comm", "ac_etime", "hiwater_rss")
    assert layout[:4] == tuple(taskstats_offset(field, version) for field in fields)
    assert layout.ac_tgetime == (taskstats_offset("ac_tgetime", version) if version >= 12 else None)


def test_version_15_alone_has_its_fields_elsewhere() -> None:
    # As observed: these bytes are in no other test's table of offsets.
    assert layout_of(15, 560)[:3] == (120, 128, 192)
    assert layout_of(14, 432)[:3] == layout_of(16, 560)[:3] == (72, 80, 144)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_struct_cut_anywhere_is_malformed_or_still_has_every_field(version: int) -> None:
    last = "ac_tgetime" if version >= 12 else "hiwater_rss"
    enough = taskstats_offset(last, version) + 8
    decoder = RecordDecoder(FAMILY_ID)
    for size in range(enough):
        with pytest.raises(MalformedMessage):
            decoder.decode(DEATH(version=version, size=size))
    for size in (enough, taskstats_size(version), taskstats_size(version) + 4):
        assert TaskExit._make(decoder.decode(DEATH(version=version, size=size))[0]) == EXPECTED


def test_sums_of_the_process_cut_short_make_the_record_malformed() -> None:
    short = nlattr(5, nlattr(2, struct.pack("=I", 7)) + nlattr(3, taskstats_struct({}, version=16, size=100)))
    with pytest.raises(MalformedMessage):
        RecordDecoder(FAMILY_ID).decode(set_nlmsg_len(DEATH() + short))


@pytest.mark.parametrize("null_pad", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("group", [None, GROUP], ids=["thread", "thread and process"])
def test_a_datagram_cut_anywhere_is_malformed(group: TgidStats | None, null_pad: bool) -> None:
    datagram = DEATH(tgid_stats=group, null_pad=null_pad)
    decoder = RecordDecoder(FAMILY_ID)
    for length in range(len(datagram)):
        with pytest.raises(MalformedMessage):
            decoder.decode(datagram[:length])


@pytest.mark.parametrize("group", [None, GROUP], ids=["thread", "thread and process"])
def test_a_datagram_cut_anywhere_with_its_length_set_right_is_malformed(group: TgidStats | None) -> None:
    datagram = DEATH(tgid_stats=group)
    decoder = RecordDecoder(FAMILY_ID)
    for length in range(16, len(datagram)):
        # Without the second aggregate (and with less than a header of it) it is a whole record of a thread.
        if 596 <= length < 600:
            assert TaskExit._make(decoder.decode(set_nlmsg_len(datagram[:length]))[0]) == EXPECTED
        else:
            with pytest.raises(MalformedMessage):
                decoder.decode(set_nlmsg_len(datagram[:length]))


PID = nlattr(1, struct.pack("=I", 7))
STATS = nlattr(3, taskstats_struct({}, version=16))
FOREIGN = {
    "another family": taskstats_datagram(pid=7, family_id=FAMILY_ID + 1),
    "an errno": nlmsg_error(22),
    "an acknowledgement": nlmsg_error(0),
    "another command": taskstats_datagram(pid=7, cmd=1),
    "no genlmsghdr": nlmsg(FAMILY_ID, b"\2\1"),
    "no attributes": nlmsg(FAMILY_ID, b"\2\1\0\0"),
    "process only": nlmsg(FAMILY_ID, b"\2\1\0\0" + nlattr(5, nlattr(2, struct.pack("=I", 7)) + STATS)),
    "no pid": nlmsg(FAMILY_ID, b"\2\1\0\0" + nlattr(4, STATS)),
    "a pid of two bytes": nlmsg(FAMILY_ID, b"\2\1\0\0" + nlattr(4, nlattr(1, b"\7\0") + STATS)),
    "no stats": nlmsg(FAMILY_ID, b"\2\1\0\0" + nlattr(4, PID)),
    "stats of one byte": nlmsg(FAMILY_ID, b"\2\1\0\0" + nlattr(4, PID + nlattr(3, b"\x10"))),
    "an inner attribute beyond the outer": nlmsg(
        FAMILY_ID, b"\2\1\0\0" + nlattr(4, PID + nlattr(3, STATS[4:], nla_len=568))
    ),
    "zeros": bytes(596),
    "nothing": b"",
}


@pytest.mark.parametrize("datagram", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_exit_record_is_malformed(datagram: bytes) -> None:
    with pytest.raises(MalformedMessage):
        RecordDecoder(FAMILY_ID).decode(datagram)


@pytest.mark.parametrize(
    "comm", [b"", b"sh", b"\xff\n(x)", b"c" * 15, b"c" * 31], ids=["empty", "short", "odd", "15 bytes", "31 bytes"]
)
def test_comm_and_uid_of_a_record_come_without_padding(comm: bytes) -> None:
    comm_uid = TaskExit._make(RecordDecoder(FAMILY_ID).decode(DEATH(comm=comm, uid=1000))[0]).comm_uid
    assert (len(comm_uid), decode_comm_uid(comm_uid)) == (44, (comm, 1000))


# -- batches -------------------------------------------------------------------------------------------------

STATS_FIRST = nlmsg(
    FAMILY_ID,
    b"\2\1\0\0" + nlattr(4, nlattr(3, taskstats_struct({"ac_comm": b"odd"}, version=16)) + PID),
)
KINDS: dict[str, Callable[[int], bytes]] = {
    "leader": lambda n: DEATH(pid=n, seq=n, comm=b"n%d" % n, cpu_ns=n, elapsed_us=n, exit_code=n),
    "leader and process": lambda n: DEATH(pid=n, tgid_stats=TgidStats(n, n * 1000)),
    "thread": lambda n: DEATH(pid=n, ac_tgid=n - 1, ac_flag=0),
    "last thread": lambda n: DEATH(pid=n, ac_tgid=n - 1, uid=n),
    "last thread and process": lambda n: DEATH(pid=n, tgid_stats=TgidStats(n - 1, n * 1000)),
    "padded": lambda n: DEATH(pid=n, null_pad=True, max_rss_kib=n),
    "another version": lambda n: DEATH(pid=n, version=15, uid=n),
    "an old version": lambda n: DEATH(pid=n, version=9, elapsed_us=n),
    "foreign": lambda n: DEATH(pid=n, family_id=FAMILY_ID + 1),
    "error": nlmsg_error,
    "cut": lambda n: DEATH(pid=n)[:500],
    "a byte short": lambda n: DEATH(pid=n)[:-1],
    "with more behind it": lambda n: DEATH(pid=n) + b"more",
    "stats before pid": lambda _: STATS_FIRST,
}


@pytest.mark.parametrize("version", [*VERSIONS, 17])
@pytest.mark.parametrize("kind", [{}, {"null_pad": True}, {"tgid_stats": GROUP}], ids=["", "padded", "process"])
def test_batch_after_batch_is_decoded_as_its_datagrams_one_by_one(
    version: int, kind: dict[str, TgidStats]
) -> None:
    decoder = RecordDecoder(FAMILY_ID)
    for first in (1, 1001, 2001):
        numbers = range(first, first + 5)
        datagrams = [
            taskstats_datagram(
                pid=n, comm=b"c%d" % n, uid=n + 1, exit_code=n + 2, cpu_ns=n + 3, max_rss_kib=n + 4,
                elapsed_us=n + 5, version=version, seq=n, **kind,  # type: ignore[arg-type]
            )
            for n in numbers
        ]  # fmt: skip
        found = in_batches(datagrams, decoder, TASKSTATS_STRIDE)
        assert found == one_by_one(datagrams)
        are_last_threads = "tgid_stats" in kind and version >= 12
        assert [record[0] for record in (found.last_threads if are_last_threads else found.records)] == [*numbers]


@pytest.mark.parametrize("null_pad", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("version", [*VERSIONS, 17])
def test_threads_that_neither_lead_nor_end_their_process_are_left_out_where_records_say_so(
    version: int, null_pad: bool
) -> None:
    make = partial(DEATH, version=version, null_pad=null_pad)
    datagrams = [
        make(pid=400, ac_tgid=400, ac_flag=0), make(pid=401, ac_tgid=400, ac_flag=0),
        make(pid=402, ac_tgid=400, ac_flag=AGROUP), make(pid=403, ac_tgid=403, ac_flag=AGROUP),
    ]  # fmt: skip
    for decoder in (RecordDecoder(FAMILY_ID), learned(make())):
        found = in_batches(datagrams, decoder, TASKSTATS_STRIDE)
        says_so = version >= 12
        assert [record[0] for record in found.records] == ([400, 403] if says_so else [400, 401, 402, 403])
        assert [(record[0], record[-1]) for record in found.last_threads] == ([(402, 400)] if says_so else [])
        assert found.malformed == 0


def learned(datagram: bytes) -> RecordDecoder:
    """Return a decoder that knows a form of datagram."""
    decoder = RecordDecoder(FAMILY_ID)
    in_batches([datagram], decoder, TASKSTATS_STRIDE)
    return decoder


@pytest.mark.parametrize("first", KINDS)
def test_mixed_batches_keep_order_and_count_whatever_came_first(first: str) -> None:
    decoder = RecordDecoder(FAMILY_ID)
    in_batches([KINDS[first](1)], decoder, TASKSTATS_STRIDE)
    for rotation in range(len(KINDS)):
        kinds = [*KINDS.values()][rotation:] + [*KINDS.values()][:rotation]
        datagrams = [make(n) for n, make in enumerate(kinds, start=100)]
        found = in_batches(datagrams, decoder, TASKSTATS_STRIDE)
        assert found == one_by_one(datagrams)
        assert (len(found.records), len(found.last_threads), found.malformed) == (6, 2, 4)


def test_batches_of_three_kinds_in_every_order_are_decoded_as_their_datagrams_one_by_one() -> None:
    for kinds in permutations(KINDS.values(), 3):
        decoder = RecordDecoder(FAMILY_ID)
        for start in (1, 4):
            datagrams = [make(n) for n, make in enumerate(kinds, start=start)]
            assert in_batches(datagrams, decoder, 1200) == one_by_one(datagrams)


def test_records_of_a_known_form_are_not_walked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = RecordDecoder(FAMILY_ID)
    in_batches([KINDS["leader"](1)], decoder, TASKSTATS_STRIDE)
    datagrams = [KINDS[kind](n) for n, kind in enumerate(("leader", "thread", "last thread", "leader"), start=2)]
    expected = one_by_one(datagrams)
    monkeypatch.delattr(RecordDecoder, "decode")
    assert in_batches(datagrams, decoder, TASKSTATS_STRIDE) == expected


def test_a_later_batch_may_have_another_stride() -> None:
    decoder = RecordDecoder(FAMILY_ID)
    for stride in (TASKSTATS_STRIDE, 1200, 596, TASKSTATS_STRIDE, 4096):
        datagrams = [KINDS["leader"](stride + n) for n in range(3)]
        assert in_batches(datagrams, decoder, stride) == one_by_one(datagrams)


def test_a_batch_may_be_empty_or_shorter_than_its_buffer() -> None:
    decoder = RecordDecoder(FAMILY_ID)
    datagrams = [KINDS["leader"](n) for n in range(1, 5)]
    for _ in range(2):
        assert decoder.decode_batch(batch([], TASKSTATS_STRIDE)) == ([], [], [])
        half = batch(datagrams, TASKSTATS_STRIDE)._replace(lengths=[596, 596])
        assert decoder.decode_batch(half) == (one_by_one(datagrams[:2]).records, [], [])


def test_records_of_a_batch_are_plain_values_that_outlive_its_buffer() -> None:
    decoder = RecordDecoder(FAMILY_ID)
    in_batches([DEATH()], decoder, TASKSTATS_STRIDE)
    buffer = bytearray(DEATH().ljust(TASKSTATS_STRIDE, b"\0"))
    found = decoder.decode_batch(batch([], TASKSTATS_STRIDE)._replace(data=memoryview(buffer), lengths=[596]))
    buffer[:] = bytes(TASKSTATS_STRIDE)
    assert found.records == [tuple(EXPECTED)]


def test_every_damaged_byte_of_a_known_form_is_decoded_as_without_knowing_it() -> None:
    decoder = RecordDecoder(FAMILY_ID)
    in_batches([DEATH()], decoder, 600)
    damaged = []
    for offset in range(40):
        datagram = bytearray(DEATH())
        datagram[offset] ^= 1
        damaged.append(bytes(datagram))
    assert in_batches([DEATH(), *damaged, DEATH()], decoder, 600) == one_by_one([DEATH(), *damaged, DEATH()])
