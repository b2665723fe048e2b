"""The .deb on a Debian that boots with systemd: `guest/check.py` has the steps, a test here reads each result."""

import ast
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from install import debian
from kernels.guests import Guest
from kernels.machines import LINUX_6_1
from serving import Authority

pytestmark = pytest.mark.install

# The longest step takes one minute where nothing else runs, and the conditions in it give up after four.
_SILENCE_SECONDS = 600.0

STEPS = [
    node.name
    for node in ast.parse((debian.GUEST / "check.py").read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef) and any(getattr(word, "id", "") == "step" for word in node.decorator_list)
]


@pytest.fixture(scope="module")
def results(
    deb: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, str]]:
    """What each step told, by its name."""
    folder = tmp_path_factory.mktemp("guest")
    first = folder / "first.deb"
    shutil.copy(deb, first)
    certificate, key = Authority(folder).issue("server", "localhost")
    archive = debian.make_archive([first, debian.next_version(deb)], [certificate, key])
    guest = Guest("debian", folder, LINUX_6_1, archive, _SILENCE_SECONDS)
    told: dict[str, str] = {}
    began = time.monotonic()
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        for line in guest.lines():
            with capture.global_and_fixture_disabled():
                sys.stdout.write(f"{time.monotonic() - began:7.1f} {line}\n")
            if match := re.match(r"(ok|failed) (\w+)", line):
                told[match[2]] = line
        if set(told) != set(STEPS):
            told["last words"] = guest.last_words()
        yield told
    finally:
        guest.kill()


@pytest.mark.parametrize("step", STEPS)
def test_on_a_booted_debian(step: str, results: dict[str, str]) -> None:
    line = results.get(step, f"never came: {results.get('last words')}")
    assert line.startswith("ok "), line


def test_the_package_has_no_error_of_lintian(deb: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("no lintian here (Debian: apt-get install lintian)")
    result = subprocess.run(
        ["lintian", "--fail-on", "error", "--tag-display-limit", "0", deb],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
