"""TLS on a socket, a record at a time.

OpenSSL on a socket reads on as long as it gets no data of the application. A client that sends one key update
after the other, as fast as they are read, would keep it at that for ever, and the event loop with it. So OpenSSL
has no socket here: it is handed one record after the other, and the number of those that hold no data is limited.

Source: RFC 8446, 5.1 (records) and 4.6.3 (key updates).
"""

import contextlib
import ssl
from collections.abc import Callable
from typing import Any

# One byte of type, two of version, two of length.
_HEADER_BYTES = 5
# change_cipher_spec, alert, handshake, application_data
_TYPES = range(20, 24)
# The most that a record may have behind its header, in TLS 1.2.
_MOST_BYTES = (16 << 10) + 2048
_READ_BYTES = 16 << 10
_CHUNK_BYTES = 16 << 10
# A handshake takes about ten, and no client needs many later.
_MOST_IDLE = 64


class TlsRecords:
    """One connection's TLS, on the side of the server.

    Args:
        tls: The context.
        receive: Of the socket, which does not block.
        transmit: Of the socket.
    """

    def __init__(
        self, tls: ssl.SSLContext, receive: Callable[[int], bytes], transmit: Callable[[memoryview], int]
    ) -> None:
        self._receive = receive
        self._transmit = transmit
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._incoming, self._outgoing, server_side=True)
        # Read from the socket, and not yet handed to OpenSSL.
        self._ahead = bytearray()
        # To be sent; of the bytes that send() was called with, how many are in it.
        self._unsent = memoryview(b"")
        self._taken = 0
        self._idle = 0

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def _record_bytes(self) -> int:
        """The length of the record that comes next, as far as it is known; 0 if its header has not come."""
        if len(self._ahead) < _HEADER_BYTES:
            return 0
        return _HEADER_BYTES + int.from_bytes(self._ahead[3:_HEADER_BYTES], "big")

    @property
    def _has_record(self) -> bool:
        return 0 < self._record_bytes <= len(self._ahead)

    @property
    def has_read_ahead(self) -> bool:
        """Bytes have been read that recv() has not returned."""
        return self._has_record or self._tls.pending() > 0

    def _hand_over(self) -> bool:
        """Give OpenSSL the next record; returns whether there was one before the client's end.

        Raises:
            OSError: Nothing has come (BlockingIOError), the connection is broken, or it is no TLS.
        """
        while not self._has_record:
            if (self._ahead and self._ahead[0] not in _TYPES) or self._record_bytes > _HEADER_BYTES + _MOST_BYTES:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "this is no record of TLS")
            data = self._receive(_READ_BYTES)
            if not data:
                return False
            self._ahead += data
        self._idle += 1
        if self._idle > _MOST_IDLE:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "too many records without data")
        end = self._record_bytes
        self._incoming.write(self._ahead[:end])
        # A new one: bytes that are deleted at the front stay allocated.
        self._ahead = self._ahead[end:]
        return True

    def shake_hands(self) -> Any:
        """Take a step of the handshake; returns the client's certificate once it is done.

        Raises:
            OSError: One of those that say what is waited for, or it has failed.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError:
                self._say_why()
                raise
            else:
                self._flush()
                self._idle = 0
                return self._tls.getpeercert()
            if not self._hand_over():
                raise ConnectionResetError

    def recv(self, most_bytes: int) -> bytes:
        """Return what the client has sent; nothing at its end.

        Raises:
            OSError: Nothing has come (BlockingIOError), or the connection is broken.
        """
        while True:
            try:
                data = self._tls.read(most_bytes)
            except ssl.SSLWantReadError:
                # It may have to answer a key update.
                with contextlib.suppress(ssl.SSLWantWriteError):
                    self._flush()
            except ssl.SSLError:
                self._say_why()
                raise
            else:
                self._idle = max(0, self._idle - 1)
                return data
            if not self._hand_over():
                return b""

    # -- writing --------------------------------------------------------------------------------------------------

    def send(self, data: memoryview) -> int:
        """Send what the socket takes of some bytes; returns how many, when all of them are sent.

        Raises:
            OSError: The socket takes no more (SSLWantWriteError): then the same bytes have to come again.
        """
        if not self._taken:
            self._flush()
            self._taken = self._tls.write(data[:_CHUNK_BYTES])
        self._flush()
        taken, self._taken = self._taken, 0
        return taken

    def _flush(self) -> None:
        """Send what OpenSSL has written.

        Raises:
            OSError: The socket takes no more (SSLWantWriteError), or the connection is broken.
        """
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            try:
                sent = self._transmit(self._unsent)
            except (BlockingIOError, InterruptedError) as error:
                raise ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "the socket takes no more") from error
            self._unsent = self._unsent[sent:]

    def _say_why(self) -> None:
        """Send the alert that OpenSSL has written for what is wrong, if the socket takes that."""
        with contextlib.suppress(OSError):
            self._flush()

    def say_goodbye(self) -> None:
        """Say that nothing follows, if the socket takes that."""
        # The answer to it is not waited for.
        with contextlib.suppress(OSError, ValueError):
            try:
                self._tls.unwrap()
            except ssl.SSLWantReadError:
                pass
            self._flush()
