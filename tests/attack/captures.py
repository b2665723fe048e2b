"""Captures that are made for an attack."""

from pathlib import Path

from attack.attack import IN_A_DRAIN, SHELL, events, records
from golden.busy_minute import HEADER

from exporter.capture.format import Frame, Header, encode_entry, encode_frame, encode_header
from exporter.capture.kinds import encode_adopt, encode_apply, encode_batch
from exporter.kernel.procfs import ProcessInfo


def write_capture(path: Path, *frames: bytes, header: Header = HEADER) -> Path:
    """Write a capture of these frames' entries."""
    path.write_bytes(
        encode_header(header)
        + b"".join(encode_frame(Frame(HEADER.monotonic_ns + n, entries)) for n, entries in enumerate(frames))
    )
    return path


def many_names(path: Path, processes: int) -> Path:
    """Write a capture of processes with a comm each, so that /metrics is as large as it may be."""
    shell = ProcessInfo(b"sh", 1000, 0, zombie=False, threads=frozenset())
    frames = [encode_entry("P", encode_adopt(SHELL, shell, 1, 0))]
    frames += [
        encode_entry("E", encode_batch(events(first)))
        + encode_entry("R", encode_batch(records(first)))
        + encode_entry("A", encode_apply(1))
        for first in range(0, processes, IN_A_DRAIN)
    ]
    return write_capture(path, *frames)
