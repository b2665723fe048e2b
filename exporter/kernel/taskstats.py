"""taskstats: the record that the kernel writes when a thread exits, over generic netlink.

Source: include/uapi/linux/taskstats.h, Documentation/accounting/taskstats.rst. Integers are in host byte order.

A record's datagram is nlmsghdr (16), genlmsghdr (4), then attributes:

    AGGR_PID  { PID u32, STATS struct taskstats }    the thread that exits
    AGGR_TGID { TGID u32, STATS struct taskstats }   sums over the process, in the record of its last thread,
                                                     if it ever had a thread that exited before the others

On 64-bit machines without cheap unaligned access a TASKSTATS_TYPE_NULL pads before STATS, so attributes are
walked; `RecordDecoder` then remembers where they were, because a kernel writes the same form every time.

struct taskstats grew with the kernels. Fields kept their places except in version 15, which put new ones in
the middle; version 16 moved them to the end again.
"""

import struct
from array import array
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from exporter.errors import MalformedMessage
from exporter.kernel import netlink
from exporter.kernel.netlink import NLM_F_ACK, NLM_F_REQUEST, NLMSGHDR, Batch

GENL_ID_CTRL = 0x10
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID = 1
CTRL_ATTR_FAMILY_NAME = 2
TASKSTATS_GENL_NAME = b"TASKSTATS\0"

TASKSTATS_CMD_GET = 1
TASKSTATS_CMD_NEW = 2
TASKSTATS_CMD_ATTR_PID = 1
TASKSTATS_CMD_ATTR_REGISTER_CPUMASK = 3
TASKSTATS_TYPE_PID = 1
TASKSTATS_TYPE_TGID = 2
TASKSTATS_TYPE_STATS = 3
TASKSTATS_TYPE_AGGR_PID = 4
TASKSTATS_TYPE_AGGR_TGID = 5

# ac_flag: killed by a signal, or by another thread that ended the process. A thread that exits by itself lacks it.
AXSIG = 0x10
# ac_flag: the last thread of its process (kernels with version 12 and later).
AGROUP = 0x20
AGROUP_SINCE_VERSION = 12

# cmd u8, version u8, reserved u16
_GENLMSGHDR = struct.Struct("=BBH")
_NLMSG_SEQ_OFFSET = 8
_WORDS: tuple[tuple[Literal["Q", "I", "H", "B"], int], ...] = (("Q", 8), ("I", 4), ("H", 2), ("B", 1))
_ATTRIBUTES_START = NLMSGHDR.size + _GENLMSGHDR.size
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")

# ac_comm[32], ac_sched with its padding, ac_uid: 44 bytes that name a program and its user without decoding.
COMM_UID_BYTES = 44
_COMM_BYTES = 32
_UID_OFFSET = 40


class TaskExit(NamedTuple):
    """One exit record. On the hot path records are plain tuples with these positions."""

    pid: int
    exit_code: int
    """Wait status."""
    ac_flag: int
    """AGROUP marks the last record of a process."""
    cpu_ns: int
    """CPU time of the thread; of the whole process where the datagram has AGGR_TGID."""
    comm_uid: bytes
    """44 bytes: decode_comm_uid takes them apart."""
    max_rss_kib: int
    """High water mark of the resident memory, 0 for kernel threads."""
    elapsed_us: int
    """How long the thread existed; from version 12 on its process, since the leader's start."""


Record = tuple[int, int, int, int, bytes, int, int]
LastRecord = tuple[int, int, int, int, bytes, int, int, int]
"""The record of a process's last thread, if that is not its leader: as Record, then the process's tgid."""


class Decoded(NamedTuple):
    """What a batch has."""

    records: list[Record]
    """Of leaders; before version 12, where a record does not say whose thread it was, of all threads."""
    last_threads: list[LastRecord]
    errors: list[MalformedMessage]
    """What was wrong with each datagram that is no record."""


class Layout(NamedTuple):
    """Offsets into one version's struct taskstats; None where that version lacks the field."""

    cpu_run_virtual_total: int
    ac_comm: int
    ac_etime: int
    hiwater_rss: int
    ac_tgid: int | None
    ac_tgetime: int | None

    @property
    def size(self) -> int:
        """Bytes that must be there for every field to be."""
        return max(self.hiwater_rss, self.ac_tgetime or 0) + _U64.size


EXIT_CODE_OFFSET = 4
FLAG_OFFSET = 8
_OLDEST_VERSION = 8
_LAYOUT_8 = Layout(72, 80, 144, 200, None, None)
_AC_TGID, _AC_TGID_15 = 368, 464
_LAYOUT_12 = _LAYOUT_8._replace(ac_tgid=_AC_TGID, ac_tgetime=_AC_TGID + 8)
_LAYOUT_15 = Layout(120, 128, 192, 248, _AC_TGID_15, _AC_TGID_15 + 8)


def layout_of(version: int, size: int) -> Layout:
    """Choose the layout by version and length.

    Args:
        version: The struct's first field.
        size: Length of the attribute that holds the struct, in bytes.

    Raises:
        MalformedMessage: A version before 8, or a struct too short for its version.
    """
    if version < _OLDEST_VERSION:
        raise MalformedMessage("taskstats.version", _OLDEST_VERSION, version)
    if version == 15:
        layout = _LAYOUT_15
    elif version >= AGROUP_SINCE_VERSION:
        layout = _LAYOUT_12
    else:
        layout = _LAYOUT_8
    if size < layout.size:
        raise MalformedMessage(f"struct taskstats v{version}", layout.size, size)
    return layout


def pid_offsets(version: int) -> tuple[int, int]:
    """Return the offsets of (ac_pid, ac_tgid) in versions from AGROUP_SINCE_VERSION on."""
    return (176, _AC_TGID_15) if version == 15 else (128, _AC_TGID)


def encode_get_family(seq: int) -> bytes:
    """Ask for the number of the TASKSTATS family."""
    name = netlink.encode_attribute(CTRL_ATTR_FAMILY_NAME, TASKSTATS_GENL_NAME)
    header = _GENLMSGHDR.pack(CTRL_CMD_GETFAMILY, 1, 0)
    return netlink.encode_message(GENL_ID_CTRL, NLM_F_REQUEST, seq, header + name)


def decode_family_id(payload: bytes) -> int:
    """Read the family's number from the reply to encode_get_family.

    Args:
        payload: What follows the nlmsghdr.

    Raises:
        MalformedMessage: It is cut short or has no family id.
    """
    for attribute_type, start, end in netlink.iter_attributes(payload, _GENLMSGHDR.size, len(payload)):
        if attribute_type == CTRL_ATTR_FAMILY_ID and end - start >= _U16.size:
            return int(_U16.unpack_from(payload, start)[0])
    raise MalformedMessage("CTRL_ATTR_FAMILY_ID", _U16.size, 0)


def encode_register(family_id: int, seq: int, cpus: str) -> bytes:
    """Ask for the exit records of some CPUs.

    Args:
        family_id: From decode_family_id.
        seq: Echoed in the acknowledgement.
        cpus: A CPU list such as "0-3": all *possible* ones, so that CPUs that come later need nothing.
    """
    # Without the NUL the kernel cuts off the last digit.
    mask = netlink.encode_attribute(TASKSTATS_CMD_ATTR_REGISTER_CPUMASK, cpus.encode("ascii") + b"\0")
    header = _GENLMSGHDR.pack(TASKSTATS_CMD_GET, 1, 0)
    return netlink.encode_message(family_id, NLM_F_REQUEST | NLM_F_ACK, seq, header + mask)


def encode_get(family_id: int, seq: int, pid: int) -> bytes:
    """Ask for the record that a thread which lives would leave if it exited now."""
    header = _GENLMSGHDR.pack(TASKSTATS_CMD_GET, 1, 0)
    attribute = netlink.encode_attribute(TASKSTATS_CMD_ATTR_PID, _U32.pack(pid))
    return netlink.encode_message(family_id, NLM_F_REQUEST, seq, header + attribute)


def decode_comm_uid(comm_uid: bytes) -> tuple[bytes, int]:
    """Take apart the 44 bytes of a record: (comm without padding, real uid)."""
    comm = comm_uid[:_COMM_BYTES].partition(b"\0")[0]
    return comm, int(_U32.unpack_from(comm_uid, _UID_OFFSET)[0])


class _Aggregate(NamedTuple):
    """One AGGR_PID or AGGR_TGID attribute, as offsets into the datagram."""

    id_offset: int
    stats_offset: int
    stats_size: int


class _Column(NamedTuple):
    """A word that is the same in each datagram of a form, in all datagrams of a batch."""

    word: "array[int]"
    """The word alone."""
    code: Literal["Q", "I", "H", "B"]
    """Its kind: it has 8, 4, 2 or 1 bytes."""
    first: int
    """Where it stands in the first datagram, counted in such words."""
    step: int
    """From one datagram to the next."""


class _Form(NamedTuple):
    """One form of datagram: its length, the words by which it is known, and where its fields are."""

    size: int
    stride: int
    columns: tuple[_Column, ...]
    fields: struct.Struct
    elapsed_first: bool
    """ac_etime stands before hiwater_rss, ac_tgetime after it."""
    pids: tuple[slice, slice] | None
    """Which u32 are the pids and the tgids of a batch; None before version 12, which has no tgids."""

    def are_of_leaders(self, datagrams: memoryview) -> bool:
        """Return whether each thread of a batch leads its process, as far as that is known."""
        if self.pids is None:
            return True
        words = datagrams.cast("I")
        return words[self.pids[0]] == words[self.pids[1]]

    def tgids(self, datagrams: memoryview) -> list[int] | None:
        """Return the tgids of a batch's threads, if they are known."""
        return None if self.pids is None else datagrams.cast("I")[self.pids[1]].tolist()


class RecordDecoder:
    """Decodes exit records, whole batches at a time.

    A kernel writes every record of a thread without AGGR_TGID in the same form. The first one is walked; those
    that follow are compared with it and unpacked in place. All others are walked too.

    A thread that neither leads its process nor is its last says nothing of the process: its record is left out
    where it shows that (from version 12 on).

    Args:
        family_id: The nlmsg_type of records.

    Attributes:
        version: The struct's version, known from the first record on.
        stats_offset: Where the struct begins in a datagram, in bytes; known as the version.
    """

    def __init__(self, family_id: int) -> None:
        self._family_id = family_id
        self._form: _Form | None = None
        self.version = 0
        self.stats_offset = 0

    def decode_batch(self, batch: Batch) -> Decoded:
        """Decode every datagram of a batch; records stay in their order."""
        data, stride, lengths = batch
        if self._form is None or self._form.stride != stride:
            self._decode_each(batch, range(min(1, len(lengths))))
        form = self._form
        if form is None or form.stride != stride:
            return self._decode_each(batch, range(len(lengths)))
        count = len(lengths)
        # Unpacked where the kernel has put them: a copy would cost as much again.
        datagrams = data[: count * stride]
        records: list[Record] = list(form.fields.iter_unpack(datagrams))
        if form.elapsed_first:
            records = [(*record[:5], record[6], record[5]) for record in records]
        if form.are_of_leaders(datagrams) and lengths.count(form.size) == count:
            # A word's column over all datagrams is a slice: a few comparisons check a whole batch, without calls.
            for word, code, first, step in form.columns:
                if datagrams.cast(code)[first::step] != word * count:
                    break
            else:
                return Decoded(records, [], [])
        sound = [length == form.size for length in lengths]
        for [expected], code, first, step in form.columns:
            words = datagrams.cast(code)[first::step]
            sound = [so_far and words[index] == expected for index, so_far in enumerate(sound)]
        return self._decode_mixed(batch, form, records, sound)

    def _decode_mixed(self, batch: Batch, form: _Form, unpacked: list[Record], sound: list[bool]) -> Decoded:
        """Choose from what was unpacked by a form, and walk the datagrams that do not have it."""
        tgids = form.tgids(batch.data[: len(sound) * batch.stride])
        decoded = Decoded([], [], [])
        for index, record in enumerate(unpacked):
            if sound[index]:
                _sort(record, record[0] if tgids is None else tgids[index], decoded)
            else:
                self._decode_one(batch, index, decoded)
        return decoded

    def _decode_each(self, batch: Batch, indexes: Iterable[int]) -> Decoded:
        decoded = Decoded([], [], [])
        for index in indexes:
            self._decode_one(batch, index, decoded)
        return decoded

    def _decode_one(self, batch: Batch, index: int, decoded: Decoded) -> None:
        try:
            record, tgid = self.decode(batch.datagram(index), stride=batch.stride)
        except MalformedMessage as error:
            decoded.errors.append(error)
        else:
            _sort(record, tgid, decoded)

    def decode(self, datagram: bytes, *, stride: int = 0) -> tuple[Record, int]:
        """Decode one datagram by walking its attributes.

        Args:
            datagram: From the nlmsghdr on.
            stride: Given, the form is remembered for batches of this stride.

        Returns:
            The record, and the tgid of the thread's process; before version 12 its pid again.

        Raises:
            MalformedMessage: Not an exit record, or cut short. No input raises anything else.
        """
        message = netlink.decode_message(datagram)
        if message.type != self._family_id:
            raise MalformedMessage("nlmsg_type", self._family_id, message.type)
        if len(message.payload) < _GENLMSGHDR.size:
            raise MalformedMessage("struct genlmsghdr", _GENLMSGHDR.size, len(message.payload))
        if message.payload[0] != TASKSTATS_CMD_NEW:
            raise MalformedMessage("genlmsghdr.cmd", TASKSTATS_CMD_NEW, message.payload[0])
        end = NLMSGHDR.size + len(message.payload)
        thread: _Aggregate | None = None
        group: _Aggregate | None = None
        for kind, start, stop in netlink.iter_attributes(datagram, _ATTRIBUTES_START, end):
            if kind == TASKSTATS_TYPE_AGGR_PID:
                thread = _find_aggregate(datagram, start, stop, TASKSTATS_TYPE_PID)
            elif kind == TASKSTATS_TYPE_AGGR_TGID:
                group = _find_aggregate(datagram, start, stop, TASKSTATS_TYPE_TGID)
        if thread is None:
            raise MalformedMessage("TASKSTATS_TYPE_AGGR_PID", TASKSTATS_TYPE_AGGR_PID, 0)
        stats = thread.stats_offset
        (version,) = _U16.unpack_from(datagram, stats)
        layout = layout_of(version, thread.stats_size)
        if group is not None:
            layout_of(version, group.stats_size)
        elif stride >= end:
            self._form = _learn(datagram[:end], thread, layout, stride)
        self.version = version
        self.stats_offset = stats
        cpu_from = stats if group is None else group.stats_offset
        elapsed = layout.ac_etime if layout.ac_tgetime is None else layout.ac_tgetime
        (pid,) = _U32.unpack_from(datagram, thread.id_offset)
        tgid = pid if layout.ac_tgid is None else _U32.unpack_from(datagram, stats + layout.ac_tgid)[0]
        record = (
            pid,
            _U32.unpack_from(datagram, stats + EXIT_CODE_OFFSET)[0],
            datagram[stats + FLAG_OFFSET],
            _U64.unpack_from(datagram, cpu_from + layout.cpu_run_virtual_total)[0],
            datagram[stats + layout.ac_comm : stats + layout.ac_comm + COMM_UID_BYTES],
            _U64.unpack_from(datagram, stats + layout.hiwater_rss)[0],
            _U64.unpack_from(datagram, stats + elapsed)[0],
        )
        return record, tgid


def _sort(record: Record, tgid: int, decoded: Decoded) -> None:
    """Put a record where it belongs, if anywhere."""
    if record[0] == tgid:
        decoded.records.append(record)
    elif record[2] & AGROUP:
        decoded.last_threads.append((*record, tgid))


def _find_aggregate(data: bytes, start: int, end: int, id_type: int) -> _Aggregate:
    id_offset: int | None = None
    stats: tuple[int, int] | None = None
    for kind, value, stop in netlink.iter_attributes(data, start, end):
        if kind == id_type and stop - value >= _U32.size:
            id_offset = value
        elif kind == TASKSTATS_TYPE_STATS and stop - value >= _U16.size:
            stats = value, stop - value
    if id_offset is None or stats is None:
        raise MalformedMessage("TASKSTATS_TYPE_STATS", TASKSTATS_TYPE_STATS, 0)
    return _Aggregate(id_offset, *stats)


def _learn(datagram: bytes, thread: _Aggregate, layout: Layout, stride: int) -> _Form | None:
    """Remember a form; None if its parts do not stand in the usual order, or its pids not where a u32 can be."""
    stats = thread.stats_offset
    if not _ATTRIBUTES_START < thread.id_offset < stats:
        return None
    pids: tuple[slice, slice] | None = None
    if layout.ac_tgid is not None:
        offsets = thread.id_offset, stats + layout.ac_tgid
        if any(offset % _U32.size for offset in (*offsets, stride)):
            return None
        step = stride // _U32.size
        pids = slice(offsets[0] // _U32.size, None, step), slice(offsets[1] // _U32.size, None, step)
    # All that is the same in each record: not nlmsg_seq, nlmsg_pid and the id.
    columns = (
        *_columns(datagram, 0, _NLMSG_SEQ_OFFSET, stride),
        *_columns(datagram, NLMSGHDR.size, thread.id_offset, stride),
        *_columns(datagram, thread.id_offset + _U32.size, stats + _U16.size, stride),
    )
    elapsed_first = layout.ac_tgetime is None
    fields, at = "=", 0
    for offset, code in (
        (thread.id_offset, "I"),
        (stats + EXIT_CODE_OFFSET, "I"),
        (stats + FLAG_OFFSET, "B"),
        (stats + layout.cpu_run_virtual_total, "Q"),
        (stats + layout.ac_comm, f"{COMM_UID_BYTES}s"),
        *sorted((stats + offset, "Q") for offset in (layout.hiwater_rss, layout.ac_tgetime or layout.ac_etime)),
    ):
        fields += f"{offset - at}x{code}"
        at = offset + struct.calcsize(f"={code}")
    return _Form(
        size=len(datagram),
        stride=stride,
        columns=columns,
        fields=struct.Struct(f"{fields}{stride - at}x"),
        elapsed_first=elapsed_first,
        pids=pids,
    )


def _columns(datagram: bytes, start: int, end: int, stride: int) -> Iterator[_Column]:
    """Divide a part of all datagrams into columns, as wide as they can be."""
    while start < end:
        code, size = next(
            (code, size) for code, size in _WORDS if start + size <= end and not start % size and not stride % size
        )
        yield _Column(array(code, datagram[start : start + size]), code, start // size, stride // size)
        start += size
