"""exporter/web/deadline.py: until when a client has to take its next step."""

import contextlib
import math

from exporter.web.deadline import LEAST_BYTES_PER_SECOND, Deadline, Limits, Phase
from exporter.web.outgoing import Outgoing

LIMITS = Limits(request_seconds=10, answer_seconds=20, idle_seconds=120)
BEGAN = 1000.0


class Client:
    """A connection at a time that a test sets."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.now = BEGAN
        self.outgoing = Outgoing()
        self.deadline = Deadline(limits, self.outgoing, lambda: self.now)

    def enter(self, phase: Phase, *, at: float) -> None:
        self.now = at
        self.deadline.enter(phase)

    def take(self, count: int) -> None:
        """Read some of what waits."""
        self.outgoing.send(lambda data: min(count, len(data)))

    def wait_for(self, count: int) -> None:
        """Be sent an answer."""
        self.outgoing.add(bytes(count))


def test_a_handshake_and_the_request_after_it_have_their_time_together() -> None:
    client = Client()
    assert client.deadline.phase is Phase.HANDSHAKE
    assert client.deadline.at == BEGAN + 10
    client.now += 9
    client.deadline.phase = Phase.REQUEST
    assert client.deadline.at == BEGAN + 10


def test_each_phase_has_its_time_from_when_it_began() -> None:
    client = Client()
    ends = []
    for at, phase in ((1, Phase.ANSWER), (5, Phase.IDLE), (100, Phase.REQUEST)):
        client.enter(phase, at=BEGAN + at)
        ends.append(client.deadline.at - BEGAN)
    assert ends == [21, 125, 110]


def test_an_answer_gets_more_time_as_it_is_read_and_its_end_goes_on_when_it_is_given() -> None:
    client = Client()
    client.enter(Phase.ANSWER, at=BEGAN)
    # Three pieces, of which the client takes one: another takes none of it.
    for _ in range(3):
        client.wait_for(2 * LEAST_BYTES_PER_SECOND)
    taken = iter((2 * LEAST_BYTES_PER_SECOND, BlockingIOError()))

    def send(_: memoryview) -> int:
        outcome = next(taken)
        if isinstance(outcome, int):
            return outcome
        raise outcome

    with contextlib.suppress(BlockingIOError):
        client.outgoing.send(send)
    assert client.deadline.at == BEGAN + 20 + 2
    assert client.deadline.waits_since == BEGAN + 2
    client.enter(Phase.IDLE, at=BEGAN + 15)
    assert client.deadline.at == BEGAN + 20 + 2
    client.take(1 << 30)
    assert client.deadline.at == BEGAN + 120
    client.enter(Phase.ANSWER, at=BEGAN + 50)
    assert client.deadline.at == BEGAN + 70


def test_an_answer_that_may_last_for_ever_has_a_deadline_once_it_is_to_end() -> None:
    client = Client(LIMITS._replace(answer_seconds=math.inf))
    client.enter(Phase.ANSWER, at=BEGAN)
    assert (client.deadline.at, client.deadline.waits_since) == (math.inf, math.inf)
    client.deadline.is_last = True
    assert (client.deadline.at, client.deadline.waits_since) == (BEGAN + 10, BEGAN)
