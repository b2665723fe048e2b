"""Peak memory of the exporter at its limit of series, while two clients scrape at once."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import NamedTuple

from bench import machine
from bench.exporter_client import ExporterProcess, exporter_running
from bench.setup import Bench, say
from bench.storms import run_crowd

_PROGRAMS = 16_000
_PAIRS = 20
_PATIENCE_SECONDS = 60.0
_OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}
_GZIP = {"Accept_Encoding": "gzip"}

Headers = Mapping[str, str]
Read = Callable[[ExporterProcess, Headers], object]


class Pair(NamedTuple):
    """Two scrapes at once, once and again and again, by an exporter of its own."""

    forms: str
    readers: str
    series: int
    before_bytes: int
    """What was resident before the first scrape."""
    one_bytes: int
    """The peak of one scrape."""
    pair_bytes: int
    """The peak of two."""
    pairs_bytes: int
    """The peak of many times two."""

    @property
    def peak_bytes(self) -> int:
        """The peak of all."""
        return max(self.one_bytes, self.pair_bytes, self.pairs_bytes)


def measure(bench: Bench) -> list[Pair]:
    """Measure pairs of the same form and of two, which are read at once or held up."""
    cases: list[tuple[str, Headers, Headers]] = [
        ("text and text", {}, {}),
        ("text and OpenMetrics", {}, _OPENMETRICS),
        ("text and OpenMetrics, gzip", _GZIP, {**_OPENMETRICS, **_GZIP}),
    ]
    return [
        _measure(bench, forms, (first, second), readers, read)
        for forms, first, second in cases[: bench.size(3, 1)]
        for readers, read in (("at once", _at_once), ("held up", _held_up()))
    ]


def _at_once(exporter: ExporterProcess, headers: Headers) -> None:
    exporter.get(**headers)


def _held_up() -> Read:
    """Return a read of two clients that both have an answer before either reads it."""
    both_have_it = Barrier(2, timeout=_PATIENCE_SECONDS)
    return lambda exporter, headers: exporter.get_later(both_have_it.wait, **headers)


def _measure(bench: Bench, forms: str, both: tuple[Headers, Headers], readers: str, read: Read) -> Pair:
    say(f"two scrapes at the limit of series, {forms}, {readers}")
    with exporter_running(bench.guard, bench.folder) as exporter, ThreadPoolExecutor(2) as clients:

        def peak_of(pairs: int) -> int:
            machine.forget_peak_rss(exporter.pid)
            for _ in range(pairs):
                for done in [clients.submit(read, exporter, headers) for headers in both]:
                    done.result(_PATIENCE_SECONDS)
            return machine.peak_rss_bytes(exporter.pid)

        run_crowd(bench.programs, _PROGRAMS)
        before_bytes = machine.rss_bytes(exporter.pid)
        machine.forget_peak_rss(exporter.pid)
        exporter.get(**both[0])
        one_bytes = machine.peak_rss_bytes(exporter.pid)
        pair_bytes, pairs_bytes = peak_of(1), peak_of(_PAIRS)
        return Pair(forms, readers, exporter.scrape().series, before_bytes, one_bytes, pair_bytes, pairs_bytes)
