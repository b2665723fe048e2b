"""The benchmark's own C programs, compiled when it runs."""

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

_SOURCES = Path(__file__).parent

STORM_COMM = "bench-storm"
VICTIM_PREFIX = "bench-victim-"
VICTIM_COMMS = tuple(f"{VICTIM_PREFIX}{kind}" for kind in range(8))
"""A storm starts these in turn; each exits with its own number, so that a wrong name shows."""
WRAPPER_COMMS = tuple(f"bench-wrapper-{number}" for number in range(4))
"""What a chain executes before, one after the other, as `env nice timeout setpriv program` does."""


class Programs(NamedTuple):
    """Where they are; the victims beside the storm."""

    storm: Path
    reader: Path


def compile_programs(folder: Path) -> Programs:
    """Compile them into a folder.

    Raises:
        FileNotFoundError: There is no gcc.
        subprocess.CalledProcessError: It cannot compile them (a static C library is needed).
    """
    storm, reader, victim = folder / STORM_COMM, folder / "bench-reader", folder / "victim"
    _compile("storms.c", storm)
    _compile("readers.c", reader)
    _compile("victim.c", victim)
    for comm in (*VICTIM_COMMS, *WRAPPER_COMMS):
        os.link(victim, folder / comm)
    return Programs(storm, reader)


def _compile(source: str, target: Path) -> None:
    subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", str(target), str(_SOURCES / source)], check=True)
