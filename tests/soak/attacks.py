"""All attacks at once, until they are ended: `python -m soak.attacks PORT CA STREAM RULES PID`.
Writes into RENAMES, beside RULES, how often it renamed itself.

On the web server: from addresses other than the honest client's, without the password. On the stream: clients
that do not read, with filters that cost as much as may be. On files: rules that are emptied, cut and written anew,
with a SIGHUP each. On the kernel's events: a process that renames itself as fast as it can.
"""

import asyncio
import contextlib
import ctypes
import itertools
import os
import signal
import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

_ADDRESSES = 40
_READ_SLOWLY_SECONDS = 5.0
_PATIENCE_SECONDS = 20.0
_PR_SET_NAME = 15
_RENAMES, _RENAMES_PAUSE_SECONDS = 2000, 0.2
RENAMES = "renames"

RULES = "comm:\n- {match: 'churn-[0-9]+', replace: churn}\nexclude:\n  comm: ['no such program', 'nor this']\n"


class Web:
    """Clients of the web server."""

    def __init__(self, port: int, ca: Path) -> None:
        self._port = port
        self._tls = ssl.create_default_context(cafile=str(ca))
        self._addresses = itertools.cycle(f"127.0.2.{n}" for n in range(1, _ADDRESSES + 1))

    async def _connect(self, *, tls: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        sock.bind((next(self._addresses), 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        return await asyncio.open_connection(
            sock=sock, ssl=self._tls if tls else None, server_hostname="localhost" if tls else None
        )

    async def _send(self, request: bytes, *, tls: bool = True, reads: bool = True) -> None:
        reader, writer = await self._connect(tls=tls)
        try:
            writer.write(request)
            if reads:
                await reader.read()
        finally:
            writer.transport.abort()

    async def nonsense(self) -> None:
        await self._send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    async def long_headers(self) -> None:
        await self._send(b"GET / HTTP/1.1\r\n" + b"A: %s\r\n" % (b"a" * 2000) * 20)

    async def wrong_password(self) -> None:
        await self._send(
            b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Authorization: Basic cHJvbWV0aGV1czpndWVzcw==\r\n\r\n"
        )

    async def no_handshake(self) -> None:
        await self._send(os.urandom(300), tls=False)

    async def half_a_handshake(self) -> None:
        await self._send(bytes.fromhex("1603010200010001fc0303") + bytes(100), tls=False)

    async def reset(self) -> None:
        _, writer = await self._connect(tls=True)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def hold(self) -> None:
        """Send a part of a request, a byte at a time, as long as that is permitted."""
        reader, writer = await self._connect(tls=True)
        try:
            for byte in b"GET / HTTP/1.1\r\nHost: " + b"x" * 100:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.5)
            await reader.read()
        finally:
            writer.transport.abort()


async def ask_for_much_and_read_nothing(stream: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(stream), limit=1 << 12)
    try:
        globs = "&".join(f"comm=*{n}*c*t*z" for n in range(16))
        writer.write(f"GET /events?{globs} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readline()
        await asyncio.sleep(_READ_SLOWLY_SECONDS)
    finally:
        writer.transport.abort()


async def reload_cut_rules(rules: Path, pid: int) -> None:
    for text, seconds in (("", 0.3), (RULES[:-12], 0.3), (RULES, 2.0)):
        await asyncio.to_thread(rules.write_text, text)
        os.kill(pid, signal.SIGHUP)
        await asyncio.sleep(seconds)


async def rename_for_ever(numbers: Iterator[int], written: Path) -> None:
    libc = ctypes.CDLL(None)
    for n in itertools.islice(numbers, _RENAMES):
        libc.prctl(_PR_SET_NAME, b"name-%d" % n, 0, 0, 0)
    # n begins with 0.
    await asyncio.to_thread(written.write_text, str(n + 1))
    await asyncio.sleep(_RENAMES_PAUSE_SECONDS)


async def again_and_again(attack: Callable[[], Awaitable[None]]) -> None:
    while True:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await attack()
        await asyncio.sleep(0.02)


async def attack(port: int, ca: Path, stream: Path, rules: Path, pid: int) -> None:
    """Attack until this process is ended."""
    web, numbers = Web(port, ca), itertools.count()
    attacks: list[tuple[int, Callable[[], Awaitable[None]]]] = [
        (2, web.nonsense), (1, web.long_headers), (8, web.wrong_password), (2, web.no_handshake),
        (2, web.half_a_handshake), (2, web.reset), (200, web.hold),
        (16, lambda: ask_for_much_and_read_nothing(stream)), (1, lambda: reload_cut_rules(rules, pid)),
        (1, lambda: rename_for_ever(numbers, rules.with_name(RENAMES))),
    ]  # fmt: skip
    async with asyncio.TaskGroup() as group:
        for times, one in attacks:
            for _ in range(times):
                group.create_task(again_and_again(one))


if __name__ == "__main__":
    asyncio.run(
        attack(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]))
    )
