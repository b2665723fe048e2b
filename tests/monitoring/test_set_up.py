"""The settings and queries of the documentation, as the programs that they are for read them."""

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import promql_parser
import pytest
import yaml

from exporter.exposition.metrics import METRICS

ROOT = Path(__file__).parents[2]


def settings(page: str, key: str) -> str:
    """Return the block of YAML that has this key."""
    [block] = [found for found in blocks(page, "yaml") if key in yaml.safe_load(found)]
    return block


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [textwrap.dedent(found) for found in re.findall(rf"(?ms)^ *```{language}\n(.*?)^ *```", text)]


def test_a_federation_as_documented_has_all_that_fleet_reads(tmp_path: Path) -> None:
    documents = map(yaml.safe_load, blocks("docs/prometheus.md", "yaml"))
    [jobs] = [document for document in documents if isinstance(document, list)]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": jobs}))
    assert "SUCCESS" in check("promtool", "check", "config", tmp_path / "prometheus.yml")
    assert jobs[0]["honor_labels"]
    matches = [re.match(r'\{__name__=~?"([^"]+)"', match) for match in jobs[0]["params"]["match[]"]]
    passed = "|".join(match[1] for match in matches if match)
    dashboard = (ROOT / "dashboards/fleet.json").read_text(encoding="utf-8")
    names = r"\b(?:[a-z_]+:)?proc_connector[a-z_]*(?::[a-z0-9_]+)*|\bALERTS\w*|\bup(?={)"
    read = set(re.findall(names, dashboard))
    assert {"up", "ALERTS", "proc_connector_exporter_build_info", "instance:proc_connector_forks:rate5m"} <= read
    assert {name for name in read if not re.fullmatch(passed, name)} == set()


def check(*words: str | Path) -> str:
    tool = str(words[0])
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool} here (Debian: apt-get install prometheus prometheus-alertmanager)")
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.mark.parametrize("page", ["README.md", "docs/prometheus.md"])
def test_prometheus_takes_the_configuration_with_the_files_that_the_program_writes(
    page: str, tmp_path: Path
) -> None:
    command: list[str | Path] = [sys.executable, "-m", "exporter", "dashboards", "--output", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (tmp_path / "prometheus.yml").write_text(settings(page, "scrape_configs"))
    said = check("promtool", "check", "config", tmp_path / "prometheus.yml")
    assert "SUCCESS" in said
    assert said.count("rules found") == 2, said
    check("promtool", "check", "rules", *sorted((tmp_path / "rules").glob("*.yaml")))


def test_nodes_have_names_and_no_ports(tmp_path: Path) -> None:
    config = yaml.safe_load(settings("docs/prometheus.md", "scrape_configs"))
    [job] = config["scrape_configs"]
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump({"scrape_configs": [job]}))
    found = check("promtool", "check", "service-discovery", "--timeout=2s", file, job["job_name"])
    assert [target["labels"]["instance"] for target in json.loads(found)] == ["node-1", "node-2"]


def test_the_limit_of_samples_is_above_what_the_limit_of_series_allows() -> None:
    [job] = yaml.safe_load(settings("docs/prometheus.md", "scrape_configs"))["scrape_configs"]
    [most] = re.findall(r"([\d,]+) samples", (ROOT / "docs" / "kubernetes.md").read_text())
    assert int(most.replace(",", "")) < job["sample_limit"]


def test_alertmanager_takes_the_routes_and_sends_each_alert_where_they_say(tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(settings("docs/prometheus.md", "route"))
    assert "SUCCESS" in check("amtool", "check-config", file)
    for labels, receiver in (
        (("alertname=ProcessKilled", "severity=info"), "chat"),
        (("alertname=ProcessCrashed", "severity=warning"), "team"),
        (("alertname=ProcConnectorExporterDown", "severity=warning"), "team"),
        (("alertname=ProcessCrashLooping", "severity=warning", "namespace=shop", "pod=cart-0"), "team-shop"),
        (("alertname=ProcessCrashLooping", "severity=warning", "namespace=workshop"), "team"),
        (("alertname=ProcessKilled", "severity=info", "namespace=shop"), "chat"),
    ):
        said = check("amtool", "config", "routes", "test", f"--config.file={file}", *labels)
        # A second line warns that the file is used, and not a running Alertmanager.
        assert said.split()[0] == receiver


def test_grafanas_provisioning_is_that_of_the_demonstration() -> None:
    provisioning = ROOT / "deploy/demo/grafana/provisioning/dashboards/process-life.yaml"
    assert settings("docs/prometheus.md", "providers") == provisioning.read_text()


def test_prometheus_drops_buckets_by_the_rules_of_the_documentation_and_nothing_else(tmp_path: Path) -> None:
    text = settings("docs/scale.md", "metric_relabel_configs")
    (tmp_path / "prometheus.yml").write_text(f"scrape_configs:\n- job_name: a\n{textwrap.indent(text, '  ')}")
    assert "SUCCESS" in check("promtool", "check", "config", tmp_path / "prometheus.yml")
    exposed = (ROOT / "tests/golden/life.taskstats.prom").read_text()
    series = {
        (name, labels and labels.removeprefix('le="').removesuffix('"'))
        for name, labels in re.findall(r'(?m)^(\w+)(?:\{.*?(le="[^"]+")?\})? ', exposed)
    }
    whole, finer = yaml.safe_load(text)["metric_relabel_configs"]
    dropped = {f"{name};{le}" for name, le in series if re.fullmatch(finer["regex"], f"{name};{le}")}
    # As many bounds as the rule names.
    assert len(dropped) == finer["regex"].count("|") + 1
    assert {name for name, le in series if re.fullmatch(whole["regex"], name)} == {
        f"proc_connector_process_{kind}_bucket" for kind in ("cpu_seconds", "max_rss_bytes")
    }
    assert {rule["action"] for rule in (whole, finer)} == {"drop"}


@pytest.mark.parametrize("page", ["docs/numbers.md", "docs/kubernetes.md"])
def test_a_query_of_the_documentation_reads_metrics_that_there_are(page: str) -> None:
    [query] = blocks(page, "promql")
    promql_parser.parse(query)
    named = set(re.findall(r"proc_connector_\w+", query))
    assert named
    assert named <= {spec.name for spec in METRICS}
