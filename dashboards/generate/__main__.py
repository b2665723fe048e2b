"""Writes all dashboards and rules: `python -m dashboards.generate [--runbooks URL] [--failures URL]`."""

import argparse
import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.generate import rules
from dashboards.generate.exporter import exporter
from dashboards.generate.failures import failures
from dashboards.generate.fleet import fleet
from dashboards.generate.groups import groups
from dashboards.generate.node import node

FOLDER = Path(__file__).parents[1]
# Helm follows no link out of a chart without a warning, and a copied chart would have lost its files.
CHART = FOLDER.parent / "helm" / "proc-connector-exporter" / "dashboards"


def generate(runbooks: str = "", failures_base: str = "") -> dict[Path, str]:
    """Return the text of every generated file by its path below this folder.

    Args:
        runbooks: The address of docs/runbooks, where readers of an alert find it; empty for no address.
        failures_base: The address of an alert's exporter; see rules.alerts_yaml.
    """
    dashboards = {
        "fleet": fleet(),
        "node": node(),
        "failures": failures(),
        "groups": groups(),
        "exporter": exporter(),
    }
    texts = {
        Path(f"{name}.json"): json.dumps(made, cls=JSONEncoder, sort_keys=True, indent=2) + "\n"
        for name, made in dashboards.items()
    }
    return texts | {
        Path("rules/recording.yaml"): rules.recording_yaml(),
        Path("rules/alerts.yaml"): rules.alerts_yaml(runbooks, failures=failures_base),
        Path("thresholds.yaml"): rules.thresholds_yaml(),
    }


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runbooks", default="", help="what runbook_url begins with; it is left out otherwise")
    parser.add_argument("--failures", default="", help="what failures_url begins with; it is left out otherwise")
    given = parser.parse_args()
    for path, text in generate(given.runbooks, given.failures).items():
        (FOLDER / path).write_text(text, encoding="utf-8")
        (CHART / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
