"""The counts of `watch --summary`."""

import json

from exporter.processes.observer import Happening, Loss
from exporter.watch.summary import Summary

EXIT = Happening(2_000, "exit", 4194304, 4194304, 1, 1000, "fifteen-letters", 0x0B, True, 12_345_678, 999, 2048)
SHORT = Happening(1_000, "fork", 8, 8, 7, None, None)
LOSS = Loss(1_000, "connector", 12)


def test_a_summary_counts_each_event_and_lost_messages() -> None:
    summary = Summary()
    summary.add([EXIT, EXIT._replace(status=0), SHORT, LOSS])
    assert json.loads(summary.json_line()) == {
        "event": "summary", "exit": 2, "nonzero_exit": 1, "fork": 1, "lost": 12,
    }  # fmt: skip
    assert summary.text() == "         2 exit\n         1 nonzero_exit\n         1 fork\n        12 lost\n"
