"""Asks Docker or Podman over their API socket, by aiohttp. Only this module of the room imports it.

Each connection is for one request (`Connection: close`). So one that was opened before the exporter gave up its
privileges can be used for nothing else afterwards: the engine reads no second request from it.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import aiohttp

from exporter import __version__
from exporter.errors import ApiFailure
from exporter.kubernetes.answers import parse_status_message
from exporter.kubernetes.response_body import iter_pieces

_CONNECT_SECONDS = 15.0
# Of an answer that refuses: enough for its message.
_MESSAGE_BYTES = 4096
# aiohttp pauses the connection when twice as much has not been read.
_READ_BYTES = 1 << 16


class SocketClient:
    """Connections to the socket. Made while an event loop runs; closed as a context manager.

    Args:
        path: The socket.
        on_connected: Called for each connection that is open.
    """

    def __init__(self, path: str, on_connected: Callable[[], None]) -> None:
        async def connected(*_: Any) -> None:
            on_connected()

        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(connected)
        self._session = aiohttp.ClientSession(
            # The engine wants a host's name, whatever it is.
            "http://engine",
            connector=aiohttp.UnixConnector(path=path, force_close=True),
            headers={"Accept": "application/json", "User-Agent": f"proc-connector-exporter/{__version__}"},
            read_bufsize=_READ_BYTES,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[trace],
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(
        self, path: str, query: Mapping[str, str], *, read_seconds: float | None
    ) -> AsyncGenerator[bytes, None]:
        """Ask; yields the answer in pieces.

        Args:
            path: What is asked for.
            query: The parameters of the request.
            read_seconds: The longest time until the answer begins, and between two pieces; None for any.

        Raises:
            ApiFailure: There is no such answer, or no end of it.
        """
        try:
            async with aclosing(self._get(path, query, read_seconds)) as pieces:
                async for piece in pieces:
                    yield piece
        except TimeoutError as error:
            raise ApiFailure("timeout", "the socket did not answer in time") from error
        except aiohttp.ClientConnectorError as error:
            is_refused = isinstance(error.os_error, PermissionError)
            raise ApiFailure("refused" if is_refused else "unreachable", str(error)) from error
        except aiohttp.ClientResponseError as error:
            raise ApiFailure(
                "malformed", " ".join(f"the answer is no HTTP: {error.message}".split())[:300]
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiFailure("torn", str(error) or type(error).__name__) from error

    async def _get(
        self, path: str, query: Mapping[str, str], read_seconds: float | None
    ) -> AsyncGenerator[bytes, None]:
        timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS, sock_read=read_seconds)
        async with asyncio.timeout(read_seconds):
            response = await self._session.get(path, params=query, timeout=timeout, allow_redirects=False)
        try:
            if response.status != 200:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    message = parse_status_message(await response.content.read(_MESSAGE_BYTES))
                text = f"{response.status} {response.reason}"[:300] + (f": {message}" if message else "")
                raise ApiFailure("status", text)
            async with aclosing(iter_pieces(response, read_seconds)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            response.close()
