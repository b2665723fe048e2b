"""The decoders and the table against what real kernels delivered: data/*.hex, of tests/kernels/record.py."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from builders import TASKSTATS_STRIDE, batch

from exporter.errors import MalformedMessage
from exporter.kernel import cn_proc
from exporter.kernel.netlink import decode_message
from exporter.kernel.taskstats import AGROUP, RecordDecoder, TaskExit, decode_comm_uid, pid_offsets
from exporter.processes.pipeline import Pipeline
from exporter.processes.table import ProcessTable
from exporter.tallies.tallies import Tallies

VERSIONS = {"linux-6.1": 13, "linux-6.18": 16}
"""Of struct taskstats, by recording."""


class Truth(NamedTuple):
    """What the parent of a process knows."""

    pid: int
    uid: int
    status: int
    cpu_us: int
    max_rss_kib: int
    comm: bytes


class Recording:
    def __init__(self, path: Path) -> None:
        self.truth: dict[str, Truth] = {}
        self.events: list[bytes] = []
        self.records: list[bytes] = []
        for line in path.read_text(encoding="ascii").splitlines():
            kind, *words = line.split()
            if kind == "truth":
                pid, uid, status, cpu_us, max_rss_kib = (int(word) for word in words[1:-1])
                comm = bytes.fromhex(words[-1])
                self.truth[words[0]] = Truth(pid, uid, status, cpu_us, max_rss_kib, comm)
            elif kind == "C":
                self.events.append(bytes.fromhex(words[0]))
            elif kind == "T":
                self.records.append(bytes.fromhex(words[0]))
        self.family_id = decode_message(self.records[0]).type

    def decoded_events(self, pid: int, what: int) -> list[tuple[int, ...]]:
        """Return the numbers of a process's events of a kind."""
        events = [cn_proc.decode_proc_event(datagram) for datagram in self.events]
        which = 5 if what == cn_proc.PROC_EVENT_FORK else 3  # child_tgid, tgid
        return [event[2:] for event in events if event[0] == what and event[which] == pid]

    def decoded_records(self) -> list[TaskExit]:
        decoder = RecordDecoder(self.family_id)
        return [TaskExit(*decoder.decode(record)[0]) for record in self.records]


@pytest.fixture(params=VERSIONS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def recording(name: str) -> Recording:
    return Recording(Path(__file__).parent / "data" / f"{name}.hex")


def test_every_recording_is_tested() -> None:
    assert {path.stem for path in (Path(__file__).parent / "data").glob("*.hex")} == set(VERSIONS)


def test_each_process_was_forked_executed_and_ended_with_what_wait4_said(recording: Recording) -> None:
    for case, truth in recording.truth.items():
        forks = recording.decoded_events(truth.pid, cn_proc.PROC_EVENT_FORK)
        assert len([fork for fork in forks if fork[2] == fork[3]]) == 1, case
        assert len(recording.decoded_events(truth.pid, cn_proc.PROC_EVENT_EXEC)) == 1, case
        [uid] = recording.decoded_events(truth.pid, cn_proc.PROC_EVENT_UID)
        assert uid[2:4] == (truth.uid, truth.uid), case
        exits = recording.decoded_events(truth.pid, cn_proc.PROC_EVENT_EXIT)
        assert exits[-1][2] & ~0x80 == truth.status & ~0x80, case
        assert len(exits) == len(forks), case


def test_what_only_some_of_them_do_is_there_once(recording: Recording) -> None:
    renamed = recording.truth["renames-itself"]
    events = [cn_proc.decode_proc_event(datagram) for datagram in recording.events]
    comms = [cn_proc.decode_comm(e) for e in events if e[0] == cn_proc.PROC_EVENT_COMM and e[3] == renamed.pid]
    assert comms == [renamed.comm]
    dumped = recording.truth["dumps-core-in-a-thread"]
    assert len(recording.decoded_events(dumped.pid, cn_proc.PROC_EVENT_COREDUMP)) == 1


def test_every_thread_left_a_record_and_the_last_of_a_process_is_marked(recording: Recording, name: str) -> None:
    pid_offset, tgid_offset = (36 + offset for offset in pid_offsets(VERSIONS[name]))
    records = recording.decoded_records()
    for case, truth in recording.truth.items():
        tids = {fork[2] for fork in recording.decoded_events(truth.pid, cn_proc.PROC_EVENT_FORK)}
        own = [record for record in records if record.pid in tids]
        assert len(own) == len(tids), case
        [last] = [record for record in own if record.ac_flag & AGROUP]
        assert last.exit_code & ~0x80 == truth.status & ~0x80, case
        assert decode_comm_uid(last.comm_uid)[1] == truth.uid, case
        [leader] = [record for record in own if record.pid == truth.pid]
        assert decode_comm_uid(leader.comm_uid)[0] == truth.comm, case
        # wait4 counts what the process was before its exec too: a fork of Python.
        assert 0 < last.max_rss_kib <= truth.max_rss_kib, case
        # Up to the last time that it was taken off its CPU, which may be never.
        assert 0 <= last.cpu_ns / 1000 <= 2 * truth.cpu_us, case
    for datagram, record in zip(recording.records, records, strict=True):
        assert int.from_bytes(datagram[pid_offset : pid_offset + 4], "little") == record.pid
        tgid = int.from_bytes(datagram[tgid_offset : tgid_offset + 4], "little")
        assert tgid in {truth.pid for truth in recording.truth.values()}


def test_the_version_is_the_kernels_and_batches_decode_like_single_records(
    recording: Recording, name: str
) -> None:
    decoder = RecordDecoder(recording.family_id)
    records, last_threads, errors = decoder.decode_batch(batch(recording.records, TASKSTATS_STRIDE))
    assert errors == []
    tgids = {truth.pid for truth in recording.truth.values()}
    assert records == [tuple(record) for record in recording.decoded_records() if record.pid in tgids]
    ends = [record for record in recording.decoded_records() if record.ac_flag & AGROUP]
    assert [record[:-1] for record in last_threads] == [tuple(end) for end in ends if end.pid not in tgids]
    assert {record[-1] for record in last_threads} <= tgids
    assert decoder.version == VERSIONS[name]


def test_the_pipeline_counts_each_end_under_its_comm_uid_and_status(recording: Recording) -> None:
    complaints: list[tuple[str, MalformedMessage]] = []
    tallies = Tallies()
    last_ns = max(cn_proc.decode_proc_event(datagram)[1] for datagram in recording.events)
    table = ProcessTable(tallies, lambda _: None, lambda: last_ns, records_end_processes=True)
    pipeline = Pipeline(
        table, RecordDecoder(recording.family_id), lambda socket, error: complaints.append((socket, error))
    )
    pipeline.take_events(batch(recording.events))
    pipeline.take_records(batch(recording.records, TASKSTATS_STRIDE))
    pipeline.apply(last_ns)
    cells = tallies.snapshot_cells()
    counted = Counter(
        {
            (*key, status & ~0x80): count
            for key, exits in zip(cells.keys, cells.exits, strict=True)
            for status, count in exits.items()
        }
    )
    comms = {b"recorded": "recorded", b"n\nl\xff": "n\\x0al\\xff"}
    expected = Counter((comms[t.comm], t.uid, t.status & ~0x80) for t in recording.truth.values())
    assert counted == expected
    assert complaints == []
    assert table.lost_ends == 0
