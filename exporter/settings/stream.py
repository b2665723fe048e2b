"""The flags of the stream of events."""

from dataclasses import dataclass
from pathlib import Path

from exporter.flag_parsers import (
    CountBetween,
    MayBeEmpty,
    SizeBetween,
    find_group,
    parse_mode,
    parse_path,
    parse_uids,
)
from exporter.flags import flag


@dataclass(frozen=True, slots=True)
class Stream:
    """Which local clients get events as they happen."""

    socket: Path | None = flag(
        "--stream.socket",
        "PATH",
        "",
        "Unix socket to serve /events on: events as they happen, as JSON.",
        MayBeEmpty(parse_path),
    )
    mode: int = flag(
        "--stream.mode",
        "MODE",
        "0600",
        "Permissions of the Unix socket, in octal.",
        parse_mode,
    )
    gid: int | None = flag(
        "--stream.group",
        "GROUP",
        "",
        "Name or gid of the group of the Unix socket.",
        MayBeEmpty(find_group),
    )
    uids: frozenset[int] | None = flag(
        "--stream.allow-uid",
        "LIST",
        "",
        "Uids whose processes are answered; empty for all that the mode of the socket lets connect.",
        MayBeEmpty(parse_uids),
    )
    max_clients: int = flag(
        "--stream.max-clients",
        "N",
        "64",
        "Most clients at the same time.",
        CountBetween(1, 99999),
    )
    buffer_bytes: int = flag(
        "--stream.buffer-bytes",
        "SIZE",
        "8MiB",
        "Most bytes that wait for a client that reads slowly; further events are dropped for that client only.",
        SizeBetween(4096, 1 << 30),
    )
