"""Makes a Debian with systemd as its first process, as one archive that QEMU boots.

The archive is unpacked into memory by the kernel, so that the guest needs no disk and no modules.
"""

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from documented import documented, documented_addition
from kernels import image
from kernels.archive import Archive
from kernels.machines import LINUX_6_1

from deploy.package.environment import NAME

CACHE = image.ROOT / "build" / "install"
GUEST = Path(__file__).parent / "guest"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "python3", "init-system-helpers", "passwd", "procps", "bash-completion"),
    *("prometheus", "curl"),
)
SUITE = "bookworm"
_LEFT_OUT = ("/usr/share/locale/*", "/usr/share/javascript/*", "/usr/bin/promtool")

_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "dpkg-deb": "dpkg",
    "qemu-system-x86_64": "qemu-system-x86",
    "apt-get": "apt",
}
# A machine that boots for the first time asks questions on its console.
_MACHINE_ID = b"0123456789abcdef0123456789abcdef\n"
_CHECK = b"""\
[Unit]
Description=Installs the package and looks at everything
After=basic.target dbus.service
[Service]
ExecStart=/usr/bin/python3 /srv/check.py /srv
StandardOutput=file:/dev/ttyS1
StandardError=inherit
ExecStopPost=/bin/systemctl --force --force poweroff
"""


# What an administrator would answer: yes, and that the settings stay as they are.
_APT = b"""\
APT::Get::Assume-Yes "true";
Dpkg::Options { "--force-confold"; };
"""
_PAGES = ("README.md", "docs/install.md", "docs/web.md")
_TEST = "tests/install/test_install.py"


def what_is_missing() -> str | None:
    """Return why no such machine can be made here, or None."""
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            return f"no {tool} here (Debian: apt-get install {package})"
    return image.what_is_missing(LINUX_6_1)


def root_filesystem() -> Path:
    """Return a tar of a minimal Debian; made where it was not before, which takes a minute."""
    words = [
        f"--include={','.join(PACKAGES)}",
        # All of it is unpacked into memory.
        *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT),
        # guest/check.py starts it, with the configuration of the docs.
        '--customize-hook=rm -f "$1"/etc/systemd/system/multi-user.target.wants/prometheus.service',
    ]
    key = hashlib.sha256(" ".join((SUITE, *words)).encode()).hexdigest()[:12]
    tar = CACHE / f"debian-{key}.tar"
    if not tar.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        begun = tar.with_suffix(".begun.tar")
        command: list[str | Path] = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            *words,
            SUITE,
            begun,
            *_sources(),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr[-3000:]
        begun.rename(tar)
    return tar


def _sources() -> list[str]:
    """Return the sources that this machine has Debian from, where they are of this release."""
    for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        if path.exists() and SUITE in path.read_text(encoding="utf-8"):
            return [str(path)]
    return []


def make_archive(debs: Iterable[Path], secrets: Iterable[Path]) -> Path:
    """Return the archive of a machine that runs guest/check.py.

    Args:
        debs: The packages; they lie in /srv.
        secrets: A certificate and its key, beside them.
    """
    archive = Archive()
    with tarfile.open(root_filesystem()) as tar:
        members = {member.name: member for member in tar}
        for name, member in members.items():
            path = "/" + name.removeprefix("./").rstrip("/")
            if member.issym():
                archive.link(path, member.linkname)
            elif member.isreg() or member.islnk():
                data = tar.extractfile(member)
                assert data is not None
                archive.file(path, data.read(), member.mode, int(member.mtime))
            elif member.isdir() and path != "/":
                archive.folder(path, member.mode)
    archive.link("/init", "/lib/systemd/systemd")
    archive.node("/dev/console", 5, 1)
    archive.file("/etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n", 0o644)
    archive.file("/etc/machine-id", _MACHINE_ID, 0o444)
    archive.file("/etc/systemd/system/check.service", _CHECK, 0o644)
    archive.link("/etc/systemd/system/multi-user.target.wants/check.service", "/etc/systemd/system/check.service")
    archive.file("/srv/check.py", (GUEST / "check.py").read_bytes(), 0o644)
    archive.file("/srv/prometheus.yml", scrape_configuration().encode(), 0o644)
    archive.file("/srv/stream-group.conf", documented_addition("docs/stream.md").encode(), 0o644)
    archive.file("/srv/documented.json", json.dumps(commands()).encode(), 0o644)
    archive.file("/etc/apt/apt.conf.d/90check", _APT, 0o644)
    for given in (*debs, *secrets):
        archive.file(f"/srv/{given.name}", given.read_bytes(), 0o644)
    target = CACHE / "archive"
    target.write_bytes(archive.data())
    return target


def commands() -> list[str]:
    """Return the commands of the documentation that guest/check.py runs: all but `make deb`, which came before."""
    found = dict.fromkeys(command for page in _PAGES for command in documented(page, _TEST))
    return [command for command in found if command != "make deb"]


def scrape_configuration() -> str:
    """Return README's configuration of Prometheus, with intervals that do not take the test minutes."""
    text = (image.ROOT / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(r"(?ms)^```yaml\n(scrape_configs:.*?)^```", text)
    return f"global: {{scrape_interval: 5s, evaluation_interval: 5s}}\n{block}"


def next_version(deb: Path) -> Path:
    """Return the same package with a higher version, for an upgrade."""
    folder = CACHE / "next"
    shutil.rmtree(folder, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "-R", deb, folder], check=True)
    # Its settings have changed as well as those of the administrator.
    with (folder / "etc" / "default" / NAME).open("a", encoding="utf-8") as settings:
        settings.write("\n# New in this version.\n")
    control = folder / "DEBIAN" / "control"
    text = re.sub(r"^(Version: .*)$", r"\1+next", control.read_text(encoding="utf-8"), flags=re.MULTILINE)
    control.write_text(text, encoding="utf-8")
    target = CACHE / "next.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", folder, target], check=True)
    shutil.rmtree(folder)
    return target
