"""A listener with sockets and a /proc that are not the kernel's."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import builders
import pytest

from exporter.events import DEFAULT_EVENTS
from exporter.kernel.connector_socket import Connector
from exporter.kernel.netlink import Batch
from exporter.kernel.procfs import Procfs
from exporter.kernel.recvmmsg import Meminfo
from exporter.kernel.taskstats import RecordDecoder
from exporter.kernel.taskstats_socket import Taskstats
from exporter.live.drain import State
from exporter.live.listener import Listener
from exporter.live.open_sources import Sources
from exporter.plan import make_plan
from exporter.processes.pipeline import Pipeline
from exporter.processes.table import ProcessTable
from exporter.tallies.tallies import Tallies

SECOND_NS = 1_000_000_000

# What one step may take on: about ten milliseconds' worth.
EVENTS_PER_STEP = 16 * 256
RECORDS_PER_STEP = 16 * 256


class FakeSocket:
    """Stands for a Connector or Taskstats: hands out what was put in."""

    def __init__(self, slots: int, stride: int) -> None:
        self._slots = slots
        self._stride = stride
        self.datagrams: list[bytes] = []
        self.drops = 0
        self.malformed = 0
        self.keep: object = None
        self.flood: bytes | None = None

    def iter_batches(self) -> Iterator[Batch]:
        while self.datagrams or self.flood:
            batch, self.datagrams = self.datagrams[: self._slots], self.datagrams[self._slots :]
            if self.flood is not None:
                batch += [self.flood] * (self._slots - len(batch))
            yield builders.batch(batch, self._stride)

    def meminfo(self) -> Meminfo:
        waiting = len(self.datagrams) + (1000 if self.flood else 0)
        return Meminfo(832 * waiting, 64 << 20, self.drops)

    def resubscribe(self) -> bool:
        return True

    def fileno(self) -> int:
        """Return one that no event loop has."""
        return 1 << 30


class Rig:
    """A listener, and everything around it."""

    def __init__(self, root: Path) -> None:
        self.connector = FakeSocket(256, builders.CONNECTOR_STRIDE)
        self.taskstats = FakeSocket(256, builders.TASKSTATS_STRIDE)
        self.tallies = Tallies()
        procfs = Procfs(str(root))
        self.table = ProcessTable(self.tallies, procfs.read_comm, time.monotonic_ns, records_end_processes=True)
        decoder = RecordDecoder(builders.FAMILY_ID)
        self.pipeline = Pipeline(self.table, decoder, lambda _, error: pytest.fail(str(error)))
        # How many events each call counted, and how many bytes of them were left.
        self.applied: list[int] = []
        self.held: list[int] = []
        self.held_when_records_came: list[int] = []
        self._look_on()
        plan = make_plan(DEFAULT_EVENTS, exact=True, records_end_processes=True)
        opened = Sources(plan, cast("Connector", self.connector), cast("Taskstats", self.taskstats), None)
        self.listener = Listener(opened, self.pipeline, procfs)
        self.drain = self.listener._drain  # noqa: SLF001 - tests take its steps one at a time

    def _look_on(self) -> None:
        pipeline = self.pipeline
        apply, take_records = pipeline.apply, pipeline.take_records

        def observed_apply(complete_until_ns: int, *, most_batches: int | None = None) -> bool:
            held_bytes = pipeline.held_bytes
            is_left = apply(complete_until_ns, most_batches=most_batches)
            self.held.append(pipeline.held_bytes)
            self.applied.append((held_bytes - pipeline.held_bytes) // builders.CONNECTOR_STRIDE)
            return is_left

        def observed_take_records(batch: Batch) -> None:
            if self.drain.state is State.HOLDING or self.drain.state is State.READING_WHILE_HELD:
                self.held_when_records_came.append(pipeline.held_bytes)
            take_records(batch)

        pipeline.apply = observed_apply  # type: ignore[method-assign, assignment]  # looks on
        pipeline.take_records = observed_take_records  # type: ignore[method-assign]  # looks on

    def lives_and_dies(self, tgid: int, comm: bytes) -> None:
        now_ns = time.monotonic_ns()
        self.connector.datagrams += [
            builders.fork(parent_tgid=1, child_tgid=tgid, timestamp_ns=now_ns),
            builders.exec_(tgid=tgid, timestamp_ns=now_ns + 1),
            builders.exit_(tgid=tgid, exit_code=0x100, timestamp_ns=now_ns + 2),
        ]
        self.taskstats.datagrams.append(builders.taskstats_datagram(pid=tgid, comm=comm, exit_code=0x100))

    def exits(self) -> dict[str, int]:
        cells = self.tallies.snapshot_cells()
        return {key[0]: sum(exits.values()) for key, exits in zip(cells.keys, cells.exits, strict=True) if exits}
