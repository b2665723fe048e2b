"""The format of captures and the file they are in: what is read is what was written, damage is reported."""

import io
import os
import re
import stat
import struct
from pathlib import Path

import pytest

from exporter.capture import format as capture
from exporter.capture.file import CaptureFile, open_capture
from exporter.capture.format import (
    Frame,
    Header,
    encode_frame,
    encode_header,
    iter_frames,
    read_header,
)
from exporter.errors import CaptureError

HEADER = Header(
    exporter="0.1.0",
    kernel="6.18.0",
    mode="taskstats",
    filter="kernel",
    events=frozenset({"fork", "exit"}),
    family_id=31,
    taskstats_version=16,
    own_tgid=4000,
    wall_ns=1_700_000_000_000_000_000,
    monotonic_ns=5_000,
    continued=False,
)
FRAMES = [Frame(6_000, b"first"), Frame(7_000, b""), Frame(8_000, b"third" * 1000)]
WHOLE = b"".join(map(encode_frame, FRAMES))


def frames_in(data: bytes) -> tuple[list[Frame], str]:
    """Return the whole frames, and what was said of the rest."""
    read: list[Frame] = []
    try:
        for frame in iter_frames(io.BytesIO(data).read):
            read.append(frame)  # noqa: PERF402 - what came before the error counts
    except CaptureError as error:
        return read, str(error)
    return read, ""


def test_a_header_is_read_back() -> None:
    assert read_header(io.BytesIO(encode_header(HEADER)).read) == HEADER


def test_frames_are_read_back() -> None:
    assert frames_in(WHOLE) == (FRAMES, "")


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_a_capture_that_is_cut_short_gives_its_whole_frames_and_says_so(length: int) -> None:
    ends = [sum(len(encode_frame(frame)) for frame in FRAMES[:n]) for n in range(len(FRAMES) + 1)]
    whole = sum(length >= end for end in ends[1:])
    read, why = frames_in(WHOLE[:length])
    assert read == FRAMES[:whole]
    assert why == ("" if length in ends else f"the capture is cut short in frame {whole + 1}")


@pytest.mark.parametrize("at", range(len(WHOLE)))
def test_a_byte_that_changed_is_noticed(at: int) -> None:
    changed = bytearray(WHOLE)
    changed[at] ^= 0x40
    read, why = frames_in(bytes(changed))
    assert read == FRAMES[: len(read)]
    assert len(read) < len(FRAMES)
    assert "in frame" in why


def test_a_frame_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "LONGEST_FRAME_BYTES", 1000)
    assert frames_in(encode_frame(Frame(0, bytes(1001)))) == (
        [],
        "the capture is damaged in frame 1: it is too long",
    )


def test_a_capture_without_side_band_records_is_one_that_earlier_exporters_read() -> None:
    version = struct.Struct("<H")
    assert version.unpack_from(encode_header(HEADER), len(capture.MAGIC)) == (1,)
    assert b"sideband" not in encode_header(HEADER)
    with_records = HEADER._replace(sideband=True)
    assert version.unpack_from(encode_header(with_records), len(capture.MAGIC)) == (2,)
    assert read_header(io.BytesIO(encode_header(with_records)).read) == with_records
    assert b"groups" not in encode_header(with_records)
    with_groups = HEADER._replace(groups="places")
    assert version.unpack_from(encode_header(with_groups), len(capture.MAGIC)) == (3,)
    assert read_header(io.BytesIO(encode_header(with_groups)).read) == with_groups
    assert b"oom" not in encode_header(with_groups)
    with_oom = HEADER._replace(oom="kmsg")
    assert version.unpack_from(encode_header(with_oom), len(capture.MAGIC)) == (4,)
    assert read_header(io.BytesIO(encode_header(with_oom)).read) == with_oom


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "this is not a capture"),
        (b"\x7fELF" + bytes(100), "this is not a capture"),
        (capture.MAGIC, "cut short"),
        (capture.MAGIC + b"\x05\0" + encode_header(HEADER)[10:], "format 5; this exporter reads formats 1 to 4"),
        (encode_header(HEADER)[:-1], "header is damaged"),
        (encode_header(HEADER).replace(b"6.18", b"6.19"), "header is damaged"),
        (encode_header(HEADER._replace(byte_order="big")), "of a big-endian machine"),
        (encode_header(HEADER._replace(events=frozenset({"birth"}))), "does not say what it should"),
        (encode_header(HEADER._replace(events=frozenset())), "does not say what it should"),
        (encode_header(HEADER._replace(family_id="31")), "does not say what it should"),  # type: ignore[arg-type]
    ],
    ids=[
        "empty", "program", "signature", "newer", "cut", "changed", "endian", "event", "no events", "type",
    ],
)  # fmt: skip
def test_what_cannot_be_replayed_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(CaptureError, match=re.escape(why)):
        read_header(io.BytesIO(data).read)


# -- the file ------------------------------------------------------------------------------------------------


def read_file(path: Path) -> tuple[Header, list[Frame]]:
    with open_capture(path) as (header, file):
        return header, list(iter_frames(file.read))


def test_a_file_that_is_full_becomes_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    file = CaptureFile(path, 1, HEADER)
    for number in range(3):
        assert file.full
        file.write(Frame(number, b"frame"))
        file.begin_next()
    file.close()
    assert sorted(os.listdir(tmp_path)) == ["capture", "capture.1"]
    old, new = read_file(tmp_path / "capture.1"), read_file(path)
    assert (old[0].continued, old[1]) == (True, [Frame(2, b"frame")])
    assert (new[0].continued, new[1]) == (True, [])
    assert new[0]._replace(wall_ns=0, monotonic_ns=0) == HEADER._replace(wall_ns=0, monotonic_ns=0, continued=True)
    assert new[0].monotonic_ns >= old[0].monotonic_ns > 0


def test_a_capture_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    CaptureFile(path, 1 << 20, HEADER).close()
    first = path.read_bytes()
    CaptureFile(path, 1 << 20, HEADER).close()
    assert (tmp_path / "capture.1").read_bytes() == first


def test_what_is_no_file_is_left_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name in ("folder", "pipe", "link"):
        with pytest.raises(CaptureError, match=rf"--capture: cannot write .*/{name}: not a regular file"):
            CaptureFile(tmp_path / name, 1 << 20, HEADER)
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "pipe"]


def test_other_users_cannot_read_it(tmp_path: Path) -> None:
    CaptureFile(tmp_path / "capture", 1 << 20, HEADER).close()
    assert stat.S_IMODE((tmp_path / "capture").stat().st_mode) == 0o600


def test_a_place_that_cannot_be_written_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"--capture: cannot write .*: No such file or directory"):
        CaptureFile(tmp_path / "nowhere" / "capture", 1 << 20, HEADER)
    with (
        pytest.raises(CaptureError, match=r"--replay: cannot read .*: No such file or directory"),
        open_capture(tmp_path / "nothing"),
    ):
        pass


def test_a_full_disk_ends_the_capture_and_nothing_else(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = CaptureFile(tmp_path / "capture", 1, HEADER)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, file._fd or 0)  # noqa: SLF001 - the disk becomes full while the file is open
    os.close(full)
    file.write(Frame(0, b"frame"))
    file.write(Frame(1, b"frame"))
    assert not file.full
    [record] = caplog.records
    assert (record.getMessage(), record.__dict__["why"]) == ("the capture ends here", "No space left on device")


def test_a_capture_goes_on_though_another_user_put_a_directory_in_the_place_of_its_first_part(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    file = CaptureFile(tmp_path / "capture", 1, HEADER)
    (tmp_path / "capture.1").mkdir()
    file.begin_next()
    file.write(Frame(0, b"frame"))
    file.close()
    with open_capture(tmp_path / "capture") as (header, rest):
        assert header.continued
        assert [frame.entries for frame in iter_frames(rest.read)] == [b"frame"]
    assert [record.getMessage() for record in caplog.records] == ["the capture before cannot be kept"]
