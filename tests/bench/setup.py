"""What every measurement is given."""

import sys
from pathlib import Path
from typing import NamedTuple

from bench.programs import Programs


class Bench(NamedTuple):
    """The benchmark's own programs, a folder for what readers write, and how much to do.

    Attributes:
        quick: Two small rounds instead of five full ones.
        rounds: How often each comparison is made.
    """

    programs: Programs
    folder: Path
    quick: bool

    @property
    def rounds(self) -> int:
        """How often everything is measured."""
        return 2 if self.quick else 5

    def size(self, full: int, quick: int) -> int:
        """Choose a size."""
        return quick if self.quick else full

    @property
    def guard(self) -> list[str]:
        """Return what stands before a command so that it ends when the benchmark does."""
        return [str(self.programs.reader), "guard"]


def say(text: str) -> None:
    """Tell whoever waits what is going on."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
