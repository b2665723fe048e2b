"""A cgroup in which a program can run out of memory."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.harness import wait_until

LIMIT_BYTES = 16 << 20
V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")


class MemoryCgroup:
    """A cgroup with a memory limit of its own."""

    def __init__(self) -> None:
        self.is_v1 = (V1 / "memory.limit_in_bytes").exists()
        self.path = (V1 if self.is_v1 else V2) / f"oom-test-{secrets.token_hex(4)}"
        self.path.mkdir()
        if self.is_v1:
            (self.path / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
        elif (self.path / "memory.max").exists():
            (self.path / "memory.max").write_text(str(LIMIT_BYTES))
            (self.path / "memory.swap.max").write_text("0")

    @property
    def has_limit(self) -> bool:
        return self.is_v1 or (self.path / "memory.max").exists()

    @property
    def procs(self) -> Path:
        return self.path / "cgroup.procs"

    def kills(self) -> int:
        """Return how many processes in it the OOM killer has chosen, by the kernel's own count."""
        text = (self.path / ("memory.oom_control" if self.is_v1 else "memory.events.local")).read_text()
        return int(dict(line.split() for line in text.splitlines())["oom_kill"])

    def remove(self) -> None:
        wait_until(self.procs.read_text, lambda text: not text, "a cgroup without processes")
        self.path.rmdir()


@contextlib.contextmanager
def memory_cgroup() -> Iterator[MemoryCgroup]:
    """Make one, and remove it; skip the test where that is not possible."""
    try:
        made = MemoryCgroup()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        if not made.has_limit:
            pytest.skip("the memory controller is not enabled for cgroups here")
        yield made
    finally:
        made.remove()
