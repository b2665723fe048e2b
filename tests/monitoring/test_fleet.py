"""The simulated fleet's pages are those of honest exporters."""

import json
import re

import pytest
import yaml
from monitoring.panels import panels
from prometheus_client.parser import text_string_to_metric_families as parse

from dashboards.generate import recordings
from deploy.fleet.__main__ import configuration, minutes_late, queries
from deploy.fleet.history import history
from deploy.fleet.pages import Fleet

PAGE = """\
# TYPE proc_connector_forks_total counter
proc_connector_forks_total{comm="sh",uid="0"} 60
proc_connector_forks_total{comm="rare",uid="0"} 1
# TYPE proc_connector_process_lifetime_seconds histogram
proc_connector_process_lifetime_seconds_bucket{comm="sh",le="1.0"} 50
proc_connector_process_lifetime_seconds_bucket{comm="sh",le="+Inf"} 60
proc_connector_process_lifetime_seconds_count{comm="sh"} 60
proc_connector_process_lifetime_seconds_sum{comm="sh"} 30.5
proc_connector_processes{comm="sh"} 3
process_start_time_seconds 1
"""


def values(node: int, now: float) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in parse(Fleet(PAGE, 1000).page(node, now))
        for sample in family.samples
    }


def test_counters_grow_gauges_stay_and_the_start_is_that_of_the_fleet() -> None:
    before, after = values(1, 2000), values(1, 5000)
    living = ("proc_connector_processes", "sh", "ci", "runner-00001", "build", "")
    assert after[living] == before[living] == 3
    assert after["process_start_time_seconds",] == 1000
    grown = [name for name in before if after[name] > before[name]]
    assert any(name[0] == "proc_connector_forks_total" for name in grown)
    assert all(after[name] >= before[name] for name in before)


def test_a_program_runs_in_a_pod_of_the_node_or_in_none_and_only_counters_say_so() -> None:
    forks = {labels[1:] for labels in values(0x2F, 9000) if labels[0] == "proc_connector_forks_total"}
    assert ("sh", "0", "ci", "runner-0002f", "build", "") in forks
    assert {labels[2:] for labels in forks if labels[0].startswith("rare")} == {("", "", "", "")}
    counts = {labels for labels in values(3, 9000) if labels[0].endswith("_seconds_count")}
    assert counts == {("proc_connector_process_lifetime_seconds_count", "sh")}


def test_a_rare_series_is_born_late() -> None:
    def rare(now: float) -> set[str]:
        return {comm for name, comm, *_ in (n for n in values(1, now) if len(n) > 1) if comm.startswith("rare")}

    assert rare(1001) == set()
    assert len(rare(9000)) == 1


def test_nodes_differ_by_pace_and_by_programs() -> None:
    programs = {frozenset(name[1] for name in values(node, 9000) if len(name) > 1) for node in range(10)}
    assert len(programs) > 1
    counts = {
        values(node, 9000)["proc_connector_process_lifetime_seconds_count", "sh"] for node in range(0, 100, 10)
    }
    assert len(counts) > 5


def test_buckets_rise_to_the_count() -> None:
    told = values(3, 7777)
    name = "proc_connector_process_lifetime_seconds"
    first, last = told[f"{name}_bucket", "sh", "1.0"], told[f"{name}_bucket", "sh", "+Inf"]
    assert first <= last == told[f"{name}_count", "sh"]


def test_each_node_is_a_target_with_a_name() -> None:
    config = yaml.safe_load(configuration(30, 1, 2, []))
    assert json.loads(configuration(30, 1, 2, [])) == config
    nodes = config["scrape_configs"][0]["static_configs"]
    assert len({node["labels"]["instance"] for node in nodes}) == 30
    assert len({node["labels"]["__metrics_path__"] for node in nodes}) == 30


def test_all_queries_of_the_dashboard_are_asked() -> None:
    asked = list(queries())
    assert len(asked) == sum(len(panel["targets"]) for panel in panels("fleet"))
    assert not [expr for _, expr, _ in asked if "$" in expr]


@pytest.mark.parametrize(("theirs", "late"), [(9, 0), (8, 0), (7, 1), (5, 1), (4, 3), (0, None)], ids=str)
def test_how_late_a_server_is(theirs: int, late: int | None) -> None:
    assert minutes_late([1, 4, 5, 5, 8], theirs) == late


TARGETS = [{"job": "j", "instance": f"node-{node}", "pod": f"p{node}"} for node in range(2)]


def test_the_past_goes_on_without_a_gap() -> None:
    of_series: dict[str, list[int]] = {}
    for piece in history(TARGETS, 7200, 7200 + 4000):
        for labels, samples in piece:
            of_series.setdefault(json.dumps(labels, sort_keys=True), []).extend(time_ms for time_ms, _ in samples)
    assert len(of_series) > 2 * 10
    for times in of_series.values():
        assert times == list(range(7_200_000, 11_200_000, 60_000))


def test_the_past_is_what_the_rules_record_and_what_the_dashboard_asks_for() -> None:
    series = [labels for piece in history(TARGETS, 0, 60) for labels, _ in piece]
    names = {labels["__name__"] for labels in series}
    recorded = {recording.record for recording in recordings.all_recordings()}
    assert names - recorded == {"up", "proc_connector_canary_age_seconds"}
    # Rules sum the pod away.
    assert {labels["__name__"] for labels in series if "pod" in labels} == names - recorded
    asked = {name for _, expr, _ in queries() for name in re.findall(r"[a-z_]+:\w+:\w+", expr)}
    assert asked - names == {recordings.COREDUMPS, recordings.LOST}, "what does not happen on a good day"
