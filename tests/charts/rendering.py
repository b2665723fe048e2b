"""The chart as Helm's own engine renders it, in this process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import helm_python as helm
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "proc-connector-exporter"
SCENARIOS = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}
RELEASE, NAMESPACE = "test", "monitoring"

Object = dict[str, Any]


class Rendered(NamedTuple):
    """What a values file makes of the chart.

    Attributes:
        files: Text by the template's path in the chart.
        objects: Every object, the test's pod too.
    """

    files: dict[str, str]
    objects: list[Object]

    def of_kind(self, kind: str) -> list[Object]:
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str) -> Object:
        [found] = self.of_kind(kind)
        return found

    @property
    def pod(self) -> Object:
        """The template of the exporter's pods."""
        template: Object = self.one("DaemonSet")["spec"]["template"]
        return template

    @property
    def container(self) -> Object:
        container = self.pod["spec"]["containers"][0]
        assert isinstance(container, dict)
        return container


def merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> Object:
    """Return values with others put over them, as Helm does with several files."""
    both = dict(values)
    for name, value in more.items():
        old = both.get(name)
        both[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


def scenario(name: str) -> Object:
    """Return the values of one of the chart's scenarios."""
    return yaml.safe_load(SCENARIOS[name].read_text(encoding="utf-8")) or {}


def render(values: Mapping[str, Any] | None = None, chart: Path = CHART, release: str = RELEASE) -> Rendered:
    """Render the chart as `helm install` does.

    Raises:
        HelmValuesError: The schema refuses the values.
        HelmRenderError: The chart does.
    """
    with helm.Chart.load(chart) as loaded:
        told = loaded.render(dict(values or {}), name=release, namespace=NAMESPACE)
    files = {path.removeprefix("proc-connector-exporter/templates/"): text for path, text in sorted(told.items())}
    return Rendered(
        files, [found for path, text in files.items() if path.endswith(".yaml") for found in parse(text)]
    )


def parse(text: str) -> list[Object]:
    """Return the objects of a file of them."""
    return [found for found in yaml.safe_load_all(text) if found]


def lint(values: Mapping[str, Any], kube_version: str) -> list[str]:
    """Return what `helm lint --strict` has to say against the chart."""
    told = helm.lint(CHART, dict(values), strict=True, kube_version=kube_version)
    messages = [str(message) for message in told["messages"] if message.get("severity") not in ("INFO", 1)]
    return [*messages, *(str(error) for error in told["errors"])]
