"""A client's socket in the event loop, with TLS or without.

asyncio's own transports give a descriptor up before they close it, and keep a quarter of a MiB for TLS that only a
full garbage collection frees. A channel keeps no callbacks: what it is handed for an event of the socket, the
event loop has, until the channel is closed.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

from exporter.web.tls_records import TlsRecords

WAITS = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What recv() and send() raise while there is nothing to read or no room to write."""

_Callback = Callable[[], None]


class Channel:
    """A socket that does not block.

    Args:
        sock: Accepted, does not block.
        loop: The event loop.

    Attributes:
        socket: As given.
        certificate: The client's, as of ssl.SSLSocket.getpeercert; None without one, or without TLS.
    """

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.socket = sock
        self._loop = loop
        self._records: TlsRecords | None = None
        self._reads = self._writes = False
        self.certificate: Any = None

    # -- TLS ------------------------------------------------------------------------------------------------------

    def secure(self, tls: ssl.SSLContext) -> None:
        """Use TLS from now on; the handshake is to follow."""
        self._records = TlsRecords(tls, self.socket.recv, self.socket.send)

    def shake_hands(self, go_on: _Callback) -> bool:
        """Take one step of the handshake, which can take a millisecond of CPU.

        Args:
            go_on: Called when the next step can be taken.

        Returns:
            Whether it is done.

        Raises:
            OSError: It has failed.
        """
        if self._records is None:
            return True
        try:
            self.certificate = self._records.shake_hands()
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError):
            self.watch(go_on, None)
            return False
        except ssl.SSLWantWriteError:
            self.watch(None, go_on)
            return False
        return True

    @property
    def has_read_ahead(self) -> bool:
        """Bytes have been read that recv() has not returned: they make no descriptor readable."""
        return self._records is not None and self._records.has_read_ahead

    # -- bytes ----------------------------------------------------------------------------------------------------

    @property
    def reads(self) -> bool:
        """Something is called when the client has sent something."""
        return self._reads

    def watch(self, can_read: _Callback | None, can_write: _Callback | None) -> None:
        """Have something called whenever the socket can be read or written, from now on.

        A callback does not replace the one before it: watch(None, None) comes in between.

        Args:
            can_read: None for nothing.
            can_write: None for nothing.
        """
        fd = self.socket.fileno()
        if (can_read is not None) != self._reads:
            self._reads = can_read is not None
            _ = self._loop.remove_reader(fd) if can_read is None else self._loop.add_reader(fd, can_read)
        if (can_write is not None) != self._writes:
            self._writes = can_write is not None
            _ = self._loop.remove_writer(fd) if can_write is None else self._loop.add_writer(fd, can_write)

    def recv(self, most_bytes: int) -> bytes:
        """Return what the client has sent; nothing at its end.

        Raises:
            OSError: One of WAITS, or the connection is broken.
        """
        return self.socket.recv(most_bytes) if self._records is None else self._records.recv(most_bytes)

    def send(self, data: memoryview) -> int:
        """Send what the socket takes of some bytes; returns how many.

        After one of WAITS it has to be called with the same bytes again.

        Raises:
            OSError: One of WAITS, or the connection is broken.
        """
        return self.socket.send(data) if self._records is None else self._records.send(data)

    def close(self, *, says_goodbye: bool) -> None:
        """Close the socket.

        Args:
            says_goodbye: Say in TLS that nothing follows. The answer to that is not waited for.
        """
        if self.socket.fileno() < 0:
            return
        self._loop.remove_reader(self.socket.fileno())
        self._loop.remove_writer(self.socket.fileno())
        if says_goodbye and self._records is not None:
            self._records.say_goodbye()
        self._records = None
        self.socket.close()
