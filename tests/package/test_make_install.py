"""make install and make uninstall: the program runs from below a prefix, and all of it goes again."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documented import documented, environment_of_a_user
from installed import SAMPLE, serves_the_sample

from deploy.package.environment import NAME, ROOT

pytestmark = pytest.mark.release


def make(action: str, destdir: Path) -> None:
    words = ["make", "-s", action, f"DESTDIR={destdir}", "PREFIX=/opt/exporter", f"VENV={Path(sys.prefix)}"]
    subprocess.run(words, cwd=ROOT, env=environment_of_a_user(), check=True)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_what_is_installed_runs_and_goes_again(tmp_path: Path) -> None:
    make("install", tmp_path)
    starter = tmp_path / "opt/exporter/bin" / NAME
    unit = (tmp_path / "opt/exporter/lib/systemd/system" / f"{NAME}.service").read_text()
    assert re.findall(r"^ExecStart=(\S+)", unit, re.MULTILINE) == [f"/opt/exporter/bin/{NAME}"]
    # Run from below DESTDIR, as it would from below /.
    text = starter.read_text().replace("'/opt/exporter/", f"'{tmp_path}/opt/exporter/")
    starter.write_text(text)
    for words in (["--version"], ["watch", "--replay", SAMPLE, "--count", "3"]):
        result = subprocess.run(
            [starter, *words], cwd="/", env={}, capture_output=True, text=True, check=True, timeout=60
        )
        assert (result.stderr, bool(result.stdout)) == ("", True)
    folder = tmp_path / "run"
    folder.mkdir()
    serves_the_sample(starter, folder, environment={})
    shutil.rmtree(folder)
    settings = tmp_path / "etc/default" / NAME
    settings.write_text("MINE=1\n")
    make("install", tmp_path)
    assert settings.read_text() == "MINE=1\n"
    make("uninstall", tmp_path)
    assert files(tmp_path) == {f"etc/default/{NAME}"}


def below(command: str, root: Path) -> str:
    """Return a command of the documentation as it is run for a root file system in a folder."""
    program, *words = command.split()
    if program == "make":
        return f"make -s {' '.join(words)} DESTDIR={root} VENV={sys.prefix}"
    if program == "systemd-sysusers":
        # A path that it is given is none below --root.
        return f"systemd-sysusers --root={root} {root}{words[0]}"
    assert program == "systemctl", command
    return f"systemctl --root={root} {' '.join(word for word in words if word != '--now')}"


def test_the_commands_of_the_documentation_make_a_service_of_it_and_remove_it(tmp_path: Path) -> None:
    for tool in ("systemctl", "systemd-sysusers"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here (Debian: apt-get install systemd)")
    (tmp_path / "etc").mkdir()
    enabled = tmp_path / "etc/systemd/system/multi-user.target.wants" / f"{NAME}.service"
    commands = documented("docs/install.md", "tests/package/test_make_install.py")
    assert [command.split()[0] for command in commands].count("make") == 2
    for command in commands:
        subprocess.run(["sh", "-c", below(command, tmp_path)], cwd=ROOT, env=environment_of_a_user(), check=True)
        if "enable" in command:
            # A link of the whole system, which this is not: its target is below the folder.
            assert (tmp_path / str(enabled.readlink()).lstrip("/")).exists()
            assert f"{NAME}:" in (tmp_path / "etc/passwd").read_text()
    assert not enabled.is_symlink()
    assert {name for name in files(tmp_path) if NAME in name} == {f"etc/default/{NAME}"}
