"""The Makefile, on machines that lack what it takes, and in a source archive."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from documented import documented, environment_of_a_user
from kernel.harness import free_port, wait_until

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


def test_the_two_commands_of_the_readme_show_how_processes_ended(tmp_path: Path) -> None:
    run, ask = documented("README.md", "tests/package/test_makefile.py")
    assert run == "make run"
    address = f"127.0.0.1:{free_port()}"
    # Of a capture, so that it is the same on every machine: tests/kernel has what is counted here.
    settings = {"WEB_LISTEN_ADDRESS": address, "REPLAY": "examples/busy-minute.capture", "SPEED": "0"}
    environment = environment_of_a_user() | {
        f"PROC_CONNECTOR_EXPORTER_{name}": text for name, text in settings.items()
    }
    words = [*run.split(), f"VENV={sys.prefix}", "--assume-old=pyproject.toml"]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            words, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        ask = ask.replace("localhost:10061", address)

        def ends() -> str:
            assert running.poll() is None, (tmp_path / "log").read_text()
            return subprocess.run(["sh", "-c", ask], capture_output=True, text=True, check=False).stdout

        wait_until(ends, lambda said: 'exit_code="1"' in said, "ends of processes")
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        running.wait(timeout=30)


EXPORTER = """#!/bin/sh
echo "exporter $*"
case "$*" in *--replay*) exit 0;; esac
exit $CODE
"""


@pytest.mark.parametrize(
    ("code", "arguments", "said"),
    [
        (5, "", "NOT this machine but a recorded minute"),
        (5, "--log.level=warn --web.listen-address=127.0.0.1:0", "NOT this machine"),
        # A replay refuses these, so there is nothing else to show.
        (5, "--events=exit", "with these ARGS: --events has no effect with --replay"),
        (5, "--attribution=taskstats", "--attribution has no effect with --replay"),
        (5, "watch", "unexpected argument 'watch'"),
        (1, "--user=nobody", ""),
        (1, "--attribution=taskstats", ""),
        (2, "", ""),
        (0, "", ""),
    ],
)
def test_the_sample_is_shown_only_if_the_kernel_cannot_be_listened_to_and_the_arguments_suit_it(
    code: int, arguments: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    exporter = tmp_path / "bin" / "proc-connector-exporter"
    exporter.write_text(EXPORTER.replace("$CODE", str(code)))
    exporter.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    (tmp_path / ".run").touch()
    result = make("run", f"VENV={tmp_path}", f"ARGS={arguments}", "--assume-old=pyproject.toml")
    replays = "NOT this machine" in said
    runs = [line for line in result.stdout.splitlines() if line.startswith("exporter")]
    assert len(runs) == (2 if replays else 1)
    assert ("--replay" in runs[-1]) is replays
    assert said in result.stderr
    assert ("NOT this machine" in result.stderr) is replays
    assert (result.returncode == 0) is (replays or code == 0)


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
    assert "--label" not in words


def test_an_image_says_where_its_source_is_if_that_is_known() -> None:
    words = make("image", "ENGINE=echo", "URL=https://g.example/x").stdout.split()
    labels = {words[at + 1] for at, word in enumerate(words) if word == "--label"}
    assert labels == {
        f"org.opencontainers.image.{name}=https://g.example/x" for name in ("url", "source", "documentation")
    }


PINNED = f"BASE=docker.io/library/python:3.13-slim@sha256:{'0a' * 32}"
PUBLISHED = (
    "REPOSITORY=r.example/x",
    "URL=https://g.example/x",
    "REVISION=0123456789abcdef0123456789abcdef01234567",
)


def test_the_image_of_a_release_is_built_on_a_digest_for_both_architectures() -> None:
    result = make("release-image", "ENGINE=echo", PINNED, *PUBLISHED)
    words = result.stdout.split()
    assert words[:4] == ["buildx", "build", "--platform", "linux/amd64,linux/arm64"]
    assert {PINNED, "--push", "org.opencontainers.image.source=https://g.example/x"} <= set(words)
    assert any(re.fullmatch(r"r\.example/x:\d+\.\d+\.\d+", word) for word in words)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (PUBLISHED, "the base of a release is named by its digest"),
        (("BASE=docker.io/library/python:3.13-slim", *PUBLISHED), "the base of a release is named by its digest"),
        ((f"{PINNED[:-1]}", *PUBLISHED), "the base of a release is named by its digest"),
        ((PINNED, *PUBLISHED[:1], PUBLISHED[2]), "URL=, of the source"),
        ((PINNED, *PUBLISHED[1:]), "REPOSITORY=, to push to"),
        ((PINNED, *PUBLISHED[:2], "REVISION=0123-dirty"), "made of a commit, not of 0123-dirty"),
        ((PINNED, *PUBLISHED[:2], "REVISION=unknown"), "made of a commit, not of unknown"),
    ],
)
def test_the_image_of_a_release_is_refused_without(words: tuple[str, ...], complaint: str) -> None:
    result = make("release-image", "ENGINE=echo", *words)
    assert (result.returncode, result.stdout) == (2, "")
    assert complaint in result.stderr
