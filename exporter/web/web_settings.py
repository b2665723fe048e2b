"""What the web configuration file says; config_file.py reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """The TLS settings. Paths are as the file has them: relative to its folder.

    Attributes:
        client_ca_file: The certificate authorities of client certificates; None if clients are not asked for one.
        client_must_verify: A client without a certificate is rejected.
        client_allowed_sans: If not empty, a client's certificate must have one of these names.
        min_version, max_version: TLS12 or TLS13.
        ciphers: OpenSSL's names, for TLS 1.2; empty for OpenSSL's defaults.
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
    """A token bucket: one request per interval, and `burst` requests at once after a pause."""

    interval_seconds: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The content of the file.

    Attributes:
        users: Name -> bcrypt hash.
        said: The settings that have a value in the file, if only an empty one: `rate_limit`,
            `tls_server_config.min_version`.
    """

    tls: TlsConfig | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    rate_limit: RateLimit | None = None
    said: frozenset[str] = field(default=frozenset(), compare=False)
