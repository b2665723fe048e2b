"""`watch --top`: the table of counts and rates by comm, and by where processes run if that is shown."""

from exporter.processes.observer import Happening, Loss, News
from exporter.tallies.labels import short_group
from exporter.watch.text_lines import COMM_COLUMNS, WHERE, fit, short_duration

# Any process can set its comm: with more rows than this, those without an event in the last interval are dropped.
_MOST_ROWS = 4096
# Of a count. Where it is also shown where processes run, 80 columns must do for that.
_WIDE, _NARROW = 9, 7

SORT_KEYS = {"f": "forks", "e": "execs", "x": "exits", "n": "failed", "l": "lived", "c": "cpu", "a": "comm"}
"""Key to press -> column to sort by."""


class Row:
    """The events of the processes of one comm, in one place if that is shown.

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
        grouped: Show where processes run, too.
    """

    def __init__(self, sort: str, *, grouped: bool = False) -> None:
        self.sort = sort
        self._grouped = grouped
        # By comm, and where.
        self._rows: dict[tuple[str, str], Row] = {}
        self._lost = 0

    def add(self, news: list[News]) -> None:
        """Count some news."""
        for one in news:
            if isinstance(one, Loss):
                self._lost += one.messages
                continue
            key = "?" if one.comm is None else one.comm, short_group(one.group) if self._grouped else ""
            row = self._rows.get(key)
            if row is None:
                row = self._rows[key] = Row()
            row.add(one)

    def _key(self, item: tuple[tuple[str, str], Row]) -> tuple[float, int]:
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
        wide = _NARROW if self._grouped else _WIDE
        counts = " ".join(f"{name:>{wide}}" for name in ("FORKS/S", "EXECS/S", "EXITS/S", "FAILED"))
        lines = [
            f"{title}  {len(self._rows)} names  {self._lost} lost  by {self.sort}",
            "keys: " + " ".join(f"{key} {name}" for key, name in SORT_KEYS.items()) + ", q quit",
            f"{'COMM':15} {counts} {'LIVED':>7} {'CPU':>7}{WHERE if self._grouped else ''}",
        ]
        for (comm, where), row in ordered[: max(0, height - len(lines))]:
            forks, execs, exits = (
                f"{row.recent[event] / seconds:{wide}.1f}" for event in ("fork", "exec", "exit")
            )
            lived = short_duration(round(row.lived)) if row.lifetimes else ""
            cpu = short_duration(row.cpu_ns) if row.exits else ""
            name = fit(comm, COMM_COLUMNS)
            counts = f"{forks} {execs} {exits} {row.failed:{wide}}"
            lines.append(f"{name} {counts} {lived:>7} {cpu:>7} {where}".rstrip())
        if len(self._rows) > _MOST_ROWS:
            self._rows = {key: row for key, row in self._rows.items() if any(row.recent.values())}
        for row in self._rows.values():
            row.recent = dict.fromkeys(row.recent, 0)
        return [fit(line, columns).rstrip() for line in lines]
