"""Hands each event to all clients of the stream.

Clients with the same filters share what is written for them. Each client has a queue of its own. A client that
does not read loses only its own events, and gets the number of lost events when it reads again. The exporter and
the other clients do not wait for it.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from exporter.processes.observer import Loss, News
from exporter.processes.pipeline import Pipeline
from exporter.stream.json_lines import json_line
from exporter.stream.selection import Selection
from exporter.stream.subscriber import Subscriber
from exporter.stream.wall_clock import WallClock

NDJSON, SSE = "application/x-ndjson", "text/event-stream"


class Limits(NamedTuple):
    """What clients may take."""

    clients: int
    buffer_bytes: int
    """The most bytes that wait for one client; events that do not fit are lost for it."""
    uids: frozenset[int] | None
    """The uids whose processes are answered; None for every process that the mode of the socket lets connect."""


class TooManyClients(Exception):
    """The limit of clients is reached."""


class Hub:
    """Hands news to all subscribers.

    Args:
        pipeline: Where events come from; it is observed only while there is a subscriber.
        available: The events that this exporter receives.
        clock: Returns the clock of the host where the events happen.
        limits: Limits of clients.
        emit_soon: Called when the first subscriber comes.

    Attributes:
        available: As given.
        limits: As given.
        dropped: Events that were lost for a client that did not read them in time.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        available: frozenset[str],
        clock: Callable[[], WallClock],
        limits: Limits,
        emit_soon: Callable[[], None],
    ) -> None:
        self._pipeline = pipeline
        self.available = available
        self._clock = clock
        self.limits = limits
        self._emit_soon = emit_soon
        self._subscribers: list[Subscriber] = []
        self.dropped = 0

    @property
    def clients(self) -> int:
        """How many clients are subscribed."""
        return len(self._subscribers)

    def publish(self, news: list[News]) -> None:
        """Queue news for each subscriber whose filters let them through."""
        clock = self._clock()
        lines: dict[int, str] = {}
        written: dict[tuple[Selection, str], tuple[bytes, int]] = {}
        for subscriber in self._subscribers:
            key = subscriber.selection, subscriber.form
            if key not in written:
                matches = subscriber.selection.matches
                wanted = [i for i, one in enumerate(news) if isinstance(one, Loss) or matches(one)]
                for i in wanted:
                    if i not in lines:
                        lines[i] = json_line(news[i], clock)
                written[key] = _frame([lines[i] for i in wanted], subscriber.form), len(wanted)
            text, events = written[key]
            if events:
                self.dropped += subscriber.offer(text, events, self._loss_formatter(subscriber, clock, news))

    @staticmethod
    def _loss_formatter(subscriber: Subscriber, clock: WallClock, news: list[News]) -> Callable[[int], bytes]:
        def format_loss(events: int) -> bytes:
            return _frame([json_line(Loss(news[0].time_ns, "stream", events), clock)], subscriber.form)

        return format_loss

    @contextlib.contextmanager
    def subscribed(self, selection: Selection, form: str) -> Iterator[Subscriber]:
        """Subscribe while the block runs.

        Raises:
            TooManyClients: There are as many clients as may be.
        """
        if self.clients >= self.limits.clients:
            raise TooManyClients(f"there are {self.clients} clients already: --stream.max-clients")
        subscriber = Subscriber(selection, form, self.limits.buffer_bytes)
        self._subscribers.append(subscriber)
        if not self._pipeline.is_observed:
            self._pipeline.observe(self.publish)
            self._emit_soon()
        try:
            yield subscriber
        finally:
            self._subscribers.remove(subscriber)
            if not self._subscribers:
                self._pipeline.observe(None)

    def close(self) -> None:
        """End all streams."""
        for subscriber in self._subscribers:
            subscriber.close()


def _frame(lines: list[str], form: str) -> bytes:
    if form == SSE:
        return "".join(f"data: {line}\n\n" for line in lines).encode()
    return "".join(f"{line}\n" for line in lines).encode()
