"""Records `storm.capture`: what the sockets of a real host delivered in a storm, drain by drain.

`PYTHONPATH=tests python tests/work/record_storm.py PROGRAM`, as root; PROGRAM is one that exits at once. 1,500
processes are spawned, 64 at a time, and the sockets drained every 100 ms. Comms are not read from /proc.
"""

import os
import sys
import time
from pathlib import Path

from replayed import MemoryTape

from exporter.capture.format import encode_frame, encode_header
from exporter.capture.recorder import Recorder
from exporter.events import DEFAULT_EVENTS
from exporter.feeds import header_of
from exporter.kernel.netlink_socket import RECEIVE_BUFFER_BYTES
from exporter.kernel.procfs import ProcessInfo
from exporter.kernel.taskstats import RecordDecoder
from exporter.live.open_sources import Sources, open_sources
from exporter.processes.pipeline import Pipeline
from exporter.processes.table import ProcessTable
from exporter.tallies.tallies import Tallies

STORM = Path(__file__).with_name("storm.capture")
_PROCESSES = 1500
_AT_A_TIME = 64


def _drain(sources: Sources, pipeline: Pipeline) -> None:
    assert sources.taskstats is not None
    began_ns = time.monotonic_ns()
    for batch in sources.connector.iter_batches():
        pipeline.take_events(batch)
    for batch in sources.taskstats.iter_batches():
        pipeline.take_records(batch)
    pipeline.apply(began_ns)


def _storm(sources: Sources, pipeline: Pipeline, program: str) -> None:
    running = 0
    next_drain = time.monotonic() + 0.1
    for left in range(_PROCESSES + _AT_A_TIME, 0, -1):
        if running == _AT_A_TIME or left <= _AT_A_TIME:
            os.wait()
            running -= 1
        if left > _AT_A_TIME:
            os.posix_spawn(program, [program], {})
            running += 1
        if time.monotonic() >= next_drain or left == 1:
            _drain(sources, pipeline)
            next_drain = time.monotonic() + 0.1


def main() -> None:
    tape = MemoryTape()
    with open_sources("taskstats", DEFAULT_EVENTS, "auto", RECEIVE_BUFFER_BYTES) as sources:
        # This program is one of those that are counted, not the exporter that counts them.
        header = header_of(sources)._replace(own_tgid=0)
        table = ProcessTable(Tallies(), lambda _: None, time.monotonic_ns, records_end_processes=True)
        pipeline = Pipeline(table, RecordDecoder(header.family_id), lambda socket, error: None)
        Recorder(tape, lambda _: None, time.monotonic_ns).record(pipeline)
        pipeline.adopt(os.getpid(), ProcessInfo(b"spawner", 0, None, zombie=False, threads=frozenset()), 1, 0)
        pipeline.apply(1)
        _storm(sources, pipeline, sys.argv[1])
    STORM.write_bytes(encode_header(header) + b"".join(map(encode_frame, tape.files[0])))


if __name__ == "__main__":
    main()
