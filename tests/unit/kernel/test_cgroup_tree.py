"""exporter/kernel/cgroup_tree.py: where the v2 hierarchy is mounted, and what is in it."""

from pathlib import Path

import pytest

from exporter.kernel.cgroup_tree import find_cgroup2, iter_cgroups

ROOT = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
V1 = "30 22 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"


@pytest.mark.parametrize(
    ("mounts", "where"),
    [
        (ROOT, None),
        (ROOT + V1, None),
        (ROOT + "31 22 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup"),
        (ROOT + V1 + "31 22 0:27 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n", "/sys/fs/cgroup/unified"),
        (ROOT + "31 22 0:27 / /a\\040b\\134 rw - cgroup2 none rw\n", "/a b\\"),
        # Of a container: a part of it, or a cgroup namespace's.
        (ROOT + "31 22 0:27 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup rw\n", None),
        (ROOT + "31 22 0:27 /../.. /sys/fs/cgroup ro - cgroup2 cgroup rw\n", None),
        ("31 22 0:27 / - cgroup2", None),
        ("", None),
    ],
    ids=["none", "v1", "v2", "hybrid", "escapes", "part", "namespace", "cut", "empty"],
)
def test_the_whole_hierarchy_is_found_in_mountinfo(mounts: str, where: str | None) -> None:
    assert find_cgroup2(mounts) == where


def test_every_cgroup_has_its_inode_and_the_path_that_proc_shows(tmp_path: Path) -> None:
    paths = ["system.slice", "system.slice/cron.service", "docker", "docker/aa"]
    for path in paths:
        (tmp_path / path).mkdir()
        (tmp_path / path / "cgroup.procs").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    found = dict(iter_cgroups(str(tmp_path)))
    assert found == {(tmp_path / path).stat().st_ino: f"/{path}" for path in ["", *paths]}


def test_a_cgroup_that_is_removed_meanwhile_is_passed_over(tmp_path: Path) -> None:
    for path in ("a", "b"):
        (tmp_path / path).mkdir()
    cgroups = iter_cgroups(str(tmp_path))
    next(cgroups)
    (tmp_path / "a").rmdir()
    assert [path for _, path in cgroups] == ["/b"]
