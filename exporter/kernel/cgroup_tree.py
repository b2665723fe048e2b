"""The cgroups of the v2 hierarchy, where it is mounted: which path has which id.

Source: cgroups(7), proc_pid_mountinfo(5).
"""

import os
from collections.abc import Iterator
from pathlib import Path

# Hostile users with a cgroup of their own can make many.
_MOST_DIRECTORIES = 20_000
# include/uapi/linux/nsfs.h
_CGROUP_NS_INIT_INO = 0xEFFFFFFB
_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


def find_cgroup2(mountinfo: str) -> str | None:
    """Return where the whole v2 hierarchy is mounted, None if it is not.

    Args:
        mountinfo: The text of /proc/self/mountinfo.
    """
    for line in mountinfo.splitlines():
        mount, _, kind = line.partition(" - ")
        fields = mount.split(" ")
        # id, parent, device, root, mount point
        if kind.startswith("cgroup2 ") and len(fields) > 4 and fields[3] == "/":
            path = fields[4]
            for escape, character in _ESCAPES:
                path = path.replace(escape, character)
            return path
    return None


def own_cgroup2() -> str | None:
    """Return where the whole v2 hierarchy is mounted for this program, None if it is not."""
    try:
        return find_cgroup2(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return None


def sees_all_cgroups() -> bool:
    """Return whether this program has no cgroup namespace of its own, so that paths begin at the real root."""
    try:
        return Path("/proc/self/ns/cgroup").stat().st_ino == _CGROUP_NS_INIT_INO
    except OSError:
        # Before Linux 4.6 there are none.
        return True


def iter_cgroups(root: str) -> Iterator[tuple[int, str]]:
    """Iterate over the ids and paths of the cgroups that there are, as /proc/PID/cgroup has the paths.

    Args:
        root: Of find_cgroup2.
    """
    waiting = [""]
    for _ in range(_MOST_DIRECTORIES):
        if not waiting:
            return
        path = waiting.pop()
        try:
            yield Path(f"{root}{path}").stat().st_ino, path or "/"
            with os.scandir(f"{root}{path}/") as entries:
                waiting += [f"{path}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            # It was removed.
            continue
