"""The .deb on the other systems that the docs promise, with their Pythons: in a folder, without a boot.

`test_install.py` has what a booted system shows.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from kernels import image

from deploy.package.environment import NAME, PYTHONS
from exporter import __version__

pytestmark = pytest.mark.install

PACKAGES = "python3,systemd,init-system-helpers,passwd"


class System(NamedTuple):
    """A release of a distribution.

    Attributes:
        words: What docs/install.md calls it.
        mirror: Where it is.
        keyring: The keys that have signed it.
        python: Its version.
    """

    words: str
    mirror: str
    keyring: str
    python: str


SYSTEMS = {
    "trixie": System("Debian 12 and 13", "http://deb.debian.org/debian", "debian-archive-keyring.gpg", "3.13"),
    "noble": System("Ubuntu 24.04", "http://archive.ubuntu.com/ubuntu", "ubuntu-archive-keyring.gpg", "3.12"),
}


def test_these_are_the_systems_of_the_docs() -> None:
    page = (image.ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    [promised] = re.findall(r"One package serves Python ([\d., and]+): ([^.]+(?:\.\d+)?)\.", page)
    assert tuple(re.findall(r"\d\.\d+", promised[0])) == PYTHONS
    assert promised[1] == ", ".join(system.words for system in SYSTEMS.values())
    # Debian 12, the first of the Pythons, is the one that boots.
    assert {system.python for system in SYSTEMS.values()} == set(PYTHONS[1:])


@pytest.fixture(params=SYSTEMS)
def root(request: pytest.FixtureRequest, deb: Path, tmp_path: Path) -> Iterator[Path]:
    """A minimal system in a folder, with the package beside it."""
    system = SYSTEMS[request.param]
    keyring = Path("/usr/share/keyrings") / system.keyring
    if not keyring.exists():
        pytest.skip(f"no {keyring} here: Debian has no package with it, Ubuntu's is ubuntu-keyring")
    folder = tmp_path / request.param
    options = ("--quiet", "--mode=root", "--variant=minbase", f"--include={PACKAGES}", f"--keyring={keyring}")
    components = "--components=main"
    command: list[str | Path] = ["mmdebstrap", *options, components, request.param, folder, system.mirror]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    shutil.copy(deb, folder / "srv" / "exporter.deb")
    shutil.copy(image.ROOT / "examples" / "busy-minute.capture", folder / "srv")
    assert (
        run(folder, "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])") == f"{system.python}\n"
    )
    yield folder
    shutil.rmtree(folder)


def run(root: Path, *words: str) -> str:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    result = subprocess.run(["chroot", root, *words], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{words}: {result.stdout[-2000:]}{result.stderr[-2000:]}"
    return result.stdout


def named(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob(f"*{NAME}*")}


def test_it_installs_runs_and_leaves_nothing(root: Path) -> None:
    run(root, "apt-get", "install", "-y", "/srv/exporter.deb")
    assert run(root, NAME, "--version").startswith(f"{NAME}, version {__version__} ")
    assert len(run(root, NAME, "watch", "--replay", "/srv/busy-minute.capture", "--summary").splitlines()) > 100
    home = root / "usr" / "lib" / NAME
    assert len(list(home.rglob("*.pyc"))) > 100
    assert run(root, "id", "--user", "--name", NAME) == f"{NAME}\n"
    run(root, "apt-get", "purge", "-y", NAME)
    assert named(root) == set()
