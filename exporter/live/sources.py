"""What the drain reads: each queue of the kernel as an object, so that a further one is one more in a list.

A source knows how to read its queue, where in the pipeline a batch goes, how full the queue is and what the kernel
dropped because it was full. The order of the list is the order of a drain; drain.py says why it matters.
"""

from collections.abc import Callable
from itertools import islice
from typing import NamedTuple, Protocol

from exporter.kernel.connector_socket import Connector
from exporter.kernel.netlink import Batch
from exporter.kernel.recvmmsg import Meminfo, Receiver
from exporter.processes.pipeline import Pipeline

# No kernel charges a receive buffer with less for a message: how many can be waiting follows from its fill.
_LEAST_BYTES_PER_MESSAGE = 512
# What kernels charge for an event: 832 bytes on Linux 6.18, 960 on Debian's 6.12. An exit record takes more, but
# there is at most one for two events.
_BYTES_PER_EVENT = 960
# The kernel's count of drops has 32 bits.
_DROPS_MASK = 0xFFFFFFFF


class Taken(NamedTuple):
    """What one step read of a source."""

    messages: int
    is_full: bool
    """The step ended because it was long enough, so that more can be waiting."""


class Source(Protocol):
    """A queue of the kernel whose messages go to the pipeline, and whose losses are counted."""

    @property
    def name(self) -> str:
        """The value of the metrics' label `socket`."""

    @property
    def batches_per_step(self) -> int:
        """How many batches one read takes at most."""

    @property
    def fill(self) -> Meminfo:
        """How full the queue was at the last look."""

    @property
    def lost(self) -> int:
        """How many messages the kernel had dropped at the last look, since the source was opened."""

    @property
    def malformed(self) -> int:
        """How many messages were dropped before they came to the pipeline."""

    @property
    def holds_events(self) -> int:
        """How many events' messages the queue can hold."""

    @property
    def loss_unsettles(self) -> bool:
        """After a loss the process table can be wrong, so that it has to be compared with /proc."""

    def read(self) -> Taken:
        """Hand over to the pipeline what waits, one step of it at most."""

    def look(self) -> None:
        """Ask the kernel for fill and losses."""

    def most_waiting(self) -> int:
        """Return the most messages that can be waiting now."""


class SocketSource:
    """A netlink socket that is read in batches.

    Args:
        name: The value of the metrics' label `socket`.
        socket: Open; closed by its owner.
        take: Gets each batch, which is valid until it returns.
        batches_per_step: How many batches one read takes at most.

    Attributes:
        fill: How full the receive buffer was at the last look.
        lost: How many messages the kernel had dropped by then; goes on where the kernel's count begins anew.
    """

    def __init__(
        self, name: str, socket: Receiver, take: Callable[[Batch], None], *, batches_per_step: int
    ) -> None:
        self.name = name
        self.batches_per_step = batches_per_step
        self._socket = socket
        self._take = take
        self.fill = socket.meminfo()
        self.lost = 0
        self.loss_unsettles = True

    @property
    def malformed(self) -> int:
        """How many datagrams were too long, or did not come from the kernel."""
        return self._socket.malformed

    @property
    def holds_events(self) -> int:
        """How many events the receive buffer can hold."""
        return self.fill.limit_bytes // _BYTES_PER_EVENT

    def read(self) -> Taken:
        """Hand over to the pipeline what waits, one step of it at most."""
        batches = messages = 0
        for batch in islice(self._socket.iter_batches(), self.batches_per_step):
            batches += 1
            messages += len(batch.lengths)
            self._take(batch)
        return Taken(messages, batches == self.batches_per_step)

    def look(self) -> None:
        """Ask the kernel for fill and losses."""
        self.fill = self._socket.meminfo()
        self.lost += (self.fill.drops - self.lost) & _DROPS_MASK

    def most_waiting(self) -> int:
        """Return the most messages that the receive buffer can hold now."""
        return self._socket.meminfo().used_bytes // _LEAST_BYTES_PER_MESSAGE


class EarlySource(Protocol):
    """A second socket, which is read at every wake-up, while the processes live.

    The main one gets the same events: what is lost here is a help, and is not counted.
    """

    def fileno(self) -> int:
        """Return the descriptor, for an event loop."""

    def read(self) -> None:
        """Take all that waits."""

    def narrow(self) -> None:
        """Ask the kernel only for the events that are worth a wake-up now."""


class HintSource:
    """The second connector socket, read at every wake-up so that names are looked up while the processes live.

    The first one gets the same events: what is lost here, or read too late, is a hint, and is not counted.

    Args:
        socket: Receives forks and execs; closed by its owner.
        pipeline: Looks names up, and knows which events are worth a wake-up.
        batches_per_step: How many batches one read takes at most: each event can be a look into /proc, and while a
            host execs faster than that the socket is never empty.
    """

    def __init__(self, socket: Connector, pipeline: Pipeline, *, batches_per_step: int) -> None:
        self._socket = socket
        self._pipeline = pipeline
        self._batches_per_step = batches_per_step

    def fileno(self) -> int:
        """Return the descriptor, for an event loop."""
        return self._socket.fileno()

    def read(self) -> None:
        """Hand over to the pipeline what waits, one step of it at most; for the rest the loop wakes up again."""
        for batch in islice(self._socket.iter_batches(), self._batches_per_step):
            self._pipeline.take_names(batch)
        self.narrow()

    def narrow(self) -> None:
        """Ask the kernel only for the events that are worth a wake-up now."""
        self._socket.narrow(self._pipeline.wanted_by_names)
