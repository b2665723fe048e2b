"""exporter/processes/mounts.py: in which container a process was that is gone."""

import pytest

from exporter.processes.mounts import MountSpaces
from exporter.processes.process import OpenGroup, Process
from exporter.tallies.cells import Group
from exporter.tallies.tallies import Tallies

TALLIES = Tallies(group_labels=("container",))
HOST, WEB, SIDE = (TALLIES.groups.claim((name,)) for name in ("", "web", "side"))
INODE, OTHER_INODE = 4026532001, 4026531841


class Lives:
    """Processes that live, and what is known of their namespaces."""

    def __init__(self) -> None:
        self.spaces = MountSpaces()
        self.by_tgid: dict[int, Process] = {}

    def process(self, tgid: int, group: Group, start_ns: int = 1) -> Process:
        return Process(tgid, TALLIES.claim_cell(b"sh", 0, group), start_ns)

    def live(self, tgid: int, group: Group, start_ns: int = 1) -> Process:
        process = self.by_tgid[tgid] = self.process(tgid, group, start_ns)
        return process

    def group_of(self, process: Process) -> Group | None:
        return self.spaces.group_of(process, self.by_tgid, lambda group: group in {WEB, SIDE})


@pytest.fixture
def lives() -> Lives:
    lives = Lives()
    lives.live(10, WEB)
    lives.spaces.add([(5, 10, INODE)])
    return lives


def test_a_process_that_is_gone_was_where_one_lives_that_was_there_before(lives: Lives) -> None:
    gone = lives.process(40, HOST, 20)
    lives.spaces.add([(30, 40, INODE), (21, 40, OTHER_INODE)])
    assert lives.group_of(gone) is WEB


@pytest.mark.parametrize(
    "records",
    [[], [(30, 40, OTHER_INODE)], [(30, 40, INODE), (31, 40, OTHER_INODE)], [(19, 40, INODE)]],
    ids=["no record", "another namespace", "left again", "of the process before"],
)
def test_what_was_in_another_namespace_is_not_known(lives: Lives, records: list[tuple[int, int, int]]) -> None:
    lives.spaces.add(records)
    assert lives.group_of(lives.process(40, HOST, 20)) is None


def test_an_inode_that_is_used_again_proves_nothing(lives: Lives) -> None:
    gone = lives.process(40, HOST, 20)
    lives.spaces.add([(30, 40, INODE)])
    del lives.by_tgid[10]
    assert lives.group_of(gone) is None
    # Another container has that inode by now.
    lives.live(11, SIDE, 40)
    lives.spaces.add([(50, 11, INODE)])
    assert lives.group_of(gone) is None


def test_a_pid_that_is_used_again_proves_nothing(lives: Lives) -> None:
    gone = lives.process(40, HOST, 20)
    lives.spaces.add([(30, 40, INODE)])
    lives.live(10, WEB, 35)
    assert lives.group_of(gone) is None
    lives.live(10, WEB)
    lives.live(40, HOST, 25)
    assert lives.group_of(gone) is None


def test_a_namespace_with_processes_of_several_groups_is_no_container(lives: Lives) -> None:
    gone = lives.process(40, HOST, 20)
    # One of the host that entered it.
    lives.live(12, HOST)
    lives.spaces.add([(30, 40, INODE), (31, 12, INODE)])
    assert lives.group_of(gone) is None


def test_the_namespace_of_the_host_is_no_container(lives: Lives) -> None:
    lives.live(1, HOST)
    lives.spaces.add([(5, 1, OTHER_INODE), (30, 40, OTHER_INODE)])
    assert lives.group_of(lives.process(40, HOST, 20)) is None


def test_a_process_whose_group_is_open_proves_nothing(lives: Lives) -> None:
    group = OpenGroup(1, lives.by_tgid[10], 1)
    TALLIES.groups.open[group] = None
    lives.live(10, group)
    gone = lives.process(40, HOST, 20)
    lives.spaces.add([(30, 40, INODE)])
    assert lives.group_of(gone) is None
    TALLIES.settle(group, WEB)
    assert lives.group_of(gone) is WEB


def test_after_a_loss_nothing_is_known(lives: Lives) -> None:
    lives.spaces.add([(30, 40, INODE)])
    lives.spaces.clear()
    assert lives.group_of(lives.process(40, HOST, 20)) is None


def test_of_a_storm_only_what_lives_or_has_just_ended_is_kept(lives: Lives) -> None:
    for n in range(200_000):
        lives.spaces.add([(n * 1_000_000, 100 + n, INODE)])
        if n % 1000 == 0:
            lives.spaces.end_batch(n * 1_000_000, lives.by_tgid)
    assert len(lives.spaces) < 20_000
    gone = lives.process(100 + n, HOST, n * 1_000_000 - 1)
    assert lives.group_of(gone) is WEB
