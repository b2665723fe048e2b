"""deploy/kustomize: what is committed is what the chart renders, and a base is one that kustomize reads."""

import pytest
import yaml
from charts.manifests import kustomize_files
from charts.rendering import ROOT

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
