"""The settings of the exporter: a row for each flag."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from exporter.errors import ConfigError
from exporter.events import DEFAULT_EVENTS, EVENTS, parse_events
from exporter.flag_parsers import (
    count_between,
    find_group,
    interval_between,
    optional,
    parse_group_by,
    parse_mode,
    parse_page_path,
    parse_path,
    parse_speed,
    parse_text,
    parse_uids,
    size_between,
)
from exporter.flags import flag, flags_of, switch
from exporter.kubernetes.access import parse_api_server, parse_node_name
from exporter.service.privileges import User, find_user
from exporter.tallies.tallies import DEFAULT_LIMIT, LEAST_LIMIT

DEFAULT_PORT = 10061
FAILURES_PATH = "/failures"
ATTRIBUTIONS = ("auto", "taskstats", "procfs")
EXEC_NAMES = ("auto", "sideband", "events")
LOG_LEVELS = ("debug", "info", "warn", "error")

_AN_HOUR_SECONDS = 3600
_A_DAY_SECONDS = 86400
_A_YEAR_SECONDS = 365 * _A_DAY_SECONDS
# A page; an int of the kernel's, which doubles what it is asked for.
_BUFFER_BYTES = size_between(4096, 1 << 30)
LOG_FORMATS = ("logfmt", "json")
# The headings of --help.
_WEB, _EVENTS, _NAMES, _PRIVILEGES, _LIMITS = "web", "events", "names", "privileges", "limits"
_GROUPS = "groups"
_STREAM, _CAPTURE, _LOGGING = "stream", "capture and replay", "logging"
_FAILURES = "failures"
_KUBERNETES = "kubernetes"


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
    """Everything a user can set, a row for each flag."""

    listen_addresses: tuple[ListenAddress, ...] = flag(
        "--web.listen-address",
        "ADDRESS",
        f":{DEFAULT_PORT}",
        "Where to serve: HOST:PORT, [IPV6]:PORT or :PORT; several, separated by commas or as several flags.",
        parse_listen_addresses,
        repeatable=True,
        group=_WEB,
        no_effect_with=("--web.systemd-socket",),
    )
    systemd_socket: bool = switch(
        "--web.systemd-socket",
        "Serve on the sockets that systemd passes, instead of --web.listen-address.",
        group=_WEB,
    )
    web_config_file: str | None = flag(
        "--web.config.file",
        "FILE",
        "",
        "File with TLS, passwords, headers and rate limit, as of exporter-toolkit.",
        optional(parse_text),
        group=_WEB,
    )
    max_requests: int = flag(
        "--web.max-requests",
        "N",
        "40",
        "Most scrapes at once; further ones get 503; 0 for no limit.",
        count_between(0, 1_000_000),
        group=_WEB,
    )
    telemetry_path: str = flag(
        "--web.telemetry-path",
        "PATH",
        "/metrics",
        "Path of the metrics.",
        parse_page_path,
        group=_WEB,
    )
    created_timestamps: bool = switch(
        "--web.created-timestamps",
        "Say when each series was born: _created in OpenMetrics, which doubles its lines, and in protobuf.",
        group=_WEB,
    )
    native_histograms: bool = switch(
        "--web.native-histograms",
        "Add native histograms to the classic ones, for clients that ask for protobuf.",
        group=_WEB,
    )
    exemplars: bool = switch(
        "--web.exemplars",
        "Add the last process of each series of proc_connector_nonzero_exits_total, as an OpenMetrics exemplar.",
        group=_WEB,
        # It does not know in which group a process failed.
        no_effect_with=("--group.by",),
    )
    attribution: str = flag(
        "--attribution",
        "MODE",
        "auto",
        "Where comm and uid come from: taskstats (exact, needs CAP_NET_ADMIN), procfs, or auto: the best allowed.",
        choices=ATTRIBUTIONS,
        group=_NAMES,
        no_effect_with=("--replay",),
    )
    exec_names: str = flag(
        "--exec-names",
        "SOURCE",
        "auto",
        "Where the comm of an exec and the forker of a process come from: sideband (perf records, exact, needs "
        "CAP_PERFMON or a low perf_event_paranoid), events (exit records and /proc), or auto: the best allowed.",
        choices=EXEC_NAMES,
        group=_NAMES,
        no_effect_with=("--replay",),
    )
    events: frozenset[str] = flag(
        "--events",
        "LIST",
        ",".join(name for name in EVENTS if name in DEFAULT_EVENTS),
        f"What to count, any of {', '.join(EVENTS)}. Metrics of other events are absent.",
        parse_events,
        group=_EVENTS,
        no_effect_with=("--replay",),
    )
    filter_by: str = flag(
        "--filter",
        "BY",
        "auto",
        "What keeps other events away: an event mask in the kernel (Linux 6.6 and later), a bpf program on the "
        "socket, or auto.",
        choices=("auto", "kernel", "bpf"),
        group=_EVENTS,
        no_effect_with=("--replay",),
    )
    canary_interval_seconds: float = flag(
        "--canary.interval",
        "DURATION",
        "15s",
        "Time between two canaries: child processes whose end proves that the kernel still sends events; "
        "0 turns them off.",
        interval_between(1, _A_DAY_SECONDS),
        group=_EVENTS,
        no_effect_with=("--replay",),
    )
    user: User | None = flag(
        "--user",
        "USER",
        "",
        "Name or uid of the user that the exporter becomes, for good, once all sockets are open; empty: it keeps "
        "its user.",
        optional(find_user),
        group=_PRIVILEGES,
    )
    receive_buffer_bytes: int = flag(
        "--receive-buffer.bytes",
        "SIZE",
        "64MiB",
        "Size of each socket's receive buffer: 960 bytes hold an event, 1280 an exit record. "
        "Without CAP_NET_ADMIN at most twice net.core.rmem_max.",
        _BUFFER_BYTES,
        group=_EVENTS,
        no_effect_with=("--replay",),
    )
    failures_keep: int = flag(
        "--failures.keep",
        "N",
        "1000",
        "How many of the last processes that ended with a wait status other than 0 the page /failures has, at "
        "most 20 with the same comm and status; 0 for no such page.",
        count_between(0, 100_000),
        group=_FAILURES,
    )
    failures_log: bool = switch(
        "--failures.log",
        "Log each process that ends with a wait status other than 0: at most 10 lines a minute with the same "
        "comm and status, and 600 in all.",
        group=_FAILURES,
    )
    stream_socket: Path | None = flag(
        "--stream.socket",
        "PATH",
        "",
        "Unix socket to serve /events on: events as they happen, as JSON.",
        optional(parse_path),
        group=_STREAM,
    )
    stream_mode: int = flag(
        "--stream.mode",
        "MODE",
        "0600",
        "Permissions of the Unix socket, in octal.",
        parse_mode,
        group=_STREAM,
        needs="--stream.socket",
    )
    stream_gid: int | None = flag(
        "--stream.group",
        "GROUP",
        "",
        "Name or gid of the group of the Unix socket.",
        optional(find_group),
        group=_STREAM,
        needs="--stream.socket",
    )
    stream_uids: frozenset[int] | None = flag(
        "--stream.allow-uid",
        "LIST",
        "",
        "Uids whose processes are answered; empty for all that the mode of the socket lets connect.",
        optional(parse_uids),
        group=_STREAM,
        needs="--stream.socket",
    )
    stream_max_clients: int = flag(
        "--stream.max-clients",
        "N",
        "64",
        "Most clients at the same time.",
        count_between(1, 99999),
        group=_STREAM,
        needs="--stream.socket",
    )
    stream_buffer_bytes: int = flag(
        "--stream.buffer-bytes",
        "SIZE",
        "8MiB",
        "Most bytes that wait for a client that reads slowly; further events are dropped for that client only.",
        _BUFFER_BYTES,
        group=_STREAM,
        needs="--stream.socket",
    )
    capture: Path | None = flag(
        "--capture",
        "FILE",
        "",
        "Record everything that the exporter receives, for --replay; an older file becomes FILE.1.",
        optional(parse_path),
        group=_CAPTURE,
        no_effect_with=("--replay",),
    )
    capture_max_bytes: int = flag(
        "--capture.max-bytes",
        "SIZE",
        "100MiB",
        "Size at which a capture continues in a new file.",
        size_between(1 << 16, 1 << 50),
        group=_CAPTURE,
        needs="--capture",
    )
    replay: Path | None = flag(
        "--replay",
        "FILE",
        "",
        "Serve the metrics of a capture. Needs no privilege and no connector.",
        optional(parse_path),
        group=_CAPTURE,
    )
    speed: float = flag(
        "--speed",
        "FACTOR",
        "1",
        "Speed of --replay: 1 as it happened, 10 ten times as fast, 0 as fast as possible.",
        parse_speed,
        group=_CAPTURE,
        needs="--replay",
    )
    series_limit: int = flag(
        "--limit.series",
        "N",
        str(DEFAULT_LIMIT),
        'Most series (of a histogram: samples) that a metric may have; what is beyond is comm="<other>".',
        count_between(LEAST_LIMIT, 1_000_000),
        group=_LIMITS,
    )
    client_bytes: int = flag(
        "--limit.client-bytes",
        "SIZE",
        "64MiB",
        "What all clients together may make the exporter hold: half for answers that are read, half for /events.",
        size_between(1 << 20, 1 << 40),
        group=_LIMITS,
    )
    idle_seconds: float = flag(
        "--limit.idle",
        "DURATION",
        "0",
        "Seconds after which the series of a program that no longer runs are dropped; 0 keeps them.",
        interval_between(_AN_HOUR_SECONDS, _A_YEAR_SECONDS),
        group=_LIMITS,
    )
    group_by: frozenset[str] = flag(
        "--group.by",
        "LIST",
        "none",
        "Where processes run, as further labels: unit (of systemd), pod (namespace, pod and container; container "
        "without Kubernetes too), both, or none.",
        parse_group_by,
        group=_GROUPS,
    )
    kubernetes_api_server: str | None = flag(
        "--kubernetes.api-server",
        "URL",
        "",
        "Where to ask for the names of pods: https://HOST[:PORT]; empty: the API of the cluster of this pod.",
        optional(parse_api_server),
        group=_KUBERNETES,
        needs="--group.by",
        no_effect_with=("--replay",),
    )
    kubernetes_token_file: str | None = flag(
        "--kubernetes.token-file",
        "FILE",
        "",
        "File with the token to ask with, read anew for each request; empty: the service account's.",
        optional(parse_text),
        group=_KUBERNETES,
        needs="--group.by",
        no_effect_with=("--replay",),
    )
    kubernetes_ca_file: str | None = flag(
        "--kubernetes.ca-file",
        "FILE",
        "",
        "File with the authorities of the API's certificate, read anew for each request; empty: the service "
        "account's, or else those of the system.",
        optional(parse_text),
        group=_KUBERNETES,
        needs="--group.by",
        no_effect_with=("--replay",),
    )
    kubernetes_node_name: str | None = flag(
        "--kubernetes.node-name",
        "NAME",
        "",
        "The node whose pods are asked for; empty: $NODE_NAME.",
        optional(parse_node_name),
        group=_KUBERNETES,
        needs="--group.by",
        no_effect_with=("--replay",),
    )
    gone_seconds: float = flag(
        "--limit.gone",
        "DURATION",
        "15m",
        "Time after which the series of a container are dropped in which no process lives any more; 0 keeps them.",
        interval_between(60, _A_YEAR_SECONDS),
        group=_LIMITS,
        needs="--group.by",
    )
    rules_path: str | None = flag(
        "--config.file",
        "FILE",
        "",
        "Rules that rename, fold and exclude programs and users; SIGHUP reads them again.",
        optional(parse_text),
        group=_NAMES,
    )
    enable_lifecycle: bool = switch("--web.enable-lifecycle", "Allow POST /-/reload.", group=_WEB)
    disable_exporter_metrics: bool = switch(
        "--web.disable-exporter-metrics",
        "Leave out the metrics of the exporter's own process: process_*, python_*.",
        group=_WEB,
    )
    procfs_path: str = flag(
        "--path.procfs",
        "DIR",
        "/proc",
        "The host's proc file system.",
        group=_NAMES,
        no_effect_with=("--replay",),
    )
    log_level: str = flag(
        "--log.level",
        "LEVEL",
        "info",
        "Least severity to log.",
        choices=LOG_LEVELS,
        group=_LOGGING,
    )
    log_format: str = flag(
        "--log.format",
        "FORMAT",
        "logfmt",
        "How to log, on stderr.",
        choices=LOG_FORMATS,
        group=_LOGGING,
    )

    def __post_init__(self) -> None:
        """Check what flags mean together.

        Raises:
            ConfigError: Two pages would have the same path.
        """
        if self.failures_keep and self.telemetry_path == FAILURES_PATH:
            raise ConfigError(
                f"--web.telemetry-path must not be {FAILURES_PATH}, which is the page of the failures; "
                "--failures.keep=0 leaves that out"
            )


ROWS = flags_of(Config)
"""The flags by field."""

FLAGS = tuple(ROWS.values())
