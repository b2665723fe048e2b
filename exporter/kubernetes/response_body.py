"""Reads the body of an answer in pieces, over aiohttp; also one that aiohttp loses track of.

Where the framing of chunks is broken amid a body, aiohttp closes the connection and raises nothing: what reads the
body would wait for ever. So the end of the connection is watched, too.
"""

import asyncio
from collections.abc import AsyncGenerator

import aiohttp

from exporter.errors import ApiFailure


async def iter_pieces(response: aiohttp.ClientResponse, read_seconds: float | None) -> AsyncGenerator[bytes, None]:
    """Yield the body of an answer as it comes.

    Args:
        response: The answer.
        read_seconds: The longest time between two pieces; None for any.

    Raises:
        TimeoutError: Nothing came for so long.
        ApiFailure: The connection ended amid a body that is no HTTP.
        aiohttp.ClientError: It ended otherwise.
    """
    content = response.content
    connection = response.connection
    protocol = None if connection is None else connection.protocol

    def fail_if_open(_: object = None) -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(ApiFailure("malformed", "the answer is no HTTP: its chunks are broken"))

    closed = None if protocol is None else protocol.closed
    if closed is not None:
        closed.add_done_callback(fail_if_open)
    elif protocol is not None:
        fail_if_open()
    while True:
        async with asyncio.timeout(read_seconds):
            piece = await content.readany()
        if not piece:
            return
        yield piece
