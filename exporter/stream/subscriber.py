"""One client's queue of lines to send."""

import asyncio
from collections import deque
from collections.abc import Callable

from exporter.stream.selection import Selection


class Subscriber:
    """The queue of one client.

    Args:
        selection: The filters of the client.
        form: The content type that the client accepts.
        buffer_bytes: The most bytes that may wait in the queue.

    Attributes:
        waiting_bytes: How many bytes wait.
    """

    def __init__(self, selection: Selection, form: str, buffer_bytes: int) -> None:
        self.selection = selection
        self.form = form
        self._buffer_bytes = buffer_bytes
        self._waiting: deque[bytes] = deque()
        self.waiting_bytes = 0
        self._lost = 0
        self._loss_line = b""
        self._wakes = asyncio.Event()
        self._closed = False

    def offer(self, text: bytes, events: int, format_loss: Callable[[int], bytes]) -> int:
        """Queue some events, or drop all of them if the queue has no room.

        Args:
            text: The events as they are sent.
            events: Their number.
            format_loss: Returns the line that reports this number of dropped events.

        Returns:
            How many events were dropped.
        """
        # A client with an empty queue has read everything: it is not slow, however many events come at once.
        if self._waiting and self.waiting_bytes + len(text) > self._buffer_bytes:
            self._lost += events
            self._loss_line = format_loss(self._lost)
            self._wakes.set()
            return events
        self._append_loss()
        self._append(text)
        return 0

    def _append_loss(self) -> None:
        if self._lost:
            self._lost = 0
            self._append(self._loss_line)

    def _append(self, text: bytes) -> None:
        self._waiting.append(text)
        self.waiting_bytes += len(text)
        self._wakes.set()

    def close(self) -> None:
        """Let `next` return None once the queue is empty."""
        self._closed = True
        self._wakes.set()

    async def next(self) -> bytes | None:
        """Wait for text to send, and take it from the queue. None: the stream has ended."""
        while not (self._waiting or self._lost or self._closed):
            self._wakes.clear()
            await self._wakes.wait()
        if not self._waiting:
            # The next event may be hours away: report the loss now.
            self._append_loss()
        if not self._waiting:
            return None
        text = self._waiting.popleft()
        self.waiting_bytes -= len(text)
        return text
