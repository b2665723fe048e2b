"""exporter/revision.py: a program that is run from a checkout knows its commit, as git does."""

import subprocess
from pathlib import Path

import pytest

from exporter.revision import commit_of


def git(folder: Path, *words: str | Path) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command: list[str | Path] = ["git", *identity, "-C", folder, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "a/b")
    for text in ("one", "two"):
        (folder / "file").write_text(text)
        git(folder, "add", "file")
        git(folder, "commit", "--quiet", "--message", text)
    return folder


def test_it_is_the_commit_of_the_branch(checkout: Path) -> None:
    assert commit_of(checkout) == git(checkout, "rev-parse", "HEAD")


def test_a_branch_that_git_packed_is_found(checkout: Path) -> None:
    git(checkout, "pack-refs", "--all")
    assert not (checkout / ".git/refs/heads/a/b").exists()
    assert commit_of(checkout) == git(checkout, "rev-parse", "HEAD")


def test_a_checkout_of_no_branch_has_its_commit(checkout: Path) -> None:
    git(checkout, "checkout", "--quiet", "--detach", "HEAD~1")
    assert commit_of(checkout) == git(checkout, "rev-parse", "HEAD")


@pytest.mark.parametrize("packed", [False, True])
def test_a_worktree_has_a_commit_of_its_own(checkout: Path, packed: bool) -> None:
    tree = checkout.parent / "tree"
    git(checkout, "worktree", "add", "--quiet", "-b", "other", tree, "HEAD~1")
    if packed:
        git(checkout, "pack-refs", "--all")
    assert commit_of(tree) == git(tree, "rev-parse", "HEAD") != commit_of(checkout)


def test_what_is_no_checkout_has_no_commit(checkout: Path, tmp_path: Path) -> None:
    assert commit_of(tmp_path) == "unknown"
    for head in ("", "ref: refs/heads/none", "ref: ../../../etc/passwd", "no commit", "\xff"):
        (checkout / ".git/HEAD").write_text(head, encoding="latin-1")
        assert commit_of(checkout) == "unknown"


def test_before_the_first_commit_there_is_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert commit_of(tmp_path) == "unknown"
