"""A small application behind the real server, certificates to reach it with, and clients that misbehave."""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import bcrypt
import trustme
from aiohttp import web

from exporter.settings.web import ListenAddress
from exporter.web.deadline import Limits
from exporter.web.gate import Gate
from exporter.web.listening_sockets import open_web_sockets
from exporter.web.server import Server

PATIENCE_SECONDS = 30.0


def hash_password(password: str) -> str:
    """Return a bcrypt hash that costs as little as there is."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Authority:
    """Issues certificates, as files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(self.ca_file)

    def issue(self, name: str, *identities: str) -> tuple[Path, Path]:
        """Write a certificate and its key; whatever was there is replaced, each file at once."""
        issued = self.ca.issue_cert(*identities)
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        files = []
        for path, content in (
            (self.folder / f"{name}.crt", chain),
            (self.folder / f"{name}.key", issued.private_key_pem.bytes()),
        ):
            new = path.with_suffix(path.suffix + ".new")
            new.write_bytes(content)
            new.replace(path)
            files.append(path)
        return files[0], files[1]

    def client(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """Return what a client that trusts this authority connects with."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, path: str = "/", method: str = "GET", **headers: str) -> Reply:
        """Send a request and read its answer."""
        lines = [f"{method} {path} HTTP/1.1", "Host: test"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        return await self.reply(has_body=method != "HEAD")

    async def reply(self, *, has_body: bool = True) -> Reply:
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = (line.partition(": ") for line in head[1:] if line)
            answered = {name: value for name, _, value in pairs}
            length = int(answered.get("Content-Length", "0")) if has_body else 0
            body = await self.reader.readexactly(length)
            return Reply(int(head[0].split()[1]), answered, body)

    async def is_cut(self) -> bool:
        """Wait until the server ends the connection; returns that it did so without another answer."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                return await self.reader.read() == b""
            except OSError:
                return True

    def close(self) -> None:
        self.writer.close()


class Served:
    """A running server."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port
        self._clients: list[Client] = []

    async def connect(self, tls: ssl.SSLContext | None = None) -> Client:
        async with asyncio.timeout(PATIENCE_SECONDS):
            client = Client(
                *await asyncio.open_connection(
                    "127.0.0.1", self.port, ssl=tls, server_hostname="localhost" if tls else None
                )
            )
        self._clients.append(client)
        return client

    async def ask(
        self, path: str = "/", method: str = "GET", tls: ssl.SSLContext | None = None, **headers: str
    ) -> Reply:
        """Ask once over a new connection."""
        client = await self.connect(tls)
        return await client.ask(path, method, **headers)

    async def close_clients(self) -> None:
        for client in self._clients:
            client.close()
        for client in self._clients:
            with contextlib.suppress(OSError):
                await client.writer.wait_closed()


def _application() -> web.Application:
    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    return app


@contextlib.asynccontextmanager
async def serving(
    gate: Gate | None = None, limits: Limits | None = None, make_app: Callable[[], web.Application] = _application
) -> AsyncIterator[Served]:
    """Serve on the loopback."""
    server = Server(make_app(), gate, Limits() if limits is None else limits)
    sockets = open_web_sockets([ListenAddress("127.0.0.1", 0)])
    await server.start(sockets)
    served = Served(server, sockets[0].getsockname()[1])
    try:
        yield served
    finally:
        await served.close_clients()
        await server.stop()


def overwrite(path: Path, text: str) -> None:
    """Empty a file, then write it, as `cp` and some editors do."""
    path.write_text(text)


def rewrite(path: Path, text: str) -> None:
    """Replace a file at once, as editors and Kubernetes do."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
