"""One client's connection, from the accept until its descriptor is closed.

asyncio's own transports wait for the slowest client, and are forgotten before their descriptor is closed. Here one
object owns the socket (channel.py), what waits to be sent (outgoing.py) and the deadline of the next step
(deadline.py, which draws the phases), and gives all of it back at one moment. In every phase the connection is
counted, until the descriptor is closed.
"""

import asyncio
import math
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from exporter.web.channel import WAITS, Channel
from exporter.web.deadline import Deadline, Limits, Phase
from exporter.web.outgoing import Buffer, Outgoing
from exporter.web.peers import peer_of

# What one look at a socket reads at most: a record of TLS.
_READ_BYTES = 16 << 10
# The most bytes of a request line with all its headers.
_REQUEST_BYTES = 16 << 10
# The program that answers pauses while more than this waits to be sent.
_HIGH_WATER_BYTES = 16 << 10
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Owner(NamedTuple):
    """What a connection needs of its server."""

    limits: Limits
    make_protocol: Callable[[], asyncio.Protocol]
    shake_soon: Callable[["Connection"], None]
    """Calls shake_hands() of the connection when it is its turn."""
    closed: Callable[["Connection"], None]
    """Called when the descriptor is closed."""


class Connection(asyncio.Transport):
    """A client's socket with a deadline for its next step: a transport, as far as aiohttp needs one.

    Args:
        sock: Accepted, does not block.
        tls: None for a connection without TLS.
        owner: Its server.

    Attributes:
        peer: Who is at the other end, as of peer_of.
    """

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None, owner: Owner) -> None:
        super().__init__()
        self._tls = tls
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._channel = Channel(sock, self._loop)
        self._protocol: asyncio.Protocol | None = None
        self._outgoing = Outgoing()
        self._deadline = Deadline(owner.limits, self._outgoing, self._loop.time)
        self._read_is_paused = self._write_is_paused = False
        self._received_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self.peer = peer_of(sock)

    # -- beginning ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: with the handshake, if there is TLS."""
        self._set_timer()
        if self._tls is None:
            self._begin()
            return
        self._channel.secure(self._tls)
        self._owner.shake_soon(self)

    def shake_hands(self) -> None:
        """Take one step of the handshake, which can take a millisecond of CPU."""
        if self.phase is not Phase.HANDSHAKE:
            return
        try:
            is_done = self._channel.shake_hands(self._can_shake)
        except OSError:
            self.abort()
            return
        if is_done:
            self._begin()
            # What OpenSSL has read already makes no descriptor readable.
            self._loop.call_soon(self._can_read)

    def _can_shake(self) -> None:
        self._channel.watch(None, None)
        self._owner.shake_soon(self)

    def _begin(self) -> None:
        self._deadline.phase = Phase.REQUEST
        self._protocol = self._owner.make_protocol()
        self._protocol.connection_made(self)
        self._watch_again()

    # -- time -----------------------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """What it waits for."""
        return self._deadline.phase

    @property
    def waits_since(self) -> float:
        """When it took its last step, by the loop's clock, as of Deadline.waits_since."""
        return self._deadline.waits_since

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
        self._deadline.enter(phase)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._deadline.at
        if not math.isinf(deadline):
            self._timer = self._loop.call_at(deadline, self._time_is_up)

    def _time_is_up(self) -> None:
        # It got more time meanwhile, if the client has taken a part of its answer.
        if self._deadline.at > self._loop.time():
            self._set_timer()
        else:
            self.abort()

    # -- reading --------------------------------------------------------------------------------------------------

    def _can_read(self) -> None:
        if self.phase is Phase.CLOSED or self._protocol is None or not self._channel.reads:
            return
        try:
            data = self._channel.recv(_READ_BYTES)
        except WAITS:
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
        if self._received_bytes > _REQUEST_BYTES and self.phase is Phase.REQUEST and self._channel.reads:
            self.write(_TOO_LARGE)
            self.close()
        elif self._channel.reads and self._channel.has_read_ahead:
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

    def _watch_again(self) -> None:
        if self.phase is not Phase.CLOSED and self._protocol is not None:
            reads = not (self._read_is_paused or self._deadline.is_last)
            self._channel.watch(
                self._can_read if reads else None, self._can_write if self._outgoing.bytes else None
            )

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
            self._outgoing.send(self._channel.send)
        except WAITS:
            pass
        except OSError as error:
            self._drop(error)
            return
        if self._deadline.is_last and not self._outgoing.bytes:
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

    # -- end ------------------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Return whether the connection is closed, or will be when what waits is sent."""
        return self._deadline.is_last or self.phase is Phase.CLOSED

    def close(self) -> None:
        """Close the connection once what waits is sent. The deadline of its last answer goes on."""
        if self.phase is Phase.CLOSED:
            return
        self._deadline.is_last = True
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
        self._deadline.phase = Phase.CLOSED
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._outgoing.clear()
        self._channel.close(says_goodbye=shaken and error is None)
        self._owner.closed(self)
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            # Not from here: the protocol may be in the middle of a step that closes the connection.
            self._loop.call_soon(protocol.connection_lost, error)

    # -- what it is -----------------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what a handler wants to know of the connection, as of asyncio's transports."""
        known = {
            "connection": self,
            "peer": self.peer,
            "peercert": self._channel.certificate,
            "socket": self._channel.socket,
            "sslcontext": self._tls,
        }
        return known.get(name, default)
