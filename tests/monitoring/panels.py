"""The committed dashboards, read back: their panels and what these ask Prometheus."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[2] / "dashboards"
FILES = ("fleet", "node", "failures", "groups", "exporter")


def read(name: str) -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return dashboard


class Asked(NamedTuple):
    """One query of one panel."""

    dashboard: str
    panel: dict[str, Any]
    target: dict[str, Any]

    @property
    def expr(self) -> str:
        return str(self.target["expr"])

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.panel['title']} {self.target['refId']}"


def panels(name: str) -> list[dict[str, Any]]:
    """Return all panels, those of closed rows too."""
    every = [each for panel in read(name)["panels"] for each in (panel, *panel.get("panels", ()))]
    return [panel for panel in every if panel["type"] != "row"]


def queries() -> Iterator[Asked]:
    for name in FILES:
        for panel in panels(name):
            for target in panel["targets"]:
                yield Asked(name, panel, target)


def windows(*, shown_seconds: int, step_seconds: int) -> dict[str, str]:
    """Return what Grafana puts for its own variables."""
    return {
        "__range": f"{shown_seconds}s",
        "__range_s": f"{shown_seconds}",
        "__rate_interval": f"{4 * step_seconds}s",
        "__interval_ms": f"{1000 * step_seconds}",
    }


def interpolate(expr: str, values: Mapping[str, str]) -> str:
    """Put values for Grafana's variables; every other one is All."""
    for name in sorted(values, key=len, reverse=True):  # $__range_s is not $__range
        expr = expr.replace(f"${{{name}}}", values[name]).replace(f"${name}", values[name])
    # Without a value of its own a label may be absent.
    expr = re.sub(r"\$(namespace|pod|unit)\b", ".*", expr)
    return re.sub(r"\$[a-z]\w*", ".+", expr)  # $1 is a group of label_replace
