"""deploy/package/environment.py: what is installed where, without a network."""

import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploy.package import environment
from deploy.package.environment import NAME, ROOT


def fake_wheels(python: str, arch: str, folder: Path) -> list[Path]:
    """Make a wheel of Python alone, and one with machine code."""
    tag = f"cp{python.replace('.', '')}"
    names = {"pure-1-py3-none-any.whl": "pure.py", f"fast-1-{tag}-{tag}-manylinux_{arch}.whl": "fast.so"}
    for name, content in names.items():
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr(content, python)
            archive.writestr("pure/tests/test_pure.py", "")
    return [folder / name for name in names]


def install(root: Path, prefix: str) -> set[str]:
    environment.install_environment(
        root, environment.read_prefix(prefix), ["3.11", "3.13"], "amd64", download=fake_wheels
    )
    return files(root)


def files(root: Path) -> set[str]:
    return {f"/{path.relative_to(root)}" for path in root.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        ("/usr", "/usr"),
        ("/usr/local/", "/usr/local"),
        ("//opt//exporter/", "/opt/exporter"),
        ("/opt/../srv/a-b_c+d.1~e", "/srv/a-b_c+d.1~e"),
        ("/", ""),
        ("//", ""),
        ("", ""),
    ],
)
def test_a_prefix_may_be_written_in_several_ways_and_nothing_is_written_outside_of_destdir(
    given: str, prefix: str, tmp_path: Path
) -> None:
    found = install(tmp_path, given)
    assert {f"{prefix}/bin/{NAME}", f"{prefix}/lib/systemd/system/{NAME}.service"} <= found
    assert {f"{prefix}/lib/{NAME}/pure.py", f"{prefix}/lib/{NAME}/python3.11/fast.so"} <= found
    assert {name for name in found if not name.startswith((f"{prefix}/", "/etc/"))} == set()
    assert not [name for name in found if "/tests/" in name]
    unit = (tmp_path / f"{prefix}/lib/systemd/system/{NAME}.service".lstrip("/")).read_text()
    assert re.findall(r"^ExecStart=(\S+)$", unit, re.MULTILINE) == [f"{prefix}/bin/{NAME}"]


def test_zsh_finds_its_completions_below_usr_local(tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("no zsh here (Debian: apt-get install zsh)")
    [folder] = {Path(name).parent for name in install(tmp_path, "/usr/local") if "/zsh/" in name}
    searched = subprocess.run(["zsh", "-fc", "print -l $fpath"], capture_output=True, text=True, check=True).stdout
    assert str(folder) in searched.splitlines()


@pytest.mark.parametrize("prefix", ["usr", "./x", "/opt/my exporter", "/opt/50%", "/opt/$HOME", "/a\nb", "/it's"])
def test_a_prefix_that_a_unit_could_not_name_is_refused(prefix: str) -> None:
    with pytest.raises(SystemExit) as refused:
        environment.read_prefix(prefix)
    assert "PREFIX" in str(refused.value)
    assert repr(prefix) in str(refused.value)


def python_that_says(folder: Path, text: str) -> Path:
    program = folder / "python"
    program.write_text(f"#!/bin/sh\necho '{text}'\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("3 9 cpython-39-x86_64-linux-gnu", "is Python 3.9: set INTERPRETER to one of 3.11 or later"),
        ("3 13 cpython-313-x86_64-linux-musl", "have no wheels"),
        ("3 13 cpython-313t-x86_64-linux-gnu", "have no wheels"),
        ("hello", "is no Python"),
    ],
)
def test_an_interpreter_that_could_not_start_it_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as refused:
        environment.read_interpreter(str(python_that_says(tmp_path, text)))
    assert complaint in str(refused.value)


def test_an_interpreter_may_be_given_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = python_that_says(tmp_path, "3 12 cpython-312-x86_64-linux-gnu")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert environment.read_interpreter("python") == (str(program), "3.12")
    with pytest.raises(SystemExit, match=r"there is no Python 'python3\.99'"):
        environment.read_interpreter("python3.99")


def make(action: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.package.environment", action, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_the_machine_lacks_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = make("install", "--destdir", str(tmp_path / "file"), "--interpreter", sys.executable)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert "Not a directory" in line


@pytest.mark.parametrize("prefix", ["/usr/local", "/opt/exporter", "/"])
def test_uninstall_removes_all_but_settings_and_what_others_have(prefix: str, tmp_path: Path) -> None:
    install(tmp_path, prefix)
    of_others = tmp_path / "opt" / "other"
    of_others.parent.mkdir(exist_ok=True)
    of_others.touch()
    result = make("uninstall", "--destdir", str(tmp_path), "--prefix", prefix)
    assert (result.returncode, result.stderr) == (0, "")
    assert files(tmp_path) == {f"/etc/default/{NAME}", "/opt/other"}
    # A prefix of the exporter's own goes as a whole.
    assert (tmp_path / "opt/exporter").exists() is False
    # What is not there any more is no error.
    assert make("uninstall", "--destdir", str(tmp_path), "--prefix", prefix).returncode == 0


def test_an_installation_again_leaves_no_file_of_the_older_one_and_keeps_settings(tmp_path: Path) -> None:
    install(tmp_path, "/usr")
    (tmp_path / "etc/default" / NAME).write_text("MINE=1\n")
    older = tmp_path / "usr/lib" / NAME / "exporter" / "gone.py"
    older.touch()
    install(tmp_path, "/usr")
    assert not older.exists()
    assert (tmp_path / "etc/default" / NAME).read_text() == "MINE=1\n"


def test_other_users_can_read_what_a_careful_root_installs(tmp_path: Path) -> None:
    script = (
        "import os, sys; os.umask(0o077); sys.path.insert(0, 'tests/package'); from pathlib import Path\n"
        "import deploy.package.environment as e; from test_environment import fake_wheels\n"
        "e.install_environment.__kwdefaults__['download'] = fake_wheels\n"
        f"sys.argv[1:] = ['install', '--destdir', {str(tmp_path / 'root')!r}, '--interpreter', sys.executable]\n"
        "e.main()"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    paths = list((tmp_path / "root").rglob("*"))
    assert len(paths) > 100
    assert [path for path in paths if not path.is_dir() and not path.stat().st_mode & stat.S_IROTH] == []
    assert [path for path in paths if path.is_dir() and not path.stat().st_mode & stat.S_IXOTH] == []
