"""Records `storm.bin.gz`: what the sockets of a real host delivered in a storm, drain by drain.

`PYTHONPATH=tests python tests/work/record_storm.py PROGRAM`, as root; PROGRAM is one that exits at once. 1,500
processes are spawned, 64 at a time, and the sockets drained every 100 ms.

The file is, in a gzip stream, a row of entries: kind (u8), length (u32 little-endian), that many bytes. C is a
datagram of the connector, T one of taskstats, D ends a drain and holds its beginning (u64, CLOCK_MONOTONIC ns).
"""

import gzip
import os
import struct
import sys
import time
from pathlib import Path

from exporter.events import DEFAULT_EVENTS
from exporter.kernel.netlink import Batch
from exporter.kernel.netlink_socket import RECEIVE_BUFFER_BYTES
from exporter.live.open_sources import open_sources

ENTRY = struct.Struct("<BI")
STORM = Path(__file__).with_name("storm.bin.gz")
_PROCESSES = 1500
_AT_A_TIME = 64


def entry(kind: str, body: bytes) -> bytes:
    return ENTRY.pack(ord(kind), len(body)) + body


def entries(kind: str, batch: Batch) -> bytes:
    return b"".join(entry(kind, batch.datagram(i)) for i in range(len(batch.lengths)))


def main() -> None:
    program = sys.argv[1]
    recorded = bytearray()
    running = 0
    with open_sources("taskstats", DEFAULT_EVENTS, "auto", RECEIVE_BUFFER_BYTES) as sources:
        assert sources.taskstats is not None
        next_drain = time.monotonic() + 0.1
        for left in range(_PROCESSES + _AT_A_TIME, 0, -1):
            if running == _AT_A_TIME or left <= _AT_A_TIME:
                os.wait()
                running -= 1
            if left > _AT_A_TIME:
                os.posix_spawn(program, [program], {})
                running += 1
            if time.monotonic() < next_drain and left > 1:
                continue
            began_ns = time.monotonic_ns()
            for batch in sources.connector.iter_batches():
                recorded += entries("C", batch)
            for batch in sources.taskstats.iter_batches():
                recorded += entries("T", batch)
            recorded += entry("D", struct.pack("<Q", began_ns))
            next_drain = time.monotonic() + 0.1
    # The time of the recording has no place in the file: recording anew should change what was recorded only.
    STORM.write_bytes(gzip.compress(bytes(recorded), mtime=0))


if __name__ == "__main__":
    main()
