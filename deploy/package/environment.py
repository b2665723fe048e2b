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
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from deploy.package.checkout import checked_out_commit
from deploy.package.documents import ZSH_FOLDER, write_documents
from exporter import __version__
from exporter.revision import REVISION

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
_OLDEST_PYTHON = (3, 11)
# What the unit, the starter and a line of a shell can have as it is.
_PLAIN_PATH = r"[A-Za-z0-9/._+~-]*"
# Of the system: it stays, even if nothing is in it any more.
_SHARED_PREFIXES = ("", "/usr", "/usr/local")
_ASK_VERSION = "import sys, sysconfig; print(*sys.version_info[:2], sysconfig.get_config_var('SOABI'))"

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


_REVISION = """\
\"""The commit that this program was built from.\"""

REVISION = "{commit}"
"""


def architecture() -> str:
    """Return this machine's architecture by Debian's name."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def read_prefix(text: str) -> str:
    """Return a prefix as paths begin with it: empty for /, else without a slash at the end.

    Raises:
        SystemExit: It is relative, or the unit could not have it as it is.
    """
    if text and not text.startswith("/"):
        sys.exit(f"PREFIX must begin with /, got {text!r}")
    if not re.fullmatch(_PLAIN_PATH, text):
        sys.exit(f"PREFIX may have letters, digits and / . _ + ~ -, because it stands in the unit; got {text!r}")
    # Two slashes at the beginning are left by normpath, and what joins paths would begin at / again.
    path = os.path.normpath(text or "/").strip("/")
    return f"/{path}" if path else ""


def read_interpreter(text: str) -> tuple[str, str]:
    """Return the path of an interpreter, and its version.

    Raises:
        SystemExit: It is not there, or has no wheels.
    """
    found = shutil.which(text)
    if found is None:
        sys.exit(f"there is no Python {text!r}: set INTERPRETER to one of {_oldest()} or later")
    path = os.path.abspath(found)  # noqa: PTH100 - a link stays one: its target may move
    if not re.fullmatch(_PLAIN_PATH, path):
        sys.exit(f"INTERPRETER must be a path without spaces, because a script begins with it; got {path!r}")
    result = subprocess.run([path, "-c", _ASK_VERSION], capture_output=True, text=True, check=False)
    words = result.stdout.split()
    if result.returncode != 0 or len(words) != 3:
        sys.exit(f"{path} is no Python: {result.stderr.strip()[-300:]}")
    major, minor, abi = words
    if (int(major), int(minor)) < _OLDEST_PYTHON:
        sys.exit(f"{path} is Python {major}.{minor}: set INTERPRETER to one of {_oldest()} or later")
    if not re.fullmatch(rf"cpython-{major}{minor}-\S+-linux-gnu", abi):
        sys.exit(f"the packages have no wheels for the Python {path} ({abi}): use pip instead")
    return path, f"{major}.{minor}"


def _oldest() -> str:
    return ".".join(map(str, _OLDEST_PYTHON))


def download_wheels(python: str, arch: str, folder: Path) -> list[Path]:
    """Download the wheels for a Python into a folder; pip refuses those whose hashes are not pinned."""
    requirements = folder / "requirements.txt"
    # pip evaluates markers for the Python that it runs on. A package too many does no harm.
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    requirements.write_text(re.sub(r" ; [^\\\n]*", " ", text), encoding="utf-8")
    if arch not in _PLATFORMS:
        sys.exit(f"the packages have no wheels for {arch}, only for {' and '.join(_PLATFORMS)}: use pip instead")
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


def install_environment(
    root: Path,
    prefix: str,
    pythons: Sequence[str],
    arch: str,
    *,
    interpreter: str = "/usr/bin/python3",
    zsh: str = ZSH_FOLDER,
    download: Callable[[str, str, Path], list[Path]] = download_wheels,
) -> None:
    """Install everything below root.

    Args:
        root: In place of /.
        prefix: Such as /usr or /usr/local, as `read_prefix` returns it.
        pythons: The versions of Python to serve.
        arch: amd64 or arm64.
        interpreter: What starts the program.
        zsh: Where completions for zsh go, below share/zsh.
        download: Puts the wheels for a version of Python and an architecture into a folder; returns their paths.
    """
    home = f"{prefix}/lib/{NAME}"
    target = root / home[1:]
    shutil.rmtree(target, ignore_errors=True)
    _copy_tree(ROOT / "exporter", target / "exporter")
    # In an archive of the source git wrote it: the same file then, whichever way it was built.
    commit = checked_out_commit(ROOT) or REVISION
    _write(target / "exporter" / "revision.py", _REVISION.format(commit=commit), 0o644)
    for python in pythons:
        with tempfile.TemporaryDirectory() as folder:
            for wheel in download(python, arch, Path(folder)):
                _unpack(wheel, target, target / f"python{python}")
    starter = root / prefix[1:] / "bin" / NAME
    text = _STARTER.format(interpreter=interpreter, home=home, pythons=tuple(pythons))
    _write(starter, text, 0o755)
    _install_service(root, prefix)
    write_documents(root / prefix[1:] / "share", zsh)
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
    yield f"{share}/zsh/{ZSH_FOLDER}/_{NAME}"
    yield f"{share}/fish/vendor_completions.d/{NAME}.fish"


def uninstall(root: Path, prefix: str) -> None:
    """Remove what was installed, but for the settings, and the folders that are empty then."""
    for name in installed_paths(prefix):
        path = root / name[1:]
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if prefix in _SHARED_PREFIXES:
            continue
        for folder in path.parents:
            if not folder.is_relative_to(root / prefix[1:]) or not folder.exists() or any(folder.iterdir()):
                break
            folder.rmdir()


@contextlib.contextmanager
def errors_in_a_line() -> Iterator[None]:
    """End with a line instead of a traceback if the machine lacks a program, a permission or a network."""
    try:
        yield
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed with {error.returncode}: {' '.join(map(str, error.cmd[:6]))} …; the reason is above")
    except OSError as error:
        sys.exit(f"{error.filename or 'error'}: {error.strerror or error}")


_NEXT = """\
{name} {version} is below {prefix}, for Python {python}. To run it as a service:
    systemd-sysusers {prefix}/lib/sysusers.d/{name}.conf
    systemctl enable --now {prefix}/lib/systemd/system/{name}.service
"""


def main() -> None:
    """Install below --destdir and --prefix, or remove what was installed there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("install", "uninstall"))
    parser.add_argument("--destdir", default="")
    parser.add_argument("--prefix", default="/usr/local")
    parser.add_argument("--interpreter", default="/usr/bin/python3")
    arguments = parser.parse_args()
    root, prefix = Path(arguments.destdir or "/"), read_prefix(arguments.prefix)
    # The service's user reads what root installs, whatever root's umask is.
    os.umask(0o022)
    with errors_in_a_line():
        if arguments.action == "uninstall":
            uninstall(root, prefix)
            return
        interpreter, python = read_interpreter(arguments.interpreter)
        install_environment(root, prefix, [python], architecture(), interpreter=interpreter)
    if not arguments.destdir:
        sys.stdout.write(_NEXT.format(name=NAME, version=__version__, prefix=prefix, python=python))


if __name__ == "__main__":
    main()
