"""The web configuration file that Prometheus' exporters share: text in, value out.

Source: docs/web-configuration.md of https://github.com/prometheus/exporter-toolkit.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import yaml

from exporter.errors import ConfigError

_NO_CLIENT_CERTIFICATE = ("NoClientCert", "RequestClientCert")
_VERIFIES_CLIENTS = ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
# Python's TLS verifies every certificate that it asks for.
_UNVERIFIED = ("RequireAnyClientCert", "RequireClientCert")

_TLS_VERSIONS = ("TLS12", "TLS13")

# Go's names of the suites of TLS 1.2 that it calls secure, and OpenSSL's. Those of TLS 1.3 cannot be chosen.
_CIPHER_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}

# The only headers that may be set, each with its only values if it has such.
_HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}

_BCRYPT = re.compile(r"\$2[aby]\$(?:0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")
_DURATION = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """How to serve over TLS; files as they are written in the configuration.

    Attributes:
        client_ca_file: Who vouches for clients; None if none is asked for a certificate.
        client_must_verify: A client without a certificate is turned away.
        client_allowed_sans: A client's certificate must have one of these, if there are any.
        min_version, max_version: TLS12 or TLS13.
        ciphers: OpenSSL's names, for TLS 1.2; empty for its defaults.
    """

    cert_file: str
    key_file: str
    client_ca_file: str | None = None
    client_must_verify: bool = False
    client_allowed_sans: frozenset[str] = frozenset()
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    ciphers: tuple[str, ...] = ()
    prefer_server_ciphers: bool = True


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A token bucket: one request each interval, and so many at once."""

    interval_seconds: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What the file says; users are name -> bcrypt hash."""

    tls: TlsConfig | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    rate_limit: RateLimit | None = None


def parse_web_config(text: str) -> WebConfig:
    """Parse the file.

    Raises:
        ConfigError: It is not such a file; the text names the line and the reason.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{line}{error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}") from error
    sections = _fields(
        root, "the file", ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
    )
    http = _fields(sections.get("http_server_config"), "http_server_config", ("http2", "headers"))
    # Whatever it says, HTTP/2 is not spoken, and clients that could are content with HTTP/1.1.
    _boolean(http.get("http2"), default=True)
    return WebConfig(
        tls=_parse_tls(sections.get("tls_server_config")),
        users=_parse_users(sections.get("basic_auth_users")),
        headers=_parse_headers(http.get("headers")),
        rate_limit=_parse_rate_limit(sections.get("rate_limit")),
    )


def _parse_tls(node: yaml.Node | None) -> TlsConfig | None:
    given = _fields(
        node,
        "tls_server_config",
        (
            "cert_file", "key_file", "client_ca_file", "client_auth_type", "client_allowed_sans", "min_version",
            "max_version", "cipher_suites", "prefer_server_cipher_suites",
        ),
        unsupported=("cert", "key", "client_ca", "curve_preferences"),
    )  # fmt: skip
    if node is None or not given:
        return None
    files = {name: _text(given.get(name)) for name in ("cert_file", "key_file", "client_ca_file")}
    for name in ("cert_file", "key_file"):
        if not files[name]:
            raise _wrong(node, f"tls_server_config needs {name}")
    policy = _choice(
        given.get("client_auth_type"),
        "client_auth_type",
        (*_NO_CLIENT_CERTIFICATE, *_VERIFIES_CLIENTS, *_UNVERIFIED),
        "NoClientCert",
    )
    at = given.get("client_auth_type", node)
    if policy in _UNVERIFIED:
        raise _wrong(at, f"{policy} lets anybody in, and cannot be had here: use RequireAndVerifyClientCert")
    verifies = policy in _VERIFIES_CLIENTS
    if verifies and not files["client_ca_file"]:
        raise _wrong(at, f"client_auth_type {policy} needs client_ca_file")
    if files["client_ca_file"] and not verifies:
        raise _wrong(
            given["client_ca_file"], f"client_ca_file needs client_auth_type {' or '.join(_VERIFIES_CLIENTS)}"
        )
    sans = frozenset(_texts(given.get("client_allowed_sans"), "client_allowed_sans"))
    if sans and policy != "RequireAndVerifyClientCert":
        raise _wrong(
            given["client_allowed_sans"], "client_allowed_sans needs client_auth_type RequireAndVerifyClientCert"
        )
    low = _choice(given.get("min_version"), "min_version", _TLS_VERSIONS, "TLS12")
    high = _choice(given.get("max_version"), "max_version", _TLS_VERSIONS, "TLS13")
    if low > high:
        raise _wrong(given.get("max_version", node), f"max_version {high} is below min_version {low}")
    suites = given.get("cipher_suites")
    names = _texts(suites, "cipher_suites")
    for name in names:
        if suites is not None and name not in _CIPHER_SUITES:
            raise _wrong(suites, f"cipher_suites: {name!r} is none of {', '.join(_CIPHER_SUITES)}")
    return TlsConfig(
        cert_file=files["cert_file"],
        key_file=files["key_file"],
        client_ca_file=files["client_ca_file"] or None,
        client_must_verify=policy == "RequireAndVerifyClientCert",
        client_allowed_sans=sans,
        min_version=low,
        max_version=high,
        ciphers=tuple(_CIPHER_SUITES[name] for name in names),
        prefer_server_ciphers=_boolean(given.get("prefer_server_cipher_suites"), default=True),
    )


def _parse_users(node: yaml.Node | None) -> dict[str, str]:
    users = {}
    for name, value in _fields(node, "basic_auth_users").items():
        users[name] = _text(value)
        # A hash in a log line would be one more place to keep secret.
        if not name or ":" in name:
            raise _wrong(value, f"basic_auth_users: {name!r} cannot be a user's name")
        if not _BCRYPT.fullmatch(users[name]):
            raise _wrong(value, f"basic_auth_users: the password of {name!r} is not a bcrypt hash")
    return users


def _parse_headers(node: yaml.Node | None) -> dict[str, str]:
    headers = {}
    for name, value in _fields(node, "headers", tuple(_HEADERS)).items():
        text = _text(value)
        if not text:
            continue
        if _HEADERS[name] and text not in _HEADERS[name]:
            raise _wrong(value, f"headers: {name} must be {' or '.join(_HEADERS[name])}, got {text!r}")
        if not (text.isascii() and text.isprintable()):
            raise _wrong(value, f"headers: {name} has characters that no header can have")
        headers[name] = text
    return headers


def _parse_rate_limit(node: yaml.Node | None) -> RateLimit | None:
    given = _fields(node, "rate_limit", ("interval", "burst"))
    seconds = _duration(given.get("interval"))
    burst = _text(given.get("burst"))
    if not seconds:
        return None
    if not (burst.isascii() and burst.isdecimal() and len(burst) <= 9 and int(burst) > 0):
        raise _wrong(given.get("burst", node), f"rate_limit: burst must be a number from 1 on, got {burst!r}")
    return RateLimit(seconds, int(burst))


# -- nodes of YAML ------------------------------------------------------------------------------------------------


def _wrong(node: yaml.Node | None, reason: str) -> ConfigError:
    return ConfigError(reason if node is None else f"line {node.start_mark.line + 1}: {reason}")


def _is_null(node: yaml.Node | None) -> bool:
    return node is None or node.tag == "tag:yaml.org,2002:null"


def _fields(
    node: yaml.Node | None, where: str, known: Iterable[str] | None = None, *, unsupported: Iterable[str] = ()
) -> dict[str, yaml.Node]:
    """Return key -> value of a mapping, each key known and there once."""
    if node is None or _is_null(node):
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise _wrong(node, f"{where} must be a mapping")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = _text(key)
        if name in unsupported:
            raise _wrong(key, f"{where}: {name} is not supported here")
        if known is not None and name not in known:
            raise _wrong(key, f"{where}: unknown key {name!r}")
        if name in found:
            raise _wrong(key, f"{where}: {name!r} is there twice")
        found[name] = value
    return found


def _text(node: yaml.Node | None) -> str:
    if node is None or _is_null(node):
        return ""
    if not isinstance(node, yaml.ScalarNode):
        raise _wrong(node, "a plain value is expected here")
    return str(node.value)


def _texts(node: yaml.Node | None, where: str) -> list[str]:
    if node is None or _is_null(node):
        return []
    if not isinstance(node, yaml.SequenceNode):
        raise _wrong(node, f"{where} must be a list")
    return [_text(item) for item in node.value]


def _choice(node: yaml.Node | None, where: str, choices: tuple[str, ...], default: str) -> str:
    text = _text(node) or default
    if text not in choices:
        raise _wrong(node, f"{where} must be one of {', '.join(choices)}, got {text!r}")
    return text


def _boolean(node: yaml.Node | None, *, default: bool) -> bool:
    text = _text(node).lower()
    if text not in {"", "true", "false"}:
        raise _wrong(node, f"must be true or false, got {text!r}")
    return text == "true" if text else default


def _duration(node: yaml.Node | None) -> float:
    """Parse a duration as Go writes it: 0, 1s, 1m30s, 250ms."""
    text = _text(node) or "0"
    if text == "0":
        return 0.0
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        raise _wrong(node, f"rate_limit: interval must be a duration like 1s or 250ms, got {text!r}")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
