"""The commit that this program was built from."""

import re
from pathlib import Path

# `git archive` writes the commit in place of the dollar signs (.gitattributes); a checkout has none to write.
_ARCHIVED = "$Format:%H$"
_UNKNOWN = "unknown"


def commit_of(checkout: Path) -> str:
    """Return the commit that a folder is checked out at, from git's own files; `unknown` if it is no checkout."""
    git = checkout / ".git"
    try:
        if git.is_file():
            # A worktree has but the name of its folder.
            git = checkout / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if head.startswith("ref:"):
            head = _commit_of_branch(git, head.removeprefix("ref:").strip())
    except (OSError, ValueError):
        return _UNKNOWN
    return head if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", head) else _UNKNOWN


def _commit_of_branch(git: Path, name: str) -> str:
    shared = git / "commondir"
    common = git / shared.read_text(encoding="utf-8").strip() if shared.is_file() else git
    if (common / name).is_file():
        return (common / name).read_text(encoding="utf-8").strip()
    packed = (common / "packed-refs").read_text(encoding="utf-8")
    found = re.search(rf"^(\S+) {re.escape(name)}$", packed, re.MULTILINE)
    return found[1] if found else ""


# A program that is installed is in no checkout: one that is run from there (`make run`) is.
REVISION = commit_of(Path(__file__).parents[1]) if _ARCHIVED.startswith("$") else _ARCHIVED
