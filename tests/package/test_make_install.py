"""make install and make uninstall: the program runs from below a prefix, and all of it goes again."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.package.environment import NAME, ROOT

pytestmark = pytest.mark.release


def make(action: str, destdir: Path) -> None:
    words = ["make", "-s", action, f"DESTDIR={destdir}", "PREFIX=/opt/exporter", f"VENV={Path(sys.prefix)}"]
    subprocess.run(words, cwd=ROOT, check=True)


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
    sample = ROOT / "examples" / "busy-minute.capture"
    for words in (["--version"], ["watch", "--replay", sample, "--count", "3"]):
        result = subprocess.run(
            [starter, *words], cwd="/", env={}, capture_output=True, text=True, check=True, timeout=60
        )
        assert (result.stderr, bool(result.stdout)) == ("", True)
    settings = tmp_path / "etc/default" / NAME
    settings.write_text("MINE=1\n")
    make("install", tmp_path)
    assert settings.read_text() == "MINE=1\n"
    make("uninstall", tmp_path)
    assert files(tmp_path) == {f"etc/default/{NAME}"}
