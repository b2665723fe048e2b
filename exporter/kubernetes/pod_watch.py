"""Keeps the names of the node's pods up to date: a list, then a watch from where the list ends.

    list ──> watch ──> watch ──> ...          each watch lasts 5 to 10 minutes and goes on where the last one ended
     ^        │
     └────────┴── the API has forgotten where that was (410), or three watches in a row fail

Whatever fails is asked again, later each time, up to half a minute, with jitter so that the exporters of a
thousand nodes do not come together. Meanwhile the names that are known stay. Nothing that the API does ends or
stops the exporter.

The first list is asked of the API's cache (resourceVersion=0), as kubelets do: that costs the API little, and a
cache that is some seconds behind is made up for by the watch. After a 410 the list is asked without a version.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple

from exporter.errors import ApiFailure
from exporter.kubernetes.access import ApiAccess
from exporter.kubernetes.answers import LineReader, ListReader, WatchEvent, parse_event
from exporter.kubernetes.pauses import Pauses
from exporter.kubernetes.pod_names import MOST_OF_ALL_PODS, MOST_PODS, PodNames
from exporter.kubernetes.pods import Pod, parse_pod
from exporter.kubernetes.share_of_time import ShareOfTime

if TYPE_CHECKING:
    from exporter.kubernetes.api_client import ApiClient

_LOG = logging.getLogger(__name__)

_PAGE = "500"
# After so many failures in a row of these kinds the list is asked for anew, in case that where to go on is at
# fault.
_FAILURES_TO_LIST = 3
_MAY_BE_OF_VERSION = {"status", "malformed", "torn"}
# They happen to a sound API. It is logged only if the next request fails too.
_ROUTINE = {"torn", "expired"}
_REMEDIES = {
    "refused": "give the service account list and watch of pods: docs/kubernetes.md",
    "credentials": "a file of this pod's must be readable for the exporter's user: docs/kubernetes.md",
    "tls": "--kubernetes.ca-file",
    "unreachable": "--kubernetes.api-server",
}


class Pace(NamedTuple):
    """How long things may take and how long to wait between them, in seconds."""

    first_pause: float = 0.8
    """After the first failure; twice as long after each further one."""
    longest_pause: float = 30.0
    list_seconds: float = 300.0
    """All pages of a list together."""
    list_read_seconds: float = 30.0
    """Between two pieces of a list."""
    watch_seconds: tuple[float, float] = (300.0, 600.0)
    """The API ends a watch after a time between these two."""
    watch_read_slack: float = 30.0
    """How much later than that the exporter gives up."""
    steady_seconds: float = 10.0
    """A watch that has lasted so long was a success, even if no pod changed."""


def _jitter() -> float:
    return random.uniform(0.5, 1.5)  # noqa: S311 - it is no secret


class PodWatch:
    """Follows the pods of a node.

    Args:
        access: Where the API is.
        names: Takes the pods.
        pace: The times.

    Attributes:
        names: The names that are known.
        last_sync_seconds: When the names were last known to be those of the API, in seconds since the epoch; None
            before the first list.
        failures: How often the API could not be asked, by reason (ApiFailure).
        malformed_pods: Pods that were described without a uid or a name.
        skipped: Descriptions of pods that would have taken too much memory; failures has them as `malformed`.
    """

    def __init__(self, access: ApiAccess, names: PodNames, *, pace: Pace | None = None) -> None:
        self._access = access
        self.names = names
        self._pace = pace or Pace()
        self._task: asyncio.Task[None] | None = None
        # Where the next watch goes on; None: a list is needed.
        self._version: str | None = None
        # Whether the next list may come from the API's cache.
        self._may_be_old = True
        # In a row.
        self._failed = 0
        self._pauses = Pauses(self._pace.first_pause, self._pace.longest_pause, _jitter)
        # The reasons that were logged since all was well.
        self._logged: set[str] = set()
        self._file_problem: str | None = None
        self._share = ShareOfTime()
        self._listed_containers = 0
        self.last_sync_seconds: float | None = None
        self.failures: Counter[str] = Counter()
        self.malformed_pods = 0
        self.skipped = 0

    def start(self) -> asyncio.Task[None]:
        """Begin to follow the pods; returns what ends only by a bug, or when it is cancelled."""
        self._task = asyncio.ensure_future(self.run())
        return self._task

    async def stop(self) -> None:
        """End it, and close the connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def run(self) -> None:
        """Follow the pods for ever."""
        from exporter.kubernetes.api_client import ApiClient  # noqa: PLC0415 - costs memory that most do without

        async with ApiClient(self._access) as client:
            while True:
                try:
                    await self._follow(client)
                except ApiFailure as failure:
                    await asyncio.sleep(self._note_failure(failure))
                self.names.expire(time.monotonic())

    async def _follow(self, client: "ApiClient") -> None:
        """List if that is needed, then watch once."""
        if self._version is None:
            try:
                async with asyncio.timeout(self._pace.list_seconds):
                    await self._list(client)
            except TimeoutError as error:
                raise ApiFailure("timeout", "the list of pods took too long") from error
        await self._watch(client)

    async def _list(self, client: "ApiClient") -> None:
        pods: list[Pod] = []
        self._listed_containers = 0
        page: dict[str, str] = {"resourceVersion": "0"} if self._may_be_old else {}
        while True:
            reader = ListReader()
            query = {"limit": _PAGE, **page}
            async with aclosing(self._get(client, query, self._pace.list_read_seconds)) as pieces:
                async for piece in pieces:
                    async for item in self._share.each(reader.feed(piece)):
                        self._take_item(item, pods)
            for item in reader.close():
                self._take_item(item, pods)
            self._note_skipped(reader.skipped)
            if not reader.continue_token:
                break
            page = {"continue": reader.continue_token}
        if not reader.resource_version:
            raise ApiFailure("malformed", "the list of pods has no resourceVersion")
        self.names.replace_all(pods, time.monotonic())
        self._version = reader.resource_version
        self._may_be_old = True
        if self.last_sync_seconds is None:
            self._logged = set()
            _LOG.info("names of pods are known", extra={"pods": len(self.names), "node": self._access.node_name})
        self.last_sync_seconds = time.time()

    def _take_item(self, item: object, pods: list[Pod]) -> None:
        pod = parse_pod(item)
        if pod is None:
            self.malformed_pods += 1
        elif len(pods) <= MOST_PODS:
            self._listed_containers += len(pod.containers)
            if self._listed_containers > MOST_OF_ALL_PODS:
                self._listed_containers -= len(pod.containers)
                pod = pod._replace(containers={})
                self._note_skipped(1)
            pods.append(pod)

    async def _watch(self, client: "ApiClient") -> None:
        """Watch until the API ends it.

        Raises:
            ApiFailure: It ended otherwise, or at once.
        """
        timeout = random.uniform(*self._pace.watch_seconds)  # noqa: S311 - jitter is no secret
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version or "",
            "timeoutSeconds": str(max(1, round(timeout))),
        }
        accepted_at: float | None = None
        lines = LineReader()
        try:
            async with aclosing(self._get(client, query, timeout + self._pace.watch_read_slack)) as pieces:
                async for piece in pieces:
                    accepted_at = accepted_at or time.monotonic()
                    self.last_sync_seconds = time.time()
                    self._note_files(client.credentials.problem)
                    async for line in self._share.each(lines.feed(piece)):
                        self._take(parse_event(line))
                    skipped, lines.skipped = lines.skipped, 0
                    self._note_skipped(skipped)
                    self._note_duration(accepted_at)
        finally:
            is_steady = self._note_duration(accepted_at)
        if not is_steady:
            raise ApiFailure("torn", "the API ended a watch at once")
        self.last_sync_seconds = time.time()

    def _take(self, event: WatchEvent) -> None:
        now = time.monotonic()
        if event.pod is None:
            self.malformed_pods += event.kind in {"ADDED", "MODIFIED", "DELETED"}
        elif event.kind == "DELETED":
            self.names.remove(event.pod, now)
        else:
            self.names.put(event.pod, now)
        self.names.expire(now)
        self._version = event.resource_version or self._version
        # It brought something: what fails next fails for the first time.
        self._failed = 0
        self._pauses.reset()

    def _get(
        self, client: "ApiClient", query: Mapping[str, str], read_seconds: float
    ) -> AsyncGenerator[bytes, None]:
        of_node = {"fieldSelector": f"spec.nodeName={self._access.node_name}"}
        return client.get_pods(of_node | dict(query), read_seconds=read_seconds)

    def _note_duration(self, accepted_at: float | None) -> bool:
        """Return whether a watch has lasted for some time, and log that all is well if it was not."""
        if accepted_at is None or time.monotonic() - accepted_at < self._pace.steady_seconds:
            return False
        self._failed = 0
        self._pauses.reset()
        if self._logged:
            self._logged = set()
            _LOG.info("names of pods are up to date again", extra={"pods": len(self.names)})
        return True

    def _note_failure(self, failure: ApiFailure) -> float:
        """Count a failure, and log it if it is new; returns for how many seconds to wait."""
        reason = failure.reason
        self.failures[reason] += 1
        self._failed += 1
        if reason == "expired":
            self._version = None
            self._may_be_old = False
        elif reason in _MAY_BE_OF_VERSION and self._failed >= _FAILURES_TO_LIST:
            self._version = None
        if reason not in self._logged and (reason not in _ROUTINE or self._failed > 1):
            self._logged.add(reason)
            fields = {"reason": reason, "error": str(failure), "pods": len(self.names)}
            remedy = {"remedy": _REMEDIES[reason]} if reason in _REMEDIES else {}
            _LOG.warning("cannot ask the Kubernetes API for the names of pods", extra=fields | remedy)
        return max(self._pauses.next_seconds(), failure.retry_after_seconds)

    def _note_skipped(self, number: int) -> None:
        """Count pods that were left out, and log the first."""
        if not number:
            return
        if not self.skipped:
            _LOG.warning("a pod is described at too great length, its names are <unknown>")
        self.skipped += number
        self.failures["malformed"] += number

    def _note_files(self, problem: str | None) -> None:
        """Log that a file cannot be read while what was read before still does, once for each change."""
        if problem is not None and self._file_problem is None:
            remedy = {"error": problem, "remedy": _REMEDIES["credentials"]}
            _LOG.warning("the Kubernetes API is asked with what was read before", extra=remedy)
        self._file_problem = problem
