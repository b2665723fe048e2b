"""An upgrade rolls the pods when something that they use has changed, and by nothing else."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from charts.rendering import CHART, render, scenario

RULES = {"comm": [{"match": "a.*", "drop": True}]}
OTHER_RULES = {"comm": [{"match": "b.*", "drop": True}]}


def template_of(values: Mapping[str, Any], chart: Path = CHART) -> object:
    """Return what Kubernetes compares to decide whether pods are rolled."""
    return render(values, chart).pod


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({}, {"mode": "unprivileged"}, id="the mode"),
        pytest.param({}, {"image": {"tag": "0.2.0"}}, id="the image"),
        pytest.param({}, {"service": {"port": 9999}}, id="the port"),
        pytest.param({}, {"exporter": {"events": ["exit"]}}, id="an argument"),
        pytest.param({}, {"config": {"inline": RULES}}, id="rules that were not there"),
        pytest.param({"config": {"inline": RULES}}, {"config": {"inline": OTHER_RULES}}, id="other rules"),
        pytest.param({}, {"webConfig": {"existingSecret": "web"}}, id="a web configuration"),
        pytest.param({}, {"podLabels": {"a": "b"}}, id="a label of theirs"),
    ],
)
def test_pods_are_rolled_by_what_they_use(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    assert template_of(before) != template_of(after)


@pytest.mark.parametrize(
    "after",
    [
        pytest.param({"serviceMonitor": {"enabled": True, "interval": "30s"}}, id="a monitor"),
        pytest.param({"prometheusRule": {"enabled": True}}, id="alerts"),
        pytest.param({"dashboards": {"enabled": True}}, id="dashboards"),
        pytest.param({"networkPolicy": {"enabled": True}}, id="a network policy"),
        pytest.param({"service": {"annotations": {"a": "b"}, "labels": {"c": "d"}}}, id="the service's metadata"),
        pytest.param({"serviceAccount": {"annotations": {"a": "b"}}}, id="the service account's metadata"),
        pytest.param({"updateStrategy": {"type": "OnDelete"}}, id="how they are rolled"),
    ],
)
def test_pods_are_not_rolled_by_what_they_do_not_use(after: Mapping[str, Any]) -> None:
    before = {"config": {"inline": RULES}}
    assert template_of(before) == template_of({**before, **after})


def test_the_order_of_rules_written_otherwise_rolls_nothing() -> None:
    one = {"config": {"inline": {"comm": [], "exclude": {"uid": [1], "comm": ["a"]}}}}
    other = {"config": {"inline": {"exclude": {"comm": ["a"], "uid": [1]}, "comm": []}}}
    assert template_of(one) == template_of(other)


def test_a_new_version_of_the_chart_rolls_nothing(tmp_path: Path) -> None:
    newer = tmp_path / "proc-connector-exporter"
    shutil.copytree(CHART, newer)
    chart = newer / "Chart.yaml"
    chart.write_text(chart.read_text(encoding="utf-8").replace("\nversion: ", "\nversion: 9"), encoding="utf-8")
    values = scenario("exporter-settings")
    old, new = render(values), render(values, newer)
    assert old.one("DaemonSet")["metadata"] != new.one("DaemonSet")["metadata"]
    assert old.pod == new.pod
