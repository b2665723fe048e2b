"""Installs the program below a prefix, with everything that it needs: for `make install` and for the .deb.

    PREFIX/bin/proc-connector-exporter                      starts it
    PREFIX/lib/proc-connector-exporter/                     the program, and packages of Python alone
    PREFIX/lib/proc-connector-exporter/python3.N/           packages with machine code, for each Python
    PREFIX/lib/systemd/system/, PREFIX/lib/sysusers.d/      the service and its user
    PREFIX/share/                                           man page, completions
    /etc/default/, /etc/proc-connector-exporter/            settings

The packages are the wheels of requirements.txt, whose hashes pip checks. Nothing else of the machine's Python than
its standard library is used, so that other packages can neither break the program nor be broken.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from deploy.package.documents import write_documents

ROOT = Path(__file__).parents[2]
NAME = "proc-connector-exporter"
PYTHONS = ("3.11", "3.12", "3.13")
"""The versions of Python that a package serves."""

# By Debian's names. The wheels of the requirements need no newer glibc than 2.28.
_PLATFORMS = {
    "amd64": ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64"),
    "arm64": ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_28_aarch64"),
}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

_STARTER = """\
#!{interpreter} -ISB
\"""Starts proc-connector-exporter with the packages that came with it, and no others.\"""
import sys

HOME = {home!r}
PYTHONS = {pythons!r}

python = f"{{sys.version_info[0]}}.{{sys.version_info[1]}}"
if python not in PYTHONS:
    sys.exit(f"proc-connector-exporter was installed for Python {{' or '.join(PYTHONS)}}, this is {{python}}")
sys.path[:0] = [HOME, f"{{HOME}}/python{{python}}"]

from exporter.__main__ import main

sys.exit(main())
"""


def architecture() -> str:
    """Return this machine's architecture by Debian's name."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def install_environment(
    root: Path, prefix: str, pythons: Sequence[str], arch: str, interpreter: str = "/usr/bin/python3"
) -> None:
    """Install everything below root.

    Args:
        root: In place of /.
        prefix: Such as /usr or /usr/local.
        pythons: The versions of Python to serve.
        arch: amd64 or arm64.
        interpreter: What starts the program.
    """
    home = f"{prefix}/lib/{NAME}"
    target = root / home[1:]
    shutil.rmtree(target, ignore_errors=True)
    _copy_tree(ROOT / "exporter", target / "exporter")
    for python in pythons:
        with tempfile.TemporaryDirectory() as folder:
            for wheel in _download(python, arch, Path(folder)):
                _unpack(wheel, target, target / f"python{python}")
    starter = root / prefix[1:] / "bin" / NAME
    text = _STARTER.format(interpreter=interpreter, home=home, pythons=tuple(pythons))
    _write(starter, text, 0o755)
    _install_service(root, prefix)
    write_documents(root / prefix[1:] / "share")
    for path in (*(ROOT / "dashboards").glob("*.json"), *(ROOT / "dashboards").glob("rules/*.yaml")):
        text = path.read_text(encoding="utf-8")
        _write(target / "exporter" / "data" / path.relative_to(ROOT / "dashboards"), text, 0o644)


def _install_service(root: Path, prefix: str) -> None:
    systemd = ROOT / "deploy" / "systemd"
    units = root / prefix[1:] / "lib" / "systemd" / "system"
    for suffix in ("service", "socket"):
        text = (systemd / f"{NAME}.{suffix}").read_text(encoding="utf-8")
        _write(units / f"{NAME}.{suffix}", text.replace("/usr/bin/" + NAME, f"{prefix}/bin/{NAME}"), 0o644)
    sysusers = (systemd / f"{NAME}.sysusers").read_text(encoding="utf-8")
    _write(root / prefix[1:] / "lib" / "sysusers.d" / f"{NAME}.conf", sysusers, 0o644)
    settings = root / "etc" / "default" / NAME
    if not settings.exists():
        _write(settings, (systemd / f"{NAME}.default").read_text(encoding="utf-8"), 0o644)
    (root / "etc" / NAME).mkdir(parents=True, exist_ok=True)


def _download(python: str, arch: str, folder: Path) -> list[Path]:
    """Download the wheels for a Python into a folder; pip refuses those whose hashes are not pinned."""
    requirements = folder / "requirements.txt"
    # pip evaluates markers for the Python that it runs on. A package too many does no harm.
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    requirements.write_text(re.sub(r" ; [^\\\n]*", " ", text), encoding="utf-8")
    platforms = [word for platform in _PLATFORMS[arch] for word in ("--platform", platform)]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--only-binary=:all:", "--require-hashes", "--requirement", requirements, "--dest", folder),
            *("--implementation", "cp", "--python-version", python, *platforms),
        ],
        check=True,
    )
    return sorted(folder.glob("*.whl"))


def _unpack(wheel: Path, pure: Path, compiled: Path) -> None:
    """Unpack a wheel: one with machine code beside those for the same Python, another one beside the program."""
    target = pure if wheel.name.endswith("-none-any.whl") else compiled
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and "/tests/" not in name]
        for name in sorted(names):
            if ".data/" in name:
                raise RuntimeError(f"{wheel.name} has files outside of its packages, such as {name}")
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(name))
            path.chmod(0o644)


def _copy_tree(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            _write(target / path.relative_to(source), path.read_text(encoding="utf-8"), 0o644)


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def installed_paths(prefix: str) -> Iterable[str]:
    """Return what `make uninstall` removes: all but the settings."""
    share, lib = f"{prefix}/share", f"{prefix}/lib"
    yield from (f"{prefix}/bin/{NAME}", f"{lib}/{NAME}", f"{share}/man/man1/{NAME}.1.gz")
    yield from (f"{lib}/systemd/system/{NAME}.{suffix}" for suffix in ("service", "socket"))
    yield f"{lib}/sysusers.d/{NAME}.conf"
    yield f"{share}/bash-completion/completions/{NAME}"
    yield f"{share}/zsh/vendor-completions/_{NAME}"
    yield f"{share}/fish/vendor_completions.d/{NAME}.fish"


def main() -> None:
    """Install below --destdir and --prefix, or remove what was installed there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("install", "uninstall"))
    parser.add_argument("--destdir", default="")
    parser.add_argument("--prefix", default="/usr/local")
    parser.add_argument("--interpreter", default="/usr/bin/python3")
    arguments = parser.parse_args()
    root, prefix = Path(arguments.destdir or "/"), os.path.abspath(arguments.prefix)  # noqa: PTH100 - not of a file
    if arguments.action == "uninstall":
        for path in installed_paths(prefix):
            found = root / path[1:]
            shutil.rmtree(found) if found.is_dir() else found.unlink(missing_ok=True)
        return
    version = subprocess.run(
        [arguments.interpreter, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    install_environment(root, prefix, [version], architecture(), arguments.interpreter)


if __name__ == "__main__":
    main()
