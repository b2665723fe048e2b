"""Makes dist/proc-connector-exporter_VERSION_ARCH.deb, the same bytes for the same source.

Needs dpkg-deb, pip and a network.
"""

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

from deploy.package.environment import NAME, PYTHONS, ROOT, architecture, errors_in_a_line, install_environment
from exporter import __version__

DEBIAN = Path(__file__).parent / "debian"
SCRIPTS = ("postinst", "prerm", "postrm")

_CONTROL = """\
Package: {name}
Version: {version}
Architecture: {arch}
Maintainer: {maintainer}
Installed-Size: {kib}
Depends: {depends}
Section: net
Priority: optional
Description: Prometheus exporter of process life
 Counts every fork, exec, exit and non-zero exit of the host by comm, uid, exit
 code and signal, from the kernel's process connector, and serves the counts as
 Prometheus metrics. It does not poll and needs no eBPF, and no process is too
 short-lived to be counted.
"""
# The wheels need this glibc.
_DEPENDS = ("libc6 (>= 2.28)", "systemd", "passwd", "init-system-helpers (>= 1.54)")
_COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: {name}

Files: *
Copyright: 2026 the proc-connector-exporter authors
License: Apache-2.0
 On Debian systems the text of this license is in /usr/share/common-licenses/Apache-2.0.

Files: usr/lib/{name}/*
Copyright: 2008-2026 the authors that the METADATA files name
License: as-in-the-packages
 Python packages as their authors published them; each has its license in its
 .dist-info folder.
"""
_CHANGES = """\
{name} ({version}) unstable; urgency=medium

  * CHANGELOG.md.gz beside this file has the changes.

 -- {maintainer}  {date}
"""
_MAINTAINER = f"the {NAME} authors <maintainers@users.noreply.example.org>"


def build_deb(arch: str, epoch: int, output: Path) -> Path:
    """Build the package.

    Args:
        arch: By Debian's name.
        epoch: The time of all files, in seconds since 1970.
        output: The folder to write to.
    """
    root = ROOT / "build" / f"deb-{arch}"
    shutil.rmtree(root, ignore_errors=True)
    install_environment(root, "/usr", PYTHONS, arch, zsh="vendor-completions")
    maintainer = os.environ.get("DEB_MAINTAINER", _MAINTAINER)
    _add_debian_files(root, maintainer, epoch)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    control = root / "DEBIAN"
    control.mkdir()
    text = _CONTROL.format(
        name=NAME,
        version=__version__,
        arch=arch,
        maintainer=maintainer,
        kib=sum(-(-path.stat().st_size // 1024) for path in files),
        depends=", ".join([f"python3 (>= {PYTHONS[0]})", f"python3 (<< {_after(PYTHONS[-1])})", *_DEPENDS]),
    )
    (control / "control").write_text(text, encoding="utf-8")
    (control / "conffiles").write_text(f"/etc/default/{NAME}\n", encoding="utf-8")
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in files]  # noqa: S324
    (control / "md5sums").write_text("".join(line for line in sums if "  etc/" not in line), encoding="utf-8")
    for script in SCRIPTS:
        shutil.copy(DEBIAN / script, control / script)
        (control / script).chmod(0o755)
    shutil.copy(DEBIAN / "triggers", control / "triggers")
    _set_modes(root, epoch)
    output.mkdir(parents=True, exist_ok=True)
    deb = output / f"{NAME}_{__version__}_{arch}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zxz", "-z3", "--threads-max=1", "--build", root, deb],
        check=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
        stdout=subprocess.DEVNULL,
    )
    return deb


def _after(python: str) -> str:
    """Return the first version that is newer than all of a Python's."""
    major, minor = python.split(".")
    return f"{major}.{int(minor) + 1}~"


def _add_debian_files(root: Path, maintainer: str, epoch: int) -> None:
    documents = root / "usr" / "share" / "doc" / NAME
    documents.mkdir(parents=True)
    (documents / "copyright").write_text(_COPYRIGHT.format(name=NAME), encoding="utf-8")
    changes = _CHANGES.format(
        name=NAME, version=__version__, maintainer=maintainer, date=formatdate(epoch, localtime=False)
    )
    (documents / "changelog.gz").write_bytes(gzip.compress(changes.encode(), mtime=0))
    (documents / "CHANGELOG.md.gz").write_bytes(gzip.compress((ROOT / "CHANGELOG.md").read_bytes(), mtime=0))
    overrides = root / "usr" / "share" / "lintian" / "overrides"
    overrides.mkdir(parents=True)
    shutil.copy(DEBIAN / "lintian-overrides", overrides / NAME)


def _set_modes(root: Path, epoch: int) -> None:
    """Give all files the same time, and modes that do not depend on the umask."""
    for path in sorted(root.rglob("*"), reverse=True):
        executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if executable else 0o644)
        os.utime(path, (epoch, epoch))


def source_epoch() -> int:
    """Return the time of the source: SOURCE_DATE_EPOCH, or that of the commit, or that of CHANGELOG.md."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if re.fullmatch("[0-9]+", given):
        return int(given)
    # An unpacked archive can lie in the checkout of something else.
    if (ROOT / ".git").exists() and shutil.which("git"):
        command: list[str | Path] = ["git", "-C", ROOT, "log", "-1", "--format=%ct"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False)
        if commit.returncode == 0 and commit.stdout.strip():
            return int(commit.stdout)
    return int((ROOT / "CHANGELOG.md").stat().st_mtime)


def main() -> None:
    """Build for one architecture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--arch", default=architecture())
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    began = time.monotonic()
    if shutil.which("dpkg-deb") is None:
        sys.exit("no dpkg-deb here: a .deb is built on Debian or Ubuntu; `make install` works elsewhere")
    with errors_in_a_line():
        deb = build_deb(arguments.arch, source_epoch(), arguments.output)
    print(f"{deb} ({deb.stat().st_size >> 10} KiB, {time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    main()
