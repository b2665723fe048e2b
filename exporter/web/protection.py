"""What a web configuration file no longer protects that the one before did.

Editors and `cp` empty a file before they write it, and a file can be cut at any place. Such a file often parses,
and lets every client in. So a protection ends only where the file says that it ends.
"""

from typing import NamedTuple

from exporter.web.web_settings import WebConfig


class Protection(NamedTuple):
    """A setting that keeps clients out."""

    key: str
    """Where it stands in the file."""
    off: str
    """What the file has to say so that it ends."""


_USERS = Protection("basic_auth_users", "basic_auth_users: {}")
_RATE_LIMIT = Protection("rate_limit", "rate_limit: {}")
_TLS = Protection("tls_server_config", "tls_server_config: {}")
_CLIENT_AUTH = Protection("tls_server_config.client_auth_type", "client_auth_type: NoClientCert")
_SANS = Protection("tls_server_config.client_allowed_sans", "client_allowed_sans: []")
_CIPHERS = Protection("tls_server_config.cipher_suites", "cipher_suites: []")
_MIN_VERSION = Protection("tls_server_config.min_version", "min_version: TLS12")


def lost_protections(before: WebConfig, after: WebConfig) -> list[Protection]:
    """Return the protections that a file had and its successor has not."""
    lost = []
    if before.users and not after.users:
        lost.append(_USERS)
    if before.rate_limit and not after.rate_limit:
        lost.append(_RATE_LIMIT)
    old, new = before.tls, after.tls
    if old is None:
        return lost
    if new is None:
        return [*lost, _TLS]
    if old.client_must_verify and not new.client_must_verify:
        lost.append(_CLIENT_AUTH)
    elif old.client_allowed_sans and not new.client_allowed_sans:
        lost.append(_SANS)
    if old.ciphers and not new.ciphers:
        lost.append(_CIPHERS)
    if new.min_version < old.min_version:
        lost.append(_MIN_VERSION)
    return lost
