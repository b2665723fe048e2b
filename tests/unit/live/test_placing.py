"""exporter/live/placing.py: every question of the pipeline is answered."""

from typing import cast

from host import Host as Simulated

from exporter.errors import ShortageError
from exporter.groups.cgroup_path import NOWHERE, Placement
from exporter.live.placements import Placements
from exporter.live.placing import Names, Placing

SECOND_NS = 1_000_000_000
ID, UID = 64 * "a", "11111111-2222-3333-4444-555555555555"
CONTAINER = Placement("", ID, "", "")
IN_POD = Placement(UID, ID, "", "")


class World:
    """A simulated host, and /proc as the exporter reads it."""

    def __init__(self, *, names_pods: bool = False, names_containers: bool = False) -> None:
        self.host = Simulated(
            sideband=True,
            group_by=frozenset({"pod"}),
            names_pods=names_pods,
            names_containers=names_containers,
        )
        self.container_names: dict[str, str] = {}
        self.names: dict[tuple[str, str], tuple[str, str, str]] = {}
        self.short = False
        self.placing = Placing(
            self.host.pipeline,
            cast("Placements", self),
            None,
            lambda: self.host.now_ns,
            Names(self._look_up if names_pods else None, self.container_names.get if names_containers else None),
        )
        self.host.lives_in(1, b"init", NOWHERE)

    def _look_up(self, pod_uid: str, container_id: str) -> tuple[str, str, str] | None:
        return self.names.get((pod_uid, container_id))

    def read(self, tgid: int) -> Placement | None:
        if self.short:
            raise ShortageError("no descriptor is free")
        return self.host.placements.get(tgid)

    learn = read

    def drain(self) -> None:
        self.host.drain()
        self.placing.answer()


def test_a_process_that_exec_d_is_read_at_once() -> None:
    world = World()
    world.host.placements[400] = CONTAINER
    world.host.fork(1, 400)
    world.host.exec(400, b"cgexec")
    world.drain()
    world.drain()
    assert world.host.table.live_in_groups()["cgexec", ("", "", ID[:12])] == 1


def test_a_question_that_cannot_be_answered_now_is_answered_later() -> None:
    world = World()
    world.host.placements[400] = CONTAINER
    world.host.fork(1, 400)
    world.host.begin_session(400)
    world.host.exec(400, b"probe")
    world.short = True
    world.drain()
    world.drain()
    assert world.host.table.waits
    world.short = False
    world.drain()
    world.drain()
    assert world.host.by_group["", "", ID[:12]] == {"execs": 1}


def test_a_process_that_a_scan_meets_is_placed() -> None:
    world = World()
    world.host.adopt(30, b"main")
    world.host.placements[30] = CONTAINER
    world.placing.find(30)
    world.drain()
    assert world.host.table.live_in_groups()["main", ("", "", ID[:12])] == 1


def live_in_a_pod(world: World) -> None:
    world.host.lives_in(30, b"main", IN_POD)
    world.host.fork(30, 31)
    world.drain()


def test_a_container_has_its_name_as_soon_as_that_is_known() -> None:
    world = World(names_pods=True)
    live_in_a_pod(world)
    assert world.host.by_group == {}
    world.names[UID, ID] = ("shop", "cart-0", "web")
    world.drain()
    assert world.host.by_group == {("shop", "cart-0", "web"): {"forks": 1}}


def test_a_container_whose_name_does_not_come_within_ten_seconds_has_none_for_good() -> None:
    world = World(names_pods=True)
    live_in_a_pod(world)
    world.host.now_ns += 9 * SECOND_NS
    world.drain()
    assert world.host.by_group == {}
    world.host.now_ns += 2 * SECOND_NS
    world.drain()
    world.names[UID, ID] = ("shop", "cart-0", "web")
    world.host.fork(30, 32)
    world.drain()
    assert world.host.by_group == {("<unknown>", "<unknown>", "<unknown>"): {"forks": 2}}


def test_of_a_container_that_its_pod_does_not_list_the_pod_is_known() -> None:
    world = World(names_pods=True)
    world.names[UID, ""] = ("shop", "cart-0", "")
    live_in_a_pod(world)
    world.host.now_ns += 11 * SECOND_NS
    world.drain()
    assert world.host.by_group == {("shop", "cart-0", "<unknown>"): {"forks": 1}}


def live_in_a_container(world: World) -> None:
    world.host.lives_in(30, b"main", CONTAINER)
    world.host.fork(30, 31)
    world.drain()


def test_a_container_in_no_pod_has_its_name_as_soon_as_that_is_known() -> None:
    world = World(names_containers=True)
    live_in_a_container(world)
    assert world.host.by_group == {}
    world.container_names[ID] = "web"
    world.drain()
    assert world.host.by_group == {("", "", "web"): {"forks": 1}}


def test_a_container_in_no_pod_has_its_short_id_for_good_if_its_name_does_not_come_within_ten_seconds() -> None:
    world = World(names_containers=True)
    live_in_a_container(world)
    world.host.now_ns += 9 * SECOND_NS
    world.drain()
    assert world.host.by_group == {}
    world.host.now_ns += 2 * SECOND_NS
    world.drain()
    world.container_names[ID] = "web"
    world.host.fork(30, 32)
    world.drain()
    assert world.host.by_group == {("", "", ID[:12]): {"forks": 2}}
    assert world.host.table.grouping.unresolved["unnamed"] == 0
