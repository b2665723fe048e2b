"""The settings, from flags and environment variables.

Every flag has a variable: `--web.listen-address` is PROC_CONNECTOR_EXPORTER_WEB_LISTEN_ADDRESS. The flag wins.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from exporter import __version__
from exporter.errors import ConfigError
from exporter.events import DEFAULT_EVENTS, EVENTS, parse_events
from exporter.flag_parsers import (
    count_between,
    find_group,
    interval_between,
    optional,
    parse_mode,
    parse_page_path,
    parse_path,
    parse_speed,
    parse_text,
    parse_uids,
)
from exporter.flags import Flag, flag, flags_of, switch
from exporter.service.privileges import User, find_user
from exporter.tallies.tallies import DEFAULT_LIMIT, LEAST_LIMIT

DEFAULT_PORT = 10061
ATTRIBUTIONS = ("auto", "taskstats", "procfs")
EXEC_NAMES = ("auto", "sideband", "events")
LOG_LEVELS = ("debug", "info", "warn", "error")

_AN_HOUR_SECONDS = 3600
_A_DAY_SECONDS = 86400
_A_YEAR_SECONDS = 365 * _A_DAY_SECONDS
# A page; an int of the kernel's, which doubles what it is asked for.
_BUFFER_BYTES = count_between(4096, 1 << 30)


class ListenAddress(NamedTuple):
    """Where to serve; host None is every address of the machine."""

    host: str | None
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host or ""
        return f"{host}:{self.port}"


def parse_listen_addresses(flag: str, text: str) -> tuple[ListenAddress, ...]:
    """Parse a comma-separated list of HOST:PORT, [IPV6]:PORT or :PORT.

    Raises:
        ConfigError: One is none of these.
    """
    return tuple(_parse_listen_address(flag, address) for address in text.split(","))


def _parse_listen_address(flag: str, text: str) -> ListenAddress:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or len(port) > 5 or int(port) > 0xFFFF:
        raise ConfigError(f"{flag} must be HOST:PORT, [IPV6]:PORT or :PORT, got {text!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{flag}: an IPv6 address belongs in brackets, got {text!r}")
    return ListenAddress(host or None, int(port))


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a user can set, a row for each flag.

    Raises:
        ConfigError: Two values do not go together.
    """

    listen_addresses: tuple[ListenAddress, ...] = flag(
        "--web.listen-address",
        "ADDRESS",
        f":{DEFAULT_PORT}",
        "Where to serve: HOST:PORT, [IPV6]:PORT or :PORT; several, separated by commas or as several flags.",
        parse_listen_addresses,
        repeatable=True,
    )
    systemd_socket: bool = switch(
        "--web.systemd-socket", "Serve on the sockets that systemd passes, instead of --web.listen-address."
    )
    web_config_file: str | None = flag(
        "--web.config.file",
        "FILE",
        "",
        "File with TLS, passwords, headers and rate limit, as of exporter-toolkit.",
        optional(parse_text),
    )
    max_requests: int = flag(
        "--web.max-requests",
        "N",
        "40",
        "Most scrapes at once; further ones get 503; 0 for no limit.",
        count_between(0, 1_000_000),
    )
    telemetry_path: str = flag("--web.telemetry-path", "PATH", "/metrics", "Path of the metrics.", parse_page_path)
    created_timestamps: bool = switch(
        "--web.created-timestamps",
        "Say when each series was born: _created in OpenMetrics, which doubles its lines, and in protobuf.",
    )
    native_histograms: bool = switch(
        "--web.native-histograms", "Add native histograms to the classic ones, for clients that ask for protobuf."
    )
    attribution: str = flag(
        "--attribution",
        "MODE",
        "auto",
        "Where comm and uid come from: taskstats (exact, needs CAP_NET_ADMIN), procfs, or auto: the best allowed.",
        choices=ATTRIBUTIONS,
    )
    exec_names: str = flag(
        "--exec-names",
        "SOURCE",
        "auto",
        "Where the comm of an exec and the forker of a process come from: sideband (perf records, exact, needs "
        "CAP_PERFMON or a low perf_event_paranoid), events (exit records and /proc), or auto: the best allowed.",
        choices=EXEC_NAMES,
    )
    events: frozenset[str] = flag(
        "--events",
        "LIST",
        ",".join(name for name in EVENTS if name in DEFAULT_EVENTS),
        f"What to count, any of {', '.join(EVENTS)}. Metrics of other events are absent.",
        lambda _, text: parse_events(text),
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
        "SECONDS",
        "15",
        "Seconds between two canaries: child processes whose end proves that the kernel still sends events; "
        "0 turns them off.",
        interval_between(1, _A_DAY_SECONDS),
    )
    user: User | None = flag(
        "--user",
        "USER",
        "",
        "Name or uid of the user that the exporter becomes, for good, once all sockets are open; empty: it keeps "
        "its user.",
        optional(lambda _, text: find_user(text)),
    )
    receive_buffer_bytes: int = flag(
        "--receive-buffer.bytes",
        "BYTES",
        str(64 << 20),
        "Size of each socket's receive buffer: 960 bytes hold an event, 1280 an exit record. "
        "Without CAP_NET_ADMIN at most twice net.core.rmem_max.",
        _BUFFER_BYTES,
    )
    stream_socket: Path | None = flag(
        "--stream.socket",
        "PATH",
        "",
        "Unix socket to serve /events on: events as they happen, as JSON.",
        optional(parse_path),
    )
    stream_mode: int = flag(
        "--stream.mode", "MODE", "0600", "Permissions of the Unix socket, in octal.", parse_mode
    )
    stream_gid: int | None = flag(
        "--stream.group", "GROUP", "", "Name or gid of the group of the Unix socket.", optional(find_group)
    )
    stream_uids: frozenset[int] | None = flag(
        "--stream.allow-uid",
        "LIST",
        "",
        "Uids whose processes are answered; empty for all that the mode of the socket lets connect.",
        optional(parse_uids),
    )
    stream_max_clients: int = flag(
        "--stream.max-clients", "N", "64", "Most clients at the same time.", count_between(1, 99999)
    )
    stream_buffer_bytes: int = flag(
        "--stream.buffer-bytes",
        "BYTES",
        str(8 << 20),
        "Most bytes that wait for a client that reads slowly; further events are dropped for that client only.",
        _BUFFER_BYTES,
    )
    capture: Path | None = flag(
        "--capture",
        "FILE",
        "",
        "Record everything that the exporter receives, for --replay; an older file becomes FILE.1.",
        optional(parse_path),
    )
    capture_max_bytes: int = flag(
        "--capture.max-bytes",
        "BYTES",
        str(100 << 20),
        "Size at which a capture continues in a new file.",
        count_between(1 << 16, 1 << 50),
    )
    replay: Path | None = flag(
        "--replay",
        "FILE",
        "",
        "Serve the metrics of a capture. Needs no privilege and no connector.",
        optional(parse_path),
    )
    speed: float = flag(
        "--speed",
        "FACTOR",
        "1",
        "Speed of --replay: 1 as it happened, 10 ten times as fast, 0 as fast as possible.",
        parse_speed,
    )
    series_limit: int = flag(
        "--limit.series",
        "N",
        str(DEFAULT_LIMIT),
        'Most series (of a histogram: samples) that a metric may have; what is beyond is comm="<other>".',
        count_between(LEAST_LIMIT, 1_000_000),
    )
    idle_seconds: float = flag(
        "--limit.idle",
        "SECONDS",
        "0",
        "Seconds after which the series of a program that no longer runs are dropped; 0 keeps them.",
        interval_between(_AN_HOUR_SECONDS, _A_YEAR_SECONDS),
    )
    rules_path: str | None = flag(
        "--config.file",
        "FILE",
        "",
        "Rules that rename, fold and exclude programs and users; SIGHUP reads them again.",
        optional(parse_text),
    )
    enable_lifecycle: bool = switch("--web.enable-lifecycle", "Allow POST /-/reload.")
    procfs_path: str = flag("--path.procfs", "DIR", "/proc", "The host's proc file system.")
    log_level: str = flag("--log.level", "LEVEL", "info", "Least severity to log.", choices=LOG_LEVELS)
    log_format: str = flag(
        "--log.format", "FORMAT", "logfmt", "How to log, on stderr.", choices=("logfmt", "json")
    )

    def __post_init__(self) -> None:
        """Check what goes together."""
        if self.capture is not None and self.replay is not None:
            raise ConfigError("--capture is of no use with --replay, which is of a capture already")


_FLAGS = flags_of(Config)
FLAGS = tuple(_FLAGS.values())


def parse_args(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> Config:
    """Build the settings.

    Args:
        argv: Without the program's name.
        environment: Where variables are looked up.

    Raises:
        ConfigError: A value is wrong.
        SystemExit: --help and --version (0), an unknown flag or choice (2), after a word on stderr.
    """
    given = vars(_make_parser().parse_args(argv))
    texts = {field: _text_of(row, given[field], environment) for field, row in _FLAGS.items()}
    return Config(**{field: row.parse(row.name, texts[field]) for field, row in _FLAGS.items()})


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="proc-connector-exporter",
        description="Prometheus exporter of process life, from the kernel's process connector.",
        epilog="Every flag can be set by the variable named behind it too; the flag wins. "
        "`%(prog)s watch` prints events as they happen: see `%(prog)s watch --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    for field, row in _FLAGS.items():
        choices = f" One of {', '.join(row.choices)}." if row.choices else ""
        parser.add_argument(
            row.name,
            dest=field,
            metavar=row.metavar,
            choices=row.choices,
            action="append" if row.repeatable else "store",
            nargs="?" if row.is_switch else None,
            const="true" if row.is_switch else None,
            help=f"{row.help}{choices} [default {row.default or 'none'}; ${row.variable}]",
        )
    return parser


def _text_of(row: Flag, given: str | list[str] | None, environment: Mapping[str, str]) -> str:
    """Return what the user wrote for a flag: its own value, or its variable's, or the default."""
    if isinstance(given, list):
        return ",".join(given)
    if given is not None:
        return given
    text = environment.get(row.variable, row.default or "")
    if row.choices is not None and text not in row.choices:
        raise ConfigError(f"{row.variable} must be one of {', '.join(row.choices)}, got {text!r}")
    return text
