"""What a reader of JSON lines was told, in the form in which scrapes are compared with the truth."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from kernel.harness import LABELS, UNKNOWN, Row, Scrape

_COUNTED = {
    "fork": "forks",
    "exec": "execs",
    "exit": "exits",
    "coredump": "coredumps",
    "uid": "uid_changes",
    "ptrace": "ptrace_attaches",
}
EVENTS = ",".join(_COUNTED)


class Told(Scrape):
    """Counts objects as the exporter counts events.

    Args:
        lines: JSON, an object each.
    """

    def __init__(self, lines: Iterable[str | bytes]) -> None:
        super().__init__("")
        self.objects: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self._rows: dict[str, Counter[Row]] = {name: Counter() for name in LABELS}
        self.lost = 0
        for told in self.objects:
            if told["event"] == "lost":
                self.lost += told["messages"]
            elif told["event"] in _COUNTED:
                self._count(told)

    def _count(self, told: dict[str, Any]) -> None:
        row: Row = tuple(UNKNOWN if told[key] is None else str(told[key]) for key in ("comm", "uid"))
        if told["event"] == "exit":
            row += (str(told["exit_code"]), told["signal"] or "")
            if told["exit_code"]:
                self._rows["nonzero_exits"][row] += 1
        self._rows[_COUNTED[told["event"]]][row] += 1

    def rows(self, counter: str) -> Counter[Row]:
        """As Scrape.rows."""
        return self._rows[counter]
