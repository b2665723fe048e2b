"""Sockets as the drain sees them."""

from typing import cast

import builders
import pytest
from live_rig import FakeSocket

from exporter.errors import MalformedMessage
from exporter.events import DEFAULT_EVENTS
from exporter.kernel.bpf import EventFilter
from exporter.kernel.connector_socket import Connector
from exporter.kernel.netlink import Batch
from exporter.kernel.taskstats import RecordDecoder
from exporter.kernel.taskstats_socket import Taskstats
from exporter.live.open_sources import Sources
from exporter.live.order import drain_order
from exporter.live.sources import SocketSource, Taken
from exporter.plan import make_plan
from exporter.processes.name_hints import EXECS, FORKS_AND_EXECS, NameHints
from exporter.processes.pipeline import Pipeline
from exporter.processes.table import ProcessTable
from exporter.tallies.tallies import Tallies

ONE = builders.exec_(tgid=400, timestamp_ns=7)


def fake_connector() -> FakeSocket:
    return FakeSocket(2, builders.CONNECTOR_STRIDE)


def make_source(socket: FakeSocket, taken: list[int]) -> SocketSource:
    def take(batch: Batch) -> None:
        taken.append(len(batch.lengths))

    return SocketSource("connector", cast("Connector", socket), take, batches_per_step=3)


@pytest.mark.parametrize(
    ("waiting", "batches", "is_full"),
    [(0, [], False), (1, [1], False), (5, [2, 2, 1], True), (7, [2, 2, 2], True)],
)
def test_a_read_takes_no_more_batches_than_a_step_may(waiting: int, batches: list[int], is_full: bool) -> None:
    socket, taken = fake_connector(), list[int]()
    socket.datagrams = [ONE] * waiting
    assert make_source(socket, taken).read() == Taken(sum(batches), is_full)
    assert taken == batches
    assert len(socket.datagrams) == waiting - sum(batches)


def test_losses_go_on_where_the_kernels_count_of_32_bits_begins_anew() -> None:
    socket = fake_connector()
    source = make_source(socket, [])
    lost = []
    for drops in (0, 0xFFFFFFF0, 0xFFFFFFF0, 5, 5):
        socket.drops = drops
        source.look()
        lost.append(source.lost)
    assert lost == [0, 0xFFFFFFF0, 0xFFFFFFF0, (1 << 32) + 5, (1 << 32) + 5]


def test_fill_is_that_of_the_last_look_and_what_can_wait_that_of_now() -> None:
    socket = fake_connector()
    source = make_source(socket, [])
    socket.datagrams = [ONE] * 100
    assert source.fill.used_bytes == 0
    # More than there are: no message takes as little room as is reckoned with.
    assert source.most_waiting() >= 100
    source.look()
    assert source.fill.used_bytes == 100 * 832


class NamesSocket(FakeSocket):
    """The second connector socket."""

    def __init__(self) -> None:
        super().__init__(256, builders.CONNECTOR_STRIDE)
        self.wanted: list[EventFilter] = []

    def narrow(self, wanted: EventFilter) -> None:
        self.wanted.append(wanted)


def make_pipeline(hints: NameHints | None, decoder: RecordDecoder | None) -> Pipeline:
    def complain(socket: str, error: MalformedMessage) -> None:
        pytest.fail(f"{socket}: {error}")

    table = ProcessTable(Tallies(), lambda _: None, lambda: 0, records_end_processes=decoder is not None)
    return Pipeline(table, decoder, complain, hints)


def test_with_exit_records_the_connector_is_drained_first_and_no_names_are_hinted_at() -> None:
    plan = make_plan(DEFAULT_EVENTS, exact=True, records_end_processes=True)
    connector, taskstats = fake_connector(), FakeSocket(2, builders.TASKSTATS_STRIDE)
    opened = Sources(plan, cast("Connector", connector), cast("Taskstats", taskstats), None)
    pipeline = make_pipeline(None, RecordDecoder(builders.FAMILY_ID))
    order = drain_order(opened, pipeline, lambda: 0)
    assert [source.name for source in order.counted] == ["connector", "taskstats"]
    assert order.hints == ()
    connector.datagrams = [ONE]
    taskstats.datagrams = [builders.taskstats_datagram(pid=400)]
    for source in order.counted:
        source.read()
    assert pipeline.held_bytes == builders.CONNECTOR_STRIDE
    assert [record[0] for record in pipeline.waiting_records()] == [400]


def test_without_them_names_are_read_first_and_the_kernel_is_asked_for_what_is_worth_it() -> None:
    plan = make_plan(DEFAULT_EVENTS, exact=False, records_end_processes=False)
    names, looks = NamesSocket(), list[int]()
    hints = NameHints(looks.append, lambda: 0)
    opened = Sources(plan, cast("Connector", fake_connector()), None, cast("Connector", names))
    order = drain_order(opened, make_pipeline(hints, None), lambda: 0)
    assert [source.name for source in order.counted] == ["connector"]
    [source] = order.hints
    names.datagrams = [ONE] * 1000
    source.read()
    assert looks == [400] * 1000
    # Forks without execs are not worth a wake-up.
    hints.judge(1000, 0)
    source.narrow()
    assert names.wanted == [FORKS_AND_EXECS, EXECS]


def test_names_are_read_a_step_at_a_time_though_the_socket_is_never_empty() -> None:
    plan = make_plan(DEFAULT_EVENTS, exact=False, records_end_processes=False)
    names, looks = NamesSocket(), list[int]()
    hints = NameHints(looks.append, lambda: 0)
    opened = Sources(plan, cast("Connector", fake_connector()), None, cast("Connector", names))
    [source] = drain_order(opened, make_pipeline(hints, None), lambda: 0).hints
    names.flood = ONE
    source.read()
    assert looks == [400] * 4 * 256
    source.read()
    assert looks == [400] * 8 * 256
