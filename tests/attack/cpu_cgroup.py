"""CPU cgroups of equal weight, as systemd and Kubernetes have them: a storm counts as one competitor."""

import contextlib
from collections.abc import Iterator, Sequence

from attack.cgroup_folder import cgroup_folder

# That of eight tasks: what else runs on this host competes with them, too.
_SHARES, _WEIGHT = 8192, 800


@contextlib.contextmanager
def cpu_cgroup(name: str) -> Iterator[Sequence[str]]:
    """Make a CPU cgroup for the block, whose processes end before it.

    Yields:
        What comes before a command so that it runs there, as any user; nothing where that is not permitted.
    """
    with cgroup_folder("cpu", name) as folder:
        if folder is None:
            yield ()
            return
        weight, number = ("cpu.weight", _WEIGHT) if folder.is_v2 else ("cpu.shares", _SHARES)
        (folder.path / weight).write_text(str(number))
        (folder.path / "cgroup.procs").chmod(0o666)
        yield folder.command()
