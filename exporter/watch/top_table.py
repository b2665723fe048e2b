"""`watch --top`: the table of counts and rates by comm."""

from exporter.processes.observer import Happening, Loss, News
from exporter.watch.text_lines import COMM_COLUMNS, fit, short_duration

# Any process can set its comm: with more rows than this, those without an event in the last interval are dropped.
_MOST_ROWS = 4096

SORT_KEYS = {"f": "forks", "e": "execs", "x": "exits", "n": "failed", "l": "lived", "c": "cpu", "a": "comm"}
"""Key to press -> column to sort by."""


class Row:
    """The events of the processes of one comm.

    Attributes:
        recent: Event -> count in the current interval.
    """

    __slots__ = ("cpu_ns", "execs", "exits", "failed", "forks", "lifetime_ns", "lifetimes", "recent")

    def __init__(self) -> None:
        self.forks = self.execs = self.exits = self.failed = 0
        self.lifetime_ns = self.lifetimes = self.cpu_ns = 0
        self.recent = {"fork": 0, "exec": 0, "exit": 0}

    def add(self, happening: Happening) -> None:
        """Count one event."""
        event = happening.event
        if event in self.recent:
            self.recent[event] += 1
        if event == "fork":
            self.forks += 1
        elif event == "exec":
            self.execs += 1
        elif event == "exit":
            self.exits += 1
            self.failed += bool(happening.status)
            if happening.lifetime_ns is not None:
                self.lifetimes += 1
                self.lifetime_ns += happening.lifetime_ns
            self.cpu_ns += happening.cpu_ns or 0

    @property
    def lived(self) -> float:
        """The mean lifetime in ns; 0 if no lifetime is known."""
        return self.lifetime_ns / self.lifetimes if self.lifetimes else 0.0


class TopTable:
    """All rows.

    Args:
        sort: The column to sort by: a value of SORT_KEYS.
    """

    def __init__(self, sort: str) -> None:
        self.sort = sort
        self._rows: dict[str, Row] = {}
        self._lost = 0

    def add(self, news: list[News]) -> None:
        """Count some news."""
        for one in news:
            if isinstance(one, Loss):
                self._lost += one.messages
                continue
            name = "?" if one.comm is None else one.comm
            row = self._rows.get(name)
            if row is None:
                row = self._rows[name] = Row()
            row.add(one)

    def _key(self, item: tuple[str, Row]) -> tuple[float, int]:
        _, row = item
        value = {
            "forks": row.recent["fork"],
            "execs": row.recent["exec"],
            "exits": row.recent["exit"],
            "failed": row.failed,
            "lived": row.lived,
            "cpu": row.cpu_ns,
        }[self.sort]
        return -value, -row.exits

    def lines(self, seconds: float, size: tuple[int, int], title: str) -> list[str]:
        """Return the table as lines of text, and begin a new interval.

        Args:
            seconds: How long the interval was.
            size: Columns and lines of the terminal.
            title: Text for the first line.
        """
        columns, height = size
        ordered = sorted(self._rows.items(), key=None if self.sort == "comm" else self._key)
        if self.sort == "comm":
            ordered.sort(key=lambda item: item[0])
        lines = [
            f"{title}  {len(self._rows)} names  {self._lost} lost  by {self.sort}",
            "keys: " + " ".join(f"{key} {name}" for key, name in SORT_KEYS.items()) + ", q quit",
            f"{'COMM':15} {'FORKS/S':>9} {'EXECS/S':>9} {'EXITS/S':>9} {'FAILED':>9} {'LIVED':>7} {'CPU':>7}",
        ]
        for comm, row in ordered[: max(0, height - len(lines))]:
            forks, execs, exits = (f"{row.recent[event] / seconds:9.1f}" for event in ("fork", "exec", "exit"))
            lived = short_duration(round(row.lived)) if row.lifetimes else ""
            cpu = short_duration(row.cpu_ns) if row.exits else ""
            name = fit(comm, COMM_COLUMNS)
            lines.append(f"{name} {forks} {execs} {exits} {row.failed:9} {lived:>7} {cpu:>7}".rstrip())
        if len(self._rows) > _MOST_ROWS:
            self._rows = {name: row for name, row in self._rows.items() if any(row.recent.values())}
        for row in self._rows.values():
            row.recent = dict.fromkeys(row.recent, 0)
        return [fit(line, columns).rstrip() for line in lines]
