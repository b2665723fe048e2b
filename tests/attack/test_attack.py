"""One million names that nobody has used before."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PROCESSES = 1_000_000
LIMIT = 10_000


@pytest.fixture(scope="module")
def outcome() -> dict[str, Any]:
    command = [sys.executable, str(HERE / "attack.py"), str(PROCESSES), str(LIMIT)]
    result = subprocess.run(
        command, capture_output=True, check=True, env={"PYTHONPATH": str(HERE.parent)}, timeout=600
    )
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.slow
def test_the_memory_stays_small(outcome: dict[str, Any]) -> None:
    assert outcome["peak_rss_mib"] < 128


@pytest.mark.slow
def test_every_event_is_counted(outcome: dict[str, Any]) -> None:
    assert outcome["malformed"] == []
    assert outcome["events"]["fork"] == outcome["events"]["comm"] == outcome["events"]["exit"] == PROCESSES
    assert (outcome["forks"], outcome["uid_changes"]) == (PROCESSES, PROCESSES)
    assert outcome["exits_are_exact"]
    assert outcome["histograms"] == [PROCESSES] * 3


@pytest.mark.slow
def test_no_metric_has_more_series_than_it_may_and_what_is_beyond_is_counted(outcome: dict[str, Any]) -> None:
    series, folded = outcome["series"], outcome["folded"]
    assert max(series.values()) <= LIMIT
    # Nearly all that there may be are given away; the rest is kept for <other>.
    for metric in ("exits_total", "process_lifetime_seconds", "process_cpu_seconds"):
        assert series[f"proc_connector_{metric}"] > 0.9 * LIMIT
        own = PROCESSES - folded[f"proc_connector_{metric}"]
        assert 0 < own < LIMIT
    assert outcome["others"] <= 65
    # So the work of a scrape is bounded, too.
    assert outcome["samples"] <= len(series) * (LIMIT + 3)
