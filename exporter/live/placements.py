"""Where processes are: read from /proc, or by the id of their cgroup, which is known even when they are gone.

The kernel says the id of a cgroup to which a process belonged also after its end. Which placement an id is, is
learned from processes that live there, and from the v2 hierarchy where that is mounted. An id is never used again.
On a hybrid host a runtime may keep containers apart in the v1 hierarchies only: in v2 they are all in the root, or
in the runtime's unit. So where there are v1 hierarchies an id counts only if it is a container's. (Without a v2
hierarchy all processes have the id of its root.)
"""

import os
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

from exporter.groups.cgroup_path import Placement, parse_cgroup, parse_path
from exporter.kernel.pidfd import open_pidfd, read_cgroup_id
from exporter.kernel.procfs import Procfs

_MOST_LEARNED = 1 << 13
_CACHED_TEXTS = 1 << 10
_TREE_EVERY_NS = 1_000_000_000


class _Places(NamedTuple):
    """Where a process is."""

    placement: Placement | None
    unified: Placement | None
    """In the v2 hierarchy; None where there is none, or where that says nothing."""
    if_ended: Placement | None
    """Where it is if it has ended."""
    looks_ended: bool
    """Its file can be that of a zombie, which is in the root of all v1 hierarchies."""


class Placements:
    """Where processes are.

    Args:
        procfs: The host's.
        now_ns: CLOCK_MONOTONIC.
        has_ids: The kernel says the ids of cgroups.
        own_pod_uid: The uid of the exporter's own pod, if it is in one.
        sees_all: The exporter has no cgroup namespace of its own.
        iter_cgroups: Iterates over the ids and paths of the v2 hierarchy.

    Attributes:
        has_ids: The kernel says them.
    """

    def __init__(
        self,
        procfs: Procfs,
        now_ns: Callable[[], int],
        *,
        has_ids: bool,
        own_pod_uid: str = "",
        sees_all: bool = True,
        iter_cgroups: Callable[[], Iterable[tuple[int, str]]] = tuple,
    ) -> None:
        self._procfs = procfs
        self._now_ns = now_ns
        self._own_pod_uid = own_pod_uid
        # What is in the exporter's own cgroup: `/` says nothing of it.
        self._own = None if sees_all else Placement(own_pod_uid, "own", "", "")
        self._iter_cgroups = iter_cgroups if sees_all else tuple
        self.has_ids = has_ids
        self._has_v1 = False
        self._learned: dict[int, Placement] = {}
        self._tree_read_ns: int | None = None
        self._parse = lru_cache(_CACHED_TEXTS)(self._parse_text)

    def read(self, tgid: int) -> Placement | None:
        """Return where a process is; None if it is gone, or if that is not to be known.

        Raises:
            ShortageError: Nothing can be opened now.
        """
        data = self._procfs.read_cgroup(tgid)
        if data is None:
            return None
        places = self._parse(data)
        if places.placement == places.if_ended:
            return places.placement
        return self._place(tgid, places).placement

    def _place(self, tgid: int, places: _Places) -> _Places:
        # From the moment when it begins to exit, while it has its memory still, and perhaps it is gone by now.
        if places.looks_ended and not self._procfs.is_alive(tgid):
            return places._replace(placement=places.if_ended, unified=None)
        return places

    def _shown(self, placement: Placement | None) -> Placement | None:
        return None if placement == self._own else placement

    def _parse_text(self, data: bytes) -> _Places:
        lines = data.split(b"\n")[:-1]
        unified = [line for line in lines if line.startswith(b"0::")]
        others = [line for line in lines if not line.startswith(b"0::")]
        self._has_v1 |= bool(others)
        looks_ended = bool(others) and all(line.endswith(b":/") for line in others)
        placement, if_ended, in_unified = (
            self._shown(parse_cgroup(text, own_pod_uid=self._own_pod_uid, root=self._own, ended=ended))
            for text, ended in ((data, False), (data, looks_ended), (b"".join(unified) + b"\n", False))
        )
        return _Places(placement, in_unified, if_ended, looks_ended)

    # -- by the id of the cgroup --------------------------------------------------------------------------------

    def learn(self, tgid: int) -> Placement | None:
        """Return where a process is, as read, and learn which id that is.

        Raises:
            ShortageError: Nothing can be opened now.
        """
        if not self.has_ids or (fd := open_pidfd(tgid)) is None:
            return self.read(tgid)
        try:
            return self.learn_of(fd, tgid)
        finally:
            os.close(fd)

    def learn_of(self, fd: int, tgid: int) -> Placement | None:
        """As learn, of a process that has a descriptor open."""
        before = read_cgroup_id(fd) if self.has_ids else None
        data = self._procfs.read_cgroup(tgid)
        if data is None:
            return None
        placement, unified, *_ = self._place(tgid, self._parse(data))
        # If it was moved meanwhile, it can have been read there or here.
        if before is not None and unified is not None and read_cgroup_id(fd) == before:
            self._note(before, unified)
        return placement

    def _note(self, cgroup_id: int, placement: Placement) -> None:
        if len(self._learned) >= _MOST_LEARNED:
            self._learned.clear()
        self._learned[cgroup_id] = placement

    def of_descriptor(self, fd: int) -> Placement | None:
        """Return where a process is or was; None if the kernel does not say it, or if the id is not known."""
        cgroup_id = read_cgroup_id(fd) if self.has_ids else None
        if cgroup_id is None:
            return None
        if cgroup_id not in self._learned:
            self._read_tree()
        placement = self._learned.get(cgroup_id)
        return None if placement is None or (self._has_v1 and not placement.container_id) else placement

    def _read_tree(self) -> None:
        now_ns = self._now_ns()
        if self._tree_read_ns is not None and now_ns - self._tree_read_ns < _TREE_EVERY_NS:
            return
        self._tree_read_ns = now_ns
        for cgroup_id, path in self._iter_cgroups():
            if cgroup_id not in self._learned:
                self._note(cgroup_id, parse_path(path, own_pod_uid=self._own_pod_uid))
