"""Which step a client has to take next on its connection, and until when.

             shaken hands                request read                 handler done
HANDSHAKE ---------------> REQUEST ---------------------> ANSWER ---------------------> IDLE
                              ^                                                           |
                              '-----------------------------------------------------------'
                                                   the next byte has come

any of them --- close(): what waits is sent ---> CLOSED <--- abort(), deadline, error ---
"""

import math
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from exporter.web.outgoing import Outgoing

LEAST_BYTES_PER_SECOND = 32 << 10
"""A client has to take an answer at this rate, after the first seconds."""

# What is left of an answer that may last for ever, when it is to end, has so much time.
_LAST_ANSWER_SECONDS = 10.0


class Limits(NamedTuple):
    """How many connections there may be, and how long each may take for its next step."""

    connections: int = 256
    request_seconds: float = 10.0
    answer_seconds: float = 10.0
    """An answer gets so much time, and more in proportion to what the client has taken of it."""
    idle_seconds: float = 120.0


class Phase(Enum):
    """What a connection waits for; the module's docstring draws how one follows from another."""

    HANDSHAKE = auto()
    REQUEST = auto()
    ANSWER = auto()
    IDLE = auto()
    CLOSED = auto()


class Deadline:
    """When a client has to have taken its next step. Has no timer.

    Args:
        limits: How long each step may take.
        outgoing: What waits to be sent to the client.
        now: The clock, in seconds.

    Attributes:
        phase: What the connection waits for. To set it leaves the deadline as it was: a handshake and the request
            that follows have their time together.
        is_last: No answer follows the one that is under way.
    """

    def __init__(self, limits: Limits, outgoing: Outgoing, now: Callable[[], float]) -> None:
        self._limits = limits
        self._outgoing = outgoing
        self._now = now
        self._since = now()
        self.phase = Phase.HANDSHAKE
        self.is_last = False

    def enter(self, phase: Phase) -> None:
        """Begin a phase, whose time begins now."""
        # While the end of an answer waits to be sent, its time goes on.
        if phase is not Phase.IDLE or not self._outgoing.bytes:
            self._since = self._now()
            self._outgoing.sent_bytes = 0
        self.phase = phase

    @property
    def waits_since(self) -> float:
        """When the client took its last step; later the more it has taken of its answer.

        Infinite for an answer that may last for ever.
        """
        if self.phase is Phase.ANSWER and not self.is_last and math.isinf(self._limits.answer_seconds):
            return math.inf
        return self._since + (self._outgoing.sent_bytes / LEAST_BYTES_PER_SECOND if self._is_answering else 0.0)

    @property
    def _is_answering(self) -> bool:
        return self.phase is Phase.ANSWER or self._outgoing.bytes > 0

    @property
    def at(self) -> float:
        """When the client's time is up; infinite if it is never."""
        limits = self._limits
        if self._is_answering:
            seconds = limits.answer_seconds
            return self.waits_since + (min(seconds, _LAST_ANSWER_SECONDS) if self.is_last else seconds)
        return self._since + (limits.idle_seconds if self.phase is Phase.IDLE else limits.request_seconds)
