"""The format of captures: a header, then frames of entries.

A capture is the log of the calls of a `Pipeline`; `kinds.py` has what an entry's body means. A frame normally
holds the entries of one drain of the sockets. Numbers outside of datagrams are little-endian. Reading stops at the
first damage; all whole frames before it are good.

Source: docs/capture.md.
"""

import json
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from exporter.errors import CaptureError
from exporter.events import EVENTS

MAGIC = b"\x89proccap"
FORMAT_VERSION = 4

# version, bytes of JSON that follow, their CRC-32
_HEADER = struct.Struct("<HII")
# bytes that follow, CRC-32 of the time and of them, CLOCK_MONOTONIC in ns
_FRAME = struct.Struct("<IIQ")
_TIME = struct.Struct("<Q")
_LONGEST_HEADER = 1 << 16
# A recorder ends a frame that is longer than a MiB with the next entry; this bounds a reader's memory.
LONGEST_FRAME_BYTES = 1 << 23
_LARGEST_NUMBER = (1 << 63) - 1
_FASTEST = 1
# Names of containers, in Header.groups.
_OF_PODS, _OF_OTHERS = "names", "containers"

# kind, bytes that follow
_ENTRY = struct.Struct("<BI")


class Header(NamedTuple):
    """What a reader has to know before the first frame."""

    exporter: str
    """Version of the program that wrote it."""
    kernel: str
    """The kernel's release, as of uname -r."""
    mode: str
    filter: str
    events: frozenset[str]
    """As --events had them."""
    family_id: int
    """Of taskstats; 0 where there are no exit records."""
    taskstats_version: int
    own_tgid: int
    wall_ns: int
    """CLOCK_REALTIME at the beginning of this file."""
    monotonic_ns: int
    """CLOCK_MONOTONIC at the same moment."""
    continued: bool
    """This file begins where another one ended: what was counted before is not in it."""
    byte_order: str = sys.byteorder
    sideband: bool = False
    """It has side-band records: that is format 2."""
    groups: str = ""
    """It says where processes are (`places`), and what containers are called: those of pods (`names`), all others
    (`containers`), or both (`names,containers`). Then it is format 3."""
    oom: str = ""
    """It says which processes the OOM killer chose, and this is where that was known from (`kmsg`, `syslog`,
    `vmstat`): then it is format 4."""

    @property
    def names_pods(self) -> bool:
        """It says what containers of pods are called."""
        return _OF_PODS in self.groups.split(",")

    @property
    def names_containers(self) -> bool:
        """It says what containers in no pod are called."""
        return _OF_OTHERS in self.groups.split(",")


def say_groups(names_pods: bool, names_containers: bool) -> str:
    """Return what a header says of groups."""
    return ",".join([_OF_PODS] * names_pods + [_OF_OTHERS] * names_containers) or "places"


_HEADER_FIELDS = {name: list if name == "events" else kind for name, kind in Header.__annotations__.items()}
# A file is written in the first format that has all that is in it, so that earlier exporters can read it.
_SINCE = {"sideband": 2, "groups": 3, "oom": 4}
_FIELDS_OF = {
    version: {name: kind for name, kind in _HEADER_FIELDS.items() if _SINCE.get(name, 1) <= version}
    for version in range(1, FORMAT_VERSION + 1)
}


class Frame(NamedTuple):
    """The entries of one drain, or some of them."""

    time_ns: int
    """CLOCK_MONOTONIC when the last of them was written."""
    entries: bytes


def encode_header(header: Header) -> bytes:
    """Return the beginning of a file."""
    version = max([1, *(since for name, since in _SINCE.items() if getattr(header, name))])
    fields = header._asdict() | {"events": sorted(header.events)}
    body = json.dumps({name: fields[name] for name in _FIELDS_OF[version]}).encode("ascii")
    return MAGIC + _HEADER.pack(version, len(body), zlib.crc32(body)) + body


def read_header(read: Callable[[int], bytes]) -> Header:
    """Read the beginning of a file.

    Args:
        read: Returns as many bytes as it is asked for, fewer only at the end of the file.

    Raises:
        CaptureError: It is no capture, or cannot be replayed here. No bytes raise anything else.
    """
    if read(len(MAGIC)) != MAGIC:
        raise CaptureError("this is not a capture: it does not begin with one's signature")
    head = read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise CaptureError("the capture's header is cut short")
    version, size, checksum = _HEADER.unpack(head)
    if version not in _FIELDS_OF:
        raise CaptureError(f"the capture has format {version}; this exporter reads formats 1 to {FORMAT_VERSION}")
    body = read(min(size, _LONGEST_HEADER))
    if len(body) < size or zlib.crc32(body) != checksum:
        raise CaptureError("the capture's header is damaged")
    try:
        fields = json.loads(body)
        sound = {name: type(value) for name, value in fields.items()} == _FIELDS_OF[version]
        numbers = [value for value in fields.values() if type(value) is int]
        sound = sound and all(0 <= number <= _LARGEST_NUMBER for number in numbers)
    except (ValueError, AttributeError, RecursionError):
        sound = False
    if not sound or not set(EVENTS).issuperset(map(str, fields["events"])) or not fields["events"]:
        raise CaptureError("the capture's header does not say what it should")
    header = Header(**fields | {"events": frozenset(fields["events"])})
    if header.byte_order != sys.byteorder:
        raise CaptureError(f"the capture is of a {header.byte_order}-endian machine, this one is not")
    return header


def encode_frame(frame: Frame) -> bytes:
    """Return a frame's bytes."""
    body = zlib.compress(frame.entries, _FASTEST)
    return _FRAME.pack(len(body), zlib.crc32(body, zlib.crc32(_TIME.pack(frame.time_ns))), frame.time_ns) + body


def iter_frames(read: Callable[[int], bytes]) -> Iterator[Frame]:
    """Read the frames behind a header.

    Args:
        read: As for read_header.

    Raises:
        CaptureError: What follows is damaged. No bytes raise anything else.
    """
    number = 0
    while head := read(_FRAME.size):
        number += 1
        if len(head) < _FRAME.size:
            raise CaptureError(f"the capture is cut short in frame {number}")
        size, checksum, time_ns = _FRAME.unpack(head)
        body = read(min(size, LONGEST_FRAME_BYTES))
        if len(body) < size:
            raise CaptureError(f"the capture is cut short in frame {number}")
        if zlib.crc32(body, zlib.crc32(_TIME.pack(time_ns))) != checksum:
            raise CaptureError(f"the capture is damaged in frame {number}: wrong checksum")
        unpacker = zlib.decompressobj()
        try:
            entries = unpacker.decompress(body, LONGEST_FRAME_BYTES)
        except zlib.error as error:
            raise CaptureError(f"the capture is damaged in frame {number}: {error}") from error
        if not unpacker.eof:
            raise CaptureError(f"the capture is damaged in frame {number}: it is too long")
        yield Frame(time_ns, entries)


def encode_entry(letter: str, body: bytes = b"") -> bytes:
    """Put the letter of an entry's kind and its length before its body."""
    return _ENTRY.pack(ord(letter), len(body)) + body


def iter_entries(entries: bytes) -> Iterator[tuple[str, bytes]]:
    """Take a frame's entries apart: (letter of the kind, body).

    Raises:
        CaptureError: They do not fill the frame.
    """
    at = 0
    while at < len(entries):
        if at + _ENTRY.size > len(entries):
            raise CaptureError("the capture has an entry without an end")
        kind, size = _ENTRY.unpack_from(entries, at)
        at += _ENTRY.size + size
        if at > len(entries):
            raise CaptureError("the capture has an entry without an end")
        yield chr(kind), entries[at - size : at]
