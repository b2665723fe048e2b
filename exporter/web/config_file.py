"""Parses the web configuration file that Prometheus exporters share.

Source: docs/web-configuration.md of https://github.com/prometheus/exporter-toolkit.
"""

import re
from collections.abc import Mapping

import yaml

from exporter.errors import ConfigError
from exporter.web.web_settings import RateLimit, TlsConfig, WebConfig
from exporter.web.yaml_nodes import (
    error_at,
    is_null,
    parse_boolean,
    parse_choice,
    parse_duration,
    parse_fields,
    parse_text,
    parse_texts,
)

_NO_CLIENT_CERTIFICATE = ("NoClientCert", "RequestClientCert")
_VERIFIES_CLIENTS = ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
# Not supported: Python's TLS verifies every certificate that it asks for.
_UNVERIFIED = ("RequireAnyClientCert", "RequireClientCert")

_TLS_VERSIONS = ("TLS12", "TLS13")

# The cipher suites of TLS 1.2 that Go calls secure: Go's name -> OpenSSL's. Those of TLS 1.3 cannot be chosen.
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

# The headers that may be set -> the values that are allowed; empty for any value.
_HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}

_TLS_FIELDS = (
    "cert_file", "key_file", "client_ca_file", "client_auth_type", "client_allowed_sans", "min_version",
    "max_version", "cipher_suites", "prefer_server_cipher_suites",
)  # fmt: skip
_UNSUPPORTED_TLS_FIELDS = ("cert", "key", "client_ca", "curve_preferences")

_BCRYPT = re.compile(r"\$2[aby]\$(?:0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")


def parse_web_config(text: str) -> WebConfig:
    """Parse the file.

    Raises:
        ConfigError: The file is wrong; the text names the line and the reason.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{line}{error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        # The last two are of an escape like "\UFFFFFFFF", which is no character.
        raise ConfigError(f"not YAML: {' '.join(str(error).split())}") from error
    sections = parse_fields(
        root, "the file", ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
    )
    http = parse_fields(sections.get("http_server_config"), "http_server_config", ("http2", "headers"))
    # The value is checked and ignored: this server has no HTTP/2, and clients fall back to HTTP/1.1.
    parse_boolean(http.get("http2"), default=True)
    tls_node = sections.get("tls_server_config")
    tls = parse_fields(tls_node, "tls_server_config", _TLS_FIELDS, unsupported=_UNSUPPORTED_TLS_FIELDS)
    return WebConfig(
        tls=_parse_tls(tls_node, tls),
        users=_parse_users(sections.get("basic_auth_users")),
        headers=_parse_headers(http.get("headers")),
        rate_limit=_parse_rate_limit(sections.get("rate_limit")),
        said=frozenset(_said("", sections) | _said("tls_server_config.", tls)),
    )


def _said(prefix: str, given: Mapping[str, yaml.Node]) -> set[str]:
    return {prefix + name for name, node in given.items() if not is_null(node)}


def _parse_tls(node: yaml.Node | None, given: Mapping[str, yaml.Node]) -> TlsConfig | None:
    if node is None or not given:
        return None
    files = {name: parse_text(given.get(name)) for name in ("cert_file", "key_file", "client_ca_file")}
    for name in ("cert_file", "key_file"):
        if not files[name]:
            raise error_at(node, f"tls_server_config needs {name}")
    must_verify, sans = _parse_client_auth(node, given, files["client_ca_file"])
    low = parse_choice(given.get("min_version"), "min_version", _TLS_VERSIONS, "TLS12")
    high = parse_choice(given.get("max_version"), "max_version", _TLS_VERSIONS, "TLS13")
    if low > high:
        raise error_at(given.get("max_version", node), f"max_version {high} is below min_version {low}")
    return TlsConfig(
        cert_file=files["cert_file"],
        key_file=files["key_file"],
        client_ca_file=files["client_ca_file"] or None,
        client_must_verify=must_verify,
        client_allowed_sans=sans,
        min_version=low,
        max_version=high,
        ciphers=_parse_ciphers(given.get("cipher_suites")),
        prefer_server_ciphers=parse_boolean(given.get("prefer_server_cipher_suites"), default=True),
    )


def _parse_client_auth(
    node: yaml.Node, given: Mapping[str, yaml.Node], client_ca_file: str
) -> tuple[bool, frozenset[str]]:
    """Return whether a client must have a certificate, and the names of which it must have one."""
    policy = parse_choice(
        given.get("client_auth_type"),
        "client_auth_type",
        (*_NO_CLIENT_CERTIFICATE, *_VERIFIES_CLIENTS, *_UNVERIFIED),
        "NoClientCert",
    )
    at = given.get("client_auth_type", node)
    if policy in _UNVERIFIED:
        raise error_at(
            at, f"{policy} accepts any certificate, and is not supported: use RequireAndVerifyClientCert"
        )
    verifies = policy in _VERIFIES_CLIENTS
    if verifies and not client_ca_file:
        raise error_at(at, f"client_auth_type {policy} needs client_ca_file")
    if client_ca_file and not verifies:
        raise error_at(
            given["client_ca_file"], f"client_ca_file needs client_auth_type {' or '.join(_VERIFIES_CLIENTS)}"
        )
    must_verify = policy == "RequireAndVerifyClientCert"
    sans = frozenset(parse_texts(given.get("client_allowed_sans"), "client_allowed_sans"))
    if sans and not must_verify:
        raise error_at(
            given["client_allowed_sans"], "client_allowed_sans needs client_auth_type RequireAndVerifyClientCert"
        )
    return must_verify, sans


def _parse_ciphers(node: yaml.Node | None) -> tuple[str, ...]:
    names = parse_texts(node, "cipher_suites")
    for name in names:
        if name not in _CIPHER_SUITES:
            raise error_at(node, f"cipher_suites: {name!r} is none of {', '.join(_CIPHER_SUITES)}")
    return tuple(_CIPHER_SUITES[name] for name in names)


def _parse_users(node: yaml.Node | None) -> dict[str, str]:
    users = {}
    for name, value in parse_fields(node, "basic_auth_users").items():
        users[name] = parse_text(value)
        # The messages do not have the hash: logs would have to be kept secret.
        if not name or ":" in name:
            raise error_at(value, f"basic_auth_users: {name!r} cannot be the name of a user")
        if not _BCRYPT.fullmatch(users[name]):
            raise error_at(value, f"basic_auth_users: the password of {name!r} is not a bcrypt hash")
    return users


def _parse_headers(node: yaml.Node | None) -> dict[str, str]:
    headers = {}
    for name, value in parse_fields(node, "headers", tuple(_HEADERS)).items():
        text = parse_text(value)
        if not text:
            continue
        if _HEADERS[name] and text not in _HEADERS[name]:
            raise error_at(value, f"headers: {name} must be {' or '.join(_HEADERS[name])}, got {text!r}")
        if not (text.isascii() and text.isprintable()):
            raise error_at(value, f"headers: {name} has characters that a header cannot have")
        headers[name] = text
    return headers


def _parse_rate_limit(node: yaml.Node | None) -> RateLimit | None:
    given = parse_fields(node, "rate_limit", ("interval", "burst"))
    seconds = parse_duration(given.get("interval"))
    burst = parse_text(given.get("burst"))
    if not seconds:
        return None
    if not (burst.isascii() and burst.isdecimal() and len(burst) <= 9 and int(burst) > 0):
        raise error_at(given.get("burst", node), f"rate_limit: burst must be a number from 1 on, got {burst!r}")
    return RateLimit(seconds, int(burst))
