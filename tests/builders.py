"""The fake kernel: encodes what the kernel sends, byte for byte.

Layouts are those of include/uapi/linux/{netlink,connector,cn_proc,taskstats}.h as observed on Linux 6.18, written
down here a second time and not taken from exporter/kernel, so that a wrong offset there cannot agree with itself.
Words are the kernel's: pid is a thread, tgid a process.
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple

from exporter.kernel.netlink import Batch

CONNECTOR_STRIDE = 76
TASKSTATS_STRIDE = 2560
FAMILY_ID = 31
AGROUP = 0x20

# -- netlink -------------------------------------------------------------------------------------------------


def nlmsg(
    message_type: int, payload: bytes, *, flags: int = 0, seq: int = 0, nlmsg_len: int | None = None
) -> bytes:
    """Put a struct nlmsghdr before a payload."""
    length = 16 + len(payload) if nlmsg_len is None else nlmsg_len
    return struct.pack("=IHHII", length, message_type, flags, seq, 0) + payload


def nlattr(attribute_type: int, value: bytes, *, nla_len: int | None = None) -> bytes:
    """Build a struct nlattr with its value, padded to 4 bytes."""
    length = 4 + len(value) if nla_len is None else nla_len
    return struct.pack("=HH", length, attribute_type) + value + bytes(-len(value) % 4)


def nlmsg_error(error: int, *, seq: int = 0) -> bytes:
    """Build an NLMSG_ERROR with the request's header behind it; the kernel's errno is negative, 0 acknowledges."""
    return nlmsg(2, struct.pack("=i", -error) + struct.pack("=IHHII", 36, FAMILY_ID, 5, seq, 0), seq=seq)


def batch(datagrams: Iterable[bytes], stride: int = CONNECTOR_STRIDE) -> Batch:
    """Lay datagrams out as a socket with this stride would."""
    return Batch.of(list(datagrams), stride)


# -- the process connector -----------------------------------------------------------------------------------


def connector_datagram(
    what: int,
    data: bytes,
    *,
    timestamp_ns: int = 1_000_000_000,
    cpu: int = 0,
    seq: int = 0,
    ack: int = 0,
    idx: int = 1,
    val: int = 1,
    nlmsg_len: int = 76,
    cn_len: int = 40,
) -> bytes:
    """Encode one datagram of 76 bytes: nlmsghdr, cn_msg, proc_event. The last four arguments are for lies."""
    nlmsghdr = struct.pack("=IHHII", nlmsg_len, 3, 0, seq, 0)
    cn_msg = struct.pack("=IIIIHH", idx, val, seq, ack, cn_len, 0)
    return nlmsghdr + cn_msg + struct.pack("=IIQ", what, cpu, timestamp_ns) + data.ljust(24, b"\0")


def fork(
    *,
    parent_tgid: int,
    child_tgid: int,
    parent_pid: int | None = None,
    child_pid: int | None = None,
    **header: int,
) -> bytes:
    """A fork; with a child_pid of its own, a new thread of child_tgid. `header`: see connector_datagram."""
    parent = parent_tgid if parent_pid is None else parent_pid
    child = child_tgid if child_pid is None else child_pid
    return connector_datagram(0x1, struct.pack("=iiii", parent, parent_tgid, child, child_tgid), **header)


def exec_(*, tgid: int, pid: int | None = None, **header: int) -> bytes:
    """An exec."""
    return connector_datagram(0x2, struct.pack("=ii", tgid if pid is None else pid, tgid), **header)


def exit_(
    *,
    tgid: int,
    exit_code: int = 0,
    pid: int | None = None,
    exit_signal: int | None = None,
    parent_pid: int = 0,
    parent_tgid: int = 0,
    **header: int,
) -> bytes:
    """The end of a thread. exit_code is the wait status; exit_signal is SIGCHLD for a leader, else -1."""
    thread = tgid if pid is None else pid
    if exit_signal is None:
        exit_signal = 17 if thread == tgid else 0xFFFFFFFF
    data = struct.pack("=iiIIii", thread, tgid, exit_code, exit_signal, parent_pid, parent_tgid)
    return connector_datagram(0x80000000, data, **header)


def uid(*, tgid: int, ruid: int, euid: int | None = None, pid: int | None = None, **header: int) -> bytes:
    """A change of uid."""
    data = struct.pack("=iiII", tgid if pid is None else pid, tgid, ruid, ruid if euid is None else euid)
    return connector_datagram(0x4, data, **header)


def gid(*, tgid: int, rgid: int, egid: int | None = None, pid: int | None = None, **header: int) -> bytes:
    """A change of gid."""
    data = struct.pack("=iiII", tgid if pid is None else pid, tgid, rgid, rgid if egid is None else egid)
    return connector_datagram(0x40, data, **header)


def sid(*, tgid: int, pid: int | None = None, **header: int) -> bytes:
    """A new session."""
    return connector_datagram(0x80, struct.pack("=ii", tgid if pid is None else pid, tgid), **header)


def ptrace(
    *, tgid: int, tracer_tgid: int, pid: int | None = None, tracer_pid: int | None = None, **header: int
) -> bytes:
    """A process begins to be traced; tracer_tgid 0: it is let go."""
    tracer = tracer_tgid if tracer_pid is None else tracer_pid
    data = struct.pack("=iiii", tgid if pid is None else pid, tgid, tracer, tracer_tgid)
    return connector_datagram(0x100, data, **header)


def comm(*, tgid: int, comm: bytes, pid: int | None = None, **header: int) -> bytes:
    """A thread renames itself."""
    data = struct.pack("=ii16s", tgid if pid is None else pid, tgid, comm[:15])
    return connector_datagram(0x200, data, **header)


def coredump(
    *, tgid: int, pid: int | None = None, parent_pid: int = 0, parent_tgid: int = 0, **header: int
) -> bytes:
    """A process dies of a signal that dumps core."""
    data = struct.pack("=iiii", tgid if pid is None else pid, tgid, parent_pid, parent_tgid)
    return connector_datagram(0x40000000, data, **header)


def ack(*, ack: int, err: int = 0, **header: int) -> bytes:
    """The answer to a request; `ack` is the request's plus 1, err a positive errno."""
    return connector_datagram(0x0, struct.pack("=I", err), ack=ack, **header)


# -- taskstats -----------------------------------------------------------------------------------------------

_NULL = 6
_SIZE_OF_VERSION = {8: 328, 9: 344, 10: 352, 11: 368, 12: 400, 13: 416, 14: 432, 15: 560, 16: 560}

# Offsets of versions 8 to 14 and from 16 on; what a version's size leaves out, it has not.
_OFFSETS = {
    "version": (0, "H"),
    "ac_exitcode": (4, "I"),
    "ac_flag": (8, "B"),
    "ac_nice": (9, "b"),
    "cpu_count": (16, "Q"),
    "cpu_delay_total": (24, "Q"),
    "blkio_count": (32, "Q"),
    "blkio_delay_total": (40, "Q"),
    "swapin_count": (48, "Q"),
    "swapin_delay_total": (56, "Q"),
    "cpu_run_real_total": (64, "Q"),
    "cpu_run_virtual_total": (72, "Q"),
    "ac_comm": (80, "32s"),
    "ac_sched": (112, "B"),
    "ac_uid": (120, "I"),
    "ac_gid": (124, "I"),
    "ac_pid": (128, "I"),
    "ac_ppid": (132, "I"),
    "ac_btime": (136, "I"),
    "ac_etime": (144, "Q"),
    "ac_utime": (152, "Q"),
    "ac_stime": (160, "Q"),
    "ac_minflt": (168, "Q"),
    "ac_majflt": (176, "Q"),
    "coremem": (184, "Q"),
    "virtmem": (192, "Q"),
    "hiwater_rss": (200, "Q"),
    "hiwater_vm": (208, "Q"),
    "read_char": (216, "Q"),
    "write_char": (224, "Q"),
    "read_syscalls": (232, "Q"),
    "write_syscalls": (240, "Q"),
    "read_bytes": (248, "Q"),
    "write_bytes": (256, "Q"),
    "cancelled_write_bytes": (264, "Q"),
    "nvcsw": (272, "Q"),
    "nivcsw": (280, "Q"),
    "ac_utimescaled": (288, "Q"),
    "ac_stimescaled": (296, "Q"),
    "cpu_scaled_run_real_total": (304, "Q"),
    "freepages_count": (312, "Q"),
    "freepages_delay_total": (320, "Q"),
    "thrashing_count": (328, "Q"),
    "thrashing_delay_total": (336, "Q"),
    "ac_btime64": (344, "Q"),
    "compact_count": (352, "Q"),
    "compact_delay_total": (360, "Q"),
    "ac_tgid": (368, "I"),
    "ac_tgetime": (376, "Q"),
    "ac_exe_dev": (384, "Q"),
    "ac_exe_inode": (392, "Q"),
    "wpcopy_count": (400, "Q"),
    "wpcopy_delay_total": (408, "Q"),
    "irq_count": (416, "Q"),
    "irq_delay_total": (424, "Q"),
}

# Version 15 put each delay's maximum and minimum (16 bytes) behind its total: what follows moved on.
_MOVED_IN_15 = (
    ("blkio_count", 16),
    ("swapin_count", 32),
    ("cpu_run_real_total", 48),
    ("thrashing_count", 64),
    ("ac_btime64", 80),
    ("ac_tgid", 96),
    ("irq_count", 112),
)


def taskstats_offset(field: str, version: int) -> int:
    """Where a field of struct taskstats begins."""
    offset, _ = _OFFSETS[field]
    if version != 15:
        return offset
    return offset + max((by for first, by in _MOVED_IN_15 if offset >= _OFFSETS[first][0]), default=0)


def taskstats_size(version: int) -> int:
    """sizeof(struct taskstats) in one version; of versions that do not exist, that of the nearest."""
    return _SIZE_OF_VERSION[min(max(version, 8), 16)]


def taskstats_struct(values: dict[str, int | bytes], *, version: int, size: int | None = None) -> bytes:
    """Encode a struct taskstats, cut or filled up to a size if one is given.

    Fields that are not in `values` are 0.
    """
    full = taskstats_size(version)
    data = bytearray(1024)
    for field, value in {"version": version, **values}.items():
        struct.pack_into(f"={_OFFSETS[field][1]}", data, taskstats_offset(field, version), value)
    # A kernel does not write what its version does not have.
    return bytes(data[:full]).ljust(size or 0, b"\0")[:size]


class TgidStats(NamedTuple):
    """AGGR_TGID: sums over a process, in the datagram of its last thread."""

    tgid: int
    cpu_ns: int


def taskstats_datagram(
    *,
    pid: int,
    comm: bytes = b"true",
    uid: int = 0,
    exit_code: int = 0,
    ac_flag: int = AGROUP,
    cpu_ns: int = 1_000_000,
    max_rss_kib: int = 2048,
    elapsed_us: int = 1500,
    version: int = 16,
    size: int | None = None,
    tgid_stats: TgidStats | None = None,
    family_id: int = FAMILY_ID,
    null_pad: bool = False,
    seq: int = 0,
    cmd: int = 2,
    ac_tgid: int | None = None,
) -> bytes:
    """Encode the record of one exiting thread: 596 bytes in version 16, 1172 with AGGR_TGID.

    Args:
        pid: The thread's.
        elapsed_us: ac_tgetime, and in versions that have none (before 12), ac_etime.
        size: Length of the struct instead of the version's own.
        null_pad: Put TASKSTATS_TYPE_NULL before each struct, as 64-bit machines do that want it aligned.
    """
    # Fields that the exporter does not read hold numbers that are no other field's: a wrong offset shows.
    values: dict[str, int | bytes] = {
        field: 0xD0_0000_0000 + offset
        for field, (offset, code) in _OFFSETS.items()
        if code == "Q" and offset < taskstats_size(version)
    }
    values |= {
        "ac_exitcode": exit_code,
        "ac_flag": ac_flag,
        "ac_nice": -5,
        "cpu_run_virtual_total": cpu_ns,
        "ac_comm": comm,
        "ac_uid": uid,
        "ac_gid": 0xD0D0,
        "ac_pid": pid,
        "ac_ppid": 0xD1D1,
        "ac_btime": 0xD2D2,
        "hiwater_rss": max_rss_kib,
        "ac_tgetime" if version >= 12 else "ac_etime": elapsed_us,
    }
    if version >= 12:
        own = pid if tgid_stats is None else tgid_stats.tgid
        values["ac_tgid"] = own if ac_tgid is None else ac_tgid
    attributes = _aggregate(4, 1, pid, taskstats_struct(values, version=version, size=size), null_pad=null_pad)
    if tgid_stats is not None:
        sums: dict[str, int | bytes] = {
            "cpu_count": 0xE1,
            "cpu_delay_total": 0xE2,
            "cpu_run_real_total": 0xE3,
            "cpu_run_virtual_total": tgid_stats.cpu_ns,
            "ac_etime": 0xE4,
            "ac_utime": 0xE5,
            "ac_stime": 0xE6,
            "nvcsw": 0xE7,
            "nivcsw": 0xE8,
        }
        body = taskstats_struct(sums, version=version, size=size)
        attributes += _aggregate(5, 2, tgid_stats.tgid, body, null_pad=null_pad)
    return nlmsg(family_id, struct.pack("=BBH", cmd, 1, 0) + attributes, seq=seq)


def _aggregate(kind: int, id_kind: int, task_id: int, stats: bytes, *, null_pad: bool) -> bytes:
    padding = nlattr(_NULL, b"") if null_pad else b""
    return nlattr(kind, nlattr(id_kind, struct.pack("=I", task_id)) + padding + nlattr(3, stats))


def family_reply(family_id: int = FAMILY_ID, *, seq: int = 0) -> bytes:
    """The answer to CTRL_CMD_GETFAMILY, with the attributes that the kernel puts in."""
    attributes = (
        nlattr(2, b"TASKSTATS\0")
        + nlattr(1, struct.pack("=H", family_id))
        + nlattr(3, struct.pack("=I", 1))
        + nlattr(4, struct.pack("=I", 0))
        + nlattr(5, struct.pack("=I", 4))
    )
    return nlmsg(0x10, struct.pack("=BBH", 1, 2, 0) + attributes, seq=seq)


# -- perf side-band records ---------------------------------------------------------------------------------------


def perf_record(kind: int, body: bytes, *, misc: int = 0) -> bytes:
    """A record: struct perf_event_header and its body."""
    return struct.pack("=IHH", kind, misc, 8 + len(body)) + body


def perf_comm(*, time_ns: int, tgid: int, comm: bytes, pid: int | None = None, is_exec: bool = True) -> bytes:
    """PERF_RECORD_COMM of an exec, or of a rename."""
    padded = (comm + b"\0").ljust((len(comm) // 8 + 1) * 8, b"\0")
    body = struct.pack("=II", tgid, tgid if pid is None else pid) + padded + struct.pack("=Q", time_ns)
    return perf_record(3, body, misc=0x2000 if is_exec else 0)


def perf_task(
    kind: int, *, time_ns: int, tgid: int, forker_tgid: int, pid: int | None = None, forker_pid: int | None = None
) -> bytes:
    """PERF_RECORD_FORK (7) or PERF_RECORD_EXIT (4)."""
    ids = (tgid, forker_tgid, tgid if pid is None else pid, forker_tgid if forker_pid is None else forker_pid)
    return perf_record(kind, struct.pack("=IIIIQQ", *ids, time_ns, time_ns))


def perf_fork(
    *, time_ns: int, tgid: int, forker_tgid: int, pid: int | None = None, forker_pid: int | None = None
) -> bytes:
    """PERF_RECORD_FORK of a process, or with a pid of a thread."""
    return perf_task(7, time_ns=time_ns, tgid=tgid, forker_tgid=forker_tgid, pid=pid, forker_pid=forker_pid)


def perf_exit(*, time_ns: int, tgid: int, pid: int | None = None) -> bytes:
    """PERF_RECORD_EXIT."""
    return perf_task(4, time_ns=time_ns, tgid=tgid, forker_tgid=1, pid=pid)


def perf_lost(*, lost: int, time_ns: int = 1) -> bytes:
    """PERF_RECORD_LOST."""
    return perf_record(2, struct.pack("=QQQ", 7, lost, time_ns))
