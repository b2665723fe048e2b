"""Captures that were made up: whatever their bytes are, memory is bounded, a stop quick, and a line says why."""

import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import builders
import pytest
from attack.captures import write_capture
from attack.program import PATIENCE_SECONDS, running
from golden.busy_minute import HEADER

from exporter.capture.format import MAGIC, encode_entry, encode_header
from exporter.capture.kinds import (
    CommRead,
    encode_apply,
    encode_batch,
    encode_comm_read,
    encode_container,
    encode_oom_lines,
    encode_oom_total,
    encode_place,
    encode_record,
)
from exporter.groups.cgroup_path import Placement
from exporter.kernel.netlink import Batch
from exporter.kernel.taskstats import COMM_UID_BYTES
from exporter.processes.grouping import Found
from exporter.processes.places import PodContainer, PodName

FRAME_BYTES = 7 << 20
FRAMES = 8
PEAK_MIB = 140
LOOK_SECONDS = 10.0
STOP_SECONDS = 5.0


def adopted(tgid: int, threads: int = 0, comm: bytes = b"a") -> bytes:
    head = struct.pack("<iIQQ?I", tgid, 1000, 1, 0, False, threads)
    return encode_entry("P", head + bytes(4 * threads) + comm)


def known(tgid: int, comm: bytes) -> bytes:
    return encode_entry("K", struct.pack("<iqQ??I", tgid, 1000, 1, False, True, 0) + comm)


def forks() -> Iterator[bytes]:
    """Batches of forks of ever new processes."""
    fork = builders.fork(parent_tgid=1, child_tgid=0)
    pids = count(100)
    while True:
        data = bytearray(fork * 4000)
        for n in range(4000):
            pid = next(pids)
            struct.pack_into("=ii", data, n * len(fork) + 52 + 8, pid, pid)
        stride = builders.CONNECTOR_STRIDE
        yield encode_entry("E", encode_batch(Batch(memoryview(data), stride, [stride] * 4000)))


def frames_of(entries: Iterator[bytes]) -> list[bytes]:
    """Fill frames."""
    frames = []
    for _ in range(FRAMES):
        frame = bytearray()
        while len(frame) < FRAME_BYTES:
            frame += next(entries)
        frames.append(bytes(frame))
    return frames


def applied(entries: Iterator[bytes]) -> Iterator[bytes]:
    for entry in entries:
        yield entry + encode_entry("A", encode_apply(1))


HOSTILE: dict[str, Callable[[], Iterator[bytes]]] = {
    "processes": lambda: (adopted(n) for n in count(100)),
    "threads": lambda: (adopted(n, 60_000) for n in count(100)),
    "too many threads": lambda: (adopted(n, 3_000_000) for n in count(100)),
    "long names": lambda: (known(n, b"%d" % n * 100_000) for n in count(100)),
    "names": lambda: (known(n, b"%d" % n) for n in count(100)),
    "canaries": lambda: (encode_entry("X", struct.pack("<1000i", *range(n, n + 1000))) for n in count(100, 1000)),
    "events without a count": forks,
    "forks": lambda: applied(forks()),
    "answers": lambda: (encode_entry("C", encode_comm_read(CommRead(n, b"a", 1))) for n in count(100)),
    "long answers": lambda: (encode_entry("C", encode_comm_read(CommRead(n, b"a" * 99999, 1))) for n in count(1)),
    "nothing": lambda: (encode_entry("Y") for _ in count()),
}


def placed(placement: Placement, n: int) -> bytes:
    return encode_entry("B", encode_place(0, n, Found(placement, n, n)))


def in_ever_new_places(make: Callable[[int], Placement]) -> Iterator[bytes]:
    """Processes that are found in a place that no other is in."""
    for n in count(100):
        yield adopted(100 + n % 50_000) + placed(make(n), 100 + n % 50_000)


def named(n: int, name: PodName | None) -> bytes:
    return encode_entry("D", encode_container(PodContainer("", f"{n:064x}"), name))


def sideband(n: int) -> bytes:
    fork = struct.pack("=IIIIQ", 100 + n % 4_000_000, 1, 100 + n % 4_000_000, 1, n)
    return builders.perf_record(7, fork + bytes(24))


# What came with formats 2 to 4.
HOSTILE_SINCE: dict[str, Callable[[], Iterator[bytes]]] = {
    "units": lambda: in_ever_new_places(lambda n: Placement("", "", f"{n}.service", "")),
    "long units": lambda: in_ever_new_places(lambda n: Placement("", "", f"{n}".ljust(16_000, "x"), "")),
    "containers without a name": lambda: in_ever_new_places(lambda n: Placement("", f"{n:064x}", "", "")),
    "containers of pods": lambda: in_ever_new_places(lambda n: Placement(f"{n:032x}", f"{n:064x}", "", "")),
    "names of nobody": lambda: (named(n, PodName("", "", "x" * 16_000)) for n in count()),
    "names": lambda: (
        adopted(n % 50_000) + placed(Placement("", f"{n:064x}", "", ""), n % 50_000)
        + named(n, PodName("", "", f"{n}".ljust(16_000, "x")))
        for n in count(100)
    ),
    "sessions": lambda: applied(sessions()),
    "OOM lines": lambda: (
        encode_entry("O", encode_oom_lines(range(n, n + 60_000), n)) for n in count(100, 60_000)
    ),
    "OOM totals": lambda: (encode_entry("V", encode_oom_total(n, n)) for n in count()),
    "OOM totals that fall": lambda: (encode_entry("V", encode_oom_total((1 << 64) - 1 - n, n)) for n in count()),
    "records of earlier files": lambda: (
        encode_entry("W", encode_record((n, n, 1, 1 << 40, bytes(COMM_UID_BYTES), n, n))) for n in count(100)
    ),
    "side-band records": lambda: (
        encode_entry("S", b"".join(map(sideband, range(n, n + 1000)))) for n in count(100, 1000)
    ),
    "side-band records that are none": lambda: (encode_entry("S", bytes(99_999)) for _ in count()),
}  # fmt: skip


def sessions() -> Iterator[bytes]:
    """Batches of sessions that ever new processes begin."""
    stride = builders.CONNECTOR_STRIDE
    for first in count(100, 1000):
        datagrams = [
            event.ljust(stride, b"\0")
            for n in range(first, first + 1000)
            for event in (builders.fork(parent_tgid=1, child_tgid=n), builders.sid(tgid=n))
        ]
        data = memoryview(b"".join(datagrams))
        yield encode_entry("E", encode_batch(Batch(data, stride, [stride] * len(datagrams))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entries", "has_all"),
    [
        *((entries, False) for entries in HOSTILE.values()),
        *((entries, True) for entries in HOSTILE_SINCE.values()),
    ],
    ids=[*HOSTILE, *(f"{name}, format 4" for name in HOSTILE_SINCE)],
)
def test_a_made_up_capture_cannot_fill_the_memory_or_delay_a_stop(
    tmp_path: Path, entries: Callable[[], Iterator[bytes]], *, has_all: bool
) -> None:
    header = HEADER._replace(sideband=True, groups="names,containers", oom="kmsg") if has_all else HEADER
    flags = ["--group.by=pod,unit"] if has_all else []
    capture = write_capture(tmp_path / "capture", *frames_of(entries()), header=header)
    with running(tmp_path / "log", *flags, capture=capture) as program:
        time.sleep(1)
        assert program.get("/-/healthy")[0] == 200
        ends = time.monotonic() + LOOK_SECONDS
        # It is refused, or there is still much of it to be played.
        while b"the capture" not in program.log.read_bytes() and time.monotonic() < ends:
            time.sleep(0.1)
        assert program.peak_rss_mib < PEAK_MIB
    with running(tmp_path / "log", *flags, capture=capture) as program:
        began = time.monotonic()
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(PATIENCE_SECONDS) == 0
        assert time.monotonic() - began < STOP_SECONDS


def header(body: bytes) -> bytes:
    return MAGIC + struct.pack("<HII", 1, len(body), zlib.crc32(body)) + body


SOUND = encode_header(HEADER)[len(MAGIC) + 10 :]


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000,
        SOUND.replace(b'"own_tgid": 900', b'"own_tgid": ' + b"9" * 400),
        SOUND.replace(b'"wall_ns": ', b'"wall_ns": 1' + b"0" * 30),
        SOUND.replace(b'"wall_ns": ', b'"wall_ns": -'),
        SOUND.replace(b'"monotonic_ns": ', b'"monotonic_ns": 1' + b"0" * 400),
    ],
    ids=["nested", "a long number", "a late time", "an early time", "a late clock"],
)
def test_a_made_up_header_is_refused_in_one_line(tmp_path: Path, body: bytes) -> None:
    assert body != SOUND
    capture = tmp_path / "capture"
    capture.write_bytes(header(body))
    command = [sys.executable, "-m", "exporter", f"--replay={capture}", "--web.listen-address=127.0.0.1:0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (4, 1)
    assert "the capture's header does not say what it should" in ended.stderr
