"""The news that clients have not got yet, and how far each filter has been looked through them.

The exporter appends what happened and goes on counting. Looking at it for clients is work that they cause: it is
done later, in short pieces. If there is too much of it, they lose news that the exporter has not yet looked at.
"""

from collections import deque
from dataclasses import dataclass, field

from exporter.processes.observer import Loss, News
from exporter.stream.json_lines import json_line
from exporter.stream.selection import Selection
from exporter.stream.wall_clock import WallClock

# About 15 MB with their lines.
MOST_NEWS = 20_000
# So many are looked at between two looks at the clock.
_STRIDE = 32


@dataclass(slots=True)
class Entry:
    """News that became known together.

    Attributes:
        lines: Those that were written for some client, by their index.
    """

    news: list[News]
    lines: dict[int, str] = field(default_factory=dict)

    def line(self, index: int, clock: WallClock) -> str:
        """Return one as JSON."""
        if index not in self.lines:
            self.lines[index] = json_line(self.news[index], clock)
        return self.lines[index]


class NewsLog:
    """Keeps a bounded number of news.

    Attributes:
        first: The number of the oldest entry that is kept.
    """

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._count = 0
        self.first = 0

    @property
    def end(self) -> int:
        """The number that the next entry gets."""
        return self.first + len(self._entries)

    def __getitem__(self, number: int) -> Entry:
        """Return an entry by its number."""
        return self._entries[number - self.first]

    def append(self, news: list[News]) -> None:
        """Add an entry; its news are kept, whatever their number."""
        self._entries.append(Entry(news))
        self._count += len(news)

    def drop_oldest(self) -> None:
        """Drop the oldest entry."""
        self._count -= len(self._entries.popleft().news)
        self.first += 1

    @property
    def is_too_long(self) -> bool:
        """An entry has to go."""
        return self._count > MOST_NEWS and len(self._entries) > 1


class Reader:
    """How far one filter has been looked through the log.

    Args:
        selection: The filter.
        at: The number of the entry to begin with.

    Attributes:
        at: The number of the entry that is next, or under way.
    """

    def __init__(self, selection: Selection, at: int) -> None:
        self._selection = selection
        self.at = at
        self._index = 0
        self._lines: list[str] = []

    def look(self, entry: Entry, clock: WallClock) -> bool:
        """Look at some more of an entry; returns whether it has been looked through."""
        ends = min(self._index + _STRIDE, len(entry.news))
        matches = self._selection.matches
        for index in range(self._index, ends):
            one = entry.news[index]
            if isinstance(one, Loss) or matches(one):
                self._lines.append(entry.line(index, clock))
        self._index = ends
        return ends == len(entry.news)

    def take(self) -> list[str]:
        """Return the lines of the entry that has been looked through, and go on to the next."""
        lines, self._lines = self._lines, []
        self._index = 0
        self.at += 1
        return lines
