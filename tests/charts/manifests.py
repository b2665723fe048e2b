"""Plain manifests, for those without Helm: `make manifests`.

One file for each mode, in which everything is that the chart makes by default, with its namespace.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from charts.rendering import ROOT, Object, render

from exporter import __version__

MODES = ("exact", "unprivileged")
# Only Helm could keep them true.
_HELMS_LABELS = ("app.kubernetes.io/managed-by", "helm.sh/chart")


def manifests(mode: str, namespace: str, values: Mapping[str, Any]) -> list[Object]:
    """Return the objects of a mode, the namespace first.

    Args:
        mode: exact or unprivileged.
        namespace: Where they go.
        values: As of a values file.
    """
    values = {**values, "mode": mode, "namespaceOverride": namespace}
    rendered = render(values, release="proc-connector-exporter").objects
    objects = [found for found in rendered if "helm.sh/hook" not in found["metadata"].get("annotations", {})]
    for found in objects:
        for label in _HELMS_LABELS:
            del found["metadata"]["labels"][label]
    # Every pod in the host's network and pid namespaces counts as privileged.
    level = {"pod-security.kubernetes.io/enforce": "privileged"}
    own = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": level}}
    return [own, *objects]


_KUSTOMIZATION = """\
# Written by `make kustomize`. The image is where yours was pushed:
#   kustomize edit set image proc-connector-exporter=registry.example.com/proc-connector-exporter:{version}
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - manifests.yaml
"""


def kustomize_files() -> dict[str, str]:
    """Return the bases for kustomize, one for each mode, by their paths in deploy/kustomize."""
    files = {}
    for mode in MODES:
        objects = manifests(mode, "proc-connector-exporter", {})
        files[f"{mode}/manifests.yaml"] = yaml.safe_dump_all(objects, sort_keys=False)
        files[f"{mode}/kustomization.yaml"] = _KUSTOMIZATION.format(version=__version__)
    return files


def main(argv: Sequence[str] | None = None) -> None:
    """Write them."""
    parser = argparse.ArgumentParser(prog="make manifests", description=__doc__)
    parser.add_argument("--namespace", default="proc-connector-exporter")
    parser.add_argument("--values", type=Path, help="a values file of the chart's")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "manifests")
    parser.add_argument("--kustomize", type=Path, help="write bases for kustomize to this folder instead")
    arguments = parser.parse_args(argv)
    if arguments.kustomize:
        for name, text in kustomize_files().items():
            path = arguments.kustomize / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{path}\n")
        return
    values = yaml.safe_load(arguments.values.read_text(encoding="utf-8")) if arguments.values else None
    arguments.output.mkdir(parents=True, exist_ok=True)
    for mode in MODES:
        path = arguments.output / f"{mode}.yaml"
        objects = manifests(mode, arguments.namespace, values or {})
        path.write_text(yaml.safe_dump_all(objects, sort_keys=False), encoding="utf-8")
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
