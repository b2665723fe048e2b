"""The flags of the web server."""

from dataclasses import dataclass
from typing import NamedTuple

from exporter.errors import ConfigError
from exporter.flag_parsers import CountBetween, MayBeEmpty, parse_page_path, parse_text
from exporter.flags import flag, switch

DEFAULT_PORT = 10061


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
    if "://" in text:
        raise ConfigError(f"{flag} must be HOST:PORT, without {text.partition('://')[0]}://, got {text!r}")
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or len(port) > 5 or int(port) > 0xFFFF:
        raise ConfigError(f"{flag} must be HOST:PORT, [IPV6]:PORT or :PORT, got {text!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{flag}: an IPv6 address belongs in brackets, got {text!r}")
    return ListenAddress(host or None, int(port))


@dataclass(frozen=True, slots=True)
class Web:
    """Where and how to serve, and what."""

    listen_addresses: tuple[ListenAddress, ...] = flag(
        "--web.listen-address",
        "ADDRESS",
        f":{DEFAULT_PORT}",
        "Where to serve: HOST:PORT, [IPV6]:PORT or :PORT; several, separated by commas or as several flags.",
        parse_listen_addresses,
        repeatable=True,
        no_effect_with=("--web.systemd-socket",),
    )
    systemd_socket: bool = switch(
        "--web.systemd-socket",
        "Serve on the sockets that systemd passes, instead of --web.listen-address.",
    )
    config_file: str | None = flag(
        "--web.config.file",
        "FILE",
        "",
        "File with TLS, passwords, headers and rate limit, as of exporter-toolkit.",
        MayBeEmpty(parse_text),
    )
    max_requests: int = flag(
        "--web.max-requests",
        "N",
        "40",
        "Most scrapes at once; further ones get 503; 0 for no limit.",
        CountBetween(0, 1_000_000),
    )
    telemetry_path: str = flag(
        "--web.telemetry-path",
        "PATH",
        "/metrics",
        "Path of the metrics.",
        parse_page_path,
    )
    created_timestamps: bool = switch(
        "--web.created-timestamps",
        "Say when each series was born: _created in OpenMetrics, which adds up to three quarters to its lines, "
        "and in protobuf.",
    )
    native_histograms: bool = switch(
        "--web.native-histograms",
        "Add native histograms to the classic ones, for clients that ask for protobuf.",
    )
    exemplars: bool = switch(
        "--web.exemplars",
        "Add the last process of each series of proc_connector_nonzero_exits_total, as an OpenMetrics exemplar.",
    )
    enable_lifecycle: bool = switch("--web.enable-lifecycle", "Allow POST /-/reload.")
    disable_exporter_metrics: bool = switch(
        "--web.disable-exporter-metrics",
        "Leave out the metrics of the exporter's own process: process_*, python_*.",
    )
