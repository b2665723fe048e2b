"""Dashboards and rules come out of the chart as they went in, but for what the user changes by name."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts.rendering import CHART, ROOT, Object, Rendered, render
from helm_python import HelmRenderError

from dashboards.generate.rules import alerts_yaml

DASHBOARD = {
    "title": "{{comm}} and $__rate_interval",
    "uid": "a",
    "panels": [{"legendFormat": "{{ $labels.comm }}"}],
}
RECORDING = """
groups:
- name: rates
  interval: 30s
  rules:
  - record: instance:forks:rate5m
    expr: sum without (event) (rate(proc_connector_events_total{event="fork"}[5m]))
"""
ALERTS = r"""
groups:
- name: trust
  rules:
  - alert: Late
    expr: |-
      proc_connector_canary_age_seconds
        > 60 # canary_late_seconds
    for: 1m
    labels: {severity: warning}
    annotations:
      summary: '{{ $labels.instance }} is late by {{ $value | humanizeDuration }}'
  - alert: Lost
    expr: 'lost > 0 # messages_lost'
    labels: {severity: critical}
- name: programs
  rules:
  - alert: Failed
    expr: |-
      failed{
        comm!~
          "[[]|te\\st.*|false" # ignored
      } >= 2.5e+1 # failures
    annotations: {description: '{{ printf "%s" $labels.comm }}'}
"""


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """The chart with dashboards and rules that the tests know."""
    copy = tmp_path / "proc-connector-exporter"
    shutil.copytree(CHART, copy, ignore=shutil.ignore_patterns("dashboards"))
    rules = copy / "dashboards" / "rules"
    rules.mkdir(parents=True)
    (copy / "dashboards" / "Some_Name.json").write_text(json.dumps(DASHBOARD, indent=2) + "\n", encoding="utf-8")
    (rules / "recording.yaml").write_text(RECORDING, encoding="utf-8")
    (rules / "alerts.yaml").write_text(ALERTS, encoding="utf-8")
    return copy


def groups(chart: Path, **values: object) -> dict[str, Any]:
    """Return the groups of the rule object by name."""
    rule = render({"prometheusRule": {"enabled": True, **values}}, chart).one("PrometheusRule")
    return {group["name"]: group for group in rule["spec"]["groups"]}


def alerts(chart: Path, **values: object) -> dict[str, Any]:
    rules = [rule for group in groups(chart, **values).values() for rule in group["rules"]]
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


def source(text: str) -> dict[str, Any]:
    return {group["name"]: group for group in yaml.safe_load(text)["groups"]}


def test_rules_come_out_as_they_went_in(chart: Path) -> None:
    assert groups(chart) == source(RECORDING) | source(ALERTS)


def test_recording_rules_and_groups_can_be_left_out(chart: Path) -> None:
    assert groups(chart, recording=False) == source(ALERTS)
    assert groups(chart, disabledGroups=["programs"]).keys() == {"rates", "trust"}


def test_an_alert_is_changed_by_its_name(chart: Path) -> None:
    before = alerts(chart)
    change = {"severity": "page", "for": "10m", "labels": {"a": "b"}, "annotations": {"runbook": "{{ $value }}"}}
    after = alerts(chart, alerts={"Late": change})
    assert after.pop("Late") == {
        **before.pop("Late"),
        "for": "10m",
        "labels": {"severity": "page", "a": "b"},
        "annotations": source(ALERTS)["trust"]["rules"][0]["annotations"] | {"runbook": "{{ $value }}"},
    }
    assert after == before


def test_an_alert_is_left_out_by_its_name_and_its_group_with_the_last(chart: Path) -> None:
    assert alerts(chart, alerts={"Late": {"enabled": False}}).keys() == {"Lost", "Failed"}
    assert alerts(chart, alerts={"Late": {"enabled": True}}) == alerts(chart)
    assert "programs" not in groups(chart, alerts={"Failed": {"enabled": False}})


def test_labels_and_annotations_for_all_alerts_never_replace_their_own(chart: Path) -> None:
    after = alerts(chart, alertLabels={"severity": "none", "team": "sre"}, alertAnnotations={"summary": "none"})
    assert {name: rule["labels"] for name, rule in after.items()} == {
        "Late": {"severity": "warning", "team": "sre"},
        "Lost": {"severity": "critical", "team": "sre"},
        "Failed": {"severity": "none", "team": "sre"},
    }
    assert after["Late"]["annotations"] == alerts(chart)["Late"]["annotations"]
    assert after["Lost"]["annotations"] == {"summary": "none"}


@pytest.mark.parametrize(
    ("name", "value", "alert", "line"),
    [
        ("canary_late_seconds", 120, "Late", "> 120 # canary_late_seconds"),
        ("messages_lost", 0.5, "Lost", "lost > 0.5 # messages_lost"),
        ("failures", 0, "Failed", ">= 0 # failures"),
        ("ignored", 'a|b$1<\\d"', "Failed", r'"a|b$1<\\d\"" # ignored'),
    ],
)
def test_a_threshold_is_changed_by_its_name(chart: Path, name: str, value: object, alert: str, line: str) -> None:
    before, after = alerts(chart), alerts(chart, thresholds={name: value})
    assert line in after[alert]["expr"]
    changed = [old for old, new in zip(_lines(before[alert]), _lines(after[alert]), strict=True) if old != new]
    assert len(changed) == 1
    assert {**after[alert], "expr": ""} == {**before[alert], "expr": ""}
    assert {key: rule for key, rule in after.items() if key != alert} == {
        key: rule for key, rule in before.items() if key != alert
    }


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("failures", "3", "thresholds.failures must be a number, as in: 2.5e[+]1 # failures"),
        ("ignored", 3, "thresholds.ignored must be a regular expression, as in: "),
        ("ignored", "a(", "missing closing"),
    ],
)
def test_a_threshold_of_another_kind_is_refused(chart: Path, name: str, value: object, words: str) -> None:
    with pytest.raises(HelmRenderError, match=words):
        groups(chart, thresholds={name: value})


@pytest.mark.parametrize("name", [".*", "failures|ignored", "fail.res", "failures("])
def test_a_threshold_is_found_by_its_name_and_by_no_expression(chart: Path, name: str) -> None:
    with pytest.raises(HelmRenderError, match="no rule has a threshold"):
        groups(chart, thresholds={name: 1})


def job_matchers(rendered: Rendered) -> list[str]:
    rules = [rule for group in rendered.one("PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    matchers = re.findall(r'"(.*)" # exporter_jobs$', "\n".join(rule["expr"] for rule in rules), re.MULTILINE)
    assert matchers
    return matchers


@pytest.mark.parametrize("name", ["", "processes", "e1"])
@pytest.mark.parametrize("monitor", ["serviceMonitor", "podMonitor"])
def test_alerts_know_the_job_whatever_it_is_called(name: str, monitor: str) -> None:
    rendered = render({"nameOverride": name, monitor: {"enabled": True}, "prometheusRule": {"enabled": True}})
    [found] = rendered.of_kind("ServiceMonitor") + rendered.of_kind("PodMonitor")
    target = rendered.one("Service") if monitor == "serviceMonitor" else rendered.pod
    job = target["metadata"]["labels"][found["spec"]["jobLabel"]]
    assert all(re.fullmatch(matcher, job) for matcher in job_matchers(rendered))


def test_a_matcher_of_jobs_that_is_given_stays() -> None:
    rules = {"enabled": True, "thresholds": {"exporter_jobs": "nodes-.*"}}
    rendered = render({"nameOverride": "processes", "prometheusRule": rules})
    assert set(job_matchers(rendered)) == {"nodes-.*"}


@pytest.mark.parametrize("base", ["https://example.com/a", "https://example.com/a/"])
def test_runbooks_can_be_where_the_user_says(chart: Path, base: str) -> None:
    late = alerts(chart, runbookUrlBase=base)["Late"]["annotations"]
    assert late["runbook_url"] == "https://example.com/a/Late.md"
    assert alerts(chart, runbookUrlBase=base)["Lost"]["annotations"] == {
        "runbook_url": "https://example.com/a/Lost.md"
    }
    assert "annotations" not in alerts(chart)["Lost"]
    mine = {"Late": {"annotations": {"runbook_url": "https://example.org"}}}
    assert (
        alerts(chart, runbookUrlBase=base, alerts=mine)["Late"]["annotations"]["runbook_url"]
        == "https://example.org"
    )


@pytest.mark.parametrize("base", ["http://{{ $labels.instance }}:10061", "http://{{ $labels.instance }}:10061/"])
def test_alerts_of_programs_lead_to_their_failures_as_those_of_generated_rules_do(base: str) -> None:
    rendered = render({"prometheusRule": {"enabled": True, "failuresUrlBase": base}})
    generated = yaml.safe_load(alerts_yaml("", failures=base.removesuffix("/")))
    there, wanted = (
        {
            rule["alert"]: rule["annotations"].get("failures_url")
            for group in of["groups"]
            for rule in group["rules"]
            if "alert" in rule
        }
        for of in (rendered.one("PrometheusRule")["spec"], generated)
    )
    assert there == wanted
    assert None in wanted.values()
    assert len(set(wanted.values())) > 1
    without = render({"prometheusRule": {"enabled": True}})
    assert "failures_url" not in str(without.one("PrometheusRule"))


def _lines(rule: Object) -> list[str]:
    expression: str = rule["expr"]
    return expression.splitlines()


def test_a_name_that_is_not_there_is_answered_with_those_that_are(chart: Path) -> None:
    with pytest.raises(HelmRenderError, match="there is no alert Lat; there are Late, Lost, Failed"):
        groups(chart, alerts={"Lat": {}})
    with pytest.raises(HelmRenderError, match="there is no group tru; there are rates, trust, programs"):
        groups(chart, disabledGroups=["tru"])
    with pytest.raises(HelmRenderError, match="no rule has a threshold late"):
        groups(chart, thresholds={"late": 1})


def test_a_dashboard_comes_out_to_the_letter_for_the_sidecar_and_for_the_operator(chart: Path) -> None:
    rendered = render({"dashboards": {"enabled": True}, "grafanaDashboard": {"enabled": True}}, chart)
    text = (chart / "dashboards" / "Some_Name.json").read_text(encoding="utf-8")
    config_map = rendered.one("ConfigMap")
    assert config_map["data"] == {"Some_Name.json": text}
    assert config_map["metadata"]["name"] == "test-proc-connector-exporter-some-name"
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert rendered.one("GrafanaDashboard")["spec"]["json"] == text


def test_a_chart_without_dashboards_and_rules_has_none_of_these_objects(chart: Path) -> None:
    shutil.rmtree(chart / "dashboards")
    values = {name: {"enabled": True} for name in ("dashboards", "grafanaDashboard", "prometheusRule")}
    kinds = {found["kind"] for found in render(values, chart).objects}
    assert kinds == {found["kind"] for found in render({}, chart).objects}


def test_the_projects_own_are_delivered_whole() -> None:
    values = {name: {"enabled": True} for name in ("dashboards", "grafanaDashboard", "prometheusRule")}
    rendered = render(values)
    files = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "dashboards").glob("*.json")}
    delivered = [found["data"] for found in rendered.of_kind("ConfigMap")]
    assert {name: text for data in delivered for name, text in data.items()} == files
    assert sorted(found["spec"]["json"] for found in rendered.of_kind("GrafanaDashboard")) == sorted(
        files.values()
    )
    names = [ROOT / "dashboards" / "rules" / name for name in ("recording.yaml", "alerts.yaml")]
    rules = [group for path in names if path.exists() for group in yaml.safe_load(path.read_text())["groups"]]
    assert [group for found in rendered.of_kind("PrometheusRule") for group in found["spec"]["groups"]] == rules


def test_the_readmes_example_changes_the_alerts_that_it_names() -> None:
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(r"(?ms)^```yaml\n(.*?)^```", readme)
    [rule] = render(yaml.safe_load(block)).of_kind("PrometheusRule")
    alerts = {
        found["alert"]: found for group in rule["spec"]["groups"] for found in group["rules"] if "alert" in found
    }
    lost = alerts["ProcConnectorMessagesLost"]
    assert (lost["labels"]["severity"], lost["for"]) == ("page", "10m")
    assert lost["annotations"]["runbook_url"].startswith(
        "https://git.example.com/proc-connector-exporter/docs/runbooks/"
    )
    assert "ProcConnectorExporterAbsent" not in alerts
    assert "120 # canary_late_seconds" in alerts["ProcConnectorCanaryLate"]["expr"]
