"""exporter/live/placements.py: where a process is, read in /proc or known by the id of its cgroup."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_proc import add_process

from exporter.groups.cgroup_path import NOWHERE, Placement
from exporter.kernel.procfs import Procfs
from exporter.live import placements as module
from exporter.live.placements import Placements

ID = 64 * "a"
CONTAINER = Placement("", ID, "", "")
CRON = Placement("", "", "cron.service", "")
DOCKER = Placement("", "", "docker.service", "")
V2 = b"0::/docker/" + ID.encode() + b"\n"
V2_CRON = b"0::/system.slice/cron.service\n"
PF_EXITING = 0x4
SECOND_NS = 1_000_000_000


def set_flags(stat: Path, flags: int) -> None:
    """Set the flags of a process, the ninth field of its /proc/PID/stat."""
    fields = stat.read_bytes().split(b" ")
    fields[8] = str(flags).encode()
    stat.write_bytes(b" ".join(fields))


class World:
    """A /proc, ids of cgroups, and what is known of both."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ids: dict[int, int] = {}
        self.tree: list[tuple[int, str]] = []
        self.trees_read = 0
        self.now_ns = SECOND_NS
        self._tgids: dict[int, int] = {}
        self.placements = self.make()

    def make(self, *, sees_all: bool = True, has_ids: bool = True, own_pod_uid: str = "") -> Placements:
        return Placements(
            Procfs(str(self.root)),
            lambda: self.now_ns,
            has_ids=has_ids,
            sees_all=sees_all,
            own_pod_uid=own_pod_uid,
            iter_cgroups=self._iter_cgroups,
        )

    def _iter_cgroups(self) -> Iterator[tuple[int, str]]:
        self.trees_read += 1
        return iter(self.tree)

    def lives(self, tgid: int, cgroup: bytes, cgroup_id: int, *, exiting: bool = False) -> None:
        directory = self.root / str(tgid)
        if not directory.exists():
            add_process(self.root, tgid, b"x")
        set_flags(directory / "stat", PF_EXITING if exiting else 0)
        (directory / "cgroup").write_bytes(cgroup)
        self.ids[tgid] = cgroup_id

    def open(self, tgid: int) -> int | None:
        if tgid not in self.ids:
            return None
        fd = os.open(os.devnull, os.O_RDONLY)
        self._tgids[fd] = tgid
        return fd

    def read_id(self, fd: int) -> int | None:
        return self.ids.get(self._tgids[fd])

    def by_id(self, cgroup_id: int) -> Placement | None:
        """Where a process is that is gone, and was in this cgroup."""
        self.ids[99] = cgroup_id
        fd = self.open(99)
        assert fd is not None
        try:
            return self.placements.of_descriptor(fd)
        finally:
            os.close(fd)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    monkeypatch.setattr(module, "open_pidfd", world.open)
    monkeypatch.setattr(module, "read_cgroup_id", world.read_id)
    return world


def test_a_process_is_where_its_file_says(world: World) -> None:
    world.lives(10, V2, 7)
    assert world.placements.read(10) == CONTAINER
    assert world.placements.read(11) is None


def test_an_id_is_learned_from_a_process_that_lives_there(world: World) -> None:
    world.lives(10, V2, 7)
    assert world.by_id(7) is None
    assert world.placements.learn(10) == CONTAINER
    assert world.by_id(7) == CONTAINER
    assert world.by_id(8) is None


def test_an_id_is_found_in_the_hierarchy_and_that_is_read_once_a_second(world: World) -> None:
    world.tree = [(1, "/"), (7, f"/docker/{ID}"), (8, "/system.slice/cron.service")]
    assert (world.by_id(7), world.by_id(8), world.by_id(1)) == (CONTAINER, CRON, NOWHERE)
    world.tree.append((9, "/system.slice/docker.service"))
    assert (world.by_id(9), world.trees_read) == (None, 1)
    world.now_ns += SECOND_NS
    assert (world.by_id(9), world.trees_read) == (DOCKER, 2)


def test_what_is_read_while_a_process_moves_is_not_learned(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.lives(10, V2_CRON, 7)
    ids = iter([7, 8])
    monkeypatch.setattr(module, "read_cgroup_id", lambda fd: next(ids))
    assert world.placements.learn(10) == CRON
    monkeypatch.setattr(module, "read_cgroup_id", world.read_id)
    assert (world.by_id(7), world.by_id(8)) == (None, None)


def test_on_a_hybrid_host_an_id_counts_only_if_it_is_a_containers(world: World) -> None:
    # A runtime that keeps containers apart in v1 only: in v2 they are where it is itself.
    world.lives(10, b"1:name=systemd:/system.slice/docker.service\n0::/system.slice/docker.service\n", 7)
    world.lives(20, b"1:name=systemd:/docker/" + ID.encode() + b"\n0::/system.slice/docker.service\n", 7)
    world.lives(30, b"1:name=systemd:/docker/" + ID.encode() + b"\n" + V2, 8)
    assert [world.placements.learn(tgid) for tgid in (10, 20, 30)] == [DOCKER, CONTAINER, CONTAINER]
    assert (world.by_id(7), world.by_id(8)) == (None, CONTAINER)


def test_of_a_zombie_only_the_v2_line_is_believed(world: World) -> None:
    ended = b"1:name=systemd:/\n0::/\n"
    world.lives(10, ended, 7)
    world.lives(20, ended, 7, exiting=True)
    world.lives(30, b"1:name=systemd:/\n" + V2, 8, exiting=True)
    assert world.placements.read(10) == NOWHERE
    assert world.placements.read(20) is None
    assert world.placements.read(30) == CONTAINER
    # It was reaped between the two looks.
    (world.root / "10" / "stat").unlink()
    assert world.placements.read(10) is None


def test_whether_a_process_has_ended_is_looked_up_only_where_that_makes_a_difference(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All are in the root of all v1 hierarchies. A container of the v2 line is where the first is in either case.
    world.lives(10, b"1:name=systemd:/\n" + V2, 7)
    world.lives(20, b"1:name=systemd:/\n0::/\n", 8)
    world.lives(30, b"1:name=systemd:/\n" + V2_CRON, 9)
    looks: list[int] = []

    def is_alive(_: Procfs, tgid: int) -> bool:
        looks.append(tgid)
        return True

    monkeypatch.setattr(Procfs, "is_alive", is_alive)
    assert [world.placements.read(tgid) for tgid in (10, 20, 30)] == [CONTAINER, NOWHERE, CRON]
    assert looks == [20, 30]


def test_where_the_kernel_says_no_ids_files_are_read(world: World) -> None:
    world.placements = world.make(has_ids=False)
    world.lives(10, V2, 7)
    assert world.placements.learn(10) == CONTAINER
    assert world.by_id(7) is None


def test_what_is_in_the_exporters_own_cgroup_is_nowhere_known(world: World) -> None:
    world.placements = world.make(sees_all=False, own_pod_uid="11111111-2222-3333-4444-555555555555")
    world.lives(10, b"0::/\n", 7)
    world.lives(20, f"0::/../{ID}\n".encode(), 8)
    assert world.placements.learn(10) is None
    assert world.placements.learn(20) == Placement("11111111-2222-3333-4444-555555555555", ID, "", "")
    assert (world.by_id(7), world.by_id(8)) == (None, world.placements.read(20))
