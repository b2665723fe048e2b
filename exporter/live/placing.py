"""Answers what the pipeline asks about groups: where a process is, and what a container is called.

It asks after each count of events, and is answered at once, while most of the processes live.
"""

from collections.abc import Callable
from typing import NamedTuple

from exporter.errors import ShortageError
from exporter.groups.cgroup_path import shown_container
from exporter.live.placements import Placements
from exporter.live.sessions import Sessions
from exporter.processes.grouping import Found, GroupQuestion
from exporter.processes.pipeline import Pipeline
from exporter.processes.places import PodContainer, PodName
from exporter.tallies.labels import UNKNOWN

# A container's id reaches the API of Kubernetes about a second after its start; Docker and Podman name it before.
_NAMED_WITHIN_NS = 10_000_000_000

LookUp = Callable[[str, str], tuple[str, str, str] | None]
"""(uid of a pod, id of a container) -> its namespace, pod and container; None if that is not known."""


class Names(NamedTuple):
    """Where names come from; None: they do not come."""

    of_pods: LookUp | None = None
    of_containers: Callable[[str], str | None] | None = None
    """id of a container in no pod -> its name; None if that is not known."""

    def find(self, container: PodContainer) -> PodName | None:
        """Return what a container is called; None if that is not known."""
        if container.pod_uid:
            found = None if self.of_pods is None else self.of_pods(*container)
            return None if found is None else PodName(*found)
        name = None if self.of_containers is None else self.of_containers(container.container_id)
        return None if name is None else PodName("", "", name)

    def find_instead(self, container: PodContainer) -> PodName | None:
        """Return what a container is called whose name did not come in time; None: nothing of it is known."""
        if not container.pod_uid:
            return PodName("", "", shown_container(container.container_id))
        # A pod does not list the container that holds its namespaces.
        of_pod = None if self.of_pods is None else self.of_pods(container.pod_uid, "")
        return None if of_pod is None else PodName(of_pod[0], of_pod[1], UNKNOWN)


NO_NAMES = Names()


class Placing:
    """Answers the pipeline.

    Args:
        pipeline: Asks.
        placements: Where processes are.
        sessions: Descriptors of processes that began a session; None if there are none.
        now_ns: CLOCK_MONOTONIC.
        names: Where names come from.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        placements: Placements,
        sessions: Sessions | None,
        now_ns: Callable[[], int],
        names: Names = NO_NAMES,
    ) -> None:
        self._pipeline = pipeline
        self._placements = placements
        self._sessions = sessions
        self._now_ns = now_ns
        self._names = names
        self._unanswered: list[GroupQuestion] = []
        self._nameless_since: dict[PodContainer, int] = {}

    def follow_sessions(self) -> None:
        """Open a descriptor of each process that has begun a session: it may live for two milliseconds."""
        if self._sessions is not None:
            self._sessions.follow()

    def answer(self) -> None:
        """Answer all that is asked."""
        questions = [*self._unanswered, *self._pipeline.group_questions()]
        self._unanswered = []
        while questions:
            for question in questions:
                try:
                    self._answer(question)
                except ShortageError:
                    # That no descriptor is free says nothing of a process.
                    self._unanswered.append(question)
            # An answer can lead to another question.
            questions = self._pipeline.group_questions()
        if self._names != NO_NAMES:
            self._name_containers()

    def _answer(self, question: GroupQuestion) -> None:
        number, tgid, since_ns, execd_ns = question
        found = None
        if number and self._sessions is not None:
            found = self._sessions.find((tgid, since_ns), execd_ns)
        if found is None:
            placement = self._placements.read(tgid)
            now_ns = self._now_ns()
            found = Found(placement, now_ns, now_ns)
        elif self._sessions is not None:
            self._sessions.forget((tgid, since_ns))
        self._pipeline.place(number, tgid, found)

    def find(self, tgid: int) -> None:
        """Read where a process is that a scan has met.

        Raises:
            ShortageError: Nothing can be opened now.
        """
        placement = self._placements.learn(tgid)
        now_ns = self._now_ns()
        self._pipeline.place(0, tgid, Found(placement, now_ns, now_ns))

    def _name_containers(self) -> None:
        now_ns = self._now_ns()
        nameless = self._pipeline.nameless()
        self._nameless_since = {each: self._nameless_since.get(each, now_ns) for each in nameless}
        for container, since_ns in self._nameless_since.items():
            found = self._names.find(container)
            if found is not None:
                self._pipeline.name_container(container, found)
            elif now_ns - since_ns > _NAMED_WITHIN_NS:
                self._pipeline.name_container(container, self._names.find_instead(container))

    def close(self) -> None:
        """Close all descriptors."""
        if self._sessions is not None:
            self._sessions.close()
