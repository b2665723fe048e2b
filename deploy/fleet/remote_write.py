"""Samples of the past for a running server: Prometheus' remote write.

Source: https://prometheus.io/docs/specs/remote_write_spec/,
https://github.com/google/snappy/blob/main/format_description.txt
"""

import struct
import urllib.request
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from exporter.exposition.wire import double, label, message, varint

STALE: float = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""Says that a series has ended: not any NaN, but the one of these bits."""

_PIECE_BYTES = 1 << 16
_SAMPLE = 2


class Series(NamedTuple):
    """Samples of a series, in the order of time."""

    labels: Mapping[str, str]
    """Its name among them, as `__name__`."""
    samples: Iterable[tuple[int, float]]
    """Times in milliseconds, and values."""


def send(url: str, series: Iterable[Series]) -> None:
    """Write samples into a server that takes remote writes at this address."""
    headers = {
        "Content-Type": "application/x-protobuf",
        "Content-Encoding": "snappy",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
    }
    body = snappy(b"".join(message(1, _encoded(one)) for one in series))
    request = urllib.request.Request(url, body, headers)  # noqa: S310  # the loopback
    with urllib.request.urlopen(request, timeout=60):  # noqa: S310  # the loopback
        pass


def _encoded(series: Series) -> bytes:
    labels = b"".join(label(name, value) for name, value in sorted(series.labels.items()))
    return labels + b"".join(_sample_head(time_ms) + double(value) for time_ms, value in series.samples)


@lru_cache(1 << 12)
def _sample_head(time_ms: int) -> bytes:
    """Encode what comes before the value of a sample: its length and its time, which many samples have."""
    time = b"\x10" + varint(time_ms)
    return bytes([_SAMPLE << 3 | 2, len(time) + 9]) + time + b"\x09"


def snappy(data: bytes) -> bytes:
    """Return the bytes as snappy writes them if it finds nothing to compress."""
    made = bytearray(varint(len(data)))
    for at in range(0, len(data), _PIECE_BYTES):
        piece = data[at : at + _PIECE_BYTES]
        made += b"\xf4" + struct.pack("<H", len(piece) - 1) + piece
    return bytes(made)
