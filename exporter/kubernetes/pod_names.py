"""Finds the names of a pod and a container by the ids that a cgroup has.

A pod that was deleted keeps its names for five minutes, as does a container that its pod no longer lists: what its
processes did last is counted until then. So a pod that is deleted and created anew each second takes the memory of
300 pods; how many there can be is limited.
"""

from collections.abc import Iterable
from typing import NamedTuple

from exporter.kubernetes.pods import Credence, Pod, pod_key

KEEP_SECONDS = 300.0
# A node has 110 pods by default, and at most some hundred; the rest is for those that were deleted.
MOST_PODS = 4096
# Of all attempts of all containers of a pod.
MOST_CONTAINERS = 256
# Of all pods together. With the longest ids and names that there can be they take 12 MiB.
MOST_OF_ALL_PODS = 1 << 14
# To look at all that is known costs milliseconds, and a watch can bring events as fast as they are read.
_EXPIRE_EVERY_SECONDS = 1.0


class PodName(NamedTuple):
    """What a process's pod and container are called.

    Attributes:
        namespace: The pod's namespace.
        pod: Its name.
        container: The container's name; "" if the process is in the pod but in no container.
    """

    namespace: str
    pod: str
    container: str


class _Known:
    """A pod that is known, and since when it is gone."""

    __slots__ = ("containers", "gone_at", "pod")

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.gone_at: float | None = None
        # (name, when the pod ceased to list it) by id, in the order in which they were listed.
        self.containers: dict[str, tuple[str, float | None]] = {}

    def update(self, pod: Pod, now_seconds: float) -> None:
        """Take the present state of the pod; what it no longer lists is gone from now on."""
        self.pod = pod._replace(containers={})
        for container_id, (name, gone_at) in self.containers.items():
            if container_id not in pod.containers and gone_at is None:
                self.containers[container_id] = name, now_seconds
        for container_id, name in pod.containers.items():
            self.containers[container_id] = name, None
        self.keep(MOST_CONTAINERS)

    def keep(self, most: int) -> None:
        """Forget containers, those first that have been gone for longest."""
        excess = len(self.containers) - most
        if excess > 0:
            for container_id in sorted(self.containers, key=self._age)[:excess]:
                del self.containers[container_id]

    def _age(self, container_id: str) -> float:
        gone_at = self.containers[container_id][1]
        return float("inf") if gone_at is None else gone_at

    def expire(self, before_seconds: float) -> int:
        """Forget containers that were gone by then; returns how many."""
        old = [
            key
            for key, (_, gone_at) in self.containers.items()
            if gone_at is not None and gone_at <= before_seconds
        ]
        for container_id in old:
            del self.containers[container_id]
        return len(old)


class PodNames:
    """The names of the pods of a node. Bounded: neither pods nor containers can make it grow without end.

    Args:
        keep_seconds: How long names stay when their pod or container is gone.
        most_pods: The most pods that are known, those that are gone included.

    Attributes:
        refused: Pods that were not taken because there were too many.
        containers: How many containers are known, of all pods together.
        version: Another number after each change, so that a lookup that found nothing need not be repeated before.
    """

    def __init__(self, *, keep_seconds: float = KEEP_SECONDS, most_pods: int = MOST_PODS) -> None:
        self._keep_seconds = keep_seconds
        self._most_pods = most_pods
        self._known: dict[str, _Known] = {}
        self._expired_at = -float("inf")
        # By the hash of the static pod that they claim to mirror.
        self._mirrors: dict[str, list[_Known]] = {}
        self.refused = 0
        self.containers = 0
        self.version = 0

    def __len__(self) -> int:
        """Return how many pods there are, without those that are gone."""
        return sum(known.gone_at is None for known in self._known.values())

    def lookup(self, pod_uid: str, container_id: str) -> PodName | None:
        """Find the names of a process by what its cgroup has.

        Args:
            pod_uid: The pod's uid, with or without dashes, or the config hash of a static pod.
            container_id: The container's id, "" if the process is in none.
        Returns:
            The names. None if the pod is not known, or has not listed the container: the API learns of a container
            a second after its start, and never of the one that holds the pod's namespaces (pause).
        """
        for known in self._find(pod_uid):
            if not container_id:
                return PodName(known.pod.namespace, known.pod.name, "")
            found = known.containers.get(container_id)
            if found is not None:
                return PodName(known.pod.namespace, known.pod.name, found[0])
        return None

    def replace_all(self, pods: Iterable[Pod], now_seconds: float) -> None:
        """Take a complete list of pods; those that it does not have are gone."""
        listed = set()
        for pod in pods:
            self.put(pod, now_seconds)
            listed.add(pod.key)
        for key, known in self._known.items():
            if key not in listed and known.gone_at is None:
                known.gone_at = now_seconds
        self.expire(now_seconds)

    def put(self, pod: Pod, now_seconds: float) -> None:
        """Take a pod that was added or changed."""
        known = self._known.get(pod.key)
        if known is None:
            known = self._add(pod)
            if known is None:
                self.refused += 1
                return
        elif known.pod.config_hash != pod.config_hash:
            self._forget_mirror(known)
            self._remember_mirror(known, pod.config_hash)
        before = len(known.containers)
        known.update(pod, now_seconds)
        self.containers += len(known.containers) - before
        known.gone_at = None
        self._make_room()
        self.version += 1

    def remove(self, pod: Pod, now_seconds: float) -> None:
        """Take the last state of a pod that was deleted."""
        self.put(pod, now_seconds)
        known = self._known.get(pod.key)
        if known is not None:
            known.gone_at = now_seconds

    def expire(self, now_seconds: float) -> None:
        """Forget what has been gone for long enough."""
        if now_seconds - self._expired_at < _EXPIRE_EVERY_SECONDS:
            return
        self._expired_at = now_seconds
        before = now_seconds - self._keep_seconds
        for known in list(self._known.values()):
            self.containers -= known.expire(before)
            if known.gone_at is not None and known.gone_at <= before:
                self._forget(known)

    def _find(self, pod_uid: str) -> list[_Known]:
        """Return the pod with a uid, or the mirrors with the best claim to a hash, which have one name.

        The best claim is that of the kubelet's mirror, and of one that is not gone. None has it if two pods of
        different names have an equal one.
        """
        key = pod_key(pod_uid)
        known = self._known.get(key)
        if known is not None:
            return [known]
        claims = self._mirrors.get(key, [])

        def claim(known: _Known) -> tuple[Credence, bool]:
            return known.pod.credence, known.gone_at is None

        best = max(map(claim, claims), default=None)
        mirrors = [known for known in claims if claim(known) == best]
        return mirrors if len({(known.pod.namespace, known.pod.name) for known in mirrors}) < 2 else []

    def _add(self, pod: Pod) -> _Known | None:
        if len(self._known) >= self._most_pods:
            gone = self._longest_gone()
            if gone is None:
                return None
            self._forget(gone)
        known = self._known[pod.key] = _Known(pod)
        self._remember_mirror(known, pod.config_hash)
        return known

    def _longest_gone(self) -> _Known | None:
        gone = [known for known in self._known.values() if known.gone_at is not None]
        return min(gone, key=lambda known: known.gone_at or 0.0, default=None)

    def _make_room(self) -> None:
        """Forget containers until they are not too many: of pods that are gone, then of the pod that has most."""
        while self.containers > MOST_OF_ALL_PODS:
            gone = self._longest_gone()
            if gone is not None:
                self._forget(gone)
                continue
            largest = max(self._known.values(), key=lambda known: len(known.containers))
            before = len(largest.containers)
            largest.keep(before // 2)
            self.containers -= before - len(largest.containers)

    def _forget(self, known: _Known) -> None:
        del self._known[known.pod.key]
        self.containers -= len(known.containers)
        self._forget_mirror(known)
        self.version += 1

    def _remember_mirror(self, known: _Known, config_hash: str) -> None:
        if config_hash:
            self._mirrors.setdefault(config_hash, []).append(known)

    def _forget_mirror(self, known: _Known) -> None:
        claims = self._mirrors.get(known.pod.config_hash, [])
        if known in claims:
            claims.remove(known)
            if not claims:
                del self._mirrors[known.pod.config_hash]
