"""No input makes the pipeline raise, miscount or grow."""

from collections import Counter
from dataclasses import asdict
from typing import Any

import builders
import pytest
from host import Host, Mode, Thread
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import Step, World

_SOUND = builders.exec_(tgid=400)
_RECORD = builders.taskstats_datagram(pid=400)


def damaged(sound: bytes) -> st.SearchStrategy[bytes]:
    """A sound datagram with some bytes changed, cut or lengthened."""
    changes = st.lists(st.tuples(st.integers(0, len(sound) - 1), st.integers(0, 255)), max_size=6)

    def damage(changed: list[tuple[int, int]], length: int) -> bytes:
        data = bytearray(sound)
        for offset, byte in changed:
            data[offset] = byte
        return bytes(data[:length])

    return st.builds(damage, changes, st.integers(len(sound) - 40, len(sound)) | st.just(len(sound)))


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@given(
    events=st.lists(st.binary(max_size=80) | damaged(_SOUND) | st.just(_SOUND), max_size=12),
    records=st.lists(st.binary(max_size=700) | damaged(_RECORD) | st.just(_RECORD), max_size=6),
)
def test_any_bytes_are_counted_or_malformed(mode: Mode, events: list[bytes], records: list[bytes]) -> None:
    host = Host(mode)
    host.pipeline.take_events(builders.batch(events, stride=80))
    host.pipeline.take_records(builders.batch(records, builders.TASKSTATS_STRIDE))
    host.pipeline.apply(host.now_ns)
    malformed = host.pipeline.malformed
    acks = sum(len(data) == 76 and data[36:40] == bytes(4) for data in events)
    handled = sum(asdict(host.table.events).values()) + host.table.unknown_events
    assert len(events) - acks <= handled + malformed["connector"] <= len(events)
    assert sum(malformed.values()) == len(host.complaints)
    if mode.has_records:
        # Of one that the decoder took, the pid can be any; of two for a pid one waits behind the other.
        assert len(host.pipeline.waiting_records()) <= len(records) - malformed["taskstats"]


_PID = st.integers(2, 8)
_EVENT = st.one_of(
    st.builds(
        lambda p, c, t: (builders.fork, {"parent_tgid": p, "child_tgid": c, "parent_pid": t}), _PID, _PID, _PID
    ),
    st.builds(lambda p, c: (builders.fork, {"parent_tgid": p, "child_tgid": c}), _PID, _PID),
    st.builds(lambda c, t: (builders.fork, {"parent_tgid": 1, "child_tgid": c, "child_pid": t}), _PID, _PID),
    st.builds(lambda p: (builders.exec_, {"tgid": p}), _PID),
    st.builds(
        lambda p, s: (builders.exit_, {"tgid": p, "exit_code": s}), _PID, st.sampled_from((0, 9, 0x100, 0x86))
    ),
    st.builds(lambda p, t: (builders.exit_, {"tgid": p, "pid": t}), _PID, _PID),
    st.builds(lambda p, u: (builders.uid, {"tgid": p, "ruid": u}), _PID, st.integers(0, 2)),
    st.builds(lambda p, c: (builders.comm, {"tgid": p, "comm": b"c%d" % c}), _PID, st.integers(0, 2)),
    st.builds(lambda p: (builders.coredump, {"tgid": p}), _PID),
    st.builds(lambda p, t: (builders.ptrace, {"tgid": p, "tracer_tgid": t}), _PID, st.integers(0, 1)),
)
_OTHER = st.one_of(
    st.builds(lambda pid, last: ("record", pid, last), _PID, st.booleans()),
    st.builds(lambda pid, zombie: ("adopt", pid, zombie), _PID, st.booleans()),
    st.builds(lambda pid, comm: ("proc", pid, comm), _PID, st.integers(0, 3)),
    st.sampled_from([("drain", 0, True), ("drain", 0, False), ("rest", 0, 0), ("loss", 0, 0)]),
)


def tallies(host: Host) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for name in ("forks", "execs", "exits", "coredumps", "uid_changes", "ptrace_attaches"):
        counts.update({(name, *key): value for key, value in getattr(host, name).items()})
    for program in host.tallies.snapshot_programs():
        for i, value in enumerate((*program.lifetime_ns, *program.cpu_ns, *program.max_rss_kib)):
            counts[program.comm, i] = value
    return counts


def do(host: Host, step: Any) -> None:
    kind, a, b = step
    if kind == "record":
        host.record(Thread(a, b"recorded", 7), last=b)
    elif kind == "adopt":
        host.adopt(a, b"adopted", 5, zombie=b)
    elif kind == "proc":
        host.comms.update({a: b"read-%d" % b} if b else {})
        if not b:
            host.comms.pop(a, None)
    elif kind == "rest":
        host.rest(150)
    elif kind == "loss":
        host.drain()
        host.pipeline.lose_track()
        waiting = host.pipeline.waiting_records()
        host.rest()
        host.drain()
        host.pipeline.forget_records(waiting)
        host.pipeline.forget(host.pipeline.missing(host.comms), host.now_ns - 2)
    else:
        host.drain(complete=b)


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=100)
@given(steps=st.lists(_EVENT | _OTHER | _EVENT, max_size=50))
def test_any_order_of_events_keeps_sums_right_tallies_rising_and_the_table_small(
    mode: Mode, steps: list[Any]
) -> None:
    host = Host(mode)
    before = tallies(host)
    introduced = 0
    for step in [*steps, ("drain", 0, True)]:
        if len(step) == 2:
            host.event(step[0], **step[1])
            introduced += 1
            continue
        introduced += step[0] == "adopt"
        do(host, step)
        after = tallies(host)
        assert before <= after
        before = after
        pending, events = host.table.pending(), host.table.events
        if step[0] == "drain":
            assert sum(host.forks.values()) + pending["fork"] == events.fork
            assert sum(host.execs.values()) + pending["exec"] == events.exec
            assert sum(host.coredumps.values()) + pending["coredump"] == events.coredump
            assert sum(host.uid_changes.values()) + pending["uid"] == events.uid
            ended = sum(host.exits.values()) + pending["exit"]
            assert ended <= events.exit + events.thread_exit
            assert sum(host.live.values()) <= min(introduced, 7)
            assert min(host.live.values(), default=1) > 0
            # A pid lives or not, so what is still to be read is no longer than what lives.
            looks = len(host.looks)
            host.pipeline.apply(0)
            assert len(host.looks) - looks <= sum(host.live.values())


class Recorder(World):
    """A world whose datagrams are kept in the kernel's order: (event or None, record or None)."""

    def __init__(self) -> None:
        super().__init__(Mode.EXACT)
        self.stream: list[tuple[list[bytes], list[bytes]]] = []

    def record_all(self, history: list[Step]) -> None:
        for step in history:
            self._take(step, self.KERNEL_STEPS)
            self._keep()
        for process in list(self.processes.values()):
            self._send(process)
            if process.tgid != 1 and not process.ended:
                for task in process.running():
                    self._exit_begin(process, task, 9)
            for task in list(process.tasks.values()):
                if task.status is not None:
                    self._exit_event(process, task)
        self._keep()

    def _keep(self) -> None:
        # Records of a step are queued before its EXITs.
        self.stream.append((self._events, self._records))
        self._events, self._records = [], []


@settings(max_examples=60)
@given(
    history=st.lists(
        st.tuples(st.integers(0, len(World.KERNEL_STEPS) - 1), st.integers(0, 3), st.integers(0, 5)), max_size=50
    ),
    cuts=st.sets(st.integers(0, 50), max_size=12),
    late=st.integers(0, 3),
)
def test_how_a_stream_is_cut_into_drains_changes_nothing(history: list[Step], cuts: set[int], late: int) -> None:
    recorder = Recorder()
    recorder.record_all(history)
    stream = recorder.stream

    def play(cuts: set[int]) -> Host:
        host = Host(Mode.EXACT)
        host.lives(1, b"init")
        host.comms.clear()
        events_from = records_from = 0
        for cut in sorted({cut for cut in cuts if cut < len(stream)} | {len(stream)}):
            sent = [data for events, _ in stream[events_from:cut] for data in events]
            host._events = sent  # noqa: SLF001 - the next drain gets what another host has sent
            # taskstats is read after the connector, so its records can be younger.
            newest = max(records_from, min(cut + late, len(stream)))
            sent = [data for _, records in stream[records_from:newest] for data in records]
            host._records = sent  # noqa: SLF001 - as above
            events_from, records_from = cut, newest
            host.drain()
        return host

    whole, pieces = play(set()), play(cuts)
    assert pieces.forks == whole.forks
    assert pieces.execs == whole.execs
    assert pieces.exits == whole.exits
    assert pieces.lifetimes == whole.lifetimes
    assert pieces.live == whole.live
    assert pieces.pending == whole.pending == {}
