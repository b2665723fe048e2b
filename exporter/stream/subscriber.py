"""One client's queue of lines to send."""

import asyncio
from collections import deque
from collections.abc import Callable

FormatLoss = Callable[[int], bytes]
"""Returns the line that reports this number of lost events."""


class Subscriber:
    """The queue of one client.

    Args:
        form: The content type that the client accepts.
        buffer_bytes: The most bytes that may wait in the queue.
        peer: Who it is.
        begins_at: The number of the first entry of the log that it gets.

    Attributes:
        form, peer, begins_at: As given.
        waiting_bytes: How many bytes wait; those that are being sent are among them.
    """

    def __init__(self, form: str, buffer_bytes: int, peer: str = "", begins_at: int = 0) -> None:
        self.form = form
        self.peer = peer
        self.begins_at = begins_at
        self._buffer_bytes = buffer_bytes
        # Each with the number of its events, and of the lost events that it reports.
        self._waiting: deque[tuple[bytes, int, int]] = deque()
        self._sending_bytes = 0
        self.waiting_bytes = 0
        self._lost = 0
        self._loss_line = b""
        self._wakes = asyncio.Event()
        self._closed = False

    def offer(self, text: bytes, events: int, format_loss: FormatLoss) -> int:
        """Queue some events, or drop all of them if the queue has no room.

        Args:
            text: The events as they are sent.
            events: Their number.
            format_loss: Called if they are dropped.

        Returns:
            How many events were dropped.
        """
        # A client with an empty queue has read everything: it is not slow, however many events come at once.
        if self._waiting and self.waiting_bytes + len(text) > self._buffer_bytes:
            return self.miss(events, format_loss)
        self._append_loss()
        self._append(text, events, 0)
        return 0

    def miss(self, events: int, format_loss: FormatLoss) -> int:
        """Note that the client does not get some events; returns their number."""
        self._lost += events
        if self._lost:
            self._loss_line = format_loss(self._lost)
            self._wakes.set()
        return events

    def drop_waiting(self, format_loss: FormatLoss) -> int:
        """Drop what waits, but for what is being sent; returns how many events that were."""
        events = sum(count for _, count, _ in self._waiting)
        self._lost += sum(lost for _, _, lost in self._waiting)
        self.waiting_bytes = self._sending_bytes
        self._waiting.clear()
        return self.miss(events, format_loss)

    def _append_loss(self) -> None:
        if self._lost:
            lost, self._lost = self._lost, 0
            self._append(self._loss_line, 0, lost)

    def _append(self, text: bytes, events: int, lost: int) -> None:
        self._waiting.append((text, events, lost))
        self.waiting_bytes += len(text)
        self._wakes.set()

    def close(self) -> None:
        """Let `next` return None once the queue is empty."""
        self._closed = True
        self._wakes.set()

    async def next(self) -> bytes | None:
        """Wait for text to send, and take it from the queue. None: the stream has ended.

        The text before is sent by then.
        """
        self.waiting_bytes -= self._sending_bytes
        self._sending_bytes = 0
        while not (self._waiting or self._lost or self._closed):
            self._wakes.clear()
            await self._wakes.wait()
        if not self._waiting:
            # The next event may be hours away: report the loss now.
            self._append_loss()
        if not self._waiting:
            return None
        text, _, _ = self._waiting.popleft()
        self._sending_bytes = len(text)
        return text
