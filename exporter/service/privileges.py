"""Gives up all privileges for good, once everything that needs them is open.

Source: capabilities(7), credentials(7), prctl(2), include/uapi/linux/capability.h.
"""

import ctypes
import os
import pwd
import struct
from pathlib import Path
from typing import NamedTuple

from exporter.errors import ConfigError, SetupError

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAP_SETPCAP = 8
_CAPABILITY_VERSION_3 = 0x20080522
_NO_CAPABILITIES = bytes(24)
# The next number is (uid_t)-1, which means "do not change".
_LAST_UID = 0xFFFFFFFE

_libc = ctypes.CDLL(None, use_errno=True)


class User(NamedTuple):
    """The user to become."""

    uid: int
    gid: int


def find_user(flag: str, name: str) -> User:
    """Look a user up by name or number; a number need not be in the user database.

    Raises:
        ConfigError: There is no such user, or the user is root.
    """
    try:
        if name.isascii() and name.isdecimal():
            uid = int(name) if len(name) <= len(str(_LAST_UID)) else _LAST_UID + 1
            if uid > _LAST_UID:
                raise ConfigError(f"{flag}: a uid is at most {_LAST_UID}, got {name}")
            try:
                user = User(uid, pwd.getpwuid(uid).pw_gid)
            except KeyError:
                user = User(uid, uid)
        else:
            entry = pwd.getpwnam(name)
            user = User(entry.pw_uid, entry.pw_gid)
    except KeyError as error:
        raise ConfigError(f"{flag}: there is no user {name!r}") from error
    if user.uid == 0:
        raise ConfigError(f"{flag} must be another user than root")
    return user


def drop_privileges(user: User) -> None:
    """Become a user without any capability, and without a way back.

    Each thread has its own capabilities and its own no_new_privs, so no other thread may have been started before.
    Everything that is imported or opened later must be readable by that user.

    Raises:
        SetupError: This process may not change its user, or has kept a capability.
    """
    try:
        _empty_bounding_set()
        # In this order: once the uid has changed, groups can no longer be changed.
        if os.getgroups():
            os.setgroups([])
        if (os.getresuid(), os.getresgid()) != ((user.uid,) * 3, (user.gid,) * 3):
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        _call("capset", _capability_header(), _NO_CAPABILITIES)
        _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    except OSError as error:
        raise SetupError(
            f"--user: cannot become uid {user.uid} ({error.strerror}): it needs root, or CAP_SETUID and CAP_SETGID"
        ) from error
    if any(int(status_field(f"Cap{name}"), 16) for name in ("Inh", "Prm", "Eff", "Amb")):
        raise SetupError("--user: this process still has capabilities after it gave them up")


def _empty_bounding_set() -> None:
    """Drop all capabilities from the bounding set, so that no program file can give them back.

    Without CAP_SETPCAP the bounding set stays as it is.
    """
    if not int(status_field("CapEff"), 16) >> _CAP_SETPCAP & 1:
        return
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    for capability in range(last + 1):
        _call("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)


def status_field(name: str) -> str:
    """Return a field of /proc/self/status; 0 if the kernel does not have it."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    return "0"


def _capability_header() -> bytes:
    # version, pid; 0 is this thread, the only one of the program.
    return struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)


def _call(name: str, *arguments: int | bytes) -> None:
    if getattr(_libc, name)(*(ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
