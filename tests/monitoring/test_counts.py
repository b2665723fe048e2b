"""What increments and the dashboards' queries say of given scrapes: promtool evaluates them, minute by minute."""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from monitoring.panels import FILES, interpolate, panels, queries, read, windows
from monitoring.promtool import RULES
from monitoring.stories import BUILD
from monitoring.test_dashboards import FOREIGN, RECORDED, SAMPLES

from dashboards.generate import recordings
from dashboards.generate.queries import BUILD_INFO, counted
from exporter.exposition.self_metrics import SELF_METRICS

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here (Debian: apt-get install prometheus)"
)

NODE = 'job="proc-connector-exporter",instance="a"'
UP = f"up{{{NODE}}}"


def host(build: str, started: str, node: str = NODE) -> dict[str, str]:
    return {
        f"proc_connector_exporter_build_info{{{node},{BUILD}}}": build,
        f"process_start_time_seconds{{{node}}}": started,
    }


HEALTHY = host("1x200", "-100000x200")
SCRAPE_FAILED_AT_60 = host("1x59 stale 1x200", "-100000x59 stale -100000x200")
UNSCRAPED_FROM_50_TO_70 = host("1x49 stale _x19 1x200", "-100000x49 stale _x19 -100000x200")
EVERY_OTHER_SCRAPE_FAILS = host(" ".join(["1", "stale"] * 60), " ".join(["-100000", "stale"] * 60))
UNSCRAPED_FROM_66_TO_80 = host("1x65 stale _x13 1x200", "-100000x65 stale _x13 -100000x200")
RESTARTED_UNSEEN_FROM_66_TO_80 = host("1x65 stale _x13 1x200", "-100000x65 stale _x13 4600x200")
RESTARTED_AT_70 = host("1x69 stale 1x200", "-100000x69 stale 4200x200")
NEW_AT_70 = host("_x70 1x200", "_x70 4190x200")
OLD_BUT_FIRST_SCRAPED_AT_70 = host("_x70 1x200", "_x70 -100000x200")


Expected = Mapping[str, list[tuple[str, float]]]
"""The labels and values that an expression gives."""


def answer(
    folder: Path,
    series: Mapping[str, str],
    expected: Expected,
    at: str,
    *,
    rules: Sequence[Path] = (),
    interval: str = "1m",
) -> str:
    """Return what promtool has to say of these expressions, nothing if they give what is expected."""
    file = folder / "test.yaml"
    evaluated = [
        {
            "expr": expr,
            "eval_time": at,
            "exp_samples": [{"labels": labels, "value": value} for labels, value in samples],
        }
        for expr, samples in expected.items()
    ]
    story = {
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": evaluated,
    }
    file.write_text(
        yaml.safe_dump({"rule_files": list(map(str, rules)), "evaluation_interval": "1m", "tests": [story]})
    )
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


class Case(NamedTuple):
    """The values of a counter, minute by minute, and what it counted in the shown time that ends at minute 90."""

    name: str
    values: str
    counted: float
    world: dict[str, str] = HEALTHY
    shown_minutes: int = 30
    at: str = "90m"


CASES = (
    Case("what was there before counts as it grows", "100+2x200", 60),
    Case("what stood still counts nothing", "7x200", 0),
    Case("a birth counts what it is born at", "_x70 3x200", 3),
    Case("a birth and what follows", "_x70 3 5x200", 5),
    Case("a birth long ago counts nothing", "_x30 3x200", 0),
    Case("one is not one and a quarter", "7x87 8x200", 1, shown_minutes=5, at="90m30s"),
    Case("what the first scrape of the shown time brings", "7x85 8x200", 1, shown_minutes=5, at="90m30s"),
    Case("a restart and a birth within a minute", "_x70 2x200", 2, RESTARTED_AT_70),
    Case(
        "every other scrape fails",
        f"{' '.join(['7', 'stale'] * 35)} {' '.join(['9', 'stale'] * 15)}",
        2,
        EVERY_OTHER_SCRAPE_FAILS,
    ),
    Case("a scrape that failed at the beginning makes nothing new", "7x59 stale 7x200", 0, SCRAPE_FAILED_AT_60),
    Case("nor does it hide a birth", "_x62 4x200", 4, SCRAPE_FAILED_AT_60),
    Case("nobody looked at the beginning", "7x49 stale _x19 9x200", 0, UNSCRAPED_FROM_50_TO_70),
    Case(
        "nobody looked in between: when is unknown, but not how often",
        "7x65 stale _x13 12x200",
        5,
        UNSCRAPED_FROM_66_TO_80,
    ),
    Case("born while nobody looked", "_x80 12x200", 12, UNSCRAPED_FROM_66_TO_80),
    Case("restarted while nobody looked", "7x65 stale _x13 12x200", 12, RESTARTED_UNSEEN_FROM_66_TO_80),
    Case("a restart goes on from 0", "50x69 stale 2x200", 2, RESTARTED_AT_70),
    Case("even if it goes on from where it was", "_x30 1x39 stale 1x200", 1, RESTARTED_AT_70),
    Case("or from more", "5x69 stale 8x200", 8, RESTARTED_AT_70),
    Case("what was before and what came after a restart", "50x64 60x4 stale 2x200", 12, RESTARTED_AT_70),
    Case("what ended before a restart and not since", "_x65 1x4 stale", 1, RESTARTED_AT_70),
    Case("a new exporter tells of its own life", "_x70 3x200", 3, NEW_AT_70),
    Case(
        "a restart in another cluster is not ours",
        "50x200",
        0,
        HEALTHY | host("1x69 stale 1x200", "-100000x69 stale 4200x200", f'{NODE},cluster="west"'),
    ),
    Case("a past that nobody scraped is unknown", "_x70 500 501x200", 1, OLD_BUT_FIRST_SCRAPED_AT_70),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_increments_add_up_to_what_was_counted(case: Case, tmp_path: Path) -> None:
    # A second less: before Prometheus 3 both ends belong to a range.
    shown = f"{60 * case.shown_minutes - 1}s"
    whole = f"sum({counted(recordings.COREDUMPS_EACH, NODE, window=shown)}) or vector(0)"
    series = {f'proc_connector_coredumps_total{{{NODE},comm="x",uid="0"}}': case.values} | case.world
    expected: Expected = {whole: [("{}", case.counted)]}
    assert answer(tmp_path, series, expected, case.at, rules=[RULES / "recording.yaml"]) == ""


def test_an_increment_is_there_only_where_something_happened(tmp_path: Path) -> None:
    """So that a rule of increments costs next to nothing for all that stands still."""
    series = {f'proc_connector_coredumps_total{{{NODE},comm="x",uid="0"}}': "7x80 8x200"} | HEALTHY
    counts = f"count_over_time({recordings.COREDUMPS_EACH}[90m])"
    expected: Expected = {counts: [(f'{{{NODE},comm="x",uid="0"}}', 1)]}
    assert answer(tmp_path, series, expected, "90m", rules=[RULES / "recording.yaml"]) == ""


def expr_of(dashboard: str, title: str, target: int = 0) -> str:
    panel = next(panel for panel in panels(dashboard) if panel["title"] == title)
    return interpolate(panel["targets"][target]["expr"], windows(shown_seconds=1800, step_seconds=60))


@pytest.mark.parametrize(
    ("up", "shown"),
    [({}, -1), ({UP: "1x200"}, 0), ({UP: "0x200"}, 1), ({UP: "1x49 stale"}, -1)],
    ids=["never scraped", "up", "down", "gone from the service discovery"],
)
def test_no_exporter_at_all_is_not_a_fleet_that_is_well(up: dict[str, str], shown: int, tmp_path: Path) -> None:
    assert answer(tmp_path, up, {expr_of("fleet", "Down"): [("{}", shown)]}, "90m") == ""
    (panel,) = (panel for panel in panels("fleet") if panel["title"] == "Down")
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    assert mapping["options"]["-1"]["text"] == "absent"
    assert mapping["options"]["-1"]["color"] == "red"


def in_job(job: str, instance: str) -> str:
    return f'job="{job}",instance="{instance}"'


def test_only_exporters_are_nodes_whatever_else_is_in_their_job(tmp_path: Path) -> None:
    """Two hosts of a job, each with a node_exporter; one has lost both, an hour ago."""
    up, lost = "1x200", "1x29 stale"
    series = {
        f"up{{{in_job('hosts', 'a:10061')}}}": "1x200",
        f"up{{{in_job('hosts', 'a:9100')}}}": "1x200",
        f"up{{{in_job('hosts', 'b:10061')}}}": "1x29 0x200",
        f"up{{{in_job('hosts', 'b:9100')}}}": "1x29 0x200",
        f"proc_connector_exporter_build_info{{{in_job('hosts', 'a:10061')},{BUILD}}}": up,
        f"proc_connector_exporter_build_info{{{in_job('hosts', 'b:10061')},{BUILD}}}": lost,
    }
    states = [(f"{{{in_job('hosts', 'a:10061')}}}", 1.0), (f"{{{in_job('hosts', 'b:10061')}}}", 0.0)]
    [table] = [panel for panel in panels("fleet") if (panel["title"], panel["type"]) == ("Nodes", "table")]
    expected: Expected = {
        expr_of("fleet", "Nodes"): [("{}", 2)],
        expr_of("fleet", "Down"): [("{}", 1)],
        interpolate(table["targets"][0]["expr"], windows(shown_seconds=1800, step_seconds=60)): states,
    }
    assert answer(tmp_path, series, expected, "90m", rules=[RULES / "recording.yaml"]) == ""


class OfHost(NamedTuple):
    """What node_exporter says of OOM kills every 15 seconds, and how many there were in an hour."""

    name: str
    values: str
    killed: float
    build: str = "1x400"


OF_HOST = (
    OfHost("kills of long ago count nothing", "7x400", 0),
    OfHost("each kill counts once", "7x100 8x99 10x200", 3),
    OfHost("a reboot is no kill", "7x100 0x300", 0),
    OfHost("a reboot and what was killed since the last scrape before the next", "7x100 2x300", 2),
    OfHost("a reboot and what is killed later", "7x100 0x99 3x200", 3),
    OfHost("killed just before a reboot, and just after it", "7x99 9x0 stale _x5 0x1 1x300", 3),
    OfHost("killed in the minute of a reboot of a second", "7x99 9x1 1x300", 3),
    OfHost(
        "killed before a reboot that takes the exporter too",
        "7x99 9x1 stale _x10 1x300",
        3,
        build="1x101 stale _x12 1x300",
    ),
    OfHost("the last of a minute fails", "7x100 8 stale 8x300", 1),
    OfHost("a host that was not watched before", "_x100 5x300", 0),
)


def test_kills_of_a_host_add_up_over_its_reboots(tmp_path: Path) -> None:
    """Whenever within a minute it happens: each case begins at four phases of it."""
    rules = tmp_path / "rules.yaml"
    [rule] = (rule.rule() for rule in recordings.INCREMENTS if rule.record == recordings.OOM_KILLS_EACH)
    rules.write_text(yaml.safe_dump({"groups": [{"name": "increments", "interval": "1m", "rules": [rule]}]}))
    series, killed = {}, []
    for case in OF_HOST:
        for phase in range(4):
            host_name = f"{case.name.replace(' ', '-')}-{phase}"
            earlier = f"_x{phase} "
            target = in_job("proc", f"{host_name}:10061")
            series[f"node_vmstat_oom_kill{{{in_job('node', f'{host_name}:9100')}}}"] = earlier + case.values
            series[f"proc_connector_exporter_build_info{{{target},{BUILD}}}"] = earlier + case.build
            if case.killed:
                killed.append((f"{{{target}}}", case.killed))
    assert len(killed) == 4 * sum(case.killed > 0 for case in OF_HOST)
    expected: Expected = {f"sum by (job, instance) (sum_over_time({recordings.OOM_KILLS_EACH}[95m]))": killed}
    assert answer(tmp_path, series, expected, "95m", rules=[rules], interval="15s") == ""


def test_nothing_is_0_where_nobody_counts(tmp_path: Path) -> None:
    zeros = [asked.expr for asked in queries() if asked.panel["type"] == "stat" and asked.panel["title"] != "Down"]
    values = windows(shown_seconds=1800, step_seconds=60)
    nothing: dict[str, list[tuple[str, float]]] = {interpolate(expr, values): [] for expr in zeros}
    nothing[expr_of("fleet", "Nodes")] = [("{}", 0)]
    assert answer(tmp_path, {}, nothing, "90m") == ""


@pytest.mark.parametrize("name", FILES)
def test_the_alert_that_nobody_is_there_is_drawn(name: str, tmp_path: Path) -> None:
    alert = 'alertname="ProcConnectorExporterAbsent",severity="warning"'
    firing = f'ALERTS{{alertstate="firing",{alert}}}'
    (annotation,) = read(name)["annotations"]["list"]
    expected: Expected = {
        interpolate(annotation["expr"], {}): [(firing, 1)],
        expr_of("fleet", "Firing alerts"): [(f"{{{alert}}}", 1)],
        expr_of("fleet", "Firing alerts", 1): [(f"{{{alert}}}", 3_000_000)],
    }
    series = {firing: "1x200", f"ALERTS_FOR_STATE{{{alert}}}": "3000x200"}
    assert answer(tmp_path, series, expected, "90m") == ""


def test_all_alerts_that_fire_are_in_the_table_those_without_a_state_too(tmp_path: Path) -> None:
    """vmalert writes ALERTS_FOR_STATE only of alerts that are pending first."""
    crashed, looping, over = (
        f'alertname="{name}",severity="warning",{NODE},comm="app"'
        for name in ("ProcessCrashed", "ProcessCrashLooping", "ProcessKilled")
    )
    series = {
        f'ALERTS{{alertstate="firing",{crashed}}}': "_x79 1x200",
        f'ALERTS{{alertstate="pending",{looping}}}': "1x200",
        f"ALERTS_FOR_STATE{{{looping}}}": "3000x200",
        f'ALERTS{{alertstate="firing",{over}}}': "1x80 stale",
    }
    found = [('{alertname="ProcessCrashed",severity="warning",instance="a",comm="app"}', 1.0)]
    assert answer(tmp_path, series, {expr_of("fleet", "Firing alerts"): found}, "90m") == ""


def test_no_query_fails_where_two_clusters_have_the_same_nodes(tmp_path: Path) -> None:
    known: dict[str, Any] = SAMPLES | FOREIGN | {record: {"signal", "comm"} for record in RECORDED}
    series = {}
    for cluster in ("east", "west"):
        for name, names in known.items():
            labels = {label: f"{label} of {cluster}" for label in names - {"event", "source", "le"}}
            for le in ("1.0", "+Inf") if "le" in names else ("",):
                for event in ("fork", "exit") if "event" in names else ("",):
                    for source in ("events", "kernel") if "source" in names else ("",):
                        every = labels | {"cluster": cluster, "le": le, "event": event, "source": source}
                        text = ",".join(f'{label}="{value}"' for label, value in every.items() if value)
                        series[f"{name}{{{NODE},{text}}}"] = "0+1x200"
    values = windows(shown_seconds=1800, step_seconds=60)
    exprs: Expected = {interpolate(asked.expr, values): [] for asked in queries()}
    said = answer(tmp_path, series, exprs, "90m")
    assert said, "all of them give something, which nobody expects here"
    assert re.findall(r"err: (.*)", said) == []


def test_the_nodes_of_the_stories_have_every_label_of_the_build() -> None:
    [build] = [spec for spec in SELF_METRICS if spec.name == BUILD_INFO]
    assert tuple(re.findall(r"(\w+)=", BUILD)) == build.labels
