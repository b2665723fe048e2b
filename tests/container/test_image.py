"""The image that the Dockerfile makes."""

import re
from pathlib import PurePosixPath

import pytest
from container.engine import ROOT, Engine

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
    assert {"title", "description", "licenses", "version", "revision"} <= labels


def test_it_has_the_program_and_no_more_of_the_project(files: set[PurePosixPath]) -> None:
    ours = {path.relative_to("exporter") for path in files if path.parts[0] == "exporter"}
    sources = {PurePosixPath(path.relative_to(ROOT / "exporter")) for path in (ROOT / "exporter").rglob("*.py")}
    assert {path for path in ours if path.suffix != ".pyc"} == sources
    assert not [path for path in files if path.parts[0] in ("tests", "helm", "docs", ".git")]


def test_nothing_is_compiled_at_a_start(engine: Engine) -> None:
    told = engine.run_in_image("python", "-v", "-c", "import exporter.__main__")
    loaded = re.findall(r"^# code object from '?(.*?)'?$", told, re.MULTILINE)
    assert len(loaded) > 100
    assert [path for path in loaded if not path.endswith(".pyc")] == []
