"""Finds the name of a container by its id.

A container that has ended keeps its name for five minutes: what its processes did last is counted until then. How
many can be known is limited; those that are gone have to give way first, then the oldest.
"""

from collections.abc import Iterable

from exporter.runtimes.containers import Container, ContainerEvent

KEEP_SECONDS = 300.0
MOST_CONTAINERS = 4096


class ContainerNames:
    """The names of the containers of a host. Bounded: containers cannot make it grow without end.

    Args:
        keep_seconds: How long a name stays when its container has ended.
        most: The most containers that are known, those that have ended included.
    """

    def __init__(self, *, keep_seconds: float = KEEP_SECONDS, most: int = MOST_CONTAINERS) -> None:
        self._keep_seconds = keep_seconds
        self._most = most
        # In the order in which they were last named, or in which they ended.
        self._live: dict[str, str] = {}
        self._ended: dict[str, tuple[str, float]] = {}

    def __len__(self) -> int:
        """Return how many there are, without those that have ended."""
        return len(self._live)

    def lookup(self, container_id: str) -> str | None:
        """Return the name of a container; None if it is not known."""
        name = self._live.get(container_id)
        if name is None and container_id in self._ended:
            return self._ended[container_id][0]
        return name

    def replace_all(self, containers: Iterable[Container], now_seconds: float) -> None:
        """Take a complete list of those that run; the others have ended."""
        before, self._live = self._live, {}
        for container in containers:
            self._put(container)
        for container_id, name in before.items():
            if container_id not in self._live:
                self._end(Container(container_id, name), now_seconds)
        self.expire(now_seconds)

    def take(self, event: ContainerEvent, now_seconds: float) -> None:
        """Take what happened to a container. Each event has its name."""
        if event.has_ended:
            self._end(event.container, now_seconds)
        else:
            self._put(event.container)
        self.expire(now_seconds)

    def _put(self, container: Container) -> None:
        self._forget(container.container_id)
        self._live[container.container_id] = container.name
        self._make_room()

    def _end(self, container: Container, now_seconds: float) -> None:
        self._forget(container.container_id)
        self._ended[container.container_id] = container.name, now_seconds
        self._make_room()

    def _forget(self, container_id: str) -> None:
        self._live.pop(container_id, None)
        self._ended.pop(container_id, None)

    def _make_room(self) -> None:
        if len(self._live) + len(self._ended) > self._most:
            oldest = self._ended or self._live
            del oldest[next(iter(oldest))]

    def expire(self, now_seconds: float) -> None:
        """Forget those that ended long enough ago."""
        before = now_seconds - self._keep_seconds
        while self._ended:
            container_id = next(iter(self._ended))
            if self._ended[container_id][1] > before:
                return
            del self._ended[container_id]
