"""The kinds of entries: a row for each method of `Pipeline` that a capture has calls of.

The recorder writes by these rows and the player reads by them: a new kind is one new row. Beside the calls there
is one more kind, the answers of /proc that the pipeline got while a call lasted.

Source: docs/capture.md.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from exporter.errors import CaptureError
from exporter.groups.cgroup_path import Placement
from exporter.kernel.netlink import Batch
from exporter.kernel.procfs import ProcessInfo
from exporter.kernel.taskstats import COMM_UID_BYTES, LastRecord, Record
from exporter.processes.grouping import Found
from exporter.processes.pipeline import Pipeline
from exporter.processes.places import PodContainer, PodName
from exporter.processes.process import KnownProcess

_BATCH = struct.Struct("<II")
_APPLY = struct.Struct("<QI")
_READ = struct.Struct("<iQ?")
_ADOPT = struct.Struct("<iIQQ?I")
_KNOWN = struct.Struct("<iqQ??I")
_RECORD = struct.Struct(f"<IIBQ{COMM_UID_BYTES}sQQ")
_TGID = struct.Struct("<I")
_PLACE = struct.Struct("<IiQQ??")
_LOSE = struct.Struct("<QQ")
_TIME = struct.Struct("<Q")
_PID = struct.Struct("<i")
_THREAD = struct.Struct("<ii")
_OOM_LINES = struct.Struct("<Q?")
_OOM_TOTAL = struct.Struct("<QQ")

_MOST_SLOTS = 4096
_LONGEST_DATAGRAM = 1 << 16
# Threads of one process.
_MOST_PIDS = 1 << 16
# As it is printed each of 15 bytes can be four; rules can have made it a longer name.
_LONGEST_COMM = 1024
# Of a path; what is no text in it is escaped.
_LONGEST_PLACE = 4 * 4096


class Kind(NamedTuple):
    """Calls of one method of Pipeline, as entries of a capture."""

    letter: str
    method: Callable[..., object]
    encode: Callable[..., bytes]
    """Makes an entry's body of the arguments of a call; it has the method's parameters, as a test holds."""
    decode: Callable[[bytes], Iterable[tuple[Any, ...]]]
    """Returns the arguments of each call that a body stands for; nearly always it is one call."""
    reads_proc: bool = False
    """The entry follows the call, because the answers that /proc gave during the call stand before the entry."""

    @property
    def name(self) -> str:
        """The method's name."""
        return self.method.__name__


# -- batches of datagrams -----------------------------------------------------------------------------------------


def encode_batch(batch: Batch) -> bytes:
    """Encode a batch of datagrams: their slots' length, their lengths, and the datagrams end to end."""
    data, stride, lengths = batch
    count = len(lengths)
    if lengths.count(stride) == count:
        datagrams = bytes(data[: count * stride])
    else:
        datagrams = b"".join([data[i * stride : i * stride + length] for i, length in enumerate(lengths)])
    return struct.pack(f"<II{count}I", stride, count, *lengths) + datagrams


def decode_batch(body: bytes) -> list[tuple[Batch]]:
    """The reverse of encode_batch.

    Raises:
        CaptureError: The batch is one that no socket makes.
    """
    stride, count = _BATCH.unpack_from(body)
    if count > _MOST_SLOTS or stride > _LONGEST_DATAGRAM:
        raise CaptureError("the capture has a batch that no socket makes")
    lengths = list(struct.unpack_from(f"<{count}I", body, _BATCH.size))
    if max(lengths, default=0) > stride:
        raise CaptureError("the capture has a batch that no socket makes")
    at = _BATCH.size + 4 * count
    if lengths.count(stride) == count and len(body) == at + count * stride:
        return [(Batch(memoryview(body)[at:], stride, lengths),)]
    ends = list(accumulate(lengths, initial=at))
    return [(Batch.of([body[start:end] for start, end in pairwise(ends)], stride),)]


def encode_apply(complete_until_ns: int, most_batches: int | None = None) -> bytes:
    """Encode a call of Pipeline.apply."""
    return _APPLY.pack(complete_until_ns, most_batches or 0)


def decode_apply(body: bytes) -> list[tuple[int, int | None]]:
    """The reverse of encode_apply."""
    complete_until_ns, most_batches = _APPLY.unpack(body)
    return [(complete_until_ns, most_batches or None)]


def encode_data(data: bytes) -> bytes:
    """Encode a call of Pipeline.take_sideband."""
    return data


def decode_data(body: bytes) -> list[tuple[bytes]]:
    """The reverse of encode_data."""
    return [(body,)]


# -- losses -------------------------------------------------------------------------------------------------------


def encode_lose(socket: str, count: int, noticed_ns: int) -> bytes:
    """Encode a call of Pipeline.lose."""
    return _LOSE.pack(count, noticed_ns) + socket.encode("ascii")


def decode_lose(body: bytes) -> list[tuple[str, int, int]]:
    """The reverse of encode_lose.

    Raises:
        CaptureError: No exporter has such a socket.
    """
    count, noticed_ns = _LOSE.unpack_from(body)
    socket = body[_LOSE.size :].decode("ascii", "replace")
    if socket not in {"connector", "taskstats", "sideband"}:
        raise CaptureError("the capture lost messages of a socket that no exporter has")
    return [(socket, count, noticed_ns)]


def _encode_nothing() -> bytes:
    return b""


def _decode_nothing(_: bytes) -> list[tuple[()]]:
    return [()]


def encode_forget(tgids: Sequence[int], listed_ns: int) -> bytes:
    """Encode a call of Pipeline.forget."""
    return _TIME.pack(listed_ns) + encode_pids(tgids)


def decode_forget(body: bytes) -> list[tuple[list[int], int]]:
    """The reverse of encode_forget."""
    (listed_ns,) = _TIME.unpack_from(body)
    return [(_decode_pids(body[_TIME.size :]), listed_ns)]


# -- processes ----------------------------------------------------------------------------------------------------


def encode_adopt(tgid: int, info: ProcessInfo, start_ns: int, read_ns: int) -> bytes:
    """Encode a call of Pipeline.adopt. Its starttime is in start_ns already."""
    head = _ADOPT.pack(tgid, info.uid, start_ns, read_ns, info.zombie, len(info.threads))
    return head + encode_pids(sorted(info.threads)) + info.comm


def decode_adopt(body: bytes) -> list[tuple[int, ProcessInfo, int, int]]:
    """The reverse of encode_adopt."""
    tgid, uid, start_ns, read_ns, zombie, count = _ADOPT.unpack_from(body)
    comm_at = _ADOPT.size + count * _PID.size
    threads = frozenset(_decode_pids(body[_ADOPT.size : comm_at]))
    comm = _comm(body[comm_at:])
    return [(tgid, ProcessInfo(comm, uid, None, zombie, threads), start_ns, read_ns)]


def encode_known(known: KnownProcess) -> bytes:
    """Encode a call of Pipeline.recall."""
    uid = -1 if known.uid is None else known.uid
    head = _KNOWN.pack(
        known.tgid, uid, known.start_ns, known.leaderless, known.comm is not None, len(known.threads)
    )
    return head + encode_pids(sorted(known.threads)) + (known.comm or "").encode()


def decode_known(body: bytes) -> list[tuple[KnownProcess]]:
    """The reverse of encode_known."""
    tgid, uid, start_ns, leaderless, named, count = _KNOWN.unpack_from(body)
    comm_at = _KNOWN.size + count * _PID.size
    threads = frozenset(_decode_pids(body[_KNOWN.size : comm_at]))
    comm = _comm(body[comm_at:]).decode("utf-8", "backslashreplace") if named else None
    return [(KnownProcess(tgid, comm, None if uid < 0 else uid, start_ns, leaderless, threads),)]


def encode_record(record: Record | LastRecord, leads: bool = True) -> bytes:
    """Encode a call of Pipeline.recall_record: an exit record whose datagram is in an earlier file."""
    tgid = record[7] if len(record) == 8 else record[0]
    return _RECORD.pack(*record[:7]) + (_TGID.pack(tgid) if leads else b"")


def decode_record(body: bytes) -> list[tuple[Record | LastRecord, bool]]:
    """The reverse of encode_record."""
    record: Record = _RECORD.unpack(body[: _RECORD.size])
    if len(body) == _RECORD.size:
        return [(record, False)]
    (tgid,) = _TGID.unpack(body[_RECORD.size :])
    return [(record if tgid == record[0] else (*record, tgid), True)]


# -- groups -------------------------------------------------------------------------------------------------------


def encode_place(number: int, tgid: int, found: Found) -> bytes:
    """Encode a call of Pipeline.place. No part of a placement has a slash."""
    placement, read_ns, opened_ns, early = found
    head = _PLACE.pack(number, tgid, read_ns, opened_ns, early, placement is not None)
    return head + "/".join(placement or ()).encode()


def decode_place(body: bytes) -> list[tuple[int, int, Found]]:
    """The reverse of encode_place.

    Raises:
        CaptureError: It is no placement.
    """
    number, tgid, read_ns, opened_ns, early, is_known = _PLACE.unpack_from(body)
    placement = Placement(*_texts(body[_PLACE.size :], len(Placement._fields))) if is_known else None
    return [(number, tgid, Found(placement, read_ns, opened_ns, early))]


def encode_container(container: PodContainer, name: PodName | None) -> bytes:
    """Encode a call of Pipeline.name_container. No part of a name has a slash."""
    return "/".join((*container, *(name or ()))).encode()


def decode_container(body: bytes) -> list[tuple[PodContainer, PodName | None]]:
    """The reverse of encode_container.

    Raises:
        CaptureError: It is no container.
    """
    known = len(PodContainer._fields)
    texts = _texts(body, *(known, known + len(PodName._fields)))
    return [(PodContainer(*texts[:known]), PodName(*texts[known:]) if texts[known:] else None)]


def _texts(body: bytes, *counts: int) -> list[str]:
    texts = body[:_LONGEST_PLACE].decode("utf-8", "backslashreplace").split("/")
    if len(texts) not in counts or len(body) > _LONGEST_PLACE:
        raise CaptureError("the capture has a place that no process has")
    return texts


# -- OOM kills ----------------------------------------------------------------------------------------------------


def encode_oom_lines(pids: Sequence[int], read_ns: int, is_whole: bool = True) -> bytes:
    """Encode a call of Pipeline.take_oom_lines."""
    return _OOM_LINES.pack(read_ns, is_whole) + encode_pids(pids)


def decode_oom_lines(body: bytes) -> list[tuple[list[int], int, bool]]:
    """The reverse of encode_oom_lines."""
    read_ns, is_whole = _OOM_LINES.unpack_from(body)
    return [(_decode_pids(body[_OOM_LINES.size :]), read_ns, is_whole)]


def encode_oom_total(total: int, read_ns: int) -> bytes:
    """Encode a call of Pipeline.take_oom_total."""
    return _OOM_TOTAL.pack(total, read_ns)


def decode_oom_total(body: bytes) -> list[tuple[int, int]]:
    """The reverse of encode_oom_total."""
    total, read_ns = _OOM_TOTAL.unpack(body)
    return [(total, read_ns)]


def encode_time(ended_ns: int) -> bytes:
    """Encode a call of a method that takes one time."""
    return _TIME.pack(ended_ns)


def decode_time(body: bytes) -> list[tuple[int]]:
    """The reverse of encode_time."""
    return [_TIME.unpack(body)]


# -- pids ---------------------------------------------------------------------------------------------------------


def encode_pids(pids: Iterable[int]) -> bytes:
    """Encode calls of a method that takes one pid, for each of these."""
    return b"".join([_PID.pack(pid) for pid in pids])


def _decode_pids(body: bytes) -> list[int]:
    if len(body) > _PID.size * _MOST_PIDS:
        raise CaptureError("the capture has more pids in one entry than an exporter writes")
    return [pid for (pid,) in _PID.iter_unpack(body)]


def encode_pid(pid: int) -> bytes:
    """Encode a call of a method that takes one pid."""
    return _PID.pack(pid)


def encode_tgid(tgid: int) -> bytes:
    """Encode a call of a method that takes one tgid."""
    return _PID.pack(tgid)


def decode_each_pid(body: bytes) -> Iterator[tuple[int]]:
    """The reverse of encode_pid, encode_tgid and encode_pids."""
    return _PID.iter_unpack(body)


def encode_thread(tgid: int, pid: int) -> bytes:
    """Encode a call of a method that takes a thread."""
    return _THREAD.pack(tgid, pid)


def decode_thread(body: bytes) -> list[tuple[int, int]]:
    """The reverse of encode_thread."""
    tgid, pid = _THREAD.unpack(body)
    return [(tgid, pid)]


# -- the rows -----------------------------------------------------------------------------------------------------

APPLY = Kind("A", Pipeline.apply, encode_apply, decode_apply, reads_proc=True)
TAKE_SIDEBAND = Kind("S", Pipeline.take_sideband, encode_data, decode_data)
LOSE = Kind("L", Pipeline.lose, encode_lose, decode_lose)
RECALL = Kind("K", Pipeline.recall, encode_known, decode_known)
RECALL_RECORD = Kind("W", Pipeline.recall_record, encode_record, decode_record)
EXPECT_CANARY = Kind("X", Pipeline.expect_canary, encode_tgid, decode_each_pid)
PLACE = Kind("B", Pipeline.place, encode_place, decode_place)
NAME_CONTAINER = Kind("D", Pipeline.name_container, encode_container, decode_container)
TAKE_OOM_LINES = Kind("O", Pipeline.take_oom_lines, encode_oom_lines, decode_oom_lines)
TAKE_OOM_TOTAL = Kind("V", Pipeline.take_oom_total, encode_oom_total, decode_oom_total)

KINDS = (
    Kind("E", Pipeline.take_events, encode_batch, decode_batch),
    Kind("R", Pipeline.take_records, encode_batch, decode_batch),
    TAKE_SIDEBAND,
    Kind("N", Pipeline.take_names, encode_batch, decode_batch, reads_proc=True),
    APPLY,
    Kind("P", Pipeline.adopt, encode_adopt, decode_adopt),
    RECALL,
    RECALL_RECORD,
    LOSE,
    Kind("Y", Pipeline.lose_track, _encode_nothing, _decode_nothing),
    Kind("F", Pipeline.forget, encode_forget, decode_forget),
    Kind("G", Pipeline.forget_oldest_record, encode_pid, decode_each_pid),
    Kind("I", Pipeline.forget_last_thread, encode_thread, decode_thread),
    EXPECT_CANARY,
    PLACE,
    NAME_CONTAINER,
    TAKE_OOM_LINES,
    TAKE_OOM_TOTAL,
    Kind("U", Pipeline.oom_victims_ended, encode_time, decode_time),
    Kind("Z", Pipeline.forget_canary, encode_tgid, decode_each_pid),
)


# -- what /proc answered ------------------------------------------------------------------------------------------

READ_COMM = "C"
"""The one kind that is no call: it stands before the call that asked."""


class CommRead(NamedTuple):
    """What /proc answered when it was asked for a comm."""

    tgid: int
    comm: bytes | None
    """None: the process was gone."""
    read_ns: int


def encode_comm_read(read: CommRead) -> bytes:
    """Encode the body of READ_COMM."""
    return _READ.pack(read.tgid, read.read_ns, read.comm is not None) + (read.comm or b"")


def decode_comm_read(body: bytes) -> CommRead:
    """The reverse of encode_comm_read."""
    tgid, read_ns, found = _READ.unpack_from(body)
    return CommRead(tgid, _comm(body[_READ.size :]) if found else None, read_ns)


def _comm(comm: bytes) -> bytes:
    if len(comm) > _LONGEST_COMM:
        raise CaptureError("the capture has a comm that is longer than any")
    return comm
