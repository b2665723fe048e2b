"""exporter/exposition/metrics.py: the table of metrics keeps the conventions."""

import re

import pytest
from expositions import (
    BY_NAME,
)

from exporter.exposition.metrics import METRICS
from exporter.exposition.spec import MetricSpec


def test_no_metric_is_there_twice() -> None:
    assert len(BY_NAME) == len(METRICS)
    assert len({spec.help for spec in METRICS}) == len(METRICS)


@pytest.mark.parametrize("spec", METRICS, ids=BY_NAME)
def test_a_metric_keeps_the_conventions(spec: MetricSpec) -> None:
    # https://prometheus.io/docs/practices/naming/; process_ and scrape_ at the front are others' (the name as
    # a whole begins with the exporter's).
    assert re.fullmatch(r"proc_connector_[a-z][a-z0-9]*(_[a-z0-9]+)*", spec.name)
    assert spec.type in {"counter", "gauge", "histogram"}
    assert spec.name.endswith("_total") == (spec.type == "counter")
    assert not re.search(r"_(count|sum|bucket|created)$", spec.name)
    assert not re.search(r"_(ns|us|ms|milliseconds|minutes|kib|kb|mb|percent)(_|$)", spec.name)
    if spec.type == "histogram":
        assert spec.name.endswith(("_seconds", "_bytes"))
    assert not {"le", "quantile", "type", "pid", "job", "instance"} & set(spec.labels)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", label) for label in spec.labels)
    assert len(set(spec.labels)) == len(spec.labels)
    assert spec.help.endswith(".")
    assert "\n" not in spec.help
    assert "\\" not in spec.help
