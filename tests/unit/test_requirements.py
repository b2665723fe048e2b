"""The image has what the program needs, at versions whose bytes are known."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pinned() -> dict[str, str]:
    """Return what requirements.txt pins: version by name."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ ;]+)", text, re.MULTILINE))


def test_the_requirements_are_those_of_the_project() -> None:
    versions = pinned()
    for wanted in map(Requirement, PROJECT["dependencies"]):
        assert versions.get(wanted.name.lower(), "none") in wanted.specifier, "make requirements.txt"


def test_every_requirement_has_hashes_and_no_address() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) == len(pinned())
    assert all(len(re.findall(r"--hash=sha256:[0-9a-f]{64}", entry)) > 0 for entry in entries)
    assert "://" not in text
