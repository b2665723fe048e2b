"""exporter/kernel/pidfd.py, on the kernel that runs the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.kernel.pidfd import knows_cgroup_ids, open_pidfd, read_cgroup_id

needs_ids = pytest.mark.skipif(not knows_cgroup_ids(), reason="no PIDFD_GET_INFO in this kernel (Linux 6.13)")


def test_a_process_that_is_gone_has_no_descriptor() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert open_pidfd(process.pid) is None


@needs_ids
def test_the_id_is_the_inode_of_the_cgroups_directory() -> None:
    fd = open_pidfd(os.getpid())
    assert fd is not None
    cgroup_id = read_cgroup_id(fd)
    os.close(fd)
    [path] = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    for root in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        if Path(root, "cgroup.procs").exists():
            assert Path(f"{root}{path}").stat().st_ino == cgroup_id
            return
    pytest.skip("no v2 hierarchy is mounted here")


@needs_ids
def test_what_is_no_process_has_no_id() -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    assert read_cgroup_id(fd) is None
    os.close(fd)
