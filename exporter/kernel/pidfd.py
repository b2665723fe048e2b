"""Descriptors of processes, and what the kernel says of the process behind one, even when it is gone.

Source: include/uapi/linux/pidfd.h: struct pidfd_info, PIDFD_GET_INFO (Linux 6.13; 6.15 for what was reaped).
"""

import fcntl
import os
import struct

# _IOWR(0xFF, 11, struct pidfd_info) of 64 bytes, its first size, which all kernels take.
_PIDFD_GET_INFO = 0xC040FF0B
_INFO_BYTES = 64
_PIDFD_INFO_CGROUPID = 1 << 2
_PIDFD_INFO_EXIT = 1 << 3
# mask, cgroupid
_HEAD = struct.Struct("=QQ")
_REQUEST = _HEAD.pack(_PIDFD_INFO_CGROUPID | _PIDFD_INFO_EXIT, 0).ljust(_INFO_BYTES, b"\0")


def open_pidfd(pid: int) -> int | None:
    """Open a descriptor of a process; None if it is gone, or if no descriptor is to be had.

    It needs no permission, and is closed on exec.
    """
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def read_cgroup_id(fd: int) -> int | None:
    """Return the id of the cgroup of a process, of the v2 hierarchy; None if the kernel does not say it any more.

    It is the inode of the cgroup's directory. On a host without a v2 hierarchy it is that of its root, 1.

    Args:
        fd: Of open_pidfd.
    """
    try:
        answer = fcntl.ioctl(fd, _PIDFD_GET_INFO, _REQUEST)
    except OSError:
        return None
    mask, cgroup_id = _HEAD.unpack_from(answer)
    return cgroup_id if mask & _PIDFD_INFO_CGROUPID else None


def knows_cgroup_ids() -> bool:
    """Return whether this kernel says of a process in which cgroup it is (Linux 6.13 and later)."""
    fd = open_pidfd(os.getpid())
    if fd is None:
        return False
    try:
        return read_cgroup_id(fd) is not None
    finally:
        os.close(fd)
