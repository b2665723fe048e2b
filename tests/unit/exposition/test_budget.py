"""exporter/exposition/budget.py: series are counted as they are written."""

import re
from collections import Counter

from expositions import (
    crowded_snapshot,
    each_snapshot,
    parsed,
    samples,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.exposition.budget import budget
from exporter.exposition.metrics import CPU, LIFETIME, MAX_RSS
from exporter.exposition.render import render
from exporter.exposition.snapshot import TallySnapshot
from exporter.tallies.labels import OTHER


@each_snapshot
def test_series_are_as_many_as_there_are(snapshot: TallySnapshot) -> None:
    lines = "".join(render(snapshot, openmetrics=False)).splitlines()
    names = [re.sub(r"_(bucket|count|sum)$", "", line.partition("{")[0]) for line in lines if line[0] != "#"]
    written = budget(snapshot)
    assert {name: count for name, count in written.series.items() if count} == {
        name: count for name, count in Counter(names).items() if name in written.series
    }
    assert set(written.series) == {spec.name for spec in snapshot.shown}
    assert set(written.limit.values()) == {snapshot.limit}
    assert max(written.series.values()) <= snapshot.limit


def test_what_is_folded_is_what_was_counted_under_other() -> None:
    found = parsed("".join(render(crowded_snapshot(), openmetrics=False)), parse_text)
    folded = {labels["metric"]: value for _, labels, value in samples(found, "proc_connector_folded")}
    for name in ("forks", "exits", "nonzero_exits"):
        others = [
            value
            for _, labels, value in samples(found, f"proc_connector_{name}")
            if OTHER in (labels["comm"], labels["uid"])
        ]
        assert folded[f"proc_connector_{name}_total"] == sum(others) > 0
    for spec in (LIFETIME, CPU, MAX_RSS):
        [count] = [
            value
            for kind, labels, value in samples(found, spec.name)
            if kind.endswith("_count") and labels["comm"] == OTHER
        ]
        assert folded[spec.name] == count > 0
    assert "proc_connector_processes" not in folded
