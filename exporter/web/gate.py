"""Who may ask: the web configuration file that is in force, as TLS and as a check of every request.

The file and its certificates are looked at with each connection and request, so that a change needs no restart.
A file that has become wrong lets nobody in until it is right again.
"""

import asyncio
import base64
import binascii
import hashlib
import ipaddress
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp import web

from exporter.errors import ConfigError
from exporter.web.config_file import RateLimit, TlsConfig, WebConfig, parse_web_config

_LOG = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_TLS_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_SAN_KINDS = {"DNS", "IP Address", "email", "URI"}
# More of a password has never had a say in bcrypt.
_BCRYPT_BYTES = 72


class Gate:
    """The web configuration file in force.

    Args:
        path: Of the file.

    Raises:
        ConfigError: It, or a certificate, is wrong or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "bcrypt")
        self._seen: dict[Path, object] = {}
        self._config = WebConfig()
        self._bucket: TokenBucket | None = None
        self._passwords: Passwords | None = None
        self._tls: ssl.SSLContext | None = None
        self._problem: str | None = None
        self.load()

    def load(self) -> None:
        """Read the file and its certificates, and put them in force.

        Raises:
            ConfigError: Something is wrong; what was in force is what it was.
        """
        try:
            # Each is looked at before it is read: a change in between is seen the next time.
            self._seen = {self._path: _stamp(self._path)}
            config = parse_web_config(self._path.read_text(encoding="utf-8"))
            tls = None
            if config.tls is not None:
                names = (config.tls.cert_file, config.tls.key_file, config.tls.client_ca_file)
                self._seen |= {path: _stamp(path) for path in (self._path.parent / name for name in names if name)}
                tls = _tls_context(config.tls, self._path.parent)
            passwords = self._passwords
            if passwords is None or config.users != self._config.users:
                passwords = Passwords(config.users, self._thread) if config.users else None
        except ConfigError as error:
            raise ConfigError(f"--web.config.file {self._path}: {error}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"--web.config.file {self._path}: not UTF-8") from error
        except OSError as error:
            raise ConfigError(f"--web.config.file {self._path}: {error.strerror}") from error
        if config.rate_limit != self._config.rate_limit:
            self._bucket = None if config.rate_limit is None else TokenBucket(config.rate_limit)
        self._config, self._tls, self._passwords = config, tls, passwords

    def tls(self) -> ssl.SSLContext | None:
        """Return what a new connection is to be made with: the last that was right, or None without TLS."""
        self._follow()
        return self._tls

    def close(self) -> None:
        """Check no more passwords."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _follow(self) -> None:
        """Read the files again if they have changed."""
        if all(_stamp(path) == stamp for path, stamp in self._seen.items()):
            return
        try:
            self.load()
        except ConfigError as error:
            self._problem = str(error)
            return
        self._problem = None
        _LOG.info("web configuration read", extra={"path": self._path})

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request in, or answer why not."""
        self._follow()
        if self._problem is not None:
            _LOG.error("web configuration broken, nobody is let in", extra={"error": self._problem})
            raise web.HTTPInternalServerError
        if request.get_extra_info("sslcontext") is not self._tls:
            # Whom the old certificates let in the new ones may not. Clients of their own accord connect again.
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPMisdirectedRequest
        if self._bucket is not None and not self._bucket.take(time.monotonic()):
            raise web.HTTPTooManyRequests
        if not self._has_allowed_san(request):
            raise web.HTTPForbidden
        if self._passwords is not None and not await self._passwords.admit(request):
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": 'Basic realm="proc-connector-exporter"'})
        return await handler(request)

    async def add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        """Put the configured headers on an answer."""
        response.headers.update(self._config.headers)

    def _has_allowed_san(self, request: web.Request) -> bool:
        if self._config.tls is None or not self._config.tls.client_allowed_sans:
            return True
        names = (request.get_extra_info("peercert") or {}).get("subjectAltName", ())
        allowed = self._config.tls.client_allowed_sans
        return any(kind in _SAN_KINDS and _as_go_writes_it(name) in allowed for kind, name in names)


def _as_go_writes_it(name: str) -> str:
    """Return a name of a certificate as the file has it: Python writes all of an IPv6 address, in capitals."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _stamp(path: Path) -> object:
    """Return what changes when a file does."""
    try:
        stat = path.stat()
    except OSError as error:
        return error.errno
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _tls_context(config: TlsConfig, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _TLS_VERSIONS[config.min_version]
    context.maximum_version = _TLS_VERSIONS[config.max_version]
    if config.ciphers:
        context.set_ciphers(":".join(config.ciphers))
    if not config.prefer_server_ciphers:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    # A key with a password cannot be read; without this OpenSSL would ask for it on the terminal.
    files = f"cert_file {config.cert_file}, key_file {config.key_file}"
    try:
        context.load_cert_chain(folder / config.cert_file, folder / config.key_file, password=lambda: "")
        if config.client_ca_file is not None:
            files = f"client_ca_file {config.client_ca_file}"
            context.load_verify_locations(folder / config.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED if config.client_must_verify else ssl.CERT_OPTIONAL
    except OSError as error:
        # ssl.SSLError is one; it says what is wrong with the contents.
        raise ConfigError(f"{files}: {error.strerror or error}") from error
    return context


class TokenBucket:
    """Lets one request through each interval, and a burst after a pause."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._filled_at = -float("inf")

    def take(self, now_seconds: float) -> bool:
        """Tell whether one more may be let through."""
        gained = (now_seconds - self._filled_at) / self._limit.interval_seconds
        self._tokens = min(self._limit.burst, self._tokens + gained)
        self._filled_at = now_seconds
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Passwords:
    """Checks passwords against bcrypt hashes in a thread, and remembers which were right.

    A hash takes the time of a thousand events. It takes it for users who do not exist, too: otherwise their names
    could be found out.

    Args:
        users: Name -> bcrypt hash.
        thread: Where hashes are computed, one at a time.

    Raises:
        ConfigError: bcrypt cannot be imported.
    """

    def __init__(self, users: Mapping[str, str], thread: ThreadPoolExecutor) -> None:
        try:
            from bcrypt import checkpw  # noqa: PLC0415 - only who has passwords pays for it
        except ImportError as error:
            raise ConfigError(f"basic_auth_users: {error}") from error
        self._checkpw = checkpw
        self._hashes = {name.encode(): hashed.encode() for name, hashed in users.items()}
        cost = max(hashed[4:6] for hashed in users.values())
        self._nobodys_hash = f"$2b${cost}${'.' * 53}".encode()
        self._thread = thread
        self._salt = os.urandom(16)
        self._right: set[bytes] = set()

    async def admit(self, request: web.Request) -> bool:
        """Tell whether a request carries the name of a user and that user's password."""
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        except binascii.Error:
            return False
        return bool(colon) and await self._is_right(name, password)

    async def _is_right(self, name: bytes, password: bytes) -> bool:
        # Not the password itself: what need not be kept cannot be found in a core dump.
        password = password[:_BCRYPT_BYTES]
        key = hashlib.blake2b(name + b":" + password, salt=self._salt).digest()
        if key in self._right:
            return True
        hashed = self._hashes.get(name, self._nobodys_hash)
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._thread, self._checkpw, password, hashed)
        if not right or name not in self._hashes:
            return False
        self._right.add(key)
        return True
