"""A scrape: which format the client takes, and the pieces of the answer.

Programs are written by render and protobuf; everything else goes through the library.
"""

import re
from collections.abc import Callable, Iterator
from itertools import chain

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from exporter.exposition.accept import prefers_protobuf
from exporter.exposition.protobuf import CONTENT_TYPE, ProtobufRenderer, render_families
from exporter.exposition.render import render
from exporter.exposition.self_metrics import Status, StatusCollector
from exporter.exposition.snapshot import TallySnapshot

_ESCAPING = re.compile(r"escaping=(dots|values)")


class Exposition:
    """Everything that /metrics says.

    Args:
        snapshot: Copies the tallies; called once per scrape.
        status: Copies the exporter's own state; called once per scrape.
    """

    def __init__(self, snapshot: Callable[[], TallySnapshot], status: Callable[[], Status]) -> None:
        self._snapshot = snapshot
        self._status = StatusCollector(status)
        self._protobuf = ProtobufRenderer()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self._status)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def pieces(self, accept: str) -> tuple[str, Iterator[bytes]]:
        """Render one scrape.

        Args:
            accept: The request's Accept header.

        Returns:
            The Content-Type, and the body in pieces that take a few milliseconds each. All pieces describe the
            moment of this call.
        """
        if prefers_protobuf(accept):
            snapshot = self._snapshot()
            self._status.began_seconds = snapshot.began_seconds
            # A list: what the library collects is of this moment, too.
            own_families = list(render_families(self._registry.collect()))
            return CONTENT_TYPE, chain(self._protobuf.render(snapshot), own_families)
        # Our names need no escaping, and what is rendered here has none.
        accept = _ESCAPING.sub("escaping=underscores", accept)
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):
            # The library compares a version that is no number with one.
            encode, content_type = choose_encoder("")
        openmetrics = "openmetrics" in content_type
        snapshot = self._snapshot()
        # The library would write them into the text format as gauges.
        self._status.began_seconds = snapshot.began_seconds if openmetrics else None
        # The library's part comes last: it ends with OpenMetrics' closing line.
        own = encode(self._registry)
        return content_type, chain((text.encode() for text in render(snapshot, openmetrics=openmetrics)), (own,))
