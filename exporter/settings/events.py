"""The flags of the events: which the kernel sends, and how they arrive."""

from dataclasses import dataclass

from exporter.events import DEFAULT_EVENTS, EVENTS, parse_events
from exporter.flag_parsers import IntervalBetween, SizeBetween
from exporter.flags import flag

_A_DAY_SECONDS = 86400


@dataclass(frozen=True, slots=True)
class Events:
    """What to ask the kernel for."""

    wanted: frozenset[str] = flag(
        "--events",
        "LIST",
        ",".join(name for name in EVENTS if name in DEFAULT_EVENTS),
        f"What to count, any of {', '.join(EVENTS)}. Metrics of other events are absent.",
        parse_events,
    )
    filter_by: str = flag(
        "--filter",
        "BY",
        "auto",
        "What keeps other events away: an event mask in the kernel (Linux 6.6 and later), a bpf program on the "
        "socket, or auto.",
        choices=("auto", "kernel", "bpf"),
    )
    canary_interval_seconds: float = flag(
        "--canary.interval",
        "DURATION",
        "15s",
        "Time between two canaries: child processes whose end proves that the kernel still sends events; "
        "0 turns them off.",
        IntervalBetween(1, _A_DAY_SECONDS),
    )
    receive_buffer_bytes: int = flag(
        "--receive-buffer.bytes",
        "SIZE",
        "64MiB",
        "Size of each socket's receive buffer: 960 bytes hold an event, 1280 an exit record. "
        "Without CAP_NET_ADMIN at most twice net.core.rmem_max.",
        # A page; an int of the kernel's, which doubles what it is asked for.
        SizeBetween(4096, 1 << 30),
    )
