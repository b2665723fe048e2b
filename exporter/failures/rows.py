"""One failure in words and numbers: as JSON has it, and as people read it."""

from exporter.kernel.wait_status import exit_code, signal_name
from exporter.processes.bad_ends import Failure
from exporter.stream.wall_clock import WallClock
from exporter.tallies.labels import UNKNOWN, known_group

_NS_PER_SECOND = 1_000_000_000
_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def fields_of(failure: Failure, clock: WallClock) -> dict[str, object]:
    """Return a failure as JSON has it, with the names of /events. None: that is not known."""
    return {
        "time": clock.utc(failure.time_ns),
        "pid": failure.pid,
        "ppid": failure.ppid,
        "parent_comm": failure.parent_comm,
        "uid": failure.uid,
        "comm": None if failure.comm == UNKNOWN else failure.comm,
        **known_group(failure.group),
        "exit_code": exit_code(failure.status),
        "signal": signal_name(failure.status) or None,
        "core": failure.core,
        "oom": failure.oom,
        "lifetime_seconds": None if failure.lifetime_ns is None else failure.lifetime_ns / _NS_PER_SECOND,
        "cpu_seconds": None if failure.cpu_ns is None else failure.cpu_ns / _NS_PER_SECOND,
        "max_rss_bytes": None if failure.max_rss_kib is None else failure.max_rss_kib << 10,
        "execs": list(failure.execs),
    }


def shown_end(failure: Failure) -> str:
    """Return how a process ended: `exit 1`, `SIGSEGV, core`, `SIGKILL, out of memory`."""
    end = signal_name(failure.status) or f"exit {exit_code(failure.status)}"
    if failure.oom:
        return f"{end}, out of memory"
    return f"{end}, core" if failure.core else end


def shown_duration(ns: int | None) -> str:
    """Return a duration in three digits or two units: 1.23 ms, 35.4 s, 2 h 5 min; an empty text for None."""
    if ns is None:
        return ""
    if ns < 1_000_000:
        return f"{ns / 1000:.0f} us"
    if ns < 999_500_000:
        return f"{ns / 1_000_000:.3g} ms"
    seconds = ns / _NS_PER_SECOND
    for unit_seconds, unit, next_seconds, next_unit in _UNITS:
        if seconds >= unit_seconds:
            rest = int(seconds % unit_seconds) // next_seconds
            return f"{int(seconds) // unit_seconds} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{seconds:.3g} s"


def shown_kib(kib: int | None) -> str:
    """Return memory with a unit; an empty text for None."""
    if kib is None:
        return ""
    if kib < 1 << 10:
        return f"{kib} KiB"
    return f"{kib / 1024:.3g} MiB" if kib < 999 << 10 else f"{kib / (1 << 20):.3g} GiB"
