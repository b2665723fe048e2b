"""Answers what the pipeline asks about groups: where a process is, and what a container of a pod is called.

It asks after each count of events, and is answered at once, while most of the processes live.
"""

from collections.abc import Callable

from exporter.errors import ShortageError
from exporter.live.placements import Placements
from exporter.live.sessions import Sessions
from exporter.processes.grouping import Found, GroupQuestion
from exporter.processes.pipeline import Pipeline
from exporter.processes.places import PodContainer, PodName
from exporter.tallies.labels import UNKNOWN

# A container's id reaches the API about a second after its start.
_NAMED_WITHIN_NS = 10_000_000_000

LookUp = Callable[[str, str], tuple[str, str, str] | None]
"""(uid of a pod, id of a container) -> its namespace, pod and container; None if that is not known."""


class Placing:
    """Answers the pipeline.

    Args:
        pipeline: Asks.
        placements: Where processes are.
        sessions: Descriptors of processes that began a session; None if there are none.
        now_ns: CLOCK_MONOTONIC.
        look_up: The names of pods; None if they do not come.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        placements: Placements,
        sessions: Sessions | None,
        now_ns: Callable[[], int],
        look_up: LookUp | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._placements = placements
        self._sessions = sessions
        self._now_ns = now_ns
        self._look_up = look_up
        self._unanswered: list[GroupQuestion] = []
        self._nameless_since: dict[PodContainer, int] = {}

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
        if self._look_up is not None:
            self._name_containers(self._look_up)

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

    def _name_containers(self, look_up: LookUp) -> None:
        now_ns = self._now_ns()
        nameless = self._pipeline.nameless()
        self._nameless_since = {each: self._nameless_since.get(each, now_ns) for each in nameless}
        for container, since_ns in self._nameless_since.items():
            found = look_up(*container)
            if found is not None:
                self._pipeline.name_container(container, PodName(*found))
            elif now_ns - since_ns > _NAMED_WITHIN_NS:
                # A pod does not list the container that holds its namespaces.
                of_pod = look_up(container.pod_uid, "")
                name = None if of_pod is None else PodName(of_pod[0], of_pod[1], UNKNOWN)
                self._pipeline.name_container(container, name)

    def close(self) -> None:
        """Close all descriptors."""
        if self._sessions is not None:
            self._sessions.close()
