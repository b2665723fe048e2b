"""Applies the web configuration file: TLS for every connection, and a check of every request.

The file and its certificates are checked for changes at each connection and request, so that a change needs no
restart. While the file is wrong every request is answered with 500.
"""

import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from exporter.errors import ConfigError
from exporter.files import read_file
from exporter.web.fair_queue import FairQueue, TooManyWaitingError
from exporter.web.passwords import KnownPasswords, Passwords
from exporter.web.protection import lost_protections
from exporter.web.tls import has_allowed_san, make_tls_context
from exporter.web.token_bucket import TokenBuckets
from exporter.web.web_settings import WebConfig

# A file that ends a protection is read again after this time: it could be one that is being written.
_SETTLES_SECONDS = 1.0
# Some thousand users have a line each.
_MOST_BYTES = 1 << 20

_LOG = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gate:
    """The web configuration file in force.

    Args:
        path: The path of the file.

    Raises:
        ConfigError: The file or a certificate is wrong or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hashing = FairQueue("bcrypt")
        self._known = KnownPasswords()
        self._seen: dict[Path, object] = {}
        self._config = WebConfig()
        self._buckets: TokenBuckets | None = None
        self._passwords: Passwords | None = None
        self._tls: ssl.SSLContext | None = None
        self._problem: str | None = None
        # A file that ends a protection, and when it was read first.
        self._unsettled: tuple[str, float] | None = None
        self.load()
        if self._config == WebConfig():
            _LOG.warning("the web configuration file protects nothing", extra={"path": path})

    def load(self) -> None:
        """Read the file and its certificates, and put them in force.

        Raises:
            ConfigError: Something is wrong; the old settings stay in force.
        """
        from exporter.web.config_file import parse_web_config  # noqa: PLC0415 - most do without YAML

        before, self._unsettled = self._unsettled, None
        try:
            # The stamp is taken before the file is read: a change in between is noticed at the next check.
            self._seen = {self._path: _stamp(self._path)}
            data = read_file(self._path, _MOST_BYTES)
            if len(data) > _MOST_BYTES:
                raise ConfigError(f"the file is longer than {_MOST_BYTES} bytes")
            text = data.decode("utf-8")
            config = parse_web_config(text)
            tls = None
            if config.tls is not None:
                names = (config.tls.cert_file, config.tls.key_file, config.tls.client_ca_file)
                self._seen |= {path: _stamp(path) for path in (self._path.parent / name for name in names if name)}
                tls = make_tls_context(config.tls, self._path.parent)
            passwords = self._passwords
            if passwords is None or config.users != self._config.users:
                passwords = Passwords(config.users, self._hashing, self._known) if config.users else None
            self._settle(text, config, before)
            if not text.strip():
                # A full disk leaves such a file behind, and editors and `cp` do for a moment.
                raise ConfigError("the file is empty; to let every client in, write {}")
        except ConfigError as error:
            raise ConfigError(f"--web.config.file {self._path}: {error}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"--web.config.file {self._path}: not UTF-8") from error
        except OSError as error:
            raise ConfigError(f"--web.config.file {self._path}: {error.strerror}") from error
        except ValueError as error:
            # The name of a certificate that no file can have.
            raise ConfigError(f"--web.config.file {self._path}: {error}") from error
        if config.rate_limit != self._config.rate_limit:
            self._buckets = None if config.rate_limit is None else TokenBuckets(config.rate_limit)
        self._config, self._tls, self._passwords = config, tls, passwords

    def _settle(self, text: str, config: WebConfig, before: tuple[str, float] | None) -> None:
        """Make sure that a protection ends because the user wants it.

        Args:
            text: The file.
            config: The same, parsed.
            before: What the last call left in _unsettled.

        Raises:
            ConfigError: It is not sure, or not yet.
        """
        lost = lost_protections(self._config, config)
        if not lost:
            return
        unsaid = [one for one in lost if one.key not in config.said]
        if unsaid:
            names = ", ".join(one.key for one in unsaid)
            how = ", ".join(f"`{one.off}`" for one in unsaid)
            raise ConfigError(f"{names} is gone; to do without, write {how}")
        now = time.monotonic()
        self._unsettled = (text, now) if before is None or before[0] != text else before
        if now - self._unsettled[1] < _SETTLES_SECONDS:
            names = ", ".join(one.key for one in lost)
            raise ConfigError(f"{names} is turned off; that is read once more in a second")
        self._unsettled = None

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context for a new connection: the last that was right, or None without TLS."""
        self._follow()
        return self._tls

    def close(self) -> None:
        """Stop the thread that checks passwords."""
        self._hashing.close()

    def _follow(self) -> None:
        """Read the files again if they have changed."""
        is_due = self._unsettled is not None and time.monotonic() - self._unsettled[1] >= _SETTLES_SECONDS
        if not is_due and all(_stamp(path) == stamp for path, stamp in self._seen.items()):
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
        """Pass a request on to its handler, or answer why it is refused."""
        self._follow()
        if self._problem is not None:
            _LOG.error("web configuration broken, all requests are refused", extra={"error": self._problem})
            raise web.HTTPInternalServerError
        if request.get_extra_info("sslcontext") is not self._tls:
            # The connection was accepted under the old certificates, which may have let in a client that the new
            # ones do not. Clients connect again by themselves.
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPMisdirectedRequest
        peer = request.get_extra_info("peer", "")
        if self._buckets is not None and not self._buckets.take(peer, time.monotonic()):
            raise web.HTTPTooManyRequests
        if not self._has_allowed_san(request):
            raise web.HTTPForbidden
        try:
            if self._passwords is not None and not await self._passwords.admit(request):
                raise web.HTTPUnauthorized(headers={"WWW-Authenticate": 'Basic realm="proc-connector-exporter"'})
        except TooManyWaitingError as error:
            raise web.HTTPTooManyRequests(headers={"Retry-After": "1"}) from error
        return await handler(request)

    async def add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        """Put the configured headers on an answer."""
        response.headers.update(self._config.headers)

    def _has_allowed_san(self, request: web.Request) -> bool:
        if self._config.tls is None or not self._config.tls.client_allowed_sans:
            return True
        return has_allowed_san(request, self._config.tls.client_allowed_sans)


def _stamp(path: Path) -> object:
    """Return a value that changes when the file changes."""
    try:
        stat = path.stat()
    except OSError as error:
        return error.errno
    except ValueError:
        # A name that no file can have.
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
