"""Durations and sizes as people write them: 15s, 1h30m, 64MiB.

A duration has each unit at most once, the largest first, as Prometheus has it.
A unit of a size is a power of 1024, with and without its `i` and its `B`, as in systemd and Prometheus: 64M, 64Mi,
64MB and 64MiB are the same. A plain number has no unit: seconds, bytes.
"""

import re

_NS_OF_UNIT = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}
_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,9})?"
_SECONDS = re.compile(_NUMBER)
# Each unit once, the largest first: 1m1h is more likely a slip than 1h1m.
_DURATION = re.compile("".join(f"(?:({_NUMBER}){unit})?" for unit in reversed(_NS_OF_UNIT)))
_SIZE = re.compile(r"([0-9]{1,18})(?:([kKMGT])i?)?B?")
_SHIFTS = {"": 0, "k": 10, "K": 10, "M": 20, "G": 30, "T": 40}


def parse_duration_ns(text: str) -> int | None:
    """Parse a duration such as 200ms, 15s, 1h30m, 1d or 2.5, which is in seconds.

    Returns:
        Nanoseconds; None if the text is no duration.
    """
    if _SECONDS.fullmatch(text):
        return round(float(text) * _NS_OF_UNIT["s"])
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        return None
    parts = zip(match.groups(), reversed(_NS_OF_UNIT.values()), strict=True)
    return sum(round(float(number) * ns) for number, ns in parts if number is not None)


def parse_bytes(text: str) -> int | None:
    """Parse a size such as 64MiB, 64M, 1G or 4096, which is in bytes.

    Returns:
        Bytes; None if the text is no size.
    """
    match = _SIZE.fullmatch(text)
    return None if match is None else int(match[1]) << _SHIFTS[match[2] or ""]
