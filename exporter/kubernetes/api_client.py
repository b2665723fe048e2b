"""Asks the Kubernetes API for pods, over aiohttp."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Self

import aiohttp

from exporter import __version__
from exporter.errors import ApiFailure
from exporter.kubernetes.access import ApiAccess
from exporter.kubernetes.answers import parse_status_message
from exporter.kubernetes.credentials import Credentials
from exporter.kubernetes.response_body import iter_pieces

_PODS = "/api/v1/pods"
_CONNECT_SECONDS = 15.0
# Of an answer that refuses: enough for its message.
_MESSAGE_BYTES = 4096
# aiohttp pauses the connection when twice as much has not been read.
_READ_BYTES = 1 << 16
# The kernel notices that the API's machine is gone after 30 + 3 * 10 seconds without an answer; a watch that only
# waits would not, until its read timeout.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
_LONGEST_RETRY_AFTER = 300


class ApiClient:
    """Connections to the API. Made while an event loop runs; closed as a context manager.

    Attributes:
        credentials: The token and the authority, read anew for each request.
    """

    def __init__(self, access: ApiAccess) -> None:
        self._url = access.server + _PODS
        self.credentials = Credentials(access)
        self._session = aiohttp.ClientSession(
            headers={"Accept": "application/json", "User-Agent": f"proc-connector-exporter/{__version__}"},
            read_bufsize=_READ_BYTES,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get_pods(self, query: Mapping[str, str], *, read_seconds: float) -> AsyncGenerator[bytes, None]:
        """Ask for pods; yields the answer in pieces, and an empty one as soon as the API has accepted.

        Args:
            query: The parameters of the request.
            read_seconds: The longest time between two pieces.

        Raises:
            ApiFailure: There is no such answer, or no end of it.
        """
        try:
            async with aclosing(self._get(query, read_seconds)) as pieces:
                async for piece in pieces:
                    yield piece
        except (ssl.SSLError, aiohttp.ClientSSLError) as error:
            raise ApiFailure("tls", str(error)) from error
        except TimeoutError as error:
            raise ApiFailure("timeout", "the API did not answer in time") from error
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            raise ApiFailure("unreachable", str(error)) from error
        except aiohttp.ClientResponseError as error:
            raise ApiFailure(
                "malformed", " ".join(f"the answer is no HTTP: {error.message}".split())[:300]
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiFailure("torn", str(error) or type(error).__name__) from error

    async def _get(self, query: Mapping[str, str], read_seconds: float) -> AsyncGenerator[bytes, None]:
        token, context = self.credentials.read()
        # aiohttp has timeouts of its own, but none where an answer is so broken that it loses track of it.
        async with asyncio.timeout(_CONNECT_SECONDS + read_seconds):
            response = await self._session.get(
                self._url,
                params=query,
                headers={"Authorization": f"Bearer {token}"} if token else None,
                # Connections are kept by their context: a new authority means a new connection.
                ssl=context or True,
                timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS, sock_read=read_seconds),
                # Another machine must not get the token.
                allow_redirects=False,
            )
        try:
            if response.status != 200:
                async with asyncio.timeout(read_seconds):
                    raise await _refusal(response)
            _keep_alive(response)
            yield b""
            async with aclosing(iter_pieces(response, read_seconds)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            # If it was read to its end the connection is kept.
            response.close()


async def _refusal(response: aiohttp.ClientResponse) -> ApiFailure:
    """Return why the API does not do what it was asked."""
    message = parse_status_message(await response.content.read(_MESSAGE_BYTES))
    reason = {401: "refused", 403: "refused", 410: "expired"}.get(response.status, "status")
    after = response.headers.get("Retry-After", "")
    seconds = int(after) if after.isascii() and after.isdecimal() and len(after) < 6 else 0
    text = f"{response.status} {response.reason}"[:300] + (f": {message}" if message else "")
    return ApiFailure(reason, text, min(seconds, _LONGEST_RETRY_AFTER))


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    """Let the kernel look whether the API's machine is still there, once a connection is idle."""
    transport = None if response.connection is None else response.connection.transport
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
