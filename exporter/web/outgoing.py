"""What waits to be sent on a connection."""

from collections import deque
from collections.abc import Callable

Buffer = bytes | bytearray | memoryview


class Outgoing:
    """A queue of bytes that are sent when the socket takes them; they are not copied.

    Attributes:
        bytes: How many wait.
        sent_bytes: How many were sent; its owner sets it to 0 when a new answer begins.
    """

    def __init__(self) -> None:
        self._waiting: deque[memoryview] = deque()
        self.bytes = 0
        self.sent_bytes = 0

    def add(self, data: Buffer) -> None:
        """Queue bytes; of a bytearray, which can change, a copy."""
        self._waiting.append(memoryview(bytes(data) if isinstance(data, bytearray) else data))
        self.bytes += len(data)

    def send(self, send: Callable[[memoryview], int]) -> None:
        """Send what the socket takes.

        Args:
            send: Of the socket. What it raises, it raises here too. OpenSSL has to be asked again with the same
                bytes then: they stay the first.
        """
        while self._waiting:
            first = self._waiting[0]
            sent = send(first)
            self.bytes -= sent
            self.sent_bytes += sent
            if sent == len(first):
                self._waiting.popleft()
            else:
                self._waiting[0] = first[sent:]

    def clear(self) -> None:
        """Drop what waits."""
        self._waiting.clear()
        self.bytes = 0
