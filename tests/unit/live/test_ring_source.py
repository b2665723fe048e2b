"""The rings of side-band records as the drain sees them."""

import logging
from typing import cast

import builders
import pytest
from live_rig import FakeSocket

from exporter.errors import MalformedMessage
from exporter.events import DEFAULT_EVENTS
from exporter.kernel.connector_socket import Connector
from exporter.kernel.perf_rings import PerfRings, RingsState
from exporter.kernel.recvmmsg import Meminfo
from exporter.live.losses import Losses
from exporter.live.open_sources import Sources
from exporter.live.order import drain_order
from exporter.live.ring_source import RingSource
from exporter.live.sources import Taken
from exporter.plan import make_plan
from exporter.processes.pipeline import Pipeline
from exporter.processes.table import ProcessTable
from exporter.tallies.tallies import Tallies

SECOND_NS = 1_000_000_000
EXEC = builders.perf_comm(time_ns=5, tgid=400, comm=b"make")
FORK = builders.perf_fork(time_ns=4, tgid=400, forker_tgid=100)


class FakeRings:
    """Stands for PerfRings: hands out what was put in."""

    def __init__(self) -> None:
        self.copies: list[bytes] = []
        self.cpus = frozenset({0, 1})
        self.used_bytes = 0
        self.uncovered: frozenset[int] = frozenset()
        self.covers = 0

    def read(self) -> list[bytes]:
        copies, self.copies = self.copies, []
        return copies

    def state(self) -> RingsState:
        return RingsState(self.used_bytes, 4 << 20)

    def cover(self) -> frozenset[int]:
        self.covers += 1
        return self.uncovered


class Bench:
    """A source, and all around it."""

    def __init__(self) -> None:
        self.now_ns = SECOND_NS
        self.complaints: list[tuple[str, MalformedMessage]] = []
        table = ProcessTable(
            Tallies(), lambda tgid: None, lambda: self.now_ns, records_end_processes=True, sideband=True
        )
        self.pipeline = Pipeline(table, None, lambda *complaint: self.complaints.append(complaint))
        self.rings = FakeRings()
        self.source = RingSource(cast("PerfRings", self.rings), self.pipeline, lambda: self.now_ns)

    def look_after(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND_NS)
        self.source.look()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_read_takes_all_that_waits_and_leaves_nothing(bench: Bench) -> None:
    bench.rings.copies = [FORK + EXEC, EXEC]
    assert bench.source.read() == Taken(2, False)
    assert bench.pipeline.table.sideband.records == 3
    assert bench.source.read() == Taken(0, False)
    assert bench.source.most_waiting() == 0


def test_a_ring_that_is_malformed_costs_no_other_ring(bench: Bench) -> None:
    bench.rings.copies = [EXEC[:-1], EXEC]
    bench.source.read()
    assert [socket for socket, _ in bench.complaints] == ["sideband"]
    assert bench.pipeline.malformed["sideband"] == 1
    assert bench.source.malformed == 0
    assert bench.pipeline.table.sideband.records == 1


def test_what_the_kernel_dropped_is_counted_once_and_does_not_unsettle_the_table(bench: Bench) -> None:
    losses = Losses([bench.source], bench.pipeline, lambda: bench.now_ns)
    bench.rings.copies = [EXEC + builders.perf_lost(lost=5)]
    bench.source.read()
    for _ in range(3):
        losses.count()
    assert bench.pipeline.lost["sideband"] == bench.source.lost == 5
    assert losses.unsettling() == 0


def test_fill_is_that_of_the_last_look(bench: Bench) -> None:
    assert bench.source.fill == Meminfo(0, 4 << 20, 0)
    bench.rings.used_bytes = 1 << 20
    assert bench.source.fill.used_bytes == 0
    bench.source.look()
    assert bench.source.fill == Meminfo(1 << 20, 4 << 20, 0)


def test_it_holds_as_many_events_as_records_fit_into_all_rings(bench: Bench) -> None:
    # A record has 40 bytes at most, and there are two rings.
    assert bench.source.holds_events == (4 << 20) // 40 * 2


def test_cpus_are_looked_for_every_five_seconds(bench: Bench) -> None:
    for _ in range(10):
        bench.look_after(0.4)
    assert bench.rings.covers == 0
    bench.look_after(1.1)
    assert bench.rings.covers == 1
    bench.look_after(4.9)
    assert bench.rings.covers == 1


def test_a_cpu_that_cannot_get_a_ring_is_logged_once_each_time_it_comes(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        bench.look_after(6)
        assert caplog.records == []
        bench.rings.uncovered = frozenset({3, 2})
        for _ in range(3):
            bench.look_after(6)
        assert [record.__dict__["cpus"] for record in caplog.records] == ["2,3"]
        bench.rings.uncovered = frozenset()
        bench.look_after(6)
        bench.rings.uncovered = frozenset({2})
        bench.look_after(6)
    assert [record.__dict__["cpus"] for record in caplog.records] == ["2,3", "2"]


def test_rings_are_read_after_the_connector_and_their_losses_are_looked_at(bench: Bench) -> None:
    plan = make_plan(DEFAULT_EVENTS, exact=False, records_end_processes=False)
    connector = cast("Connector", FakeSocket(2, builders.CONNECTOR_STRIDE))
    opened = Sources(plan, connector, None, None, cast("PerfRings", bench.rings))
    order = drain_order(opened, bench.pipeline, lambda: 0)
    assert order.hints == ()
    assert [source.name for source in order.counted] == ["connector", "sideband"]
    assert [source.loss_unsettles for source in order.counted] == [True, False]
    assert opened.exec_names == "sideband"
    assert opened.mode == "procfs"
