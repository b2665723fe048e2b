"""Hands each event to all clients of the stream.

Counting comes first. What happened is put into a log (news_log.py), and is looked at for clients in short pieces
between the drains, and not at all while the kernel's queues fill. So what clients ask for, however much it is,
costs their events and not the exporter's: a filter for which the log is not looked through in time loses what it
missed.

Clients with the same filters share what is written for them. Each client has a queue of its own. A client that
does not read loses only its own events, and gets the number of lost events when it reads again. The exporter and
the other clients do not wait for it. All queues together are bounded too: the longest gives way.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from exporter.processes.observer import Loss, News
from exporter.processes.pipeline import Pipeline
from exporter.stream.json_lines import json_line
from exporter.stream.news_log import NewsLog, Reader
from exporter.stream.selection import Selection
from exporter.stream.subscriber import Subscriber
from exporter.stream.wall_clock import WallClock
from exporter.web.peers import greediest

NDJSON, SSE = "application/x-ndjson", "text/event-stream"

# The log is looked at for so long in one turn of the event loop.
_TURN_NS = 3_000_000
# While a queue of the kernel is fuller than this, the exporter only counts; it looks again so much later.
_FULLEST = 0.125
_LOOK_AGAIN_SECONDS = 0.02
# When the exporter ends, what has happened until then is handed on, for so long at most.
_LAST_TURN_NS = 200_000_000


class Limits(NamedTuple):
    """What clients may take."""

    clients: int
    buffer_bytes: int
    """The most bytes that wait for one client; events that do not fit are lost for it."""
    uids: frozenset[int] | None
    """The uids whose processes are answered; None for every process that the mode of the socket lets connect."""
    total_bytes: int = 32 << 20
    """The most bytes that wait for all clients together."""


class TooManyClients(Exception):
    """The limit of clients is reached."""


class _Group:
    """The clients with the same filters, who share what is written."""

    def __init__(self, selection: Selection, form: str, at: int) -> None:
        self.form = form
        self.reader = Reader(selection, at)
        self.members: list[Subscriber] = []


class Hub:
    """Hands news to all subscribers. Made while an event loop runs.

    Args:
        pipeline: Where events come from; it is observed only while there is a subscriber.
        available: The events that this exporter receives.
        clock: Returns the clock of the host where the events happen.
        limits: Limits of clients.
        emit_soon: Called when the first subscriber comes.
        fill: Returns how full the fullest queue of the kernel is, from 0 to 1.
        labels: The labels of groups.

    Attributes:
        available: As given.
        labels: As given.
        limits: As given.
        dropped: Events that were lost for a client: it did not read them in time, or its filter took too long.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        available: frozenset[str],
        clock: Callable[[], WallClock],
        limits: Limits,
        emit_soon: Callable[[], None],
        *,
        fill: Callable[[], float] = float,
        labels: tuple[str, ...] = (),
    ) -> None:
        self._pipeline = pipeline
        self.available = available
        self.labels = labels
        self._clock = clock
        self.limits = limits
        self._emit_soon = emit_soon
        self._fill = fill
        self._loop = asyncio.get_running_loop()
        self._due: asyncio.Handle | None = None
        self._log = NewsLog()
        self._groups: dict[tuple[Selection, str], _Group] = {}
        # How long the log was looked at for each peer.
        self._spent_ns: Counter[str] = Counter()
        self._subscribers: list[Subscriber] = []
        self.dropped = 0

    @property
    def clients(self) -> int:
        """How many clients are subscribed."""
        return len(self._subscribers)

    # -- handing on -----------------------------------------------------------------------------------------------

    def publish(self, news: list[News]) -> None:
        """Take news, to hand them on soon."""
        self._log.append(news)
        while self._log.is_too_long:
            self._miss_oldest()
        if self._due is None:
            self._due = self._loop.call_soon(self._take_turn)

    def _miss_oldest(self) -> None:
        """Drop the oldest entry of the log: who has not looked at it yet loses all of it."""
        number = self._log.first
        events = sum(not isinstance(one, Loss) for one in self._log[number].news)
        for group in self._groups.values():
            if group.reader.at == number:
                group.reader.take()
                for member in (one for one in group.members if one.begins_at <= number):
                    self.dropped += member.miss(events, self._loss_formatter(member))
        self._log.drop_oldest()

    def _take_turn(self) -> None:
        self._due = None
        if self._fill() > _FULLEST:
            self._due = self._loop.call_later(_LOOK_AGAIN_SECONDS, self._take_turn)
        elif self._look(time.monotonic_ns() + _TURN_NS):
            self._due = self._loop.call_soon(self._take_turn)

    def _look(self, ends_ns: int) -> bool:
        """Look at the log until it is looked through, or until a moment; returns whether something is left."""
        clock = self._clock()
        now_ns = time.monotonic_ns()
        while behind := [group for group in self._groups.values() if group.reader.at < self._log.end]:
            if now_ns > ends_ns:
                return True
            # Those first for whom least was done: a client that asks for much does not keep others waiting.
            group = min(behind, key=self._spent_on)
            if group.reader.look(self._log[group.reader.at], clock):
                self._offer(group, group.reader.take())
            began_ns, now_ns = now_ns, time.monotonic_ns()
            for peer in {member.peer for member in group.members}:
                self._spent_ns[peer] += now_ns - began_ns
        while self._log.first < self._log.end:
            self._log.drop_oldest()
        return False

    def _spent_on(self, group: _Group) -> int:
        return min(self._spent_ns[member.peer] for member in group.members)

    def _offer(self, group: _Group, lines: list[str]) -> None:
        if not lines:
            return
        text = _frame(lines, group.form)
        for member in group.members:
            if group.reader.at > member.begins_at:
                self._make_room(len(text))
                self.dropped += member.offer(text, len(lines), self._loss_formatter(member))

    def _make_room(self, size: int) -> None:
        """Empty the longest queues until there is room in the figure for all of them."""
        waiting = sum(subscriber.waiting_bytes for subscriber in self._subscribers)
        while waiting and waiting + size > self.limits.total_bytes:
            longest = max(self._subscribers, key=lambda one: one.waiting_bytes)
            before = longest.waiting_bytes
            self.dropped += longest.drop_waiting(self._loss_formatter(longest))
            if longest.waiting_bytes == before:
                return
            waiting -= before - longest.waiting_bytes

    def _loss_formatter(self, subscriber: Subscriber) -> Callable[[int], bytes]:
        def format_loss(events: int) -> bytes:
            newest = self._log[self._log.end - 1].news
            return _frame([json_line(Loss(newest[0].time_ns, "stream", events), self._clock())], subscriber.form)

        return format_loss

    # -- clients --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def subscribed(self, selection: Selection, form: str, peer: str = "") -> Iterator[Subscriber]:
        """Subscribe while the block runs.

        Args:
            selection: The filters.
            form: NDJSON or SSE.
            peer: Who it is. At the limit of clients, a peer that has more of them than this one loses its last.

        Raises:
            TooManyClients: There are as many clients as may be.
        """
        if self.clients >= self.limits.clients and not self._end_one(peer):
            raise TooManyClients(f"there are {self.clients} clients already: --stream.max-clients")
        subscriber = Subscriber(form, self.limits.buffer_bytes, peer, self._log.end)
        group = self._groups.setdefault((selection, form), _Group(selection, form, self._log.end))
        group.members.append(subscriber)
        if peer not in {one.peer for one in self._subscribers}:
            # It begins as one for whom least was done, not as one for whom nothing was done since the start.
            self._spent_ns[peer] = min((self._spent_ns[one.peer] for one in self._subscribers), default=0)
        self._subscribers.append(subscriber)
        if not self._pipeline.is_observed:
            self._pipeline.observe(self.publish)
            self._emit_soon()
        try:
            yield subscriber
        finally:
            self._leave(subscriber)
            group.members.remove(subscriber)
            if not group.members:
                self._groups.pop((selection, form))

    def _end_one(self, newcomer: str) -> bool:
        """End the last stream of the peer that has the most, if that is more than the newcomer would have."""
        greedy = greediest(self._subscribers, lambda one: one.peer, newcomer)
        peers = {one.peer for one in greedy}
        mine = sum(one.peer == newcomer for one in self._subscribers) + 1
        if newcomer in peers or len(greedy) <= mine * len(peers):
            return False
        greedy[-1].close()
        self._leave(greedy[-1])
        return True

    def _leave(self, subscriber: Subscriber) -> None:
        if subscriber in self._subscribers:
            self._subscribers.remove(subscriber)
        if not self._subscribers and self._pipeline.is_observed:
            self._pipeline.observe(None)
        if subscriber.peer not in {one.peer for one in self._subscribers}:
            del self._spent_ns[subscriber.peer]

    def close(self) -> None:
        """End all streams."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        self._look(time.monotonic_ns() + _LAST_TURN_NS)
        for subscriber in self._subscribers:
            subscriber.close()


def _frame(lines: list[str], form: str) -> bytes:
    if form == SSE:
        return "".join(f"data: {line}\n\n" for line in lines).encode()
    return "".join(f"{line}\n" for line in lines).encode()
