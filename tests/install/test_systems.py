"""The .deb without a boot: on the other release of Debian, in a folder, and on each Python that it serves.

`test_install.py` has what a booted system shows.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import image

from deploy.package.environment import NAME, PYTHONS
from exporter import __version__

pytestmark = pytest.mark.install

# Debian 12 is the one that boots.
SUITE, PYTHON_OF_SUITE = "trixie", "3.13"
PACKAGES = "python3,systemd,init-system-helpers,passwd"
CAPTURE = image.ROOT / "examples" / "busy-minute.capture"

# Without their machine code these packages work, too, but slowly, and bcrypt not at all.
_LOAD_MACHINE_CODE = (
    "import aiohttp._http_parser, bcrypt._bcrypt, multidict._multidict, yaml._yaml, yarl._quoting_c"
)


def test_the_docs_promise_the_pythons_that_are_served_and_say_which_systems_are_tested() -> None:
    page = (image.ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    [promised] = re.findall(r"One package serves Python ([\d., and]+): ", page)
    assert tuple(re.findall(r"\d\.\d+", promised)) == PYTHONS
    assert "Tests install it on Debian 12 and 13;" in page


@pytest.fixture
def root(deb: Path, tmp_path: Path) -> Iterator[Path]:
    """A minimal Debian 13 in a folder, with the package beside it."""
    folder = tmp_path / SUITE
    options = ("--quiet", "--mode=root", "--variant=minbase", f"--include={PACKAGES}", "--components=main")
    command: list[str | Path] = ["mmdebstrap", *options, SUITE, folder, "http://deb.debian.org/debian"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    shutil.copy(deb, folder / "srv" / "exporter.deb")
    shutil.copy(CAPTURE, folder / "srv")
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    assert run(folder, "python3", "-c", asked) == f"{PYTHON_OF_SUITE}\n"
    yield folder
    shutil.rmtree(folder)


def run(root: Path, *words: str) -> str:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    result = subprocess.run(["chroot", root, *words], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{words}: {result.stdout[-2000:]}{result.stderr[-2000:]}"
    return result.stdout


def named(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob(f"*{NAME}*")}


def test_it_installs_runs_and_leaves_nothing_on_the_other_debian(root: Path) -> None:
    run(root, "apt-get", "install", "-y", "/srv/exporter.deb")
    assert run(root, NAME, "--version").startswith(f"{NAME}, version {__version__} ")
    assert len(run(root, NAME, "watch", "--replay", f"/srv/{CAPTURE.name}", "--summary").splitlines()) > 100
    home = root / "usr" / "lib" / NAME
    assert len(list(home.rglob("*.pyc"))) > 100
    assert run(root, "id", "--user", "--name", NAME) == f"{NAME}\n"
    run(root, "apt-get", "purge", "-y", NAME)
    assert named(root) == set()


def interpreter(python: str) -> Path:
    """Return one of this version, of this machine's own or of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    of_path = [Path(found)] if (found := shutil.which(f"python{python}")) else []
    for candidate in (*pyenv.glob(f"versions/{python}.*/bin/python{python}"), *of_path):
        # What pyenv has on the path for a version that is not chosen is no interpreter.
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    pytest.skip(f"no Python {python} here")


@pytest.fixture(scope="module")
def unpacked(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
    starter = folder / "usr/bin" / NAME
    # Run from the folder, as it would be from /.
    starter.write_text(starter.read_text().replace(f"'/usr/lib/{NAME}", f"'{folder}/usr/lib/{NAME}"))
    return folder


@pytest.mark.parametrize("python", PYTHONS)
def test_it_runs_on_each_python_with_the_packages_for_it(python: str, unpacked: Path) -> None:
    program = interpreter(python)
    home = unpacked / "usr/lib" / NAME

    def run_isolated(*words: str | Path) -> str:
        command = [program, "-ISB", *words]
        return subprocess.run(
            command, cwd="/", env={}, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    said = run_isolated(unpacked / "usr/bin" / NAME, "--version")
    assert said.startswith(f"{NAME}, version {__version__} ")
    assert re.search(rf"python version: +{re.escape(python)}\.", said), said
    lines = run_isolated(
        unpacked / "usr/bin" / NAME, "watch", "--replay", CAPTURE, "--output", "json", "--summary"
    ).splitlines()
    assert json.loads(lines[-1])["lost"] == 0
    assert len(lines) > 100
    path = [str(home), str(home / f"python{python}")]
    run_isolated("-c", f"import sys; sys.path[:0] = {path}; {_LOAD_MACHINE_CODE}")
