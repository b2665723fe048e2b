"""Makes a release in dist/, from what is committed: the same bytes for the same commit.

    proc_connector_exporter-VERSION-py3-none-any.whl, proc_connector_exporter-VERSION.tar.gz
    proc-connector-exporter_VERSION_amd64.deb, ..._arm64.deb
    proc-connector-exporter-CHART.tgz                    the Helm chart
    proc-connector-exporter-dashboards-VERSION.tar.gz    dashboards and rules
    proc-connector-exporter-VERSION.cdx.json             what is in it (CycloneDX)
    SHA256SUMS

The commit has the tag of its version, and CHANGELOG.md has nothing under [Unreleased]; --snapshot is for what is
between two releases. Needs git, pip, dpkg-deb and a network. An unpacked source archive, which has no git, is
released as it is.
"""

import argparse
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from deploy.package.deb import source_epoch
from deploy.package.environment import NAME, ROOT, errors_in_a_line
from exporter import __version__

_SNAPSHOT = "make release ARGS=--snapshot builds what is between two releases"
CHART = ROOT / "helm" / NAME
# A fixed name space for the number of an SBOM, so that it follows from the version alone.
_SBOM_NAMESPACE = uuid.UUID("8d3a8a3e-5f0e-4a57-9a6a-6f1f6f0f4c11")


def export_source(folder: Path) -> None:
    """Write what is committed to a folder; `git archive` puts the commit into exporter/revision.py."""
    folder.mkdir(parents=True)
    if not (ROOT / ".git").exists():
        leave_out = shutil.ignore_patterns(".venv*", "build", "dist", "__pycache__", ".*_cache", ".hypothesis")
        shutil.copytree(ROOT, folder, dirs_exist_ok=True, ignore=leave_out, symlinks=True)
        return
    archive = subprocess.run(["git", "-C", ROOT, "archive", "HEAD"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)


def build_python(source: Path, output: Path, epoch: int) -> None:
    """Build the wheel and the source archive."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", output],
        cwd=source,
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
    )


def build_debs(source: Path, output: Path, epoch: int) -> None:
    """Build the package for both architectures."""
    for arch in ("amd64", "arm64"):
        subprocess.run(
            [sys.executable, "-m", "deploy.package.deb", "--arch", arch, "--output", output],
            cwd=source,
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
        )


def chart_version(source: Path) -> str:
    """Return the version of the chart, which is not the program's."""
    text = (source / "helm" / NAME / "Chart.yaml").read_text(encoding="utf-8")
    match = re.search(r"^version: *(\S+)$", text, re.MULTILINE)
    if match is None:
        raise ValueError("the chart has no version")
    return match[1]


def pack(target: Path, files: Iterator[tuple[str, Path]], epoch: int) -> None:
    """Write a .tar.gz without anything of this machine: owners, times and modes are fixed."""
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name, path in sorted(files):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = path.stat().st_size, epoch, 0o644
            with path.open("rb") as file:
                tar.addfile(member, file)


def chart_files(source: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of the chart's package by their names in it."""
    chart = source / "helm" / NAME
    ignored = {line.strip() for line in (chart / ".helmignore").read_text(encoding="utf-8").splitlines()}
    for path in chart.rglob("*"):
        name = path.relative_to(chart)
        if path.is_file() and not ignored & {*name.parts, f"{name.parts[0]}/"}:
            yield f"{NAME}/{name}", path


def dashboard_files(source: Path) -> Iterator[tuple[str, Path]]:
    """Yield dashboards, rules and runbooks."""
    folder = f"{NAME}-dashboards-{__version__}"
    dashboards = source / "dashboards"
    for path in (*dashboards.glob("*.json"), *dashboards.glob("rules/*.yaml"), dashboards / "thresholds.yaml"):
        yield f"{folder}/{path.relative_to(dashboards)}", path
    for path in (source / "docs" / "runbooks").glob("*.md"):
        yield f"{folder}/runbooks/{path.name}", path


def sbom(source: Path, epoch: int) -> str:
    """Return a CycloneDX document of the program and the packages that it comes with."""
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "hashes": [{"alg": "SHA-256", "content": content} for content in sorted(hashes)],
        }
        for name, version, hashes in _requirements((source / "requirements.txt").read_text(encoding="utf-8"))
    ]
    own = f"pkg:pypi/{NAME}@{__version__}"
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_SBOM_NAMESPACE, f'{__version__} {epoch}')}",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": NAME,
                "version": __version__,
                "purl": own,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": components,
        "dependencies": [{"ref": own, "dependsOn": [component["bom-ref"] for component in components]}],
    }
    return json.dumps(document, indent=2) + "\n"


def _requirements(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each pinned package with its version and the hashes of its files."""
    for entry in re.split(r"\n(?=\S)", text):
        if match := re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", entry):
            yield match[1].lower(), match[2], re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)


def check_version(source: Path, *, snapshot: bool) -> None:
    """Refuse a release whose version, tag, changelog and chart do not agree.

    Args:
        source: What is committed.
        snapshot: It is not a release, but what is between two of them: without a tag, with unreleased changes.

    Raises:
        SystemExit: They do not.
    """
    changelog = (source / "CHANGELOG.md").read_text(encoding="utf-8")
    if f"\n## [{__version__}]" not in changelog:
        sys.exit(f"CHANGELOG.md has no section [{__version__}]")
    if not snapshot and has_unreleased(changelog):
        sys.exit(
            f"CHANGELOG.md has changes under [Unreleased], which are not of {__version__}: put them into the "
            f"section of the version that this is; {_SNAPSHOT}"
        )
    described = subprocess.run(
        ["git", "-C", ROOT, "tag", "--points-at", "HEAD"], capture_output=True, text=True, check=False
    )
    tags = [tag for tag in described.stdout.split() if re.match(r"v\d", tag)]
    if tags and f"v{__version__}" not in tags:
        sys.exit(f"this commit is tagged {', '.join(tags)}, but its version is {__version__}")
    if not snapshot and not tags and (ROOT / ".git").exists():
        sys.exit(f"this commit has no tag: git tag v{__version__}; {_SNAPSHOT}")


def has_unreleased(changelog: str) -> bool:
    """Whether a changelog has changes that are in no version."""
    section = re.search(r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return section is not None and re.search(r"^- ", section[1], re.MULTILINE) is not None


def clear(output: Path) -> None:
    """Remove the files of an earlier release; what else is in the folder is its user's."""
    output.mkdir(parents=True, exist_ok=True)
    for path in output.iterdir():
        if path.is_file() and re.match(r"SHA256SUMS(\.|$)|proc[-_]connector[-_]exporter[-_]", path.name):
            path.unlink()


def main() -> None:
    """Make the release."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument(
        "--snapshot", action="store_true", help="not a release: without a tag, or with changes since"
    )
    given = parser.parse_args()
    output: Path = given.output.absolute()
    began = time.monotonic()
    os.umask(0o022)
    with errors_in_a_line():
        files = make_release(output, snapshot=given.snapshot)
    what = "a snapshot, not a release: " if given.snapshot else ""
    print(f"{(output / 'SHA256SUMS').read_text()}{what}{output}: {files} files, {time.monotonic() - began:.0f} s")


def make_release(output: Path, *, snapshot: bool) -> int:
    """Write all files of the release to a folder, and their sums; return their number without the sums."""
    source, epoch = ROOT / "build" / "release", source_epoch()
    shutil.rmtree(source, ignore_errors=True)
    clear(output)
    # Apart, so that nothing that was in the folder before is in the sums.
    made = ROOT / "build" / "released"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    export_source(source)
    check_version(source, snapshot=snapshot)
    build_python(source, made, epoch)
    build_debs(source, made, epoch)
    pack(made / f"{NAME}-{chart_version(source)}.tgz", chart_files(source), epoch)
    pack(made / f"{NAME}-dashboards-{__version__}.tar.gz", dashboard_files(source), epoch)
    (made / f"{NAME}-{__version__}.cdx.json").write_text(sbom(source, epoch), encoding="utf-8")
    files = sorted(path for path in made.iterdir() if path.name != ".gitignore")
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    for path in files:
        shutil.move(path, output / path.name)
    (output / "SHA256SUMS").write_text(sums, encoding="utf-8")
    return len(files)


if __name__ == "__main__":
    main()
