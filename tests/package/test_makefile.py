"""The Makefile, on machines that lack what it takes, and in a source archive."""

import re
import subprocess
from pathlib import Path

import pytest
from documented import environment_of_a_user

from deploy.package.environment import ROOT


def make(*words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = ["make", "-s", *words]
    environment = environment_of_a_user()
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        # Debian without python3-venv: the environment is begun, and pip is not there.
        (
            '[ "$1" = -c ] || { mkdir -p "$3/bin"; touch "$3/bin/python"; echo "no ensurepip" >&2; exit 1; }',
            "ensurepip",
        ),
        ('[ "$1" != -c ]', "is no Python >= 3.11"),
        ("exit 127", "is no Python >= 3.11"),
    ],
    ids=["no python3-venv", "too old", "not there"],
)
def test_an_environment_that_cannot_be_made_leaves_nothing_that_the_next_try_would_take_for_one(
    script: str, complaint: str, tmp_path: Path
) -> None:
    python, environment = tmp_path / "python", tmp_path / "venv"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    result = make(f"VENV={environment}", f"PYTHON={python}", f"{environment}/bin/python")
    assert result.returncode == 2
    assert complaint in result.stderr
    assert not environment.exists()


def test_no_python_at_all_is_said_with_its_remedy(tmp_path: Path) -> None:
    result = make("PYTHON=", f"VENV={tmp_path / 'venv'}", f"{tmp_path / 'venv'}/bin/python")
    assert "apt-get install python3 python3-venv" in result.stderr


def test_requirements_are_made_anew_although_the_file_is_there() -> None:
    assert " --upgrade " in make("-n", "requirements.txt").stdout


@pytest.mark.parametrize(
    ("archived", "revision"), [("0123456789abcdef0123456789abcdef01234567", None), ("$Format:%H$", "unknown")]
)
def test_the_image_of_a_source_archive_has_its_commit(archived: str, revision: str | None, tmp_path: Path) -> None:
    # The checkout around it is of something else.
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    folder = tmp_path / "archive"
    (folder / "exporter").mkdir(parents=True)
    (folder / "Makefile").write_text((ROOT / "Makefile").read_text())
    (folder / "exporter/__init__.py").write_text('__version__ = "1.2.3"\n')
    text = (ROOT / "exporter/revision.py").read_text()
    (folder / "exporter/revision.py").write_text(
        re.sub('= "[^"]*"$', f'= "{archived}"', text, count=1, flags=re.MULTILINE)
    )
    result = make("image", "ENGINE=echo", "ARGS=--more", folder=folder)
    words = result.stdout.split()
    assert words[:2] == ["build", "--build-arg"]
    assert {"VERSION=1.2.3", f"REVISION={revision or archived}", "proc-connector-exporter:1.2.3", "--more"} <= {
        *words
    }
    assert words[-1] == "."
