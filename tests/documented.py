"""The commands of the documentation, for the tests that run them.

A block of commands has a mark on the line before it, `<!-- test: PATH -->`: the test that runs its lines.
"""

import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

_PROMPTS = ("# ", "$ ")

# What a make that runs the tests hands to each make below it.
_OF_MAKE = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS", "VENV", "PYTHON", "ENGINE"}


def documented(page: str, test: str) -> list[str]:
    """Return the commands of a page whose block names a test.

    Args:
        page: Its path in the repository.
        test: The path that the mark names.

    Returns:
        One string a command, without prompt and comment; lines that a backslash joins are joined.
    """
    lines = _lines(page, test)
    return [" ".join(re.sub(r"\s{2,}# .*", "", line[2:]).split()) for line in lines if line.startswith(_PROMPTS)]


def shown(page: str, test: str) -> list[str]:
    """Return the lines that a page shows below those commands."""
    return [line for line in _lines(page, test) if not line.startswith(_PROMPTS)]


def documented_addition(page: str) -> str:
    """Return the addition to the systemd unit that a page has."""
    text = (ROOT / page).read_text(encoding="utf-8")
    [addition] = re.findall(r"```ini\n(.*?)```", text, flags=re.DOTALL)
    assert isinstance(addition, str)
    return addition


def _lines(page: str, test: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(rf"(?ms)^<!-- test: {re.escape(test)} -->\n```console\n(.*?)^```", text)
    return "".join(blocks).replace("\\\n", " ").splitlines()


def environment_of_a_user() -> dict[str, str]:
    """Return the environment without what `make test...` has set, for tests that run make as a user does."""
    return {name: value for name, value in os.environ.items() if name not in _OF_MAKE}
