"""What /failures answers: which failures, as a page or as JSON, at which moment."""

import json
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from exporter.errors import ConfigError
from exporter.failures.page import Shown, render_page
from exporter.failures.rows import fields_of
from exporter.failures.selection import Selection, parse_selection
from exporter.failures.store import FailureStore
from exporter.processes.bad_ends import Failure
from exporter.stream.wall_clock import WallClock

_FORMATS = ("html", "json")
_ROWS_IN_A_PIECE = 100


class Answers:
    """Answers requests for failures.

    Args:
        store: Has them.
        refresh: Brings the store up to date.
        now_ns: CLOCK_MONOTONIC of the host where they happen.
        clock: Returns the clock of that host.
        left_out: How many are not in the store.
        labels: The labels of groups.
    """

    def __init__(
        self,
        store: FailureStore,
        refresh: Callable[[], Awaitable[None]],
        now_ns: Callable[[], int],
        clock: Callable[[], WallClock],
        left_out: Callable[[], int],
        *,
        labels: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._refresh = refresh
        self._now_ns = now_ns
        self._clock = clock
        self._left_out = left_out
        self._labels = labels

    def ask(self, query: Sequence[tuple[str, str]], accept: str) -> "Answer":
        """Return what answers a request.

        Args:
            query: Names and values.
            accept: The request's Accept header.

        Raises:
            ConfigError: A filter is not known, or has a value that it cannot take.
        """
        values: dict[str, list[str]] = {}
        for name, value in query:
            values.setdefault(name, []).append(value)
        (form,) = values.pop("format", [""])[-1:]
        if form and form not in _FORMATS:
            raise ConfigError(f"format must be {' or '.join(_FORMATS)}, got {form!r}")
        filters = tuple((name, value) for name, value in query if name != "format" and value)
        as_json = form == "json" if form else prefers_json(accept)
        return Answer(self, parse_selection(values, self._labels), filters, as_json)

    async def show(self, selection: Selection, query: tuple[tuple[str, str], ...]) -> Shown:
        """Return the failures that match, now."""
        await self._refresh()
        now_ns, clock = self._now_ns(), self._clock()
        since_ns = 0
        if selection.since_ns is not None:
            since_ns = now_ns - selection.since_ns
        elif selection.since_wall_ns is not None:
            since_ns = clock.monotonic_ns(selection.since_wall_ns)
        matching = [f for f in self._store.newest() if f.time_ns >= since_ns and selection.matches(f)]
        return Shown(matching, len(self._store), self._left_out(), now_ns, clock, query, self._labels)


@dataclass(frozen=True)
class Answer:
    """One answer; the same for all who ask the same."""

    answers: Answers
    selection: Selection
    query: tuple[tuple[str, str], ...]
    as_json: bool

    async def __call__(self, accept: str, names: Collection[str]) -> tuple[str, Iterator[bytes]]:
        """Render it; see web.bodies.Pieces. Both arguments are those of another page."""
        del accept, names
        shown = await self.answers.show(self.selection, self.query)
        if self.as_json:
            return "application/json; charset=utf-8", (text.encode() for text in _json_pieces(shown))
        return "text/html; charset=utf-8", (text.encode() for text in render_page(shown))


def _json_pieces(shown: Shown) -> Iterator[str]:
    head = {
        "time": shown.clock.utc(shown.now_ns),
        "matching": len(shown.failures),
        "kept": shown.kept,
        "left_out": shown.left_out,
    }
    yield f'{json.dumps(head)[:-1]}, "failures": ['
    lines = (_json_line(failure, shown.clock) for failure in shown.failures)
    between = "\n"
    while piece := ",\n".join(islice(lines, _ROWS_IN_A_PIECE)):
        yield between + piece
        between = ",\n"
    yield "\n]}\n"


def _json_line(failure: Failure, clock: WallClock) -> str:
    return json.dumps(fields_of(failure, clock), ensure_ascii=False)


def prefers_json(accept: str) -> bool:
    """Return whether an Accept header names JSON, and HTML with no higher weight or later."""
    weights: dict[str, float] = {}
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        options = dict(parameter.partition("=")[::2] for parameter in parameters)
        try:
            weight = float(options.get("q", "1"))
        except ValueError:
            weight = 0.0
        weights.setdefault(media, weight)
    as_json = weights.get("application/json", 0.0)
    as_html = weights.get("text/html", 0.0)
    return as_json > as_html or (as_json == as_html > 0 and list(weights).index("application/json") == 0)
