"""The demonstration's files fit together."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.demo import demo

HERE = Path(demo.__file__).parent


@pytest.mark.parametrize(
    ("slow", "fast"),
    [
        ("rate(x_total[5m])", "rate(x_total[5s])"),
        ("for: 15m", "for: 15s"),
        ("for: 0m", "for: 0s"),
        ("x offset 1d", "x offset 1440s"),
        ("x offset 80s", "x offset 1333ms"),
        ("> time() - 900)", "> time() - 15)"),
        ("instance:x:rate5m_p95_1d > 60 # a_15m", "instance:x:rate5m_p95_1d > 60 # a_15m"),
        ("within 15 minutes", "within 15 minutes"),
    ],
)
def test_rules_are_hurried(slow: str, fast: str) -> None:
    assert demo.hurried(slow, 60) == fast


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here (Debian: apt-get install prometheus)"
)
def test_promtool_takes_both_configurations(tmp_path: Path) -> None:
    made = tmp_path / "prometheus.yml"
    files = [HERE.parents[1] / "dashboards" / "rules" / name for name in ("recording.yaml", "alerts.yaml")]
    targets = {"here": "127.0.0.1:1", "node/here": "127.0.0.1:2"}
    made.write_text(demo.configuration(files, targets, alertmanager="127.0.0.1:3"))
    (tmp_path / "rules").symlink_to(HERE.parents[1] / "dashboards" / "rules")
    composed = tmp_path / "compose.yml"
    composed.write_text((HERE / "prometheus.yml").read_text())
    for config in (made, composed):
        result = subprocess.run(
            ["promtool", "check", "config", config], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stdout.count("rules found") == 2


def test_compose_mounts_what_there_is_where_it_is_looked_for() -> None:
    services = yaml.safe_load((HERE / "compose.yaml").read_text())["services"]
    mounts = {}
    for service in services.values():
        for volume in service.get("volumes", []):
            source, target, mode = volume.split(":")
            assert (HERE / source).exists(), source
            assert mode == "ro"
            mounts[target] = source
    provider = yaml.safe_load((HERE / "grafana/provisioning/dashboards/process-life.yaml").read_text())
    assert provider["providers"][0]["options"]["path"] in mounts
    home = Path(services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (HERE / mounts[str(home.parent)] / home.name).exists()
    source = yaml.safe_load((HERE / "grafana/provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ][0]
    listens = next(word for word in services["prometheus"]["command"] if "listen-address" in word)
    assert source["url"] == f"http://{listens.partition('=')[2]}"
    scraped = yaml.safe_load((HERE / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"][0]
    assert services["exporter"]["command"] == [f"--web.listen-address={scraped['targets'][0]}"]
