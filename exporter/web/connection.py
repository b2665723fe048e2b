"""One client's connection, from the accept until its descriptor is closed.

asyncio's own transports give a descriptor up before they close it, keep a quarter of a MiB for TLS that only a
full garbage collection frees, and wait for the slowest client. Here one object owns the socket, what waits to be
sent and the deadline of the next step, and gives all of it back at one moment:

                 shaken hands                request read                 handler done
    HANDSHAKE ---------------> REQUEST ---------------------> ANSWER ---------------------> IDLE
                                  ^                                                           |
                                  '-----------------------------------------------------------'
                                                       the next byte has come

    any of them --- close(): what waits is sent ---> CLOSED <--- abort(), deadline, error ---

In every state the connection is counted, until the descriptor is closed.
"""

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Any, NamedTuple

from exporter.web.outgoing import Buffer, Outgoing
from exporter.web.peers import peer_of

# What one look at a socket reads at most: a record of TLS.
_READ_BYTES = 16 << 10
# The most bytes of a request line with all its headers.
_REQUEST_BYTES = 16 << 10
# The program that answers pauses while more than this waits to be sent.
_HIGH_WATER_BYTES = 16 << 10
# A client has to take an answer at this rate, after the first seconds.
LEAST_BYTES_PER_SECOND = 32 << 10
# What is left of an answer that may last for ever, when it is to end, has so much time.
_LAST_ANSWER_SECONDS = 10.0
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_WAITS = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


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


class Owner(NamedTuple):
    """What a connection needs of its server."""

    limits: Limits
    make_protocol: Callable[[], asyncio.Protocol]
    shake_soon: Callable[["Connection"], None]
    """Calls shake_hands() of the connection when it is its turn."""
    closed: Callable[["Connection"], None]
    """Called when the descriptor is closed."""


class Connection(asyncio.Transport):
    """A socket with a deadline for its next step.

    Args:
        sock: Accepted, does not block.
        tls: None for a connection without TLS.
        owner: Its server.

    Attributes:
        peer: Who is at the other end, as of peer_of.
        phase: What it waits for.
    """

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None, owner: Owner) -> None:
        super().__init__()
        self._sock = sock
        self._tls = tls
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.Protocol | None = None
        self._outgoing = Outgoing()
        self._reads = self._writes = False
        self._read_is_paused = self._write_is_paused = self._closing = False
        self._received_bytes = 0
        self._since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._certificate: Any = None
        self.peer = peer_of(sock)
        self.phase = Phase.HANDSHAKE

    # -- beginning ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: with the handshake, if there is TLS."""
        self._set_timer()
        if self._tls is None:
            self._begin()
            return
        try:
            self._sock = self._tls.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):
            self.abort()
            return
        self._owner.shake_soon(self)

    def shake_hands(self) -> None:
        """Take one step of the handshake, which can take a millisecond of CPU."""
        if self.phase is not Phase.HANDSHAKE or not isinstance(self._sock, ssl.SSLSocket):
            return
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.add_reader(self._sock.fileno(), self._can_shake)
            self._reads = True
        except ssl.SSLWantWriteError:
            self._loop.add_writer(self._sock.fileno(), self._can_shake)
            self._writes = True
        except OSError:
            self.abort()
        else:
            self._certificate = self._sock.getpeercert()
            self._begin()
            # What OpenSSL has read already makes no descriptor readable.
            self._loop.call_soon(self._can_read)

    def _can_shake(self) -> None:
        self._watch(reads=False, writes=False)
        self._owner.shake_soon(self)

    def _begin(self) -> None:
        self.phase = Phase.REQUEST
        self._protocol = self._owner.make_protocol()
        self._protocol.connection_made(self)
        self._watch(reads=not self._read_is_paused, writes=False)

    # -- time -----------------------------------------------------------------------------------------------------

    @property
    def waits_since(self) -> float:
        """When it took its last step, by the loop's clock; later the more a client has taken of its answer.

        Infinite for an answer that may last for ever.
        """
        if self.phase is Phase.ANSWER and not self._closing and math.isinf(self._owner.limits.answer_seconds):
            return math.inf
        return self._since + (self._outgoing.sent_bytes / LEAST_BYTES_PER_SECOND if self._is_answering else 0.0)

    @property
    def _is_answering(self) -> bool:
        return self.phase is Phase.ANSWER or self._outgoing.bytes > 0

    @property
    def _deadline(self) -> float:
        limits = self._owner.limits
        if self._is_answering:
            seconds = limits.answer_seconds
            return self.waits_since + (min(seconds, _LAST_ANSWER_SECONDS) if self._closing else seconds)
        return self._since + (limits.idle_seconds if self.phase is Phase.IDLE else limits.request_seconds)

    def begin_answer(self) -> None:
        """A whole request has come."""
        self._enter(Phase.ANSWER)
        self._received_bytes = 0

    def end_answer(self) -> None:
        """The answer is given, though not all of it need be sent."""
        self._enter(Phase.IDLE)

    def _enter(self, phase: Phase) -> None:
        if self.phase is Phase.CLOSED:
            return
        # While the end of an answer waits to be sent, its time goes on.
        if phase is not Phase.IDLE or not self._outgoing.bytes:
            self._since = self._loop.time()
            self._outgoing.sent_bytes = 0
        self.phase = phase
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._deadline
        if not math.isinf(deadline):
            self._timer = self._loop.call_at(deadline, self._time_is_up)

    def _time_is_up(self) -> None:
        # It got more time meanwhile, if the client has taken a part of its answer.
        if self._deadline > self._loop.time():
            self._set_timer()
        else:
            self.abort()

    # -- reading --------------------------------------------------------------------------------------------------

    def _watch(self, *, reads: bool, writes: bool) -> None:
        fd = self._sock.fileno()
        if reads != self._reads:
            self._reads = reads
            _ = self._loop.add_reader(fd, self._can_read) if reads else self._loop.remove_reader(fd)
        if writes != self._writes:
            self._writes = writes
            _ = self._loop.add_writer(fd, self._can_write) if writes else self._loop.remove_writer(fd)

    def _can_read(self) -> None:
        if self.phase is Phase.CLOSED or self._protocol is None or not self._reads:
            return
        try:
            data = self._sock.recv(_READ_BYTES)
        except _WAITS:
            return
        except OSError as error:
            self._drop(error)
            return
        if not data:
            # As asyncio's transports: what waits is sent to a client that sends no more.
            self.close()
            return
        if self.phase is Phase.IDLE and not self._outgoing.bytes:
            self._enter(Phase.REQUEST)
        self._received_bytes += len(data)
        self._protocol.data_received(data)
        if self._received_bytes > _REQUEST_BYTES and self.phase is Phase.REQUEST and self._reads:
            self.write(_TOO_LARGE)
            self.close()
        elif self._reads and isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            self._loop.call_soon(self._can_read)

    def pause_reading(self) -> None:
        """Read no more: the protocol has a whole request."""
        self._received_bytes = 0
        self._read_is_paused = True
        self._watch_again()

    def resume_reading(self) -> None:
        """Read on."""
        self._read_is_paused = False
        self._watch_again()

    def is_reading(self) -> bool:
        """Return whether bytes that come are handed on."""
        return self._reads

    def _watch_again(self) -> None:
        if self.phase is not Phase.CLOSED and self._protocol is not None:
            self._watch(reads=not (self._read_is_paused or self._closing), writes=self._outgoing.bytes > 0)

    # -- writing --------------------------------------------------------------------------------------------------

    def write(self, data: Buffer) -> None:
        """Send bytes. They are not copied: a page that many clients read is in memory once."""
        if self.phase is Phase.CLOSED or not data:
            return
        self._outgoing.add(data)
        self._send()

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        """Send bytes, one after the other."""
        for data in list_of_data:
            self.write(data)

    def _can_write(self) -> None:
        if self.phase is not Phase.CLOSED:
            self._send()

    def _send(self) -> None:
        try:
            self._outgoing.send(self._sock.send)
        except _WAITS:
            pass
        except OSError as error:
            self._drop(error)
            return
        if self._closing and not self._outgoing.bytes:
            self._drop(None)
            return
        self._watch_again()
        self._pause_or_resume()

    def _pause_or_resume(self) -> None:
        if self._protocol is None:
            return
        if self._outgoing.bytes > _HIGH_WATER_BYTES and not self._write_is_paused:
            self._write_is_paused = True
            self._protocol.pause_writing()
        elif not self._outgoing.bytes and self._write_is_paused:
            self._write_is_paused = False
            self._protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""
        return self._outgoing.bytes

    def can_write_eof(self) -> bool:
        """Return False: an answer has a length."""
        return False

    # -- end ------------------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Return whether the connection is closed, or will be when what waits is sent."""
        return self._closing or self.phase is Phase.CLOSED

    def close(self) -> None:
        """Close the connection once what waits is sent. The deadline of its last answer goes on."""
        if self.phase is Phase.CLOSED:
            return
        self._closing = True
        if self._outgoing.bytes:
            self._set_timer()
            self._watch_again()
        else:
            self._drop(None)

    def abort(self) -> None:
        """Close the connection at once."""
        self._drop(None)

    def _drop(self, error: OSError | None) -> None:
        """Give everything back."""
        if self.phase is Phase.CLOSED:
            return
        shaken = self.phase is not Phase.HANDSHAKE
        self.phase = Phase.CLOSED
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._outgoing.clear()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            if shaken and error is None and isinstance(self._sock, ssl.SSLSocket):
                # Say that nothing follows. The answer to that is not waited for.
                with contextlib.suppress(OSError, ValueError):
                    self._sock.unwrap()
            self._sock.close()
        self._owner.closed(self)
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            # Not from here: the protocol may be in the middle of a step that closes the connection.
            self._loop.call_soon(protocol.connection_lost, error)

    # -- what it is -----------------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what a handler wants to know of the connection, as of asyncio's transports."""
        if name == "connection":
            return self
        if name == "peer":
            return self.peer
        if name == "sslcontext":
            return self._tls
        if name == "peercert":
            return self._certificate
        if name == "socket":
            return self._sock
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Refuse another protocol.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return what gets the bytes.

        Raises:
            RuntimeError: The connection is closed, or not begun.
        """
        if self._protocol is None:
            raise RuntimeError("there is no protocol")
        return self._protocol
