"""deploy/package/build_hook.py: what pip builds of a checkout has its commit, as git says it."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploy.package.environment import ROOT

SOURCE = ("exporter", "dashboards", "deploy", "pyproject.toml", "README.md", "LICENSE")
MODULE = "exporter/revision.py"


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command: list[str | Path] = ["git", *identity, "-C", folder, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What git has of a checkout; these tests may run in an archive, in which the commit is written."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    text = (folder / MODULE).read_text(encoding="utf-8")
    archived = re.sub('^_ARCHIVED = ".*"$', '_ARCHIVED = "$Format:%H$"', text, flags=re.MULTILINE)
    (folder / MODULE).write_text(archived, encoding="utf-8")
    return folder


def commit(source: Path) -> str:
    git(source, "init", "--quiet")
    git(source, "add", ".")
    git(source, "commit", "--quiet", "--message", "one")
    return git(source, "rev-parse", "HEAD")


def build(source: Path, output: Path, **variables: str) -> tuple[Path, Path]:
    """Build as pip does, but without the environment that it makes for it: return the wheel and the archive."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(output)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, env={**os.environ, **variables})
    [wheel], [sdist] = output.glob("*.whl"), output.glob("*.tar.gz")
    return wheel, sdist


def revision_of_wheel(wheel: Path, folder: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.namelist().count(MODULE) == 1
        archive.extractall(folder)
    asked = "from exporter.revision import REVISION; print(REVISION)"
    command = [sys.executable, "-c", asked]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_a_wheel_and_a_source_archive_of_a_checkout_have_its_commit(source: Path, tmp_path: Path) -> None:
    head = commit(source)
    wheel, sdist = build(source, tmp_path / "dist")
    assert revision_of_wheel(wheel, tmp_path / "wheel") == head
    (tmp_path / "sdist").mkdir()
    subprocess.run(["tar", "-xzf", sdist, "-C", tmp_path / "sdist"], check=True)
    [unpacked] = (tmp_path / "sdist").iterdir()
    again, _ = build(unpacked, tmp_path / "again")
    assert revision_of_wheel(again, tmp_path / "wheel of the archive") == head
    # Nothing of the checkout changed.
    assert git(source, "status", "--porcelain", "--untracked-files=no") == ""


def test_what_is_built_of_a_checkout_with_changes_says_so(source: Path, tmp_path: Path) -> None:
    head = commit(source)
    # A file that git does not have is no change: a build makes such files itself.
    (source / "notes").write_text("mine\n")
    with (source / "README.md").open("a") as file:
        file.write("changed\n")
    wheel, sdist = build(source, tmp_path / "dist")
    assert revision_of_wheel(wheel, tmp_path / "wheel") == f"{head}-dirty"
    subprocess.run(["tar", "-xzf", sdist, "-C", tmp_path], check=True)
    [module] = tmp_path.glob(f"proc_connector_exporter-*/{MODULE}")
    assert f'"{head}-dirty"' in module.read_text(encoding="utf-8")


def test_a_wheel_built_without_git_has_the_commit_of_gits_own_files(source: Path, tmp_path: Path) -> None:
    head = commit(source)
    with (source / "README.md").open("a") as file:
        file.write("changed\n")
    (tmp_path / "empty").mkdir()
    wheel, _ = build(source, tmp_path / "dist", PATH=str(tmp_path / "empty"))
    assert revision_of_wheel(wheel, tmp_path / "wheel") == head


def test_a_wheel_built_again_has_the_same_bytes(source: Path, tmp_path: Path) -> None:
    commit(source)
    sums = set()
    for name in ("a", "b"):
        wheel, sdist = build(source, tmp_path / name)
        sums.add(tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in (wheel, sdist)))
    assert len(sums) == 1


def test_a_wheel_of_what_is_no_checkout_has_no_commit(source: Path, tmp_path: Path) -> None:
    wheel, _ = build(source, tmp_path / "dist")
    assert revision_of_wheel(wheel, tmp_path / "wheel") == "unknown"
