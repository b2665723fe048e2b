"""The folder of a cgroup, made for a block: version 1 or 2, where this process may make one."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_ROOT = Path("/sys/fs/cgroup")
_REMOVED_SECONDS = 10.0


class CgroupFolder(NamedTuple):
    """A cgroup."""

    path: Path
    is_v2: bool

    def command(self, words: Sequence[str] = ()) -> list[str]:
        """Return a command that runs another in the cgroup from its first instruction on."""
        return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.path / "cgroup.procs"), *words]


def _parent(controller: str) -> CgroupFolder | None:
    """Return where a cgroup of that controller can be made."""
    v1 = _ROOT / controller
    if (v1 / "cgroup.procs").exists():
        return CgroupFolder(v1, is_v2=False)
    controllers = _ROOT / "cgroup.subtree_control"
    if controllers.exists() and controller in controllers.read_text().split():
        return CgroupFolder(_ROOT, is_v2=True)
    return None


@contextlib.contextmanager
def cgroup_folder(controller: str, name: str) -> Iterator[CgroupFolder | None]:
    """Make a cgroup for the block, whose processes end before it; None where that is not permitted."""
    parent = _parent(controller)
    if parent is None or not os.access(parent.path, os.W_OK):
        yield None
        return
    path = parent.path / f"exporter-attack-{name}-{os.getpid()}-{time.monotonic_ns()}"
    try:
        path.mkdir()
    except OSError:
        yield None
        return
    try:
        yield CgroupFolder(path, parent.is_v2)
    finally:
        ends = time.monotonic() + _REMOVED_SECONDS
        while path.exists():
            try:
                path.rmdir()
            except OSError:
                # The kernel takes a moment to see that its last process is gone.
                if time.monotonic() > ends:
                    raise
                time.sleep(0.02)
