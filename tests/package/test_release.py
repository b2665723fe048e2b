"""deploy/package/release.py: the parts of a release, and the release as a whole."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from documented import documented, environment_of_a_user
from installed import SAMPLE, serves_the_sample

from deploy.package import release
from deploy.package.environment import NAME, ROOT
from exporter import __version__

EPOCH = 1_700_000_000


def test_all_places_have_the_same_version() -> None:
    chart = yaml.safe_load((ROOT / "helm" / NAME / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    assert f"\n## [{__version__}] - " in (ROOT / "CHANGELOG.md").read_text()
    assert __version__ not in (ROOT / "Dockerfile").read_text()


def test_the_documentation_names_the_version_that_this_is() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("helm/*/README.md")]
    pattern = r"(?:proc-connector-exporter:|VERSION=|git tag v|newTag: |-)(\d+\.\d+\.\d+)(?:\.cdx|\b(?!\.\w))"
    named = {page.relative_to(ROOT): re.findall(pattern, page.read_text(encoding="utf-8")) for page in pages}
    assert sum(map(len, named.values())) >= 8
    assert {page: found for page, found in named.items() if set(found) - {__version__}} == {}


def test_an_archive_has_nothing_of_this_machine(tmp_path: Path) -> None:
    sums = set()
    for name in ("a", "b"):
        source = tmp_path / name
        source.mkdir()
        (source / "file").write_text("text")
        (source / "file").chmod(0o600 if name == "a" else 0o755)
        os.utime(source / "file", (1 if name == "a" else 2,) * 2)
        release.pack(tmp_path / f"{name}.tgz", iter([("x/file", source / "file")]), EPOCH)
        sums.add(hashlib.sha256((tmp_path / f"{name}.tgz").read_bytes()).hexdigest())
    assert len(sums) == 1
    with tarfile.open(tmp_path / "a.tgz") as tar:
        [member] = tar
        assert (member.name, member.mode, member.mtime, member.uid) == ("x/file", 0o644, EPOCH, 0)


def test_the_sbom_names_every_package_with_its_hashes() -> None:
    document = json.loads(release.sbom(ROOT, EPOCH))
    pinned = dict(re.findall(r"^([a-z0-9.-]+)==([^ ;]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert {c["name"]: c["version"] for c in document["components"]} == pinned
    assert all(c["hashes"] and c["purl"] == f"pkg:pypi/{c['name']}@{c['version']}" for c in document["components"])
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    assert release.sbom(ROOT, EPOCH) == release.sbom(ROOT, EPOCH)


SECTIONS = "# Changelog\n\n## [Unreleased]\n{}\n## [{}] - 2026-01-01\n\n- first\n"


@pytest.mark.parametrize(
    ("unreleased", "refused"),
    [("", False), ("\n### Added\n", False), ("\n### Added\n\n- a flag\n", True), ("\n- a flag\n", True)],
)
def test_a_release_has_no_changes_that_are_of_no_version(unreleased: str, refused: bool, tmp_path: Path) -> None:
    text = SECTIONS.format(unreleased, __version__)
    (tmp_path / "CHANGELOG.md").write_text(text)
    assert release.has_unreleased(text) is refused
    release.check_version(tmp_path, snapshot=True)
    if refused:
        with pytest.raises(SystemExit, match=r"has changes under \[Unreleased\].*ARGS=--snapshot"):
            release.check_version(tmp_path, snapshot=False)


@pytest.mark.parametrize(
    ("tag", "refused"), [("v{}", None), ("v9.9.9", "is tagged"), ("", "has no tag: git tag v")]
)
def test_a_release_has_the_tag_of_its_version(
    tag: str, refused: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "CHANGELOG.md").write_text(SECTIONS.format("", __version__))
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"], ["tag", tag.format(__version__)]):
        if words[-1]:
            subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(release, "ROOT", tmp_path)
    if refused is None:
        release.check_version(tmp_path, snapshot=False)
    else:
        with pytest.raises(SystemExit, match=refused):
            release.check_version(tmp_path, snapshot=False)


def test_the_charts_package_names_nothing_that_is_not_in_it() -> None:
    files = {name.removeprefix(f"{NAME}/"): path for name, path in release.chart_files(ROOT)}
    named = set()
    for name in ("README.md", "values.yaml", "templates/NOTES.txt"):
        text = re.sub(r"<!--.*?-->", "", files[name].read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.findall(r"`[^`\n]*\bmake [^`\n]*`|^\$ make .*", text, re.MULTILINE), name
        # Beginning with a folder of the repository or of the chart; not within an address.
        folders = "dashboards|deploy|docs|examples|exporter|files|helm|templates|tests"
        named |= set(re.findall(rf"(?<![\w/.-])(?:{folders})/[\w./-]*\w", text))
    assert "dashboards/thresholds.yaml" in named
    assert {path for path in named if path not in files} == set()


def test_the_charts_package_has_what_helm_needs_and_no_scenario() -> None:
    names = dict(release.chart_files(ROOT))
    folder = NAME
    assert {f"{folder}/Chart.yaml", f"{folder}/values.yaml", f"{folder}/templates/daemonset.yaml"} <= set(names)
    assert f"{folder}/dashboards/fleet.json" in names
    assert f"{folder}/dashboards/rules/alerts.yaml" in names
    assert not [name for name in names if "/ci/" in name or "__pycache__" in name]
    assert not any(path.is_symlink() for path in names.values())


def test_a_folder_of_releases_is_cleared_of_releases_alone(tmp_path: Path) -> None:
    ours = ["SHA256SUMS", "SHA256SUMS.bundle", f"{NAME}_0.0.9_amd64.deb", "proc_connector_exporter-0.0.9.tar.gz"]
    theirs = ["notes", "thesis.tar.gz", NAME]
    for name in (*ours, *theirs):
        (tmp_path / name).touch()
    (tmp_path / f"{NAME}-checkout").mkdir()
    release.clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*theirs, f"{NAME}-checkout"}


def test_the_wheel_has_all_dashboards_and_rules() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    dashboards = ROOT / "dashboards"
    files = [*dashboards.glob("*.json"), *dashboards.glob("rules/*.yaml")]
    assert set(included) == {str(path.relative_to(ROOT)) for path in files}
    assert {target.removeprefix("exporter/data/") for target in included.values()} == {
        str(path.relative_to(dashboards)) for path in files
    }


# -- The whole of it -----------------------------------------------------------------------------------------


def make_release(output: Path) -> dict[str, str]:
    """Return the sums of a release."""
    began = time.monotonic()
    command: list[str | Path] = [sys.executable, "-m", "deploy.package.release", "--snapshot", "--output", output]
    subprocess.run(command, cwd=ROOT, check=True)
    sys.stdout.write(f"make release: {time.monotonic() - began:.0f} s\n")
    lines = (output / "SHA256SUMS").read_text().splitlines()
    return {name: content for content, name in (line.split("  ") for line in lines)}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("release") / "dist"
    make_release(output)
    return output


@pytest.mark.release
def test_a_release_made_again_has_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    again = make_release(tmp_path / "again")
    assert again == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in dist.iterdir() if path.name in again
    }
    assert len(again) == 7


@pytest.mark.release
def test_the_wheel_works_in_a_bare_environment(dist: Path, tmp_path: Path) -> None:
    [wheel] = dist.glob("*.whl")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, str(wheel)], check=True)
    program = environment / "bin" / NAME

    def run(*words: str | Path) -> str:
        return subprocess.run(
            [program, *words], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120
        ).stdout

    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert run("--version").startswith(f"{NAME}, version {__version__} (revision: {commit.stdout.strip()}")
    assert "--web.config.file" in run("--help")
    assert "nonzero_exit" in run("watch", "--help")
    assert len(run("watch", "--replay", SAMPLE, "--summary").splitlines()) > 100
    # Five dashboards and two files of rules.
    assert len(run("dashboards", "--output", tmp_path / "dashboards").splitlines()) == 7
    typed = next(environment.glob("lib/python3*/site-packages/exporter/py.typed"))
    assert typed.exists()
    serves_the_sample(program, tmp_path)


def same(one: Path, other: Path) -> bool:
    return one.exists() and one.read_bytes() == other.read_bytes()


@pytest.mark.release
def test_the_source_archive_is_complete(dist: Path, tmp_path: Path) -> None:
    [sdist] = dist.glob(f"proc_connector_exporter-{__version__}.tar.gz")
    subprocess.run(["tar", "-xzf", sdist, "-C", tmp_path], check=True)
    [folder] = tmp_path.iterdir()
    committed = tmp_path / "committed"
    committed.mkdir()
    archive = subprocess.run(["git", "-C", ROOT, "archive", "HEAD"], capture_output=True, check=False)
    if archive.returncode == 0:
        subprocess.run(["tar", "-x", "-C", committed], input=archive.stdout, check=True)
        names = {str(path.relative_to(committed)) for path in committed.rglob("*") if path.is_file()} - {
            ".gitignore"
        }
        # The commit is written into this one.
        differ = {name for name in names if not same(folder / name, committed / name)} - {"exporter/revision.py"}
        assert differ == set()
        assert len(names) > 500
    # As CONTRIBUTING has it, in an environment that make sets up, but only some: .ci/run runs all of `make test`.
    commands = documented("CONTRIBUTING.md", "tests/package/test_release.py")
    [quick] = [line for line in commands if line.startswith("make ")]
    subprocess.run([*quick.split(), "ARGS=-k bundle"], cwd=folder, env=environment_of_a_user(), check=True)


@pytest.mark.release
def test_the_commands_of_the_documentation_install_the_wheel(dist: Path, tmp_path: Path) -> None:
    pipx = tmp_path / "pipx"
    subprocess.run([sys.executable, "-m", "venv", pipx], check=True)
    subprocess.run([pipx / "bin" / "pip", "install", "--quiet", "pipx"], check=True)
    home, folder = tmp_path / "home", tmp_path / "opt"
    environment = {**os.environ, "HOME": str(home), "PATH": f"{pipx / 'bin'}:{os.environ['PATH']}"}
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "dist").symlink_to(dist)
    for command in documented("docs/install.md", "tests/package/test_release.py"):
        subprocess.run(
            ["sh", "-c", command.replace("/opt/", f"{folder}/")],
            cwd=tmp_path / "checkout",
            check=True,
            env=environment,
        )
    for program in (home / ".local/bin" / NAME, folder / NAME / "bin" / NAME):
        said = subprocess.run([program, "--version"], cwd="/", capture_output=True, text=True, check=True).stdout
        assert said.startswith(f"{NAME}, version {__version__} ")


@pytest.mark.release
def test_the_sums_are_right_as_the_documentation_checks_them(dist: Path) -> None:
    *_, check = documented("docs/releasing.md", "tests/package/test_release.py")
    subprocess.run(["sh", "-c", check], cwd=dist.parent, check=True, stdout=subprocess.DEVNULL)
    [wheel] = dist.glob("*.whl")
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[:-1])
    result = subprocess.run(["sh", "-c", check], cwd=dist.parent, capture_output=True, text=True, check=False)
    wheel.write_bytes(whole)
    assert (result.returncode, f"{wheel.name}: FAILED" in result.stdout) == (1, True)


@pytest.mark.release
def test_the_charts_package_is_one_that_helm_reads(dist: Path, tmp_path: Path) -> None:
    helm = pytest.importorskip("helm_python")
    [package] = dist.glob("*.tgz")
    subprocess.run(["tar", "-xzf", package, "-C", tmp_path], check=True)
    with helm.Chart.load(str(tmp_path / NAME)) as chart:
        assert "templates/daemonset.yaml" in "".join(chart.render({}, name="x", namespace="m"))


@pytest.mark.release
def test_the_packages_are_of_their_architecture(dist: Path) -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb here")
    for arch, machine in ("amd64", "x86_64"), ("arm64", "aarch64"):
        [deb] = dist.glob(f"*_{arch}.deb")
        listed = subprocess.run(["dpkg-deb", "-c", deb], capture_output=True, text=True, check=True).stdout
        assert f"{machine}-linux-gnu.so" in listed
        field = subprocess.run(["dpkg-deb", "-f", deb, "Architecture"], capture_output=True, text=True, check=True)
        assert field.stdout.strip() == arch
