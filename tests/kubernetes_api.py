"""A Kubernetes API that has only pods: list, watch and bookmarks over TLS, and all the ways in which they fail.

It keeps the pods and their history itself. It knows nothing of the exporter.
"""

import asyncio
import contextlib
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from serving import Authority

NODE = "node-17"
TOKEN = "the first token"  # noqa: S105 - of a server that this test makes
PATIENCE_SECONDS = 30.0

_uids = count(1)
_ids = count(1)


def make_uid() -> str:
    return f"2d5133c0-65f3-40b2-b375-{next(_uids):012x}"


def make_id() -> str:
    return f"{next(_ids):064x}"


def status_of(name: str, container_id: str, *, last: str = "", ended: bool = False) -> dict[str, Any]:
    """Describe a container as a pod's status does: one that runs or has ended, and its last attempt."""
    state = (
        {"terminated": {"containerID": f"containerd://{container_id}", "exitCode": 1}}
        if ended
        else {"running": {}}
    )
    last_state = {"terminated": {"containerID": f"containerd://{last}"}} if last else {}
    return {
        "name": name,
        "containerID": f"containerd://{container_id}",
        "state": state,
        "lastState": last_state,
        "ready": True,
    }  # fmt: skip


def make_pod(
    name: str,
    namespace: str = "shop",
    *,
    uid: str = "",
    node: str = NODE,
    annotations: dict[str, str] | None = None,
    padding: str = "",
    **containers: list[dict[str, Any]],
) -> dict[str, Any]:
    """Describe a pod; containers by the names of the fields of its status."""
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or make_uid(),
            "annotations": {"padding": padding, **(annotations or {})},
        },
        "spec": {"nodeName": node},
        "status": {"phase": "Running", **containers},
    }


def pod_of(name: str, *containers: str, **more: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Make a pod with containers of these names; returns it and their ids."""
    ids = {container: make_id() for container in containers}
    return make_pod(name, containerStatuses=[status_of(c, i) for c, i in ids.items()], **more), ids


class Request(NamedTuple):
    """What a client asked."""

    query: dict[str, str]
    authorization: str

    @property
    def is_watch(self) -> bool:
        return "watch" in self.query


class Refusal(NamedTuple):
    """An answer that the API gives instead."""

    status: int
    message: str = ""
    headers: str = ""


class FakeApi:
    """The server. Its attributes are set by tests at any time.

    Attributes:
        tokens: What it accepts.
        page: The most pods in a part of a list, if the client asks for no less; None for all.
        piece_bytes: Answers are sent in pieces of so many bytes, with a turn of the loop between them.
        pause_seconds: And with such a pause.
        expired_as: How a watch from a forgotten version is answered: `event` or `status`.
        next_answers: Given instead of what the next requests ask for; after bytes it hangs up.
        requests: All that were read.
        connections: How many were opened.
    """

    def __init__(self) -> None:
        self.tokens = {TOKEN}
        self.page: int | None = None
        self.piece_bytes = 1 << 16
        self.pause_seconds = 0.0
        self.expired_as = "event"
        self.next_answers: deque[Refusal | bytes] = deque()
        self.requests: list[Request] = []
        self.connections = 0
        self.port = 0
        self.context: ssl.SSLContext | None = None
        self.pods: dict[str, dict[str, Any]] = {}
        self._version = 1000
        self._history: list[tuple[int, str, dict[str, Any]]] = []
        self._forgotten = 0
        # The node and what waits to be sent.
        self._watches: dict[asyncio.StreamWriter, tuple[str, asyncio.Queue[bytes]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    # -- what happens to pods ------------------------------------------------------------------------------------

    def put(self, pod: dict[str, Any]) -> None:
        """Create a pod, or change it to this."""
        uid = pod["metadata"]["uid"]
        self._happen("MODIFIED" if uid in self.pods else "ADDED", pod)
        self.pods[uid] = pod

    def delete(self, pod: dict[str, Any]) -> None:
        self._happen("DELETED", self.pods.pop(pod["metadata"]["uid"]))

    def bookmark(self) -> None:
        """Send each watch where it is, and forget what was before: only a client that listened can go on."""
        self._version += 50
        mark = {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": str(self._version)}}}
        self.send(json.dumps(mark).encode() + b"\n")
        self.forget()

    def forget(self) -> None:
        """Forget the history: a watch from before now is refused with 410."""
        self._history = []
        self._forgotten = self._version

    def happen_unseen(self) -> None:
        """Let so much happen elsewhere that all clients' versions are too old, and forget it."""
        self._version += 50
        self.forget()

    def _happen(self, kind: str, pod: dict[str, Any]) -> None:
        self._version += 1
        pod["metadata"]["resourceVersion"] = str(self._version)
        event = json.loads(json.dumps({"type": kind, "object": pod}))
        self._history.append((self._version, pod["spec"]["nodeName"], event))
        for node, queue in self._watches.values():
            if node == pod["spec"]["nodeName"]:
                queue.put_nowait(json.dumps(event).encode() + b"\n")

    # -- what happens to connections -----------------------------------------------------------------------------

    @property
    def watching(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    @property
    def open_connections(self) -> int:
        return len(self._writers)

    def use(self, authority: Authority, name: str = "127.0.0.1") -> None:
        """Have a certificate of another authority from the next connection on."""
        assert self.context is not None
        self.context.load_cert_chain(*authority.issue("api", name))

    def send(self, data: bytes) -> None:
        """Send bytes to each watch."""
        for _, queue in self._watches.values():
            queue.put_nowait(data)

    def send_raw(self, data: bytes) -> None:
        """Send each watch bytes that are no chunk."""
        for writer in self._watches:
            writer.write(data)

    def tear(self) -> None:
        """Cut all connections, amid what they send."""
        for writer in list(self._writers):
            writer.transport.abort()

    def lists(self) -> list[Request]:
        return [request for request in self.requests if not request.is_watch]

    def watches(self) -> list[Request]:
        return [request for request in self.requests if request.is_watch]

    # -- HTTP ----------------------------------------------------------------------------------------------------

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            while await self._answer_one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        query = dict(parse_qsl(urlsplit(target).query))
        request = Request(query, headers.get("authorization", ""))
        self.requests.append(request)
        if self.next_answers:
            answer = self.next_answers.popleft()
            if isinstance(answer, bytes):
                for at in range(0, len(answer), self.piece_bytes):
                    writer.write(answer[at : at + self.piece_bytes])
                    await writer.drain()
                    await asyncio.sleep(self.pause_seconds)
                return False
            await self._refuse(writer, answer)
        elif (method, urlsplit(target).path) != ("GET", "/api/v1/pods"):
            await self._refuse(writer, Refusal(404, "there are only pods"))
        elif request.authorization.removeprefix("Bearer ") not in self.tokens:
            await self._refuse(writer, Refusal(401, "Unauthorized"))
        elif request.is_watch:
            await self._watch(reader, writer, query)
        else:
            await self._list(writer, query)
        return True

    async def _refuse(self, writer: asyncio.StreamWriter, refusal: Refusal) -> None:
        status = {"kind": "Status", "code": refusal.status, "message": refusal.message}
        body = json.dumps(status).encode()
        writer.write(
            f"HTTP/1.1 {refusal.status} Refused\r\nContent-Length: {len(body)}\r\n{refusal.headers}\r\n".encode()
        )
        writer.write(body)
        await writer.drain()

    async def _list(self, writer: asyncio.StreamWriter, query: dict[str, str]) -> None:
        node = query["fieldSelector"].removeprefix("spec.nodeName=")
        found = [pod for pod in self.pods.values() if pod["spec"]["nodeName"] == node]
        start, version = 0, self._version
        if "continue" in query:
            start, version = map(int, query["continue"].split("/"))
            if version < self._forgotten:
                await self._refuse(writer, Refusal(410, "the continue parameter is too old"))
                return
        end = start + min(int(query.get("limit", "500")), self.page or len(found))
        metadata = {"resourceVersion": str(version)}
        if end < len(found):
            metadata["continue"] = f"{end}/{version}"
        await self._begin(writer)
        head = json.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": metadata})
        await self._send(writer, f'{head[:-1]}, "items": ['.encode())
        for i, pod in enumerate(found[start:end]):
            await self._send(writer, (", " if i else "").encode() + json.dumps(pod).encode())
        await self._send(writer, b"]}\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _watch(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, query: dict[str, str]
    ) -> None:
        since = int(query["resourceVersion"])
        node = query["fieldSelector"].removeprefix("spec.nodeName=")
        if since < self._forgotten and self.expired_as == "status":
            await self._refuse(writer, Refusal(410, f"too old resource version: {since} ({self._forgotten})"))
            return
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        if since < self._forgotten:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": f"too old: {since}"}
            queue.put_nowait(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
        else:
            for version, of_node, event in self._history:
                if version > since and of_node == node:
                    queue.put_nowait(json.dumps(event).encode() + b"\n")
        self._watches[writer] = node, queue

        async def send_all() -> None:
            while True:
                await self._send(writer, await queue.get())

        await self._begin(writer)
        # Until the time is over or the client hangs up.
        tasks = [asyncio.ensure_future(send_all()), asyncio.ensure_future(reader.read())]
        try:
            done, _ = await asyncio.wait(
                tasks, timeout=int(query["timeoutSeconds"]), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            del self._watches[writer]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if done:
            raise ConnectionResetError
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _begin(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        await writer.drain()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        for at in range(0, len(data), self.piece_bytes):
            piece = data[at : at + self.piece_bytes]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            if self.pause_seconds:
                await asyncio.sleep(self.pause_seconds)


@contextlib.asynccontextmanager
async def serving_api(
    authority: Authority | None, *, port: int = 0, name: str = "127.0.0.1"
) -> AsyncIterator[FakeApi]:
    """Serve an API on the loopback, over TLS if there is an authority, with a certificate for a name."""
    api = FakeApi()
    if authority is not None:
        api.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        api.use(authority, name)
    server = await asyncio.start_server(api.handle, "127.0.0.1", port, ssl=api.context)
    api.port = server.sockets[0].getsockname()[1]
    try:
        yield api
    finally:
        server.close()
        await api.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what it waits for makes no event
            await asyncio.sleep(0.005)
