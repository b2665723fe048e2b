"""Follows the containers of this host: a list of those that run, and the events of all, over one API socket.

Both connections are opened before the exporter gives up its privileges, as only root and those to whom root gave
it may open this socket: who may can become root by it. If a connection is torn then (the engine was restarted), it
can be opened anew only if the user that the exporter runs as may do so.

    +------------+  list, events are open   +-----------+
    | connecting |------------------------->| connected |   events name each container before its first process
    +------------+                          +-----------+
          ^            a pause                    |
          +---------------------------------------+  torn, malformed, ...

The events are asked for from some seconds ago on, and read once the list is in, so none is missed between the two.
Podman answers only with the first event, so that there is no answer yet is no failure.
"""

import asyncio
import json
import logging
import random
import time
from collections import Counter
from contextlib import aclosing, suppress
from typing import NamedTuple

from exporter.errors import ApiFailure
from exporter.kubernetes.answers import LineReader, ListReader
from exporter.kubernetes.pauses import Pauses
from exporter.kubernetes.share_of_time import ShareOfTime
from exporter.runtimes.container_names import MOST_CONTAINERS, ContainerNames
from exporter.runtimes.containers import ACTIONS, Container, parse_container, parse_event
from exporter.runtimes.socket_client import SocketClient

_LOG = logging.getLogger(__name__)

_LIST = "/containers/json"
_EVENTS = "/events"
_FILTERS = json.dumps({"type": ["container"], "event": list(ACTIONS)})
# How long a new container is waited for: what was before has its name, or none for good.
_LOOK_BACK_SECONDS = 10
_CONNECTIONS = 2
# A container with 100 mounts and 200 labels is described in some 40 KB.
_LONGEST = 1 << 20
_MOST_VALUES = 1 << 16
_REMEDIES = {
    "refused": "only root and the socket's group may open it, with --user only at the start: docs/groups.md",
    "unreachable": "--containers.socket",
}


class Pace(NamedTuple):
    """How long things may take and how long to wait between them, in seconds."""

    first_pause: float = 0.8
    """After the first failure; twice as long after each further one."""
    longest_pause: float = 30.0
    list_seconds: float = 60.0
    list_read_seconds: float = 30.0
    """Between two pieces of a list."""
    steady_seconds: float = 10.0
    """What has lasted so long was a success."""


def _jitter() -> float:
    return random.uniform(0.5, 1.5)  # noqa: S311 - it is no secret


class ContainerWatch:
    """Follows the containers of a host.

    Args:
        path: The API socket.
        names: Takes the names.
        pace: The times.

    Attributes:
        path: The API socket.
        names: The names that are known.
        is_connected: The list is in, and events come.
        failures: How often the engine could not be asked, by reason (ApiFailure).
    """

    def __init__(self, path: str, names: ContainerNames, *, pace: Pace | None = None) -> None:
        self.path = path
        self.names = names
        self._pace = pace or Pace()
        self._task: asyncio.Task[None] | None = None
        self._pauses = Pauses(self._pace.first_pause, self._pace.longest_pause, _jitter)
        # The reasons that were logged since all was well.
        self._logged: set[str] = set()
        self._listed = asyncio.Event()
        self._open_connections = 0
        self._share = ShareOfTime()
        self._was_tried = asyncio.Event()
        self.is_connected = False
        self.failures: Counter[str] = Counter()

    def start(self) -> asyncio.Task[None]:
        """Begin to follow; returns what ends only by a bug, or when it is cancelled."""
        self._task = asyncio.ensure_future(self.run())
        return self._task

    async def tried(self, seconds: float) -> None:
        """Wait until both connections are open, or cannot be opened; but no longer than this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._was_tried.wait()

    async def stop(self) -> None:
        """End it, and close the connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def run(self) -> None:
        """Follow the containers for ever."""
        async with SocketClient(self.path, self._note_connection) as client:
            while True:
                try:
                    await self._follow(client)
                except ApiFailure as failure:
                    self._was_tried.set()
                    self._note(failure)
                    await asyncio.sleep(self._pauses.next_seconds())
                self.names.expire(time.monotonic())

    def _note_connection(self) -> None:
        self._open_connections += 1
        if self._open_connections >= _CONNECTIONS:
            self._was_tried.set()

    async def _follow(self, client: SocketClient) -> None:
        """List, and take events until that fails."""
        self._listed.clear()
        since = int(time.time()) - _LOOK_BACK_SECONDS
        tasks = [asyncio.ensure_future(self._watch(client, since)), asyncio.ensure_future(self._list(client))]
        try:
            await asyncio.gather(*tasks)
        finally:
            self.is_connected = False
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _list(self, client: SocketClient) -> None:
        containers: list[Container] = []
        reader = ListReader(_LONGEST, _MOST_VALUES, is_bare=True)
        try:
            async with asyncio.timeout(self._pace.list_seconds):
                pieces = client.get(_LIST, {}, read_seconds=self._pace.list_read_seconds)
                async with aclosing(pieces):
                    async for piece in pieces:
                        async for item in self._share.each(reader.feed(piece)):
                            self._take_item(item, containers)
        except TimeoutError as error:
            raise ApiFailure("timeout", "the list of containers took too long") from error
        for item in reader.close():
            self._take_item(item, containers)
        self._note_skipped(reader.skipped)
        self.names.replace_all(containers, time.monotonic())
        self.is_connected = True
        self._listed.set()
        if not self._logged:
            _LOG.info("names of containers are known", extra={"containers": len(self.names), "socket": self.path})
        await asyncio.sleep(self._pace.steady_seconds)
        self._pauses.reset()
        if self._logged:
            self._logged = set()
            _LOG.info("names of containers are up to date again", extra={"containers": len(self.names)})

    @staticmethod
    def _take_item(item: object, containers: list[Container]) -> None:
        container = parse_container(item)
        if container is not None and len(containers) < MOST_CONTAINERS:
            containers.append(container)

    async def _watch(self, client: SocketClient, since: int) -> None:
        """Take events until there are no more.

        Raises:
            ApiFailure: They ended.
        """
        lines = LineReader(_LONGEST, _MOST_VALUES)
        query = {"since": str(since), "filters": _FILTERS}
        async with aclosing(client.get(_EVENTS, query, read_seconds=None)) as pieces:
            async for piece in pieces:
                await self._listed.wait()
                async for line in self._share.each(lines.feed(piece)):
                    self._take(line)
                skipped, lines.skipped = lines.skipped, 0
                self._note_skipped(skipped)
        raise ApiFailure("torn", "the events ended")

    def _take(self, line: bytes) -> None:
        try:
            event = parse_event(line)
        except ApiFailure as failure:
            # The others may be sound, and the connection may be the last.
            self._note(failure)
            return
        if event is not None:
            self.names.take(event, time.monotonic())

    def _note_skipped(self, number: int) -> None:
        for _ in range(number):
            self._note(ApiFailure("malformed", "a container is described at too great length"))

    def _note(self, failure: ApiFailure) -> None:
        """Count a failure, and log it if it is new."""
        reason = failure.reason
        self.failures[reason] += 1
        if reason not in self._logged:
            self._logged.add(reason)
            fields = {"reason": reason, "error": str(failure), "socket": self.path}
            remedy = {"remedy": _REMEDIES[reason]} if reason in _REMEDIES else {}
            _LOG.warning("cannot ask for the names of containers", extra=fields | remedy)
