"""An attack on the number of series, in a process of its own: prints what it cost and what came of it, as JSON.

    python attack.py PROCESSES SERIES

Every process has a comm that no other has, every eighth a uid that no other has, and they end in every way there
is. What the kernel would send of them goes through the real pipeline, a thousand processes a drain.
"""

import json
import os
import struct
import sys
import time
from collections import Counter
from dataclasses import asdict

import builders
from bench.machine import peak_rss_bytes

from exporter.events import EVENTS
from exporter.exposition.budget import budget
from exporter.exposition.metrics import program_metrics
from exporter.exposition.render import render
from exporter.exposition.snapshot import TallySnapshot
from exporter.kernel.netlink import Batch
from exporter.kernel.procfs import ProcessInfo
from exporter.kernel.taskstats import RecordDecoder
from exporter.processes.pipeline import Pipeline
from exporter.processes.table import ProcessTable
from exporter.tallies.labels import OTHER
from exporter.tallies.tallies import Tallies

IN_A_DRAIN = 1000
SHELL = 10
FIRST_PID = 100
SCRAPES = 10
STATUSES = [*(code << 8 for code in range(256)), *range(1, 65)]

# Where the fields are that differ between the processes: behind nlmsghdr, cn_msg and the head of proc_event, and
# behind nlmsghdr, genlmsghdr and the attributes before the struct.
_DATA = 52
_RECORD_PID = 28
_STRUCT = 36
_FORK = builders.fork(parent_tgid=SHELL, child_tgid=0)
_UID = builders.uid(tgid=0, ruid=0)
_COMM = builders.comm(tgid=0, comm=b"")
_EXIT = builders.exit_(tgid=0)
_RECORD = builders.taskstats_datagram(pid=0).ljust(builders.TASKSTATS_STRIDE, b"\0")
_RECORD_BYTES = len(builders.taskstats_datagram(pid=0))


def comm_of(n: int) -> bytes:
    """A comm for each number, with bytes that are no text among them."""
    return b"\xff\n%d" % n if n % 3 else b'"%x' % n


def uid_of(n: int) -> int:
    return 100_000 + n if n % 8 == 0 else 1000


def events(first: int) -> Batch:
    """What the connector sends of a drain's processes."""
    data = bytearray()
    for n in range(first, first + IN_A_DRAIN):
        pid = FIRST_PID + n % IN_A_DRAIN
        at = len(data)
        data += _FORK
        struct.pack_into("=ii", data, at + _DATA + 8, pid, pid)
        at = len(data)
        data += _UID
        struct.pack_into("=iiII", data, at + _DATA, pid, pid, uid_of(n), uid_of(n))
        at = len(data)
        data += _COMM
        struct.pack_into("=ii16s", data, at + _DATA, pid, pid, comm_of(n))
        at = len(data)
        data += _EXIT
        struct.pack_into("=iiI", data, at + _DATA, pid, pid, STATUSES[n % len(STATUSES)])
    return Batch(memoryview(data), builders.CONNECTOR_STRIDE, [builders.CONNECTOR_STRIDE] * (4 * IN_A_DRAIN))


def records(first: int) -> Batch:
    """What taskstats sends of them."""
    data = bytearray()
    for n in range(first, first + IN_A_DRAIN):
        pid = FIRST_PID + n % IN_A_DRAIN
        at = len(data)
        data += _RECORD
        struct.pack_into("=I", data, at + _RECORD_PID, pid)
        for field, form, value in (
            ("ac_exitcode", "=I", STATUSES[n % len(STATUSES)]),
            ("ac_comm", "=32s", comm_of(n)),
            ("ac_uid", "=I", uid_of(n)),
            ("ac_pid", "=I", pid),
            ("ac_tgid", "=I", pid),
        ):
            struct.pack_into(form, data, at + _STRUCT + builders.taskstats_offset(field, 16), value)
    return Batch(memoryview(data), builders.TASKSTATS_STRIDE, [_RECORD_BYTES] * IN_A_DRAIN)


def attack(processes: int, limit: int) -> dict[str, object]:
    tallies = Tallies(limit)
    table = ProcessTable(tallies, lambda _: None, lambda: 0, records_end_processes=True)
    malformed: list[str] = []
    pipeline = Pipeline(
        table, RecordDecoder(builders.FAMILY_ID), lambda socket, error: malformed.append(f"{socket}: {error}")
    )
    pipeline.adopt(SHELL, ProcessInfo(b"sh", 1000, 0, zombie=False, threads=frozenset()), 1, 0)
    ended = Counter(STATUSES[n % len(STATUSES)] for n in range(processes))
    spent_ns = 0
    for first in range(0, processes, IN_A_DRAIN):
        event_batch, record_batch = events(first), records(first)
        began = time.process_time_ns()
        pipeline.take_events(event_batch)
        pipeline.take_records(record_batch)
        pipeline.apply(1)
        spent_ns += time.process_time_ns() - began

    shown = program_metrics(EVENTS, records=True, live=True)
    scrapes = []
    for _ in range(SCRAPES):
        began = time.process_time_ns()
        snapshot = TallySnapshot(tallies.snapshot_cells(), tallies.snapshot_programs(), table.live(), shown, limit)
        text = "".join(render(snapshot, openmetrics=False))
        scrapes.append((time.process_time_ns() - began) / 1e6)
    counted: Counter[int] = Counter()
    for exits in snapshot.cells.exits:
        counted.update(exits)
    return {
        "malformed": malformed,
        "events": asdict(table.events),
        "forks": sum(snapshot.cells.counters["forks"]),
        "uid_changes": sum(snapshot.cells.counters["uid_changes"]),
        "exits_are_exact": counted == ended,
        "histograms": [
            sum(sum(getattr(program, field)[:-1]) for program in snapshot.programs)
            for field in ("lifetime_ns", "cpu_ns", "max_rss_kib")
        ],
        "series": budget(snapshot).series,
        "folded": budget(snapshot).folded,
        "samples": sum(not line.startswith("#") for line in text.splitlines()),
        "others": sum(comm == OTHER for comm, _ in snapshot.cells.keys),
        "us_per_event": spent_ns / 1e3 / (4 * processes),
        "scrape_ms": min(scrapes),
        # ru_maxrss would be that of whoever started this, if he is larger.
        "peak_rss_mib": peak_rss_bytes(os.getpid()) / (1 << 20),
    }


if __name__ == "__main__":
    json.dump(attack(int(sys.argv[1]), int(sys.argv[2])), sys.stdout)
