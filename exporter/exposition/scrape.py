"""A scrape: which format the client takes, and the pieces of the answer.

Programs are written by render and protobuf; everything else goes through the library.
"""

import re
from collections.abc import Callable, Collection, Iterator
from itertools import chain

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from exporter.exposition.accept import PROTOBUF, by_weight, prefers_protobuf
from exporter.exposition.exemplars import Exemplars
from exporter.exposition.protobuf import CONTENT_TYPE, ProtobufRenderer, render_families
from exporter.exposition.render import render
from exporter.exposition.self_metrics import Status, StatusCollector
from exporter.exposition.snapshot import TallySnapshot

# Accept headers, one for each of the answers that there are.
_FORMS = (
    "application/openmetrics-text",
    "application/openmetrics-text;version=1.0.0",
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8",
    "text/plain;version=1.0.0",
    "text/plain;version=1.0.0;escaping=allow-utf-8",
    "",
)
_ESCAPING = re.compile(r"escaping=(dots|values)")


class Exposition:
    """Everything that /metrics says.

    Args:
        snapshot: Copies the tallies; called once per scrape.
        status: Copies the exporter's own state; called once per scrape.
        own_process: Whether the metrics of the exporter's own process are there: process_*, python_*.
        exemplars: Copies the exemplars, for OpenMetrics.
    """

    def __init__(
        self,
        snapshot: Callable[[], TallySnapshot],
        status: Callable[[], Status],
        *,
        own_process: bool = True,
        exemplars: Callable[[], Exemplars] = dict,
    ) -> None:
        self._snapshot = snapshot
        self._exemplars = exemplars
        self._status = StatusCollector(status)
        self._protobuf = ProtobufRenderer()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self._status)
        if own_process:
            ProcessCollector(registry=self._registry)
            PlatformCollector(registry=self._registry)
            GCCollector(registry=self._registry)

    @staticmethod
    def form(accept: str) -> str:
        """Return one of a few Accept headers: one for which `pieces` renders the same as for this one."""
        if prefers_protobuf(accept):
            return PROTOBUF
        _, content_type = _choose(accept)
        return next(form for form in _FORMS if _choose(form)[1] == content_type)

    def pieces(self, accept: str, names: Collection[str] = ()) -> tuple[str, Iterator[bytes]]:
        """Render one scrape.

        Args:
            accept: The request's Accept header.
            names: The samples to render, by the names that they have in the text format; empty for all.

        Returns:
            The Content-Type, and the body in pieces that take a few milliseconds each. All pieces describe the
            moment of this call.
        """
        if not names and prefers_protobuf(accept):
            snapshot = self._snapshot()
            self._status.began_seconds = snapshot.began_seconds
            # A list: what the library collects is of this moment, too.
            own_families = list(render_families(self._registry.collect()))
            return CONTENT_TYPE, chain(self._protobuf.render(snapshot), own_families)
        encode, content_type = _choose(accept)
        openmetrics = "openmetrics" in content_type
        wanted = frozenset(names)
        snapshot = self._snapshot()
        # The library would write them into the text format as gauges.
        self._status.began_seconds = snapshot.began_seconds if openmetrics else None
        # The library's part comes last: it ends with OpenMetrics' closing line.
        own = encode(_restricted(self._registry, wanted) if wanted else self._registry)
        exemplars = self._exemplars() if openmetrics else {}
        texts = render(snapshot, openmetrics=openmetrics, names=wanted, exemplars=exemplars)
        return content_type, chain((text.encode() for text in texts), (own,))


def _restricted(registry: CollectorRegistry, names: Collection[str]) -> CollectorRegistry:
    """Return a registry of the samples of another one that have these names.

    The library's own restricted registry knows only collectors that describe themselves.
    """
    restricted = CollectorRegistry(auto_describe=False)
    restricted.register(_Named(registry, names))
    return restricted


class _Named(Collector):
    def __init__(self, registry: CollectorRegistry, names: Collection[str]) -> None:
        self._registry = registry
        self._names = names

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if sample.name in self._names]
            if family.samples:
                yield family


def _choose(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Return the library's encoder for an Accept header, and the Content-Type of what it writes."""
    # Our names need no escaping, and what is rendered here has none. The library takes the first of what it knows.
    accept = _ESCAPING.sub("escaping=underscores", by_weight(accept))
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):
        # The library compares a version that is no number with one.
        return choose_encoder("")
    # The library would take any later version for its own, and write it into the answer's header.
    if not any(choose_encoder(form)[1] == content_type for form in _FORMS):
        return choose_encoder(_FORMS[1])
    return encode, content_type
