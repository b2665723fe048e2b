"""Builds the image with buildah and runs pods with podman, in a storage of their own.

No registry is needed: a stand-in takes the place of the base image, and pip finds its wheels in a folder.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from container.base_image import find_python, make_root
from documented import environment_of_a_user

ROOT = Path(__file__).parents[2]
PYTHON_VERSION = "3.13"
IMAGE = "localhost/proc-connector-exporter:test"
BASE = "docker.io/library/python"

# podman 4 does not read hostNetwork and hostPID, and asks for more files and processes than a container may give.
_CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
netns = "host"
pidns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_PIP_CONF = "[global]\nno-index = true\nfind-links = /wheels\n"


def pod_for_podman(
    template: dict[str, Any],
    name: str,
    *,
    environment: Mapping[str, str] | None = None,
    account: Path | None = None,
) -> dict[str, Any]:
    """Make a pod of a DaemonSet's template that `podman kube play` takes.

    Left out is what podman 4 does not know or takes otherwise: the ports (there are none but the host's), both
    probes (the kubelet's), where the pod may run (the scheduler's), its service account (the API server's) and its
    annotations (podman wants them short). A Secret is mounted as a ConfigMap of its name. Everything else is as
    rendered.

    Args:
        template: The template.
        name: Of the pod.
        environment: What the kubelet would put into the environment; fields of the pod's own among it.
        account: The folder that the kubelet would make of the projected volume: the service account's.
    """
    spec = {
        key: value
        for key, value in template["spec"].items()
        if key not in ("affinity", "nodeSelector", "tolerations", "serviceAccountName")
    }
    [container] = spec["containers"]
    spec["containers"] = [
        {key: value for key, value in container.items() if key not in ("ports", "livenessProbe", "readinessProbe")}
        | {"env": _environment(container.get("env", []), environment or {})}
    ]
    spec["volumes"] = [
        {"name": volume["name"], "configMap": {"name": volume["secret"]["secretName"]}}
        if "secret" in volume
        else {"name": volume["name"], "hostPath": {"path": str(account), "type": "Directory"}}
        if "projected" in volume
        else volume
        for volume in spec.get("volumes", [])
    ]
    metadata = {"name": name, "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _environment(entries: list[dict[str, Any]], given: Mapping[str, str]) -> list[dict[str, str]]:
    """Return a container's environment with what the kubelet knows: all that the template leaves to it."""
    of_pod = {entry["name"] for entry in entries if "valueFrom" in entry}
    assert of_pod <= set(given), of_pod
    own = [entry for entry in entries if entry["name"] not in of_pod]
    return own + [{"name": name, "value": value} for name, value in given.items()]


class Engine:
    """buildah and podman with storage of their own.

    Args:
        folder: For storage and files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._storage = ("--root", str(folder / "storage"), "--runroot", str(folder / "run"))
        configuration = folder / "containers.conf"
        configuration.write_text(_CONTAINERS_CONF)
        self._own = {
            "CONTAINERS_CONF": str(configuration),
            "STORAGE_DRIVER": "vfs",
            "BUILDAH_ISOLATION": "chroot",
        }
        self._environment = os.environ | self._own
        self._options: tuple[str, ...] = ()

    def _told(self, *command: str | Path) -> str:
        """Run a command of these tools to its good end; returns what it wrote, on stdout and on stderr."""
        told = subprocess.run(
            command,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert told.returncode == 0, f"{' '.join(map(str, command))}: {told.stdout[-4000:]}"
        return told.stdout

    def buildah(self, *words: str | Path) -> str:
        return self._told("buildah", *self._storage, *words)

    def podman(self, *words: str | Path) -> str:
        return self._told("podman", *self._storage, *words)

    def build(self) -> None:
        """Build the project's Dockerfile as it is, on a stand-in for its base image."""
        python = find_python(PYTHON_VERSION)
        wheels = _wheels(python.executable, python.version)
        root, pip_conf, base = (self._folder / name for name in ("base", "pip.conf", "Dockerfile.base"))
        make_root(python, root)
        pip_conf.write_text(_PIP_CONF)
        base.write_text("FROM scratch\nADD . /\n")
        tag = f"{BASE}:{python.version}-slim"
        self.buildah("bud", "--quiet", "--pull=never", "--file", base, "--tag", tag, root)
        shutil.rmtree(root)
        self._options = (
            *("--quiet", "--pull=never", f"--build-arg=BASE={tag}"),
            *(f"--volume={pip_conf}:/etc/pip.conf:ro", f"--volume={wheels}:/wheels:ro"),
        )
        self.build_from(ROOT, IMAGE)

    def build_from(self, folder: Path, tag: str) -> None:
        """Build the Dockerfile of a folder, on the same base."""
        self.buildah("bud", *self._options, "--tag", tag, folder)

    def docker(self, folder: Path) -> dict[str, str]:
        """Write a program that takes docker's words and does with these tools what docker would do.

        Returns:
            The environment in which `docker` is that program.
        """
        own = " ".join(self._storage)
        program = folder / "docker"
        program.write_text(
            "#!/bin/sh\n"
            f'if [ "$1" = build ]; then shift; exec buildah {own} bud {" ".join(self._options)} "$@"; fi\n'
            f'exec podman {own} "$@"\n'
        )
        program.chmod(0o755)
        return {**environment_of_a_user(), **self._own, "PATH": f"{folder}:{os.environ['PATH']}"}

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the image and of its base."""
        image, base = (
            self.podman("image", "inspect", "--format={{.Size}}", name) for name in (IMAGE, self._base())
        )
        return int(image), int(base)

    def _base(self) -> str:
        [name] = [
            name
            for name in self.podman("images", "--format={{.Repository}}:{{.Tag}}").split()
            if name.startswith(BASE)
        ]
        return name

    def configuration(self) -> dict[str, Any]:
        """Return the image's configuration."""
        [image] = yaml.safe_load(self.podman("image", "inspect", IMAGE))
        configuration: dict[str, Any] = image["Config"]
        return configuration

    def run_in_image(self, program: str, *words: str, image: str = IMAGE) -> str:
        """Run another program than the exporter, as the image's user on a read-only root; returns its output."""
        options = ("--rm", "--read-only", "--network=host", f"--entrypoint={program}")
        return self.podman("run", *options, image, *words)

    def play(self, pod: dict[str, Any], files: Sequence[dict[str, Any]]) -> int:
        """Start a pod.

        Args:
            pod: It.
            files: ConfigMaps that it mounts.

        Returns:
            The pid of its container's first process, which is the exporter.
        """
        path = self._folder / f"{pod['metadata']['name']}.yaml"
        path.write_text(yaml.safe_dump_all([*files, pod]))
        self.podman("kube", "play", path)
        return int(self.inspect(pod, "{{.State.Pid}}"))

    def inspect(self, pod: dict[str, Any], form: str) -> str:
        """Return what podman knows of the pod's container, in the form of a Go template."""
        return self.podman("inspect", f"--format={form}", _container(pod)).strip()

    def logs(self, pod: dict[str, Any]) -> str:
        """Return what the pod's container wrote, on stdout and on stderr."""
        return self.podman("logs", _container(pod))

    def take_down(self, pod: dict[str, Any]) -> None:
        """Stop and remove a pod, if there is any of it."""
        self.podman("pod", "rm", "--force", "--ignore", pod["metadata"]["name"])


def _container(pod: dict[str, Any]) -> str:
    """Return what podman calls a pod's only container."""
    [container] = pod["spec"]["containers"]
    return f"{pod['metadata']['name']}-{container['name']}"


def _wheels(python: Path, version: str) -> Path:
    """Return a folder with all wheels that the image wants, downloaded where they were not before."""
    requirements = ROOT / "requirements.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    wheels = ROOT / "build" / "container" / f"wheels-{version}-{digest}"
    if not wheels.exists():
        arrives = wheels.with_suffix(".part")
        command: Sequence[str | Path] = (
            *(python, "-m", "pip", "download", "--quiet", "--require-hashes", "--only-binary=:all:"),
            *("--dest", arrives, "--requirement", requirements),
        )
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stderr
        arrives.rename(wheels)
    return wheels
