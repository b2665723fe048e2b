"""Messages that are lost without a count: what is counted is right or `<unknown>`, and afterwards all is right.

The kernel loses a message without counting it if it has no memory for it, or if a program on the host has silenced
the process connector for a moment.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import builders
import pytest
from host import MS, Mode, Thread
from hypothesis import given, settings
from hypothesis import strategies as st
from property import test_histories
from property.test_histories import HISTORY, MEANWHILE, balanced, text
from simulation import Process, Step, Task, Truth, World

from exporter.tallies.labels import UNKNOWN

LOSSES = st.sets(st.integers(0, 90), max_size=4) | st.sets(st.integers(0, 90), min_size=8, max_size=40)
# As /proc shows the start of a process.
_TICK_NS = 10 * MS


class LosingWorld(World):
    """A world in which some messages vanish: those whose number is among the losses."""

    def __init__(self, mode: Mode, meanwhile: list[Step], *, losses: set[int], sideband: bool = False) -> None:
        self._losses = losses
        self._sent = 0
        self.lost: list[str] = []
        # Pids of which a message was lost, and those that a process has had.
        self._hit: set[int] = set()
        self._used: set[int] = set()
        # Threads whose EXIT was lost.
        self._lost_threads: set[int] = set()
        # Pids of processes that have not ended, or whose end was lost.
        self._unended: set[int] = set()
        # Of those whose FORK was lost, and of threads whose record was lost, until their EXIT has been counted.
        self._unforked: set[int] = set()
        self._unrecorded: set[int] = set()
        # Processes of which a record was lost: without two, nothing says how one with threads ended.
        self._half_recorded: dict[int, Process] = {}
        super().__init__(mode, meanwhile, sideband=sideband)

    def _loses(self, queue: list[bytes], what: str, tgid: int) -> None:
        """Lose the newest message of a queue if it is its turn."""
        self._sent += 1
        if self._sent in self._losses:
            self._hit.add(tgid)
            queue.pop()
            if what == "exec_":
                self._losses = set()
            self.lost.append(what)

    def event(self, datagram: Callable[..., bytes], /, **fields: Any) -> None:
        early, lost = len(self._names_socket), len(self.lost)
        super().event(datagram, **fields)
        if self.loses_event(datagram, fields):
            before = len(self._events)
            self._loses(self._events, datagram.__name__, fields.get("child_tgid", fields.get("tgid", 0)))
            if len(self._events) < before:
                del self._names_socket[early:]
                if fields.get("pid", fields.get("tgid")) != fields.get("tgid"):
                    self._lost_threads.add(fields["pid"])
            elif datagram is builders.exit_:
                self._unended.discard(fields["tgid"])
        if datagram is builders.fork:
            tgid = fields["child_tgid"]
            self._unended.add(tgid)
            self._used.add(tgid)
            if fields.get("child_pid", tgid) == tgid:
                (self._unforked.add if self.lost[lost:] else self._unforked.discard)(tgid)

    def loses_event(self, datagram: Callable[..., bytes], fields: Mapping[str, Any]) -> bool:
        """Whether the loss of a message, by itself, is no more than a loss.

        A FORK is needed if the process before it with that pid has sent no EXIT, or none that came: nothing else
        says that it is another process. If a FORK or a record was lost, the EXIT cannot be told from that of the
        next process with that pid, if that is forked before it has been counted. A thread takes the record of a
        process that had its pid within the last second, and whose EXIT was lost. /proc shows the comm of a process
        that died in an exec until it is reaped. And which threads a process has is known from their FORKs alone,
        where exit records do not mark the last one.
        """
        tgid = fields.get("child_tgid", fields.get("tgid"))
        if datagram is builders.fork:
            is_thread = fields.get("child_pid", tgid) != tgid
            if self.mode is Mode.PROCFS and not self.sideband and tgid in self._used:
                # What was read of the process before can be of this one.
                return False
            had_owner = tgid in self._unended or any(process.tgid == tgid for process in self.late)
            return self.mode is Mode.EXACT if is_thread else not had_owner
        if datagram is builders.exit_:
            return tgid not in self.dying
        # Only the exit record of a process shows what an exec made of it: nothing else may be missing.
        return datagram is builders.exec_ and self.sideband and self.mode is Mode.EXACT and not self.lost

    def record(self, thread: Thread, **fields: Any) -> None:
        super().record(thread, **fields)
        process = next((p for p in self.processes.values() if thread.pid in p.tasks), None)
        if process is None or (process.cloned and not self.sideband) or id(process) in self._half_recorded:
            return
        # Before version 12 the last thread's record shows whether that is a kernel worker.
        if self.mode is Mode.EXACT or (self.mode.has_records and thread.pid == process.tgid):
            before = len(self.lost)
            self._loses(self._records, "record", process.tgid)
            (self._unrecorded.add if self.lost[before:] else self._unrecorded.discard)(thread.pid)
            if self.lost[before:]:
                self._half_recorded[id(process)] = process

    def _free_pids(self) -> list[int]:
        """As any host, but for a moment: see loses_event."""
        taken = self._unforked | self._unrecorded | self._lost_threads
        # The end of a process without a record is counted half a second after its EXIT.
        taken |= {known.tgid for known in self.pipeline.known() if known.leaderless}
        return [pid for pid in super()._free_pids() if pid not in taken]

    def _free_tid(self, a: int) -> int | None:
        tid = super()._free_tid(a)
        return None if tid in self._hit else tid

    def drain(self, *, complete: bool = True) -> None:
        unsent = {tid for p in (*self.late, *self.processes.values()) for tid in (p.tgid, *p.tasks)}
        gone = (self._unforked | self._unrecorded) - unsent
        super().drain(complete=complete)
        self._unforked -= gone
        self._unrecorded -= gone

    def _die(self, process: Process, task: Task, status: int) -> None:
        """The caller of an exec has the pid of the leader that died for it at once."""
        spared, self._losses = self._losses, set()
        super()._die(process, task, status)
        self._losses = spared

    def end_all(self) -> None:
        """Every process but init ends, and nothing is lost any more."""
        self._losses = set()
        for process in [p for p in self.processes.values() if p.tgid != 1]:
            self._send(process)
            for task in process.running():
                self._exit_begin(process, task, 0x100)
        self.finish()
        self._reap_all()
        self.compare()

    def compare(self) -> None:
        """As a comparison with /proc does."""
        self.drain()
        waiting = self.pipeline.waiting_records()
        self.pipeline.lose_track()
        self.rest()
        listed_ns = self.now_ns
        alive = list(self.processes.values())
        for process in alive:
            threads = tuple(tid for tid in process.tasks if tid != process.tgid)
            started_ns = process.start_ns - process.start_ns % _TICK_NS
            self.adopt(
                process.tgid,
                process.leader.comm,
                process.uid,
                start_ns=started_ns,
                zombie=process.ended,
                threads=threads,
            )
        self.settle()
        self.pipeline.forget_records(waiting)
        self.pipeline.forget(self.pipeline.missing([process.tgid for process in alive]), listed_ns)


def never_wrong(counted: Mapping[Any, int], truth: Mapping[Any, int]) -> None:
    """No row has more than it should; a row without comm or uid has no more than all that it could be of."""
    expected = text(truth)

    def could_be(row: tuple[Any, ...], key: tuple[Any, ...]) -> bool:
        return all(a in (b, UNKNOWN) for a, b in zip(row, key, strict=True))

    for row in counted:
        mine = sum(n for key, n in counted.items() if could_be(row, key))
        most = sum(n for key, n in expected.items() if could_be(row, key))
        assert mine <= most, f"{row}: {mine} of {most}; counted {counted}, truth {expected}"


def never_wrong_ends(world: LosingWorld) -> None:
    counted, truth = world.exits, world.truth.exits + world.truth.other_exits
    if "exec_" in world.lost:
        # A process that is killed just after an exec whose EXEC was lost is as one that died in the exec.
        counted = {row: n for row, n in counted.items() if not row[2] & 0x7F}
    never_wrong(counted, truth)


def check(world: LosingWorld, history: list[Step]) -> None:
    for _ in world.run(history):
        balanced(world)
    world.finish()
    balanced(world)
    if "exec_" not in world.lost:
        # Whatever it was that the process execs, nothing says so until it ends.
        never_wrong(world.forks, world.truth.forks)
    never_wrong(world.execs, world.truth.execs)
    never_wrong_ends(world)
    world.compare()
    never_wrong_ends(world)
    assert world.pipeline.waiting_records() == []
    living = [p for p in world.processes.values() if not p.ended]
    assert sum(world.live.values()) == len(living)


def counts_of(world: LosingWorld) -> list[Counter[Any]]:
    all_counts: tuple[Mapping[Any, int], ...] = world.forks, world.execs, world.exits
    return [Counter(counts) for counts in all_counts]


def check_that_all_is_right_again(world: LosingWorld, history: list[Step]) -> None:
    """As if nothing had ever been lost, once all processes of that time have ended: see test_histories."""
    world.end_all()
    assert world.live == {"init": 1}
    assert world.pipeline.missing([1]) == []
    assert world.pending == {}
    before = counts_of(world)
    world.truth = truth = Truth()
    for _ in world.run(history):
        balanced(world)
    world.finish()
    forks, execs, exits = (now - old for now, old in zip(counts_of(world), before, strict=True))
    test_histories.never_wrong(forks, truth.forks)
    test_histories.never_wrong(execs, truth.execs)
    test_histories.never_wrong(exits, truth.exits, truth.other_exits)
    if world.mode.has_records and not truth.other_exits:
        assert exits == text(truth.exits)
    if world.sideband:
        assert execs == text(truth.execs)
    assert world.pipeline.waiting_records() == []
    assert sum(world.live.values()) == len([p for p in world.processes.values() if not p.ended])


@pytest.mark.parametrize("sideband", [False, True], ids=["events", "side-band"])
@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=200)
@given(history=HISTORY, meanwhile=MEANWHILE, losses=LOSSES, after=HISTORY)
def test_what_is_lost_without_a_count_makes_nothing_wrong(
    mode: Mode,
    *,
    sideband: bool,
    history: list[Step],
    meanwhile: list[Step],
    losses: set[int],
    after: list[Step],
) -> None:
    world = LosingWorld(mode, meanwhile, losses=losses, sideband=sideband)
    check(world, history)
    check_that_all_is_right_again(world, after)
