"""The settings, from flags and environment variables.

Every flag has a variable: `--web.listen-address` is PROC_CONNECTOR_EXPORTER_WEB_LISTEN_ADDRESS. The flag wins.
"""

import argparse
import grp
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from exporter import __version__
from exporter.errors import ConfigError
from exporter.events import DEFAULT_EVENTS, EVENTS, parse_events
from exporter.service.privileges import User, find_user
from exporter.tallies.tallies import DEFAULT_LIMIT, LEAST_LIMIT

ENVIRONMENT_PREFIX = "PROC_CONNECTOR_EXPORTER_"
DEFAULT_PORT = 10061
_A_DAY_SECONDS = 86400
_AN_HOUR_SECONDS = 3600
_A_YEAR_SECONDS = 365 * _A_DAY_SECONDS
_MOST_SERIES = 1_000_000
_MOST_REQUESTS = 1_000_000
# A page; an int of the kernel's, which doubles what it is asked for.
_LEAST_BUFFER_BYTES = 4096
_MOST_BUFFER_BYTES = 1 << 30
# (uid_t)-1 and (gid_t)-1 mean "do not change".
_NO_ID = 0xFFFFFFFF
_LEAST_CAPTURE_BYTES = 1 << 16
_MOST_CAPTURE_BYTES = 1 << 50
_FASTEST = 1_000_000


class ListenAddress(NamedTuple):
    """Where to serve; host None is every address of the machine."""

    host: str | None
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host or ""
        return f"{host}:{self.port}"


_EVERY_ADDRESS = ListenAddress(None, DEFAULT_PORT)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a user can set.

    Raises:
        ConfigError: A value is not possible.
    """

    listen_addresses: tuple[ListenAddress, ...] = (_EVERY_ADDRESS,)
    systemd_socket: bool = False
    web_config_file: str | None = None
    max_requests: int = 40
    telemetry_path: str = "/metrics"
    attribution: str = "auto"
    events: frozenset[str] = DEFAULT_EVENTS
    filter_by: str = "auto"
    user: User | None = None
    canary_interval_seconds: float = 15.0
    receive_buffer_bytes: int = 64 << 20
    stream_socket: Path | None = None
    stream_mode: int = 0o600
    stream_gid: int | None = None
    stream_uids: frozenset[int] | None = None
    stream_max_clients: int = 64
    stream_buffer_bytes: int = 8 << 20
    capture: Path | None = None
    capture_max_bytes: int = 100 << 20
    replay: Path | None = None
    speed: float = 1.0
    series_limit: int = DEFAULT_LIMIT
    idle_seconds: float = 0.0
    rules_path: str | None = None
    enable_lifecycle: bool = False
    procfs_path: str = "/proc"
    log_level: str = "info"
    log_format: str = "logfmt"

    def __post_init__(self) -> None:
        """Check what does not depend on the machine."""
        if (
            not self.telemetry_path.startswith("/")
            or self.telemetry_path.startswith("//")
            or self.telemetry_path == "/"
        ):
            raise ConfigError(
                f"--web.telemetry-path must begin with / and name a page other than /, got {self.telemetry_path!r}"
            )
        if self.telemetry_path.startswith("/-/"):
            raise ConfigError(f"--web.telemetry-path must not be below /-/, got {self.telemetry_path!r}")
        if any(c in self.telemetry_path for c in "{}?#"):
            raise ConfigError(
                f"--web.telemetry-path must be a plain path without {{}}?#, got {self.telemetry_path!r}"
            )
        if self.capture is not None and self.replay is not None:
            raise ConfigError("--capture is of no use with --replay, which is of a capture already")


_SWITCH = ("true", "false")


class Flag(NamedTuple):
    """One flag as its users see it."""

    name: str
    metavar: str
    default: str
    help: str
    choices: tuple[str, ...] | None = None
    repeatable: bool = False

    @property
    def is_switch(self) -> bool:
        """Whether the flag alone turns it on."""
        return self.choices == _SWITCH

    @property
    def variable(self) -> str:
        """The environment variable that sets it too."""
        return ENVIRONMENT_PREFIX + self.name.removeprefix("--").upper().replace(".", "_").replace("-", "_")


FLAGS = (
    Flag(
        "--web.listen-address",
        "ADDRESS",
        f":{DEFAULT_PORT}",
        "Where to serve: HOST:PORT, [IPV6]:PORT or :PORT; several, separated by commas or as several flags.",
        repeatable=True,
    ),
    Flag(
        "--web.systemd-socket",
        "BOOL",
        "false",
        "Serve on the sockets that systemd passes, instead of --web.listen-address.",
        _SWITCH,
    ),
    Flag(
        "--web.config.file",
        "FILE",
        "",
        "File with TLS, passwords, headers and rate limit, as of exporter-toolkit.",
    ),
    Flag("--web.max-requests", "N", "40", "Scrapes that are answered at once; 503 beyond; 0 for no limit."),
    Flag("--web.telemetry-path", "PATH", "/metrics", "Path of the metrics."),
    Flag(
        "--attribution",
        "MODE",
        "auto",
        "Where comm and uid come from: taskstats (exact, needs CAP_NET_ADMIN), procfs, or auto: the best allowed.",
        ("auto", "taskstats", "procfs"),
    ),
    Flag(
        "--events",
        "LIST",
        ",".join(name for name in EVENTS if name in DEFAULT_EVENTS),
        f"What to count, any of {', '.join(EVENTS)}. Metrics of other events are absent.",
    ),
    Flag(
        "--filter",
        "BY",
        "auto",
        "Who leaves out other events: the kernel (Linux 6.6 and later), a bpf program on the socket, or auto.",
        ("auto", "kernel", "bpf"),
    ),
    Flag(
        "--canary.interval",
        "SECONDS",
        "15",
        "How often a child with a known end proves that the kernel still talks to us; 0 turns it off.",
    ),
    Flag("--user", "USER", "", "Name or uid to become for good, once all sockets are open; empty to stay."),
    Flag(
        "--receive-buffer.bytes",
        "BYTES",
        str(64 << 20),
        "Size of each socket's receive buffer: 832 bytes hold an event, 1280 an exit record. "
        "Without CAP_NET_ADMIN at most twice net.core.rmem_max.",
    ),
    Flag("--stream.socket", "PATH", "", "Unix socket to serve /events on: what happens, as it happens, as JSON."),
    Flag("--stream.mode", "MODE", "0600", "Who may connect to it, in octal."),
    Flag("--stream.group", "GROUP", "", "Name or gid of the group that it belongs to."),
    Flag(
        "--stream.allow-uid",
        "LIST",
        "",
        "Answer only these users, by number; empty for all whom the mode lets in.",
    ),
    Flag("--stream.max-clients", "N", "64", "How many may listen at the same time."),
    Flag("--stream.buffer-bytes", "BYTES", str(8 << 20), "What may wait for a client that is slow to read."),
    Flag(
        "--capture",
        "FILE",
        "",
        "Write down everything that is heard, for --replay; the file before becomes FILE.1.",
    ),
    Flag("--capture.max-bytes", "BYTES", str(100 << 20), "Size at which a capture goes on in a new file."),
    Flag("--replay", "FILE", "", "Serve the metrics of a capture. Needs neither this kernel nor any privilege."),
    Flag("--speed", "FACTOR", "1", "How many times as fast as it happened to replay; 0 for as fast as can be."),
    Flag(
        "--limit.series",
        "N",
        str(DEFAULT_LIMIT),
        'Most series (of a histogram: samples) that a metric may have; what is beyond is comm="<other>".',
    ),
    Flag(
        "--limit.idle",
        "SECONDS",
        "0",
        "Drop the series of a program that counted nothing for so long and does not run; 0 keeps them.",
    ),
    Flag("--config.file", "FILE", "", "Rules that rename, fold and leave out programs and users; SIGHUP reloads."),
    Flag(
        "--web.enable-lifecycle",
        "BOOL",
        "false",
        "Allow POST /-/reload.",
        _SWITCH,
    ),
    Flag("--path.procfs", "DIR", "/proc", "The host's proc file system."),
    Flag("--log.level", "LEVEL", "info", "Least severity to log.", ("debug", "info", "warn", "error")),
    Flag("--log.format", "FORMAT", "logfmt", "How to log, on stderr.", ("logfmt", "json")),
)


def parse_listen_address(text: str) -> ListenAddress:
    """Parse HOST:PORT, [IPV6]:PORT or :PORT.

    Raises:
        ConfigError: It is none of these.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or len(port) > 5 or int(port) > 0xFFFF:
        raise ConfigError(f"--web.listen-address must be HOST:PORT, [IPV6]:PORT or :PORT, got {text!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"--web.listen-address: an IPv6 address belongs in brackets, got {text!r}")
    return ListenAddress(host or None, int(port))


def parse_interval(flag: str, text: str, least: int = 1, most: int = _A_DAY_SECONDS) -> float:
    """Parse a number of seconds, 0 or between two bounds.

    Raises:
        ConfigError: It is neither.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not (seconds == 0 or least <= seconds <= most):
        raise ConfigError(f"{flag} must be 0, or seconds from {least} to {most}, got {text!r}")
    return seconds


def parse_count(flag: str, text: str, least: int, most: int) -> int:
    """Parse a whole number.

    Raises:
        ConfigError: It is none, or out of bounds.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and least <= int(text) <= most):
        raise ConfigError(f"{flag} must be a number from {least} to {most}, got {text!r}")
    return int(text)


def parse_mode(text: str) -> int:
    """Parse permissions in octal.

    Raises:
        ConfigError: They are none.
    """
    if not re.fullmatch("0?[0-7]{3}", text):
        raise ConfigError(f"--stream.mode must be permissions in octal such as 0660, got {text!r}")
    return int(text, 8)


def find_group(text: str) -> int:
    """Look up a group by name or gid.

    Raises:
        ConfigError: There is none.
    """
    if _is_id(text):
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError as error:
        raise ConfigError(f"--stream.group: there is no group {text!r}") from error


def parse_uids(text: str) -> frozenset[int]:
    """Parse a comma-separated list of uids.

    Raises:
        ConfigError: It is none.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(map(_is_id, words)):
        raise ConfigError(f"--stream.allow-uid must be uids such as 0,1000, got {text!r}")
    return frozenset(map(int, words))


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 11 and int(text) < _NO_ID


def parse_clients(text: str) -> int:
    """Parse how many clients there may be.

    Raises:
        ConfigError: It is no number above 0.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text)):
        raise ConfigError(f"--stream.max-clients must be a number from 1 to 99999, got {text!r}")
    return int(text)


def parse_speed(text: str) -> float:
    """Parse a factor, 0 or more.

    Raises:
        ConfigError: It is none.
    """
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 <= speed <= _FASTEST:
        raise ConfigError(f"--speed must be a factor from 0 to {_FASTEST}, got {text!r}")
    return speed


def parse_args(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> Config:
    """Build the settings.

    Args:
        argv: Without the program's name.
        environment: Where variables are looked up.

    Raises:
        ConfigError: A value is wrong.
        SystemExit: --help and --version (0), an unknown flag or choice (2), after a word on stderr.
    """
    parser = argparse.ArgumentParser(
        prog="proc-connector-exporter",
        description="Prometheus exporter of process life, from the kernel's process connector.",
        epilog="Every flag can be set by the variable behind it too; the flag wins. "
        "`%(prog)s watch` prints what happens, as it happens: see `%(prog)s watch --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    for flag in FLAGS:
        choices = f" One of {', '.join(flag.choices)}." if flag.choices else ""
        parser.add_argument(
            flag.name,
            metavar=flag.metavar,
            choices=flag.choices,
            action="append" if flag.repeatable else "store",
            nargs="?" if flag.is_switch else None,
            const="true" if flag.is_switch else None,
            help=f"{flag.help}{choices} [default {flag.default or 'none'}; ${flag.variable}]",
        )
    given = vars(parser.parse_args(argv))
    values: dict[str, str] = {}
    for flag in FLAGS:
        name = flag.name.removeprefix("--")
        value = given[name.replace("-", "_")]
        if value is None:
            value = environment.get(flag.variable, flag.default)
            if flag.choices is not None and value not in flag.choices:
                raise ConfigError(f"{flag.variable} must be one of {', '.join(flag.choices)}, got {value!r}")
        values[name] = ",".join(value) if isinstance(value, list) else value
    return Config(
        listen_addresses=tuple(parse_listen_address(text) for text in values["web.listen-address"].split(",")),
        systemd_socket=values["web.systemd-socket"] == "true",
        web_config_file=values["web.config.file"] or None,
        max_requests=parse_count("--web.max-requests", values["web.max-requests"], 0, _MOST_REQUESTS),
        telemetry_path=values["web.telemetry-path"],
        attribution=values["attribution"],
        events=parse_events(values["events"]),
        filter_by=values["filter"],
        canary_interval_seconds=parse_interval("--canary.interval", values["canary.interval"]),
        user=find_user(values["user"]) if values["user"] else None,
        receive_buffer_bytes=parse_count(
            "--receive-buffer.bytes", values["receive-buffer.bytes"], _LEAST_BUFFER_BYTES, _MOST_BUFFER_BYTES
        ),
        stream_socket=Path(values["stream.socket"]) if values["stream.socket"] else None,
        stream_mode=parse_mode(values["stream.mode"]),
        stream_gid=find_group(values["stream.group"]) if values["stream.group"] else None,
        stream_uids=parse_uids(values["stream.allow-uid"]) if values["stream.allow-uid"] else None,
        stream_max_clients=parse_clients(values["stream.max-clients"]),
        stream_buffer_bytes=parse_count(
            "--stream.buffer-bytes", values["stream.buffer-bytes"], _LEAST_BUFFER_BYTES, _MOST_BUFFER_BYTES
        ),
        capture=Path(values["capture"]) if values["capture"] else None,
        capture_max_bytes=parse_count(
            "--capture.max-bytes", values["capture.max-bytes"], _LEAST_CAPTURE_BYTES, _MOST_CAPTURE_BYTES
        ),
        replay=Path(values["replay"]) if values["replay"] else None,
        speed=parse_speed(values["speed"]),
        series_limit=parse_count("--limit.series", values["limit.series"], LEAST_LIMIT, _MOST_SERIES),
        idle_seconds=parse_interval("--limit.idle", values["limit.idle"], _AN_HOUR_SECONDS, _A_YEAR_SECONDS),
        rules_path=values["config.file"] or None,
        enable_lifecycle=values["web.enable-lifecycle"] == "true",
        procfs_path=values["path.procfs"],
        log_level=values["log.level"],
        log_format=values["log.format"],
    )
