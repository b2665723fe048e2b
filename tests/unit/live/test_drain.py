"""The states of a drain, step by step, without sockets, a clock or an event loop."""

from collections.abc import Callable
from typing import cast

import pytest

from exporter.kernel.recvmmsg import Meminfo
from exporter.live import drain
from exporter.live.drain import Drain, State
from exporter.live.order import DrainOrder
from exporter.live.placing import Placing
from exporter.live.sources import HintSource, Source, Taken
from exporter.processes.pipeline import Pipeline
from exporter.tallies.histograms import DRAIN_NS

MS = 1_000_000


class FakeSource:
    """Has so many messages waiting, each read as a batch of its own; `log` gets what is done."""

    def __init__(self, name: str, log: list[str], batches_per_step: int) -> None:
        self.name = name
        self.batches_per_step = batches_per_step
        self.fill = Meminfo(0, 1, 0)
        self.lost = self.malformed = 0
        self.holds_events = 1
        self.loss_unsettles = True
        self.waiting = 0
        self.is_flooded = False
        self._log = log

    def read(self) -> Taken:
        messages = self.batches_per_step if self.is_flooded else min(self.waiting, self.batches_per_step)
        self.waiting = max(0, self.waiting - messages)
        self._log.append(f"read {messages} {self.name}")
        return Taken(messages, messages == self.batches_per_step)

    def look(self) -> None:
        pass

    def most_waiting(self) -> int:
        return self.waiting


class FakeHints:
    """The second connector socket."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def read(self) -> None:
        self._log.append("read hints")

    def narrow(self) -> None:
        self._log.append("narrow")


class FakePlacing:
    """Answers where processes are."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def follow_sessions(self) -> None:
        self._log.append("follow sessions")

    def answer(self) -> None:
        self._log.append("answer")


class FakePipeline:
    """Counts as many batches as it is allowed of those that `left` says."""

    def __init__(self, log: list[str]) -> None:
        self.held_bytes = 0
        self.left = 0
        self.complete_until_ns: list[int] = []
        self.spent_ns = self.batch_ns = 0
        self.counted: list[int] = []
        self.lacks = False
        self.between: Callable[[], object] | None = None
        self.forked_ns = 0
        self._log = log

    def lacks_fork_record(self, sent_after_ns: int) -> bool:
        return self.lacks and self.forked_ns > sent_after_ns

    def apply(self, complete_until_ns: int, *, most_batches: int) -> bool:
        if self.between is not None:
            self.between()
        self._log.append("apply")
        self.counted.append(min(self.left, most_batches))
        self.spent_ns += self.batch_ns * self.counted[-1]
        self.complete_until_ns.append(complete_until_ns)
        self.left = max(0, self.left - most_batches)
        return bool(self.left)


class World:
    """A drain of events and of two queues of records; a millisecond passes whenever the clock is read."""

    def __init__(self, *, has_groups: bool = False) -> None:
        self.log: list[str] = []
        self.now_ns = 0
        self.events = FakeSource("events", self.log, 4)
        self.records = FakeSource("records", self.log, 8)
        self.others = FakeSource("others", self.log, 2)
        self.pipeline = FakePipeline(self.log)
        followers: tuple[Source, ...] = (self.records, self.others)
        hints = (cast("HintSource", FakeHints(self.log)),)
        placing = cast("Placing", FakePlacing(self.log)) if has_groups else None
        self.drain = Drain(
            DrainOrder(hints, self.events, followers, placing),
            cast("Pipeline", self.pipeline),
            self._clock,
            lambda: self.pipeline.spent_ns,
        )
        self.drain.release()

    def _clock(self) -> int:
        self.now_ns += MS
        return self.now_ns

    def fork_without_record(self) -> None:
        """The kernel has sent a FORK, and the thread that forks has not written its record yet."""
        self.events.waiting, self.pipeline.lacks, self.pipeline.forked_ns = 1, True, self.now_ns

    def step(self) -> tuple[bool, State, list[str]]:
        """Return whether the drain has to go on, where it stands, and what it did."""
        self.log.clear()
        goes_on = self.drain.step()
        return goes_on, self.drain.state, self.log.copy()

    @property
    def complete_until_ns(self) -> int:
        return self.pipeline.complete_until_ns[-1]


@pytest.fixture
def world() -> World:
    return World()


def test_on_a_quiet_host_a_step_is_a_whole_pass(world: World) -> None:
    world.events.waiting, world.records.waiting, world.others.waiting = 3, 2, 1
    assert world.step() == (
        False,
        State.IDLE,
        ["read hints", "read 3 events", "read 2 records", "read 1 others", "apply", "narrow"],
    )
    assert world.drain.events_found == 3


def test_sessions_are_followed_amid_a_step_for_their_processes_may_be_gone_by_its_end() -> None:
    world = World(has_groups=True)
    world.events.waiting = world.records.waiting = 3
    _, _, log = world.step()
    assert log == [
        "read hints",
        "read 3 events",
        "follow sessions",
        "read 3 records",
        "read 0 others",
        "follow sessions",
        "apply",
        "follow sessions",
        "answer",
        "narrow",
    ]


def test_a_full_step_of_events_is_counted_and_more_are_read_in_the_next(world: World) -> None:
    world.events.waiting = 6
    goes_on, state, _ = world.step()
    assert (goes_on, state) == (True, State.IDLE)
    goes_on, state, log = world.step()
    assert (goes_on, state) == (False, State.IDLE)
    assert "read 2 events" in log


def test_events_are_not_counted_before_the_records_that_waited_are_read(world: World) -> None:
    world.events.waiting, world.records.waiting = 1, 20
    goes_on, state, log = world.step()
    assert (goes_on, state) == (True, State.READING_RECORDS)
    assert "apply" not in log
    goes_on, state, log = world.step()
    assert (goes_on, state) == (True, State.READING_RECORDS)
    assert log == ["read hints", "read 8 records", "read 0 others"]
    goes_on, state, log = world.step()
    assert (goes_on, state) == (False, State.IDLE)
    assert log == ["read hints", "read 4 records", "read 0 others", "apply", "narrow"]


def test_every_queue_of_records_is_read_before_the_events_are_counted(world: World) -> None:
    """A further source is one more in the list."""
    world.events.waiting, world.others.waiting = 1, 5
    states = [world.step()[1] for _ in range(3)]
    assert states == [State.READING_RECORDS, State.READING_RECORDS, State.IDLE]
    assert world.others.waiting == 0


def test_records_without_end_do_not_hold_up_the_count(world: World) -> None:
    world.events.waiting, world.records.waiting = 1, 12
    world.records.is_flooded = True
    assert world.step()[1] is State.READING_RECORDS
    assert world.step()[1] is State.IDLE


def test_the_record_of_a_fork_is_waited_for(world: World) -> None:
    world.fork_without_record()
    goes_on, state, log = world.step()
    assert (goes_on, state) == (True, State.READING_RECORDS)
    assert world.drain.awaits_record
    assert "apply" not in log
    world.pipeline.lacks = False
    goes_on, state, log = world.step()
    assert (goes_on, state) == (False, State.IDLE)
    assert not world.drain.awaits_record
    assert log == ["read hints", "read 0 records", "read 0 others", "apply", "narrow"]


def test_a_record_of_a_fork_that_does_not_come_is_waited_for_once_a_second(world: World) -> None:
    def waits() -> int:
        """Return how long the next FORK waits to be counted, in milliseconds."""
        world.fork_without_record()
        began_ns = world.now_ns
        while world.step()[0]:
            pass
        return (world.now_ns - began_ns) // MS

    assert waits() > 5
    assert max(waits() for _ in range(3)) < 5
    world.now_ns += 1000 * MS
    assert waits() > 5


def test_the_record_of_a_fork_that_is_long_past_is_not_waited_for(world: World) -> None:
    world.fork_without_record()
    world.now_ns += 5 * MS
    assert world.step()[:2] == (False, State.IDLE)
    # And that was no wait in vain.
    world.fork_without_record()
    assert world.step()[:2] == (True, State.READING_RECORDS)


def test_while_it_holds_no_record_of_a_fork_is_waited_for(world: World) -> None:
    """The events are counted much later."""
    world.drain.hold()
    world.fork_without_record()
    assert world.step()[:2] == (False, State.HOLDING)


def test_what_is_too_much_to_be_counted_in_a_step_is_counted_in_the_next(world: World) -> None:
    world.events.waiting, world.pipeline.left = 4, 9
    assert world.step()[:2] == (True, State.COUNTING)
    assert world.step() == (
        True,
        State.COUNTING,
        ["read hints", "read 0 records", "read 0 others", "apply", "narrow"],
    )
    # The step of events was full.
    assert world.step()[:2] == (True, State.IDLE)


def test_a_step_counts_as_many_batches_as_it_has_time_for(world: World) -> None:
    world.events.batches_per_step = 16
    world.pipeline.left, world.pipeline.held_bytes = 1000, 1 << 20
    for batch_ns in (MS // 10, 4 * MS, 100 * MS, MS // 10):
        world.pipeline.batch_ns = batch_ns
        for _ in range(3):
            world.step()
    # The first step at a new cost goes by the old one. Four batches are the least, and a step of reads the most.
    assert world.pipeline.counted == [4, 16, 16, 16, 4, 4, 4, 4, 4, 4, 16, 16]


def test_a_count_that_left_nothing_says_only_that_a_batch_costs_more(world: World) -> None:
    """How many batches it was of is not known."""
    world.events.batches_per_step = 16
    world.pipeline.left, world.pipeline.held_bytes, world.pipeline.batch_ns = 1000, 1 << 20, MS // 10
    world.step()
    world.pipeline.batch_ns = 2 * MS
    for left in (10, 3, 3, 40):
        world.pipeline.left = left
        world.step()
    assert world.pipeline.counted == [4, 10, 3, 3, 8]


def test_a_count_of_few_events_is_not_timed(world: World) -> None:
    """However long it took: it says nothing about a count of many."""
    world.events.batches_per_step = 16
    for left, held_bytes, batch_ns in (
        (1000, 1 << 20, MS // 10),
        (1000, 1 << 20, MS // 10),
        (1, 1000, 100 * MS),
        (1000, 1 << 20, MS // 10),
    ):
        world.pipeline.left, world.pipeline.held_bytes, world.pipeline.batch_ns = left, held_bytes, batch_ns
        world.step()
    assert world.pipeline.counted == [4, 16, 1, 16]


def test_records_that_come_after_their_queue_was_empty_do_not_hold_up_the_count(world: World) -> None:
    """However many may be waiting: those that belong to the events had been read by then."""
    world.pipeline.left = 9
    world.step()
    assert world.drain.state is State.COUNTING
    world.records.waiting = 30
    world.records.most_waiting = lambda: 100  # type: ignore[method-assign]  # a guess, as that of a socket is
    assert world.step()[1] is State.COUNTING
    assert world.pipeline.counted == [4, 4]


def test_when_many_records_come_while_events_are_counted_they_are_read_first(world: World) -> None:
    world.records.waiting = 30
    world.records.most_waiting = lambda: 100  # type: ignore[method-assign]  # a guess, as that of a socket is
    world.pipeline.left = 9
    for _ in range(4):
        world.step()
    assert world.drain.state is State.COUNTING
    world.records.waiting = 10
    goes_on, state, log = world.step()
    assert (goes_on, state) == (True, State.READING_RECORDS)
    assert "apply" not in log
    assert world.step()[1] is State.COUNTING


def test_while_it_holds_it_reads_and_does_not_count(world: World) -> None:
    world.drain.hold()
    world.events.waiting, world.records.waiting = 6, 2
    goes_on, state, log = world.step()
    assert (goes_on, state) == (True, State.HOLDING)
    assert log == ["read hints", "read 4 events", "read 2 records", "read 0 others"]
    assert world.step()[:2] == (False, State.HOLDING)
    world.drain.release()
    assert world.drain.state is State.IDLE
    assert "apply" in world.step()[2]


def test_a_pass_that_began_while_it_held_is_counted_after_the_release(world: World) -> None:
    world.drain.hold()
    world.events.waiting, world.records.waiting = 1, 12
    assert world.step()[1] is State.READING_WHILE_HELD
    world.drain.release()
    assert world.drain.state is State.READING_RECORDS
    goes_on, state, log = world.step()
    assert (goes_on, state) == (False, State.IDLE)
    assert log == ["read hints", "read 4 records", "read 0 others", "apply", "narrow"]


@pytest.mark.parametrize("records", [20, 0], ids=["reading", "counting"])
def test_a_pass_that_is_halfway_cannot_be_held(world: World, records: int) -> None:
    world.events.waiting, world.records.waiting, world.pipeline.left = 1, records, 9
    world.step()
    assert world.drain.is_halfway
    with pytest.raises(RuntimeError):
        world.drain.hold()


def test_before_the_first_scan_it_holds(world: World) -> None:
    new = Drain(DrainOrder((), world.events, ()), cast("Pipeline", world.pipeline), lambda: 0, lambda: 0)
    assert new.state is State.HOLDING
    assert not new.step()
    assert world.log == ["read 0 events"]


def test_when_too_much_is_held_nothing_more_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "_MOST_BYTES_HELD", 1000)
    world.drain.hold()
    world.events.is_flooded = True
    world.records.waiting = 2
    world.pipeline.held_bytes = 1000
    assert world.step()[:2] == (True, State.HOLDING)
    world.pipeline.held_bytes = 1001
    assert world.step() == (False, State.HOLDING, ["read hints"])
    assert world.drain.events_found == 0


def test_a_pass_that_empties_the_queue_is_complete_up_to_its_beginning(world: World) -> None:
    world.events.waiting = 3
    began_ns = world.now_ns + MS
    world.step()
    assert world.complete_until_ns == began_ns


def test_under_a_flood_it_is_complete_up_to_the_look_before_once_that_much_is_read(world: World) -> None:
    world.events.is_flooded = True
    world.events.waiting = 10
    world.step()
    assert world.complete_until_ns == 0
    # What waits at this look is 6: two steps of four.
    looked_ns = world.now_ns - MS
    world.step()
    assert world.complete_until_ns == 0
    world.step()
    assert world.complete_until_ns == looked_ns


def test_what_is_complete_stays_complete_when_a_flood_follows_an_empty_queue(world: World) -> None:
    world.events.is_flooded = True
    world.events.waiting = 10
    for _ in range(3):
        world.step()
    world.events.is_flooded = False
    world.events.waiting = 1
    world.step()
    emptied_ns = world.complete_until_ns
    world.events.is_flooded = True
    for _ in range(10):
        world.events.waiting = 10
        world.step()
        assert world.complete_until_ns >= emptied_ns


def test_a_goal_is_reached_when_what_waited_is_counted(world: World) -> None:
    world.events.waiting, world.records.waiting = 6, 0
    goal = world.drain.goal()
    world.step()
    assert not world.drain.has_reached(goal)
    world.pipeline.left = 9
    world.step()
    # All of it is read, and not yet counted.
    assert not world.drain.has_reached(goal)
    while world.step()[0]:
        pass
    assert world.drain.has_reached(goal)


def test_each_step_is_in_the_histogram(world: World) -> None:
    world.records.waiting = 20
    for _ in range(3):
        world.step()
    steps = world.drain.drain_ns
    assert sum(steps[:-1]) == 3
    assert len(steps) == len(DRAIN_NS) + 2
    assert steps[-1] > 0
