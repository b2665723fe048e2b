"""A recorder notes the calls of a pipeline, and the answers of /proc before the call that asked."""

import builders
import pytest
from host import Mode, make_pipeline
from replayed import MemoryTape

from exporter.capture.format import iter_entries
from exporter.capture.recorder import Recorder
from exporter.kernel.procfs import ProcessInfo
from exporter.processes.pipeline import Pipeline
from exporter.tallies.tallies import Tallies

INFO = ProcessInfo(b"sh", 1000, None, zombie=False, threads=frozenset())


class Recorded:
    """A recorded pipeline in procfs mode, and a clock that goes on with each look into /proc."""

    def __init__(self) -> None:
        self.now_ns = 1000
        self.tape = MemoryTape()
        recorder = Recorder(self.tape, self._read_comm, lambda: self.now_ns)
        self.pipeline: Pipeline = make_pipeline(
            Mode.PROCFS, Tallies(), recorder.read_comm, recorder.read_ns, lambda socket, error: None
        )
        recorder.record(self.pipeline)

    def _read_comm(self, tgid: int) -> bytes | None:
        self.now_ns += 1
        return b"make"

    def letters(self, file: int = 0) -> list[str]:
        """The kinds of the entries in each frame of a file."""
        return ["".join(letter for letter, _ in iter_entries(frame.entries)) for frame in self.tape.files[file]]


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


def test_an_answer_stands_before_the_call_that_asked(recorded: Recorded) -> None:
    exec_of_400 = builders.batch([builders.exec_(tgid=400, timestamp_ns=900)])
    recorded.pipeline.adopt(400, INFO, 1, 2)
    recorded.pipeline.take_names(exec_of_400)
    recorded.pipeline.take_events(exec_of_400)
    recorded.pipeline.apply(999)
    assert recorded.letters() == ["PCNEA"]


def test_a_frame_ends_with_the_last_step_of_a_drain(recorded: Recorded) -> None:
    for _ in range(3):
        recorded.pipeline.take_events(builders.batch([builders.fork(parent_tgid=1, child_tgid=400)]))
    while recorded.pipeline.apply(999, most_batches=2):
        pass
    recorded.pipeline.lose_track()
    recorded.pipeline.apply(0)
    assert recorded.letters() == ["EEEAA", "YA"]
    assert [frame.time_ns for frame in recorded.tape.files[0]] == [recorded.now_ns] * 2


def test_a_call_returns_what_the_pipeline_returns(recorded: Recorded) -> None:
    for _ in range(2):
        recorded.pipeline.take_events(builders.batch([builders.fork(parent_tgid=1, child_tgid=400)]))
    assert recorded.pipeline.apply(999, most_batches=1) is True
    assert recorded.pipeline.apply(999, most_batches=1) is False


def test_a_scan_of_many_processes_is_written_before_it_ends(recorded: Recorded) -> None:
    info = INFO._replace(threads=frozenset(range(1000, 11_000)))
    for tgid in range(100, 150):
        recorded.pipeline.adopt(tgid, info, 1, 2)
    assert 0 < len(recorded.tape.files[0]) < 50


def test_what_is_only_asked_is_not_noted(recorded: Recorded) -> None:
    recorded.pipeline.expect_canary(500)
    assert recorded.pipeline.canary_returned(500) is None
    assert recorded.pipeline.canaries() == [500]
    assert recorded.pipeline.missing([]) == []
    assert list(recorded.pipeline.known()) == []
    assert not recorded.pipeline.waits
    recorded.pipeline.apply(1)
    assert recorded.letters() == ["XA"]


def test_each_record_that_is_dropped_after_a_loss_is_noted(recorded: Recorded) -> None:
    for pid in (7, 8):
        recorded.pipeline.recall_record((pid, 0, 0, 1, bytes(44), 0, 0))
    recorded.pipeline.forget_records(recorded.pipeline.waiting_records())
    recorded.pipeline.apply(1)
    assert recorded.letters() == ["WWGGA"]
    assert recorded.pipeline.waiting_records() == []


def test_a_new_file_begins_with_what_is_known(recorded: Recorded) -> None:
    recorded.pipeline.adopt(400, INFO, 1, 2)
    recorded.pipeline.recall_record((7, 0, 0, 1, bytes(44), 0, 0))
    recorded.pipeline.expect_canary(500)
    recorded.tape.frames_per_file = 1
    recorded.pipeline.apply(1)
    recorded.tape.frames_per_file = 9
    recorded.pipeline.apply(2)
    assert (recorded.letters(0), recorded.letters(1)) == (["PWXA"], ["KWX", "A"])
