"""Helm 3 and Helm 4 themselves make of every scenario what the engine in the other tests makes of it."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from charts.helm_programs import PACKAGES, program
from charts.rendering import CHART, NAMESPACE, RELEASE, ROOT, SCENARIOS, Object, parse, render, scenario

from exporter import __version__

# They are downloaded.
pytestmark = pytest.mark.container


@pytest.fixture(scope="module", params=PACKAGES)
def helm(request: pytest.FixtureRequest) -> Path:
    try:
        return program("helm", str(request.param))
    except LookupError as error:
        pytest.skip(str(error))


def run(helm: Path, *words: str | Path, code: int = 0) -> str:
    """Run it to its end, where the documentation runs it; returns stdout, or stderr where it is to fail."""
    told = subprocess.run([helm, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == code, told.stdout + told.stderr
    return told.stderr if code else told.stdout


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    return {(found["kind"], found["metadata"]["name"]): found for found in objects}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_is_linted_and_rendered_alike(helm: Path, name: str) -> None:
    values = SCENARIOS[name]
    run(helm, "lint", "--strict", "--values", values, CHART)
    rendered = run(helm, "template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", values)
    assert by_name(parse(rendered)) == by_name(render(scenario(name)).objects)


def documented_installations() -> list[str]:
    """Return the commands of the documentation that install the chart."""
    pages = (ROOT / "README.md", ROOT / "docs" / "kubernetes.md", CHART / "README.md")
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages).replace("\\\n", " ")
    return re.findall(r"(?m)^\$ (helm install .*)$", text)


@pytest.mark.parametrize("command", documented_installations())
def test_what_the_documentation_installs_can_be_rendered(helm: Path, command: str) -> None:
    # The README of a package does not know where the chart is.
    words = [str(CHART) if word == "CHART" else word for word in shlex.split(command)[2:]]
    objects = by_name(parse(run(helm, "template", *words)))
    [daemonset] = [found for (kind, _), found in objects.items() if kind == "DaemonSet"]
    assert daemonset["metadata"]["namespace"] == "processes"
    [container] = daemonset["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"registry.example.com/proc-connector-exporter:{__version__}"


def test_the_documentation_installs_it_on_several_pages() -> None:
    assert len(documented_installations()) == 3


def test_a_package_has_the_dashboards_and_not_what_makes_them(helm: Path, tmp_path: Path) -> None:
    run(helm, "package", CHART, "--destination", tmp_path)
    [package] = tmp_path.glob("proc-connector-exporter-*.tgz")
    values = SCENARIOS["prometheus-operator"]
    rendered = run(helm, "template", RELEASE, package, "--namespace", NAMESPACE, "--values", values)
    assert by_name(parse(rendered)) == by_name(render(scenario("prometheus-operator")).objects)
    names = subprocess.run(["tar", "tzf", package], capture_output=True, text=True, check=True).stdout.splitlines()
    assert "proc-connector-exporter/values.schema.json" in names
    assert [name for name in names if "/ci/" in name or name.endswith(".pyc") or "/generate/" in name] == []


def test_a_wrong_value_is_refused(helm: Path) -> None:
    told = run(helm, "template", RELEASE, CHART, "--set", "mode=rootless", code=1)
    assert "mode" in told
    assert "exact" in told


def test_objects_of_a_text_are_all_delivered(helm: Path, tmp_path: Path) -> None:
    text = "{{ range list `a` `b` }}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: {{ . }}}\n{{ end }}"
    values = tmp_path / "values.yaml"
    values.write_text(
        json.dumps({"extraObjects": [text, "{{ if false }}a{{ end }}", text.replace("list", "list `c`")]})
    )
    run(helm, "lint", "--strict", CHART, "--values", values)
    for only in ([], ["--show-only", "templates/extra-objects.yaml"]):
        rendered = parse(run(helm, "template", RELEASE, CHART, "--values", values, *only))
        names = [found["metadata"]["name"] for found in rendered if found["kind"] == "Secret"]
        assert sorted(names) == ["a", "a", "b", "b", "c"]


def test_a_flag_that_the_exporter_does_not_have_is_refused_in_one_line(helm: Path) -> None:
    line = "extraArgs: unknown flag --web.config; did you mean --web.config.file?"
    told = run(helm, "template", RELEASE, CHART, "--set", "extraArgs={--web.config=1}", code=1)
    assert [said for said in told.splitlines() if said.startswith("Error: ") and said.endswith(line)]
    # It ignores `fail`.
    run(helm, "lint", CHART, "--set", "extraArgs={--web.config=1}", code=1)
