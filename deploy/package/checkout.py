"""The commit of a checkout. The build hook runs this where nothing of the project can be imported."""

import subprocess
from pathlib import Path


def checked_out_commit(folder: Path) -> str | None:
    """Return the commit of a checkout, `-dirty` behind it if files differ that git has.

    Args:
        folder: The root of the checkout.

    Returns:
        None if this is not a checkout, or git is not there or refuses to read it.
    """
    # An unpacked archive can lie in the checkout of something else.
    if not (folder / ".git").exists():
        return None
    command: list[str | Path] = [
        "git",
        "-C",
        folder,
        "describe",
        "--always",
        "--abbrev=40",
        "--exclude=*",
        "--dirty",
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return result.stdout.strip() or None
