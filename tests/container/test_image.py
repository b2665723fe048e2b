"""The image that the Dockerfile makes."""

import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from container.engine import IMAGE, PYTHON_VERSION, ROOT, Engine
from documented import documented
from kernel.harness import Scrape, ask, free_port, wait_until

from deploy.package import release
from exporter.revision import REVISION
from exporter.settings.web import DEFAULT_PORT

MOST_ADDED_BYTES = 26_000_000
# Of CPU time, in seconds.
LONGEST_VERSION = 0.5
FROM_ARCHIVE = "localhost/proc-connector-exporter:archive"
# In a container, five times: print the version. CPU time, because the machine does other things, too.
_TIME_VERSION = """
import resource, subprocess, sys
spent = [0.0]
for _ in range(5):
    subprocess.run([sys.executable, "-m", "exporter", "--version"], check=True, stdout=subprocess.DEVNULL)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent.append(usage.ru_utime + usage.ru_stime)
print(min(after - before for before, after in zip(spent, spent[1:])))
"""


def commit() -> str:
    """Return the commit of the checkout, or of the archive that this was unpacked from."""
    if not (ROOT / ".git").exists():
        return REVISION
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def files_of(engine: Engine, image: str) -> set[PurePosixPath]:
    found = engine.run_in_image("find", "/app", "-type", "f", image=image).splitlines()
    return {PurePosixPath(path).relative_to("/app") for path in found}


@pytest.fixture(scope="module")
def files(engine: Engine) -> set[PurePosixPath]:
    return files_of(engine, IMAGE)


def test_it_adds_little_to_its_base(engine: Engine) -> None:
    image, base = engine.sizes()
    assert image - base < MOST_ADDED_BYTES


def test_it_is_nobody_and_passes_its_arguments_to_the_exporter(engine: Engine) -> None:
    configuration = engine.configuration()
    assert configuration["User"] == "65534"
    assert configuration["Entrypoint"] == ["python", "-m", "exporter"]
    assert not configuration.get("Cmd")
    assert list(configuration["ExposedPorts"]) == [f"{DEFAULT_PORT}/tcp"]
    prefix = "org.opencontainers.image."
    labels = {
        name.removeprefix(prefix): text
        for name, text in configuration["Labels"].items()
        if name.startswith(prefix)
    }
    # The Makefile adds where its source is, if that is known: tests/package/test_makefile.py.
    assert set(labels) == {"title", "description", "licenses", "version", "revision", "base.name"}
    assert all(labels.values())


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


def test_the_unpacked_source_archive_makes_the_same_image_and_knows_its_commit(
    engine: Engine, files: set[PurePosixPath], tmp_path: Path
) -> None:
    release.export_source(tmp_path / "committed")
    (tmp_path / "dist").mkdir()
    release.build_python(tmp_path / "committed", tmp_path / "dist", epoch=1_700_000_000)
    [sdist] = (tmp_path / "dist").glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", sdist, "-C", tmp_path / "dist"], check=True)
    [unpacked] = [path for path in (tmp_path / "dist").iterdir() if path.is_dir()]
    engine.build_from(unpacked, FROM_ARCHIVE)
    assert files_of(engine, FROM_ARCHIVE) == files
    said = engine.run_in_image("python", "-m", "exporter", "--version", image=FROM_ARCHIVE)
    assert f"(revision: {commit()})" in said


def test_the_commands_of_the_readme_make_and_run_it(engine: Engine, tmp_path: Path) -> None:
    environment = engine.docker(tmp_path)

    def run(command: str) -> str:
        result = subprocess.run(
            ["sh", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    build, start = documented("README.md", "tests/container/test_image.py")
    run(build)
    port = free_port()
    container = run(f"{start} --web.listen-address=127.0.0.1:{port}").strip()
    try:
        wait_until(lambda: status(port), lambda found: found == 200, "/-/ready")
        scrape = Scrape(ask(port, "/metrics").body.decode())
        [info] = [dict(labels) for labels in scrape.samples["proc_connector_attribution_info"]]
        assert info["mode"] == "taskstats"
        [build_info] = [dict(labels) for labels in scrape.samples["proc_connector_exporter_build_info"]]
        assert build_info["revision"].removesuffix("-dirty") == commit()
    finally:
        run(f"docker rm --force {container}")


def status(port: int) -> int | str:
    try:
        return ask(port, "/-/ready").status
    except OSError as error:
        return str(error)


def test_it_has_the_command_that_the_documentation_names(engine: Engine) -> None:
    said = engine.run_in_image("proc-connector-exporter", "--version")
    assert said.startswith("proc-connector-exporter, version ")


def test_it_prints_its_version_in_half_a_second(engine: Engine) -> None:
    assert float(engine.run_in_image("python", "-c", _TIME_VERSION)) < LONGEST_VERSION


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
