"""Whatever is captured counts the same when it is replayed; whatever is no capture is said to be none."""

import contextlib
import io

import builders
import pytest
from host import Mode
from hypothesis import given, settings
from hypothesis import strategies as st
from property.test_histories import HISTORY, MEANWHILE
from replayed import MemoryTape, Replayed, exposition, status
from simulation import Step, World

from exporter.capture.format import MAGIC, Frame, encode_entry, encode_frame, iter_frames, read_header
from exporter.capture.kinds import KINDS, READ_COMM, encode_apply, encode_batch
from exporter.errors import CaptureError


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@settings(max_examples=150)
@given(history=HISTORY, meanwhile=MEANWHILE)
def test_any_history_counts_and_records_the_same_when_it_is_replayed(
    mode: Mode, history: list[Step], meanwhile: list[Step]
) -> None:
    tape = MemoryTape()
    world = World(mode, meanwhile, tape=tape)
    for _ in world.run(history):
        pass
    world.drain()
    again = MemoryTape()
    replayed = Replayed(mode, tape.files[0], again)
    assert [frame.entries for frame in again.files[0]] == [frame.entries for frame in tape.files[0]]
    assert exposition(replayed.tallies, replayed.table) == exposition(world.tallies, world.table)
    assert status(replayed.tallies, replayed.pipeline) == status(world.tallies, world.pipeline)


@settings(max_examples=300)
@given(frames=st.lists(st.binary(max_size=40), max_size=4), cut=st.integers(0, 400), noise=st.binary(max_size=30))
def test_all_whole_frames_before_a_damage_are_read(frames: list[bytes], cut: int, noise: bytes) -> None:
    whole = [encode_frame(Frame(number, entries)) for number, entries in enumerate(frames)]
    data = b"".join(whole)[:cut]
    read = []
    with contextlib.suppress(CaptureError):
        for frame in iter_frames(io.BytesIO(data + noise).read):
            read.append(frame.entries)  # noqa: PERF401 - what came before the error counts
    complete = [frames[i] for i in range(len(frames)) if sum(map(len, whole[: i + 1])) <= cut]
    assert read[: len(complete)] == complete


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_an_error(data: bytes) -> None:
    with pytest.raises(CaptureError):
        read_header(io.BytesIO(data).read)
    with pytest.raises(CaptureError):
        read_header(io.BytesIO(MAGIC + data).read)


_LETTERS = READ_COMM + "".join(kind.letter for kind in KINDS)
_BODIES = {
    "E": encode_batch(builders.batch([builders.exec_(tgid=400)])),
    "R": encode_batch(builders.batch([builders.taskstats_datagram(pid=400)], builders.TASKSTATS_STRIDE)),
    "A": encode_apply(1 << 40),
}


@pytest.mark.parametrize("mode", [Mode.EXACT, Mode.PROCFS], ids=lambda mode: mode.value)
@settings(max_examples=300)
@given(
    entries=st.lists(
        st.tuples(st.sampled_from(_LETTERS), st.binary(max_size=60) | st.none())
        | st.tuples(st.characters(max_codepoint=255), st.binary(max_size=8)),
        max_size=8,
    )
)
def test_any_entries_are_played_or_refused(mode: Mode, entries: list[tuple[str, bytes | None]]) -> None:
    frame = Frame(
        0,
        b"".join(
            encode_entry(letter, _BODIES.get(letter, b"") if body is None else body) for letter, body in entries
        ),
    )
    with contextlib.suppress(CaptureError):
        Replayed(mode, [frame])
