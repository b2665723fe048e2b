"""Renewing the subscription after the kernel fell silent."""

import asyncio
import logging

from exporter.kernel.connector_socket import Connector
from exporter.live.compare import Comparison
from exporter.live.drain import Drain
from exporter.live.turns import drain_all

_LOG = logging.getLogger(__name__)

# Each is short; on a busy machine it takes some to bring the kernel's count of listeners up from far below.
_MORE_TRIES = 9


class Renewal:
    """Subscribes the connector again.

    Args:
        connector: The subscription.
        drain: Reads what came before.
        comparison: Finds out what happened meanwhile.

    Attributes:
        tries: How often a renewal was asked for.
    """

    def __init__(self, connector: Connector, drain: Drain, comparison: Comparison) -> None:
        self._connector = connector
        self._drain = drain
        self._comparison = comparison
        self.tries = 0

    async def renew(self) -> bool:
        """Subscribe again, and find out what happened meanwhile.

        Returns:
            Whether the kernel acknowledged it.
        """
        self.tries += 1
        await drain_all(self._drain)
        try:
            acknowledged = await self._subscribe()
        except OSError as error:
            # After privileges were given up, a kernel before 6.6 refuses.
            _LOG.error("cannot subscribe again", extra={"error": error})
            return False
        if acknowledged:
            await self._comparison.repeat()
        return acknowledged

    async def _subscribe(self) -> bool:
        """Try some times, each of which holds the event loop up for a moment."""
        for _ in range(_MORE_TRIES):
            if self._connector.resubscribe():
                return True
            await asyncio.sleep(0)
        return self._connector.resubscribe()
