"""What a reader of JSON lines received, in the form in which scrapes are compared with the truth."""

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


class Received(Scrape):
    """Counts objects as the exporter counts events.

    Args:
        lines: JSON, an object each.
    """

    def __init__(self, lines: Iterable[str | bytes]) -> None:
        super().__init__("")
        self.objects: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self._rows: dict[str, Counter[Row]] = {name: Counter() for name in LABELS}
        self.lost = 0
        for received in self.objects:
            if received["event"] == "lost":
                self.lost += received["messages"]
            elif received["event"] in _COUNTED:
                self._count(received)

    def _count(self, received: dict[str, Any]) -> None:
        row: Row = tuple(UNKNOWN if received[key] is None else str(received[key]) for key in ("comm", "uid"))
        if received["event"] == "exit":
            row += (str(received["exit_code"]), received["signal"] or "")
            if received["exit_code"]:
                self._rows["nonzero_exits"][row] += 1
        self._rows[_COUNTED[received["event"]]][row] += 1

    def rows(self, counter: str) -> Counter[Row]:
        """As Scrape.rows."""
        return self._rows[counter]
