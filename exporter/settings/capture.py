"""The flags of captures: recorded, and replayed."""

from dataclasses import dataclass
from pathlib import Path

from exporter.flag_parsers import MayBeEmpty, SizeBetween, parse_path, parse_speed
from exporter.flags import flag


@dataclass(frozen=True, slots=True)
class Capture:
    """What to record or to replay."""

    file: Path | None = flag(
        "--capture",
        "FILE",
        "",
        "Record everything that the exporter receives, for --replay; an older file becomes FILE.1.",
        MayBeEmpty(parse_path),
        no_effect_with=("--replay",),
    )
    max_bytes: int = flag(
        "--capture.max-bytes",
        "SIZE",
        "100MiB",
        "Size at which a capture continues in a new file.",
        SizeBetween(1 << 16, 1 << 50),
        needs="--capture",
    )
    replay: Path | None = flag(
        "--replay",
        "FILE",
        "",
        "Serve the metrics of a capture. Needs no privilege and no connector.",
        MayBeEmpty(parse_path),
    )
    speed: float = flag(
        "--speed",
        "FACTOR",
        "1",
        "Speed of --replay: 1 as it happened, 10 ten times as fast, 0 as fast as possible.",
        parse_speed,
        needs="--replay",
    )
