"""The format of captures: everything that is passed in between the sockets and the numbers, as bytes.

What counts (pipeline.py, table.py) gets datagrams, clock readings and readings of /proc from outside and does the
same again when it gets the same again. So a capture is the log of what it got. `docs/capture.md` describes the
format; this module encodes and decodes it.

A file is a header and frames. A frame holds entries: normally those of one drain of the sockets. Numbers outside
of datagrams are little-endian. Reading stops at the first damage; all whole frames before it are good.
"""

import json
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, pairwise
from typing import NamedTuple

from exporter.errors import CaptureError
from exporter.events import EVENTS
from exporter.kernel.netlink import Batch
from exporter.kernel.procfs import ProcessInfo
from exporter.kernel.taskstats import COMM_UID_BYTES, Record
from exporter.processes.process import KnownProcess

MAGIC = b"\x89proccap"
FORMAT_VERSION = 1

# version, bytes of JSON that follow, their CRC-32
_HEADER = struct.Struct("<HII")
# bytes that follow, CRC-32 of the time and of them, CLOCK_MONOTONIC in ns
_FRAME = struct.Struct("<IIQ")
_TIME = struct.Struct("<Q")
_LONGEST_HEADER = 1 << 16
# A frame is one drain of two sockets of at most 1 GiB; more than this at a time nobody writes.
LONGEST_FRAME_BYTES = 1 << 28
_FASTEST = 1
_MOST_SLOTS = 4096
_LONGEST_DATAGRAM = 1 << 16

# kind, bytes that follow
_ENTRY = struct.Struct("<BI")
_BATCH = struct.Struct("<II")
_APPLIED = struct.Struct("<QI")
_READ = struct.Struct("<iQ?")
_ADOPTED = struct.Struct("<iIQQ?I")
_KNOWN = struct.Struct("<iqQ??I")
_RECORD = struct.Struct(f"<IIBQ{COMM_UID_BYTES}sQQ")
_LOST = struct.Struct("<QQ")
_PID = struct.Struct("<i")

TOOK_EVENTS = ord("E")
TOOK_RECORDS = ord("R")
TOOK_NAMES = ord("N")
APPLIED = ord("A")
READ_COMM = ord("C")
ADOPTED = ord("P")
KNOWN = ord("K")
WAITING = ord("W")
LOST_TRACK = ord("Y")
FORGOT = ord("F")
FORGOT_RECORDS = ord("G")
LOST = ord("L")
CANARY_EXPECTED = ord("X")
CANARY_FORGOTTEN = ord("Z")


class Header(NamedTuple):
    """What a reader has to know before the first frame."""

    exporter: str
    """Version of the program that wrote it."""
    kernel: str
    """Its release, as uname -r tells it."""
    mode: str
    filter: str
    events: frozenset[str]
    """As --events had them."""
    family_id: int
    """Of taskstats; 0 where there are no exit records."""
    taskstats_version: int
    own_tgid: int
    wall_ns: int
    """CLOCK_REALTIME at the beginning of this file."""
    monotonic_ns: int
    """CLOCK_MONOTONIC at the same moment."""
    continued: bool
    """It begins where another file ended: what was counted before is not in it."""
    byte_order: str = sys.byteorder


_HEADER_FIELDS = {name: list if name == "events" else kind for name, kind in Header.__annotations__.items()}


class Frame(NamedTuple):
    """Some entries."""

    time_ns: int
    """CLOCK_MONOTONIC when the last of them was written."""
    entries: bytes


def encode_header(header: Header) -> bytes:
    """Return the beginning of a file."""
    body = json.dumps(header._asdict() | {"events": sorted(header.events)}).encode("ascii")
    return MAGIC + _HEADER.pack(FORMAT_VERSION, len(body), zlib.crc32(body)) + body


def read_header(read: Callable[[int], bytes]) -> Header:
    """Read the beginning of a file.

    Args:
        read: Returns so many bytes, fewer only at the end of the file.

    Raises:
        CaptureError: It is no capture, or cannot be replayed here. Nothing else is raised for any bytes.
    """
    if read(len(MAGIC)) != MAGIC:
        raise CaptureError("this is not a capture: it does not begin with one's signature")
    head = read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise CaptureError("the capture's header is cut short")
    version, size, checksum = _HEADER.unpack(head)
    if version != FORMAT_VERSION:
        raise CaptureError(f"the capture has format {version}; this exporter reads format {FORMAT_VERSION}")
    body = read(min(size, _LONGEST_HEADER))
    if len(body) < size or zlib.crc32(body) != checksum:
        raise CaptureError("the capture's header is damaged")
    try:
        fields = json.loads(body)
        sound = {name: type(value) for name, value in fields.items()} == _HEADER_FIELDS
    except (ValueError, AttributeError):
        sound = False
    if not sound or not set(EVENTS).issuperset(map(str, fields["events"])) or not fields["events"]:
        raise CaptureError("the capture's header does not say what it should")
    header = Header(**fields | {"events": frozenset(fields["events"])})
    if header.byte_order != sys.byteorder:
        raise CaptureError(f"the capture is of a {header.byte_order}-endian machine, this one is not")
    return header


def encode_frame(frame: Frame) -> bytes:
    """Return a frame's bytes."""
    body = zlib.compress(frame.entries, _FASTEST)
    return _FRAME.pack(len(body), zlib.crc32(body, zlib.crc32(_TIME.pack(frame.time_ns))), frame.time_ns) + body


def iter_frames(read: Callable[[int], bytes]) -> Iterator[Frame]:
    """Read the frames behind a header.

    Args:
        read: As for read_header.

    Raises:
        CaptureError: What follows is damaged. Nothing else is raised for any bytes.
    """
    number = 0
    while head := read(_FRAME.size):
        number += 1
        if len(head) < _FRAME.size:
            raise CaptureError(f"the capture is cut short in frame {number}")
        size, checksum, time_ns = _FRAME.unpack(head)
        body = read(min(size, LONGEST_FRAME_BYTES))
        if len(body) < size:
            raise CaptureError(f"the capture is cut short in frame {number}")
        if zlib.crc32(body, zlib.crc32(_TIME.pack(time_ns))) != checksum:
            raise CaptureError(f"the capture is damaged in frame {number}: wrong checksum")
        unpacker = zlib.decompressobj()
        try:
            entries = unpacker.decompress(body, LONGEST_FRAME_BYTES)
        except zlib.error as error:
            raise CaptureError(f"the capture is damaged in frame {number}: {error}") from error
        if not unpacker.eof:
            raise CaptureError(f"the capture is damaged in frame {number}: it is too long")
        yield Frame(time_ns, entries)


def encode_entry(kind: int, body: bytes = b"") -> bytes:
    """Put an entry's kind and length before its body."""
    return _ENTRY.pack(kind, len(body)) + body


def iter_entries(entries: bytes) -> Iterator[tuple[int, bytes]]:
    """Take a frame's entries apart: (kind, body).

    Raises:
        CaptureError: They do not fill the frame.
    """
    at = 0
    while at < len(entries):
        if at + _ENTRY.size > len(entries):
            raise CaptureError("the capture has an entry without an end")
        kind, size = _ENTRY.unpack_from(entries, at)
        at += _ENTRY.size + size
        if at > len(entries):
            raise CaptureError("the capture has an entry without an end")
        yield kind, entries[at - size : at]


def encode_batch(batch: Batch) -> bytes:
    """Body of TOOK_EVENTS, TOOK_RECORDS and TOOK_NAMES: one batch of datagrams."""
    data, stride, lengths = batch
    count = len(lengths)
    if lengths.count(stride) == count:
        datagrams = bytes(data[: count * stride])
    else:
        datagrams = b"".join([data[i * stride : i * stride + length] for i, length in enumerate(lengths)])
    return struct.pack(f"<II{count}I", stride, count, *lengths) + datagrams


def decode_batch(body: bytes) -> Batch:
    """The reverse of encode_batch."""
    stride, count = _BATCH.unpack_from(body)
    lengths = list(struct.unpack_from(f"<{count}I", body, _BATCH.size))
    if count > _MOST_SLOTS or max(lengths, default=0) > stride or stride > _LONGEST_DATAGRAM:
        raise CaptureError("the capture has a batch that no socket makes")
    at = _BATCH.size + 4 * count
    if lengths.count(stride) == count and len(body) == at + count * stride:
        return Batch(memoryview(body)[at:], stride, lengths)
    ends = list(accumulate(lengths, initial=at))
    return Batch.of([body[start:end] for start, end in pairwise(ends)], stride)


def encode_applied(complete_until_ns: int, most_batches: int | None) -> bytes:
    """Body of APPLIED: the arguments of Pipeline.apply."""
    return _APPLIED.pack(complete_until_ns, most_batches or 0)


def decode_applied(body: bytes) -> tuple[int, int | None]:
    """The reverse of encode_applied."""
    complete_until_ns, most_batches = _APPLIED.unpack(body)
    return complete_until_ns, most_batches or None


class CommRead(NamedTuple):
    """What /proc said when it was asked for a comm."""

    tgid: int
    comm: bytes | None
    read_ns: int


def encode_comm_read(read: CommRead) -> bytes:
    """Body of READ_COMM."""
    return _READ.pack(read.tgid, read.read_ns, read.comm is not None) + (read.comm or b"")


def decode_comm_read(body: bytes) -> CommRead:
    """The reverse of encode_comm_read."""
    tgid, read_ns, found = _READ.unpack_from(body)
    return CommRead(tgid, body[_READ.size :] if found else None, read_ns)


class Adopted(NamedTuple):
    """The arguments of ProcessTable.adopt."""

    tgid: int
    info: ProcessInfo
    start_ns: int
    read_ns: int


def encode_adopted(adopted: Adopted) -> bytes:
    """Body of ADOPTED."""
    tgid, info, start_ns, read_ns = adopted
    head = _ADOPTED.pack(tgid, info.uid, start_ns, read_ns, info.zombie, len(info.threads))
    return head + encode_pids(sorted(info.threads)) + info.comm


def decode_adopted(body: bytes) -> Adopted:
    """The reverse of encode_adopted; starttime is in start_ns already."""
    tgid, uid, start_ns, read_ns, zombie, count = _ADOPTED.unpack_from(body)
    comm_at = _ADOPTED.size + count * _PID.size
    threads = frozenset(decode_pids(body[_ADOPTED.size : comm_at]))
    return Adopted(tgid, ProcessInfo(body[comm_at:], uid, None, zombie, threads), start_ns, read_ns)


def encode_known(known: KnownProcess) -> bytes:
    """Body of KNOWN."""
    uid = -1 if known.uid is None else known.uid
    head = _KNOWN.pack(
        known.tgid, uid, known.start_ns, known.leaderless, known.comm is not None, len(known.threads)
    )
    return head + encode_pids(sorted(known.threads)) + (known.comm or "").encode()


def decode_known(body: bytes) -> KnownProcess:
    """The reverse of encode_known."""
    tgid, uid, start_ns, leaderless, named, count = _KNOWN.unpack_from(body)
    comm_at = _KNOWN.size + count * _PID.size
    threads = frozenset(decode_pids(body[_KNOWN.size : comm_at]))
    comm = body[comm_at:].decode("utf-8", "backslashreplace") if named else None
    return KnownProcess(tgid, comm, None if uid < 0 else uid, start_ns, leaderless, threads)


def encode_record(record: Record) -> bytes:
    """Body of WAITING: an exit record whose EXIT is in this file, while its datagram is not."""
    return _RECORD.pack(*record)


def decode_record(body: bytes) -> Record:
    """The reverse of encode_record."""
    record: Record = _RECORD.unpack(body)
    return record


def encode_forgotten(tgids: Iterable[int], listed_ns: int) -> bytes:
    """Body of FORGOT: the arguments of ProcessTable.forget."""
    return _TIME.pack(listed_ns) + encode_pids(tgids)


def decode_forgotten(body: bytes) -> tuple[list[int], int]:
    """The reverse of encode_forgotten."""
    (listed_ns,) = _TIME.unpack_from(body)
    return decode_pids(body[_TIME.size :]), listed_ns


def encode_lost(socket: str, count: int, noticed_ns: int) -> bytes:
    """Body of LOST: the arguments of Pipeline.lose."""
    return _LOST.pack(count, noticed_ns) + socket.encode("ascii")


def decode_lost(body: bytes) -> tuple[str, int, int]:
    """The reverse of encode_lost."""
    count, noticed_ns = _LOST.unpack_from(body)
    socket = body[_LOST.size :].decode("ascii", "replace")
    if socket not in {"connector", "taskstats"}:
        raise CaptureError("the capture tells of a socket that there is not")
    return socket, count, noticed_ns


def encode_pids(pids: Iterable[int]) -> bytes:
    """Body of FORGOT_RECORDS, CANARY_EXPECTED and CANARY_FORGOTTEN."""
    return b"".join([_PID.pack(pid) for pid in pids])


def decode_pids(body: bytes) -> list[int]:
    """The reverse of encode_pids."""
    return [pid for (pid,) in _PID.iter_unpack(body)]
