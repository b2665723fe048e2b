"""TLS of the web server: the context for new connections, and the names in client certificates."""

import ipaddress
import ssl
from pathlib import Path

from aiohttp import web

from exporter.errors import ConfigError
from exporter.files import require_regular
from exporter.web.web_settings import TlsConfig

_TLS_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_SAN_KINDS = {"DNS", "IP Address", "email", "URI"}


def make_tls_context(config: TlsConfig, folder: Path) -> ssl.SSLContext:
    """Read the certificates and make the context.

    Args:
        config: The TLS settings.
        folder: What its paths are relative to.

    Raises:
        ConfigError: A certificate is wrong or cannot be read; the text names the files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _TLS_VERSIONS[config.min_version]
    context.maximum_version = _TLS_VERSIONS[config.max_version]
    if config.ciphers:
        context.set_ciphers(":".join(config.ciphers))
    if not config.prefer_server_ciphers:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    # A key with a password is refused: without `password` OpenSSL would ask for the password on the terminal.
    files = f"cert_file {config.cert_file}, key_file {config.key_file}"
    try:
        require_regular(folder / config.cert_file)
        require_regular(folder / config.key_file)
        context.load_cert_chain(folder / config.cert_file, folder / config.key_file, password=lambda: "")
        if config.client_ca_file is not None:
            files = f"client_ca_file {config.client_ca_file}"
            require_regular(folder / config.client_ca_file)
            context.load_verify_locations(folder / config.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED if config.client_must_verify else ssl.CERT_OPTIONAL
    except OSError as error:
        # ssl.SSLError is an OSError without strerror; its text says what is wrong with the content.
        raise ConfigError(f"{files}: {error.strerror or error}") from error
    return context


def has_allowed_san(request: web.Request, allowed: frozenset[str]) -> bool:
    """Return whether the client's certificate has one of the allowed names."""
    names = (request.get_extra_info("peercert") or {}).get("subjectAltName", ())
    return any(kind in _SAN_KINDS and _as_go_writes_it(name) in allowed for kind, name in names)


def _as_go_writes_it(name: str) -> str:
    """Return a name of a certificate as the file has it: Python writes an IPv6 address in full, in capitals."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name
