"""`watch --summary`: how many of each event were printed."""

import json
from collections.abc import Iterable, Iterator

from exporter.processes.observer import Loss, News


class Summary:
    """Counts what `watch` printed, by event."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._nonzero = 0
        self._lost = 0

    def add(self, news: Iterable[News]) -> None:
        """Count some news."""
        for one in news:
            if isinstance(one, Loss):
                self._lost += one.messages
                continue
            self._counts[one.event] = self._counts.get(one.event, 0) + 1
            self._nonzero += one.event == "exit" and bool(one.status)

    def rows(self) -> Iterator[tuple[str, int]]:
        """Return (event, count), and the number of lost messages at the end."""
        for event, count in self._counts.items():
            yield event, count
            if event == "exit":
                yield "nonzero_exit", self._nonzero
        yield "lost", self._lost

    def json_line(self) -> str:
        """Return all rows as one JSON object."""
        return json.dumps({"event": "summary"} | dict(self.rows()))

    def text(self) -> str:
        """Return a line for each row."""
        return "".join(f"{count:10} {what}\n" for what, count in self.rows())
