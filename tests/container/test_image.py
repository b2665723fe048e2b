"""The image that the Dockerfile makes."""

import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from container.engine import PYTHON_VERSION, ROOT, Engine

from exporter.config import DEFAULT_PORT

MOST_ADDED_BYTES = 25_000_000


@pytest.fixture(scope="module")
def files(engine: Engine) -> set[PurePosixPath]:
    found = engine.run_in_image("find", "/app", "-type", "f").splitlines()
    return {PurePosixPath(path).relative_to("/app") for path in found}


def test_it_adds_little_to_its_base(engine: Engine) -> None:
    image, base = engine.sizes()
    assert image - base < MOST_ADDED_BYTES


def test_it_is_nobody_and_passes_its_arguments_to_the_exporter(engine: Engine) -> None:
    configuration = engine.configuration()
    assert configuration["User"] == "65534"
    assert configuration["Entrypoint"] == ["python", "-m", "exporter"]
    assert not configuration.get("Cmd")
    assert list(configuration["ExposedPorts"]) == [f"{DEFAULT_PORT}/tcp"]
    labels = {name.removeprefix("org.opencontainers.image.") for name in configuration["Labels"]}
    assert {"title", "description", "licenses", "version", "revision", "source", "url", "documentation"} <= labels


def test_it_has_the_program_and_no_more_of_the_project(files: set[PurePosixPath]) -> None:
    ours = {path.relative_to("exporter") for path in files if path.parts[0] == "exporter"}
    sources = {PurePosixPath(path.relative_to(ROOT / "exporter")) for path in (ROOT / "exporter").rglob("*.py")}
    data = {PurePosixPath("data") / path for path in dashboard_files()} | {PurePosixPath("py.typed")}
    assert {path for path in ours if path.suffix != ".pyc"} == sources | data
    assert not [path for path in files if path.parts[0] in ("tests", "helm", "docs", ".git")]


def dashboard_files() -> set[PurePosixPath]:
    folder = ROOT / "dashboards"
    return {
        PurePosixPath(path.relative_to(folder)) for path in (*folder.glob("*.json"), *folder.glob("rules/*.yaml"))
    }


def test_it_has_no_pip(engine: Engine) -> None:
    said = engine.run_in_image("python", "-c", "import importlib.util as u; print(u.find_spec('pip'))")
    assert said.strip() == "None"


def test_it_writes_its_dashboards(engine: Engine) -> None:
    said = engine.run_in_image("sh", "-c", "python -m exporter dashboards --output /tmp/d && ls /tmp/d/rules")
    assert {"alerts.yaml", "recording.yaml"} <= set(said.split())


def test_nothing_is_compiled_at_a_start(engine: Engine) -> None:
    told = engine.run_in_image("python", "-v", "-c", "import exporter.__main__, exporter.app")
    loaded = re.findall(r"^# code object from '?(.*?)'?$", told, re.MULTILINE)
    assert len(loaded) > 100
    assert [path for path in loaded if not path.endswith(".pyc")] == []


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_all_packages_have_wheels_for_the_architectures_that_are_promised(
    architecture: str, tmp_path: Path
) -> None:
    platforms = [f"--platform={name}_{architecture}" for name in ("manylinux2014", "manylinux_2_28")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", f"--python-version={PYTHON_VERSION}", f"--target={tmp_path}", *platforms]
    told = subprocess.run([*command, "--requirement", ROOT / "requirements.txt"], check=False, capture_output=True)
    assert told.returncode == 0, told.stderr.decode()
