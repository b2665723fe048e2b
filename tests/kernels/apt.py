"""Downloads packages of the distribution, for this machine and for others, and installs none."""

import os
import re
import subprocess
from pathlib import Path

TOOLS = ("apt-get", "apt-cache", "dpkg-deb")
# The lists of another architecture and what was downloaded of it; this machine's sources and keys are used.
_CONFIGURATION = """\
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Debug::NoLocking "true";
Dir::State "{folder}/state";
Dir::State::status "{folder}/state/status";
Dir::Cache "{folder}/cache";
"""


class Apt:
    """apt of this machine.

    Args:
        environment: What it needs besides this program's.
    """

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        self._environment = {**os.environ, **(environment or {})}

    def _run(self, *words: str | Path, folder: Path | None = None) -> str:
        done = subprocess.run(
            words, cwd=folder, env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr[-1000:]}")
        return done.stdout

    def update(self) -> None:
        """Download the lists of packages."""
        self._run("apt-get", "-qq", "update")

    def known(self, pattern: str) -> list[str]:
        """Return the packages whose whole name matches a regular expression, the oldest version first."""
        lines = self._run("apt-cache", "search", "--names-only", f"^{pattern}$").splitlines()
        return sorted({line.split()[0] for line in lines}, key=version)

    def download(self, package: str, folder: Path) -> Path:
        """Download one package; return it."""
        self._run("apt-get", "-qq", "download", package, folder=folder)
        [deb] = folder.glob("*.deb")
        return deb

    def download_with_all_that_it_needs(self, *packages: str) -> None:
        """Download packages into the cache, with their dependencies that are not installed."""
        self._run("apt-get", "-qq", "-y", "--download-only", "install", *packages)


def foreign_apt(architecture: str, folder: Path) -> Apt:
    """Return apt as on a machine of another architecture on which nothing is installed.

    Args:
        folder: Of its own; what it downloads lies in cache/archives there.
    """
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "state" / "status").touch()
    configuration = folder / "apt.conf"
    configuration.write_text(_CONFIGURATION.format(architecture=architecture, folder=folder), encoding="utf-8")
    return Apt({"APT_CONFIG": str(configuration)})


def version(package: str) -> list[int]:
    """Return the numbers in a name, to sort by."""
    return [int(number) for number in re.findall("[0-9]+", package)]


def unpack(deb: Path, folder: Path) -> None:
    """Unpack the files of a package."""
    subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
