"""exporter/processes/grouping.py: in which group each thing counts."""

from collections import Counter

import pytest
from host import MS, Host, Mode
from replayed import MemoryTape, Replayed, exposition, status

from exporter.groups.cgroup_path import NOWHERE, Placement
from exporter.processes import grouping, observer, places
from exporter.processes.bad_ends import Failure
from exporter.processes.observer import Happening
from exporter.processes.places import Places, PodContainer, PodName
from exporter.tallies.labels import group_label_names
from exporter.tallies.rules import Rules
from exporter.tallies.rules_file import parse_rules
from exporter.tallies.tallies import Tallies

HOST = ("", "", "", "")
UNKNOWN = ("<unknown>",) * 4
ID = "0123456789ab" + 52 * "c"
UID = "11111111-2222-3333-4444-555555555555"
DAEMON = Placement("", "", "daemon.service", "")
IN_DAEMON = ("", "", "", "daemon.service")
CONTAINER = Placement("", ID, "", "")
IN_CONTAINER = ("", "", "0123456789ab", "")
IN_POD = Placement(UID, ID, "", "")
BOTH = frozenset({"pod", "unit"})
SECOND = 1000.0


def make_host(
    mode: Mode = Mode.EXACT,
    *,
    sideband: bool = True,
    names_pods: bool = False,
    names_containers: bool = False,
    tape: MemoryTape | None = None,
) -> Host:
    host = Host(
        mode,
        sideband=sideband,
        group_by=BOTH,
        names_pods=names_pods,
        names_containers=names_containers,
        tape=tape,
    )
    host.lives_in(1, b"init", NOWHERE)
    host.lives_in(10, b"daemon", DAEMON)
    host.lives_in(20, b"main", CONTAINER)
    host.drain()
    assert host.by_group == {}
    return host


@pytest.fixture(params=["side-band records", "exit records", "procfs"])
def host(request: pytest.FixtureRequest) -> Host:
    mode = Mode.PROCFS if request.param == "procfs" else Mode.EXACT
    return make_host(mode, sideband=request.param == "side-band records")


def live_in(host: Host) -> dict[str, int]:
    """How many live processes there are, by container and unit."""
    live: dict[str, int] = {}
    for (_, values), count in host.table.live_in_groups().items():
        live["".join(values[2:])] = live.get("".join(values[2:]), 0) + count
    return live


def answer_and_settle(host: Host) -> list[int]:
    """The exporter reads where processes are, and notes it when all events before that have been applied."""
    asked = host.answer()
    host.drain()
    return asked


def test_a_child_has_its_parents_group_and_a_storm_in_a_container_is_exact(host: Host) -> None:
    for n in range(300):
        host.fork(20, 400 + n)
        if n % 2:
            host.exec(400 + n, b"true")
        host.end(400 + n, b"true" if n % 2 else b"main")
    host.drain()
    host.settle()
    assert host.by_group == {IN_CONTAINER: {"forks": 300, "execs": 150, "exits": 300}}
    assert host.answer() == []


def test_a_process_that_begins_a_session_counts_where_it_is_after_its_exec(host: Host) -> None:
    host.fork(10, 400)
    host.begin_session(400)
    host.exec(400, b"probe")
    host.drain()
    assert host.by_group == {IN_DAEMON: {"forks": 1}}
    host.placements[400] = CONTAINER
    assert answer_and_settle(host) == [400]
    host.end(400, b"probe")
    host.settle()
    assert host.by_group == {IN_DAEMON: {"forks": 1}, IN_CONTAINER: {"execs": 1, "exits": 1}}
    assert not any(host.pending.values())


def test_what_ended_before_it_was_read_counts_where_a_descriptor_of_it_says(host: Host) -> None:
    host.fork(10, 400)
    host.begin_session(400)
    opened_ns = host.now_ns
    host.exec(400, b"probe")
    host.fork(400, 401)
    host.end(401, b"probe")
    host.end(400, b"probe")
    host.drain()
    host.placements[400] = CONTAINER
    assert host.answer(opened_ns=opened_ns) == [400]
    host.settle()
    assert host.by_group == {IN_DAEMON: {"forks": 1}, IN_CONTAINER: {"forks": 1, "execs": 1, "exits": 2}}
    assert host.table.grouping.unresolved["gone"] == 0


def test_what_ended_before_it_was_read_is_unknown_without_a_descriptor(host: Host) -> None:
    host.fork(10, 400)
    host.begin_session(400)
    host.exec(400, b"probe")
    host.end(400, b"probe")
    host.drain()
    assert answer_and_settle(host) == [400]
    host.settle()
    assert host.by_group == {IN_DAEMON: {"forks": 1}, UNKNOWN: {"execs": 1, "exits": 1}}
    assert host.table.grouping.unresolved == {"gone": 1, "too_many": 0, "unreadable": 0, "unnamed": 0}


def test_a_child_that_inherited_an_open_group_is_settled_with_it(host: Host) -> None:
    host.fork(10, 400)
    host.begin_session(400)
    host.fork(400, 401)
    host.drain()
    host.exec(400, b"shell")
    host.drain()
    host.placements[400] = CONTAINER
    answer_and_settle(host)
    host.settle()
    host.fork(401, 402)
    host.end(402, b"daemon")
    host.drain()
    assert host.by_group[IN_CONTAINER]["forks"] == 2
    assert live_in(host)["0123456789ab"] == 3


@pytest.mark.parametrize(("placement", "where"), [(CONTAINER, IN_CONTAINER), (DAEMON, UNKNOWN)])
def test_an_early_reading_counts_only_if_it_shows_that_the_process_was_moved(
    host: Host, placement: Placement, where: tuple[str, ...]
) -> None:
    host.fork(10, 400)
    host.begin_session(400)
    host.exec(400, b"probe")
    host.end(400, b"probe")
    host.drain()
    host.placements[400] = placement
    host.answer(early=True)
    host.settle()
    assert host.by_group == {IN_DAEMON: {"forks": 1}, where: {"execs": 1, "exits": 1}}


def test_an_early_reading_of_a_process_that_was_nowhere_known_counts_for_nothing(host: Host) -> None:
    host.fork(77, 400)
    host.begin_session(400)
    host.end(400, b"probe")
    host.drain()
    host.placements[400] = CONTAINER
    host.answer(early=True)
    host.drain()
    assert host.by_group == {UNKNOWN: {"forks": 1, "exits": 1}}


def test_a_child_says_where_the_one_was_that_forked_it_and_ended(host: Host) -> None:
    host.fork(10, 400)
    host.begin_session(400)
    host.fork(400, 401)
    host.end(400, b"daemon")
    host.drain()
    host.placements[401] = CONTAINER
    assert (host.answer(), host.answer()) == ([400], [401])
    host.drain()
    assert host.by_group == {IN_DAEMON: {"forks": 1}, IN_CONTAINER: {"forks": 1, "exits": 1}}


def test_a_child_does_not_say_where_one_was_that_exec_d_since(host: Host) -> None:
    host.fork(10, 400)
    host.begin_session(400)
    host.fork(400, 401)
    host.exec(400, b"probe")
    host.end(400, b"probe")
    host.drain()
    host.placements[401] = DAEMON
    assert (host.answer(), host.answer()) == ([400], [])
    host.drain()
    assert host.by_group[UNKNOWN] == {"forks": 1, "execs": 1, "exits": 1}
    # Where it is itself is asked after that.
    assert answer_and_settle(host) == [401]
    host.end(401, b"daemon")
    host.drain()
    assert host.by_group[IN_DAEMON] == {"forks": 1, "exits": 1}


def test_a_session_without_an_exec_is_read_a_second_later(host: Host) -> None:
    host.fork(10, 400)
    host.begin_session(400)
    host.drain()
    assert host.table.waits
    assert host.answer() == []
    host.rest(SECOND)
    host.drain()
    host.placements[400] = DAEMON
    assert answer_and_settle(host) == [400]
    assert live_in(host)["daemon.service"] == 2
    assert not host.table.waits


def test_one_that_cannot_be_read_even_then_is_unknown_and_can_be_found_by_a_scan(host: Host) -> None:
    host.fork(10, 400)
    host.begin_session(400)
    host.rest(SECOND)
    host.drain()
    assert answer_and_settle(host) == [400]
    assert host.table.grouping.unresolved["unreadable"] == 1
    assert live_in(host)["<unknown><unknown>"] == 1
    host.find(400, CONTAINER)
    host.drain()
    assert live_in(host)["0123456789ab"] == 2


def test_a_reading_counts_only_when_all_events_before_it_are_known(host: Host) -> None:
    host.fork(10, 400)
    host.begin_session(400)
    host.exec(400, b"probe")
    host.drain()
    host.placements[400] = CONTAINER
    host.answer()
    host.drain(complete=False)
    assert IN_CONTAINER not in host.by_group
    host.settle()
    assert host.by_group[IN_CONTAINER] == {"execs": 1}


def test_a_reading_of_the_next_process_with_the_pid_is_not_believed(host: Host) -> None:
    host.fork(10, 400)
    host.begin_session(400)
    host.exec(400, b"probe")
    host.drain()
    host.end(400, b"probe")
    host.fork(1, 400)
    host.placements[400] = CONTAINER
    host.answer()
    host.settle()
    assert host.by_group == {IN_DAEMON: {"forks": 1}, UNKNOWN: {"execs": 1, "exits": 1}, HOST: {"forks": 1}}


def test_a_descriptor_that_was_opened_before_the_pid_was_used_again_is_believed(host: Host) -> None:
    host.fork(10, 400)
    host.begin_session(400)
    opened_ns = host.now_ns
    host.exec(400, b"probe")
    host.end(400, b"probe")
    host.fork(1, 400)
    host.drain()
    host.placements[400] = CONTAINER
    host.answer(opened_ns=opened_ns)
    host.settle()
    assert host.by_group == {
        IN_DAEMON: {"forks": 1},
        IN_CONTAINER: {"execs": 1, "exits": 1},
        HOST: {"forks": 1},
    }


def test_a_process_that_was_moved_without_a_session_is_found_after_its_exec(host: Host) -> None:
    host.fork(1, 400)
    host.exec(400, b"cgexec")
    host.drain()
    host.placements[400] = CONTAINER
    assert answer_and_settle(host) == [400]
    host.fork(400, 401)
    host.end(401, b"cgexec")
    host.settle()
    assert host.by_group[IN_CONTAINER]["forks"] == 1
    host.exec(400, b"again")
    host.drain()
    assert answer_and_settle(host) == [400]
    assert live_in(host)["0123456789ab"] == 2


def test_what_a_drain_found_too_late_is_counted_as_missed_and_nothing_else_is(host: Host) -> None:
    assert host.table.grouping.missed == 0
    host.fork(10, 400)
    host.begin_session(400)
    host.exec(400, b"probe")
    host.drain()
    host.placements[400] = CONTAINER
    # A child of it that is found while it counts in the open group.
    host.fork(400, 401)
    host.exec(401, b"app")
    host.drain()
    host.placements[401] = CONTAINER
    answer_and_settle(host)
    host.settle()
    # One that stays where it is; one that a scan finds, and was not there before; one whose group is not known.
    host.fork(10, 402)
    host.exec(402, b"stays")
    host.lives_in(403, b"found", CONTAINER)
    host.fork(999, 404)
    host.find(404, CONTAINER)
    host.drain()
    host.placements[402] = DAEMON
    answer_and_settle(host)
    assert host.table.grouping.missed == 0
    host.fork(1, 500)
    host.exec(500, b"cgexec")
    host.drain()
    host.placements[500] = CONTAINER
    assert 500 in answer_and_settle(host)
    assert host.table.grouping.missed == 1
    host.find(402, CONTAINER)
    assert host.table.grouping.missed == 2
    host.settle()
    host.fork(10, 600)
    host.begin_session(600)
    host.exec(600, b"gone")
    host.end(600, b"gone")
    host.drain()
    answer_and_settle(host)
    assert host.table.grouping.unresolved["gone"] == 1
    assert host.table.grouping.missed == 3


def test_it_counts_where_it_was_if_the_reading_is_not_of_it(host: Host) -> None:
    host.fork(1, 400)
    host.exec(400, b"first")
    host.drain()
    host.end(400, b"first")
    host.fork(1, 400)
    host.placements[400] = CONTAINER
    assert host.answer() == [400]
    host.settle()
    assert host.by_group == {HOST: {"forks": 2, "execs": 1, "exits": 1}}


def test_a_process_that_exec_d_and_ended_in_one_drain_is_not_looked_for(host: Host) -> None:
    host.fork(20, 400)
    host.exec(400, b"true")
    host.end(400, b"true")
    host.drain()
    assert host.answer() == []


def test_a_scan_while_a_process_may_still_be_moved_does_not_settle_it(host: Host) -> None:
    host.fork(10, 400)
    host.begin_session(400)
    host.find(400, DAEMON)
    host.drain()
    host.exec(400, b"probe")
    host.drain()
    host.placements[400] = CONTAINER
    answer_and_settle(host)
    host.settle()
    assert host.by_group == {IN_DAEMON: {"forks": 1}, IN_CONTAINER: {"execs": 1}}


def test_the_name_and_the_group_of_a_process_can_be_open_at_the_same_time() -> None:
    host = make_host(sideband=False)
    host.fork(10, 400)
    host.begin_session(400)
    host.exec(400)
    host.fork(400, 401)
    host.set_uid(401, 7)
    host.drain()
    host.placements[400] = CONTAINER
    host.answer()
    host.drain()
    # The name is still to come.
    assert host.pending["exec"] == 1
    host.end(401, b"probe", 7)
    host.end(400, b"probe")
    host.settle()
    assert host.execs == {("probe", "0"): 1}
    assert host.by_group == {IN_DAEMON: {"forks": 1}, IN_CONTAINER: {"forks": 1, "execs": 1, "exits": 2}}
    assert host.pending == {}


def test_an_exec_before_the_session_counts_in_the_group_before() -> None:
    host = make_host(sideband=False)
    host.fork(10, 400)
    host.exec(400, b"setsid")
    host.begin_session(400)
    host.exec(400, b"probe")
    host.end(400, b"probe")
    host.drain()
    host.placements[400] = CONTAINER
    host.answer(opened_ns=host.now_ns - 5 * MS)
    host.settle()
    assert host.by_group == {IN_DAEMON: {"forks": 1, "execs": 1}, IN_CONTAINER: {"execs": 1, "exits": 1}}


def test_more_sessions_than_there_may_be_are_unknown(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "_MOST_OPEN", 3)
    for tgid in range(400, 405):
        host.fork(10, tgid)
        host.begin_session(tgid)
    host.drain()
    assert host.table.grouping.unresolved["too_many"] == 2
    for tgid in range(400, 405):
        host.end(tgid, b"daemon")
    host.drain()
    assert len(answer_and_settle(host)) == 3
    assert host.by_group == {IN_DAEMON: {"forks": 5}, UNKNOWN: {"exits": 5}}


def test_a_process_whose_fork_was_lost_is_unknown_until_a_scan_finds_it(host: Host) -> None:
    host.fork(500, 501)
    host.drain()
    host.end(501, b"child")
    host.lives_in(500, b"parent", CONTAINER)
    host.drain()
    host.fork(500, 502)
    host.drain()
    assert host.by_group == {UNKNOWN: {"forks": 1, "exits": 1}, IN_CONTAINER: {"forks": 1}}


# -- names of pods -------------------------------------------------------------------------------------------


def test_without_names_of_pods_a_container_of_one_is_known_by_its_id() -> None:
    host = make_host()
    host.lives_in(30, b"main", IN_POD)
    host.fork(30, 31)
    host.drain()
    assert host.by_group == {("<unknown>", "<unknown>", "0123456789ab", ""): {"forks": 1}}


@pytest.mark.parametrize("name", [PodName("shop", "cart-0", "web"), None], ids=["named", "not named"])
def test_a_containers_series_are_held_back_until_its_name_is_known(name: PodName | None) -> None:
    host = make_host(names_pods=True)
    host.lives_in(30, b"main", IN_POD)
    host.fork(30, 31)
    host.end(31, b"main")
    host.drain()
    container = PodContainer(UID, ID)
    assert list(host.table.grouping.nameless) == [container]
    assert (host.by_group, host.pending) == ({}, {"fork": 1, "exit": 1})
    host.pipeline.name_container(container, name)
    values = (*UNKNOWN[:3], "") if name is None else (*name, "")
    assert host.by_group == {values: {"forks": 1, "exits": 1}}
    # It is so for good.
    host.pipeline.name_container(container, PodName("other", "other", "other"))
    host.fork(30, 31)
    host.drain()
    host.find(31, IN_POD)
    host.drain()
    assert host.by_group == {values: {"forks": 2, "exits": 1}}
    assert host.table.grouping.unresolved["unnamed"] == (name is None)
    assert list(host.table.grouping.nameless) == []


def test_a_container_that_is_started_again_goes_on_in_the_same_series() -> None:
    host = make_host(names_pods=True)
    for tgid, container_id in ((30, 64 * "a"), (40, 64 * "b")):
        host.lives_in(tgid, b"main", Placement(UID, container_id, "", ""))
        host.fork(tgid, 400 + tgid)
        host.drain()
        host.pipeline.name_container(PodContainer(UID, container_id), PodName("shop", "cart-0", "web"))
    assert host.by_group == {("shop", "cart-0", "web", ""): {"forks": 2}}


def test_a_container_in_no_pod_waits_for_its_name_where_names_come() -> None:
    host = make_host(names_containers=True)
    host.lives_in(30, b"main", CONTAINER)
    host.lives_in(40, b"machine", Placement("", "web-1", "", ""))
    for tgid in (30, 40):
        host.fork(tgid, 400 + tgid)
    host.drain()
    # A machine has its name in its path, and pods of which no names come do not wait.
    assert host.by_group == {("", "", "web-1", ""): {"forks": 1}}
    assert host.table.grouping.nameless == [PodContainer("", ID)]
    host.pipeline.name_container(PodContainer("", ID), PodName("", "", "web"))
    host.fork(30, 500)
    host.drain()
    assert host.by_group["", "", "web", ""] == {"forks": 2}
    assert host.table.grouping.unresolved["unnamed"] == 0


def test_only_so_many_containers_wait_for_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user can make a path of a container for each process, in a folder that systemd has given to that user."""
    monkeypatch.setattr(places, "_MOST_NAMELESS", 2)
    host = make_host(names_containers=True)
    for tgid, digit in ((30, "a"), (40, "b")):
        host.lives_in(tgid, b"main", Placement("", 64 * digit, "", ""))
        host.fork(tgid, 400 + tgid)
    host.drain()
    assert host.table.grouping.nameless == [PodContainer("", ID), PodContainer("", 64 * "a")]
    assert host.by_group == {("", "", 12 * "b", ""): {"forks": 1}}
    assert host.table.grouping.unresolved["unnamed"] == 1


def test_a_pod_whose_name_does_not_come_does_not_wait_where_names_of_containers_come() -> None:
    host = make_host(names_containers=True)
    host.lives_in(30, b"main", IN_POD)
    host.fork(30, 400)
    host.drain()
    assert host.by_group == {("<unknown>", "<unknown>", ID[:12], ""): {"forks": 1}}


# -- captures ------------------------------------------------------------------------------------------------


def be_busy(host: Host) -> None:
    """Do everything that groups can be known by, some of it amid a drain."""
    host.lives_in(30, b"main", IN_POD)
    for tgid in range(400, 420):
        host.fork((10, 30)[tgid % 2], tgid)
        if tgid % 3:
            host.begin_session(tgid)
        opened_ns = host.now_ns
        host.exec(tgid, b"probe")
        if tgid % 5:
            if tgid % 7:
                host.placements[tgid] = (CONTAINER, IN_POD)[tgid % 2]
            host.end(tgid, b"probe")
        host.drain()
        host.answer(opened_ns=opened_ns)
    host.settle()
    host.pipeline.name_container(PodContainer(UID, ID), PodName("shop", "cart-0", "web"))
    host.settle()


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_a_replay_finds_the_same_groups(mode: Mode) -> None:
    tape = MemoryTape()
    host = make_host(mode, sideband=False, names_pods=True, names_containers=True, tape=tape)
    be_busy(host)
    host.pipeline.name_container(PodContainer("", ID), PodName("", "", "cron"))
    host.settle()
    replayed = Replayed(mode, tape.files[0], group_by=BOTH, names_pods=True, names_containers=True)
    assert exposition(replayed.tallies, replayed.table) == exposition(host.tallies, host.table)
    assert status(replayed.tallies, replayed.pipeline) == status(host.tallies, host.pipeline)
    assert {"shop", "<unknown>", ""} == {values[0] for values in host.by_group}
    assert "cron" in {values[2] for values in host.by_group}
    # Who replays without groups sees none.
    plain = Replayed(mode, tape.files[0])
    assert plain.table.grouping.unresolved == {}
    assert sum(plain.table.live().values()) == sum(host.live.values())


def test_a_file_that_begins_in_the_middle_knows_in_which_groups_processes_live() -> None:
    tape = MemoryTape(frames_per_file=40)
    host = make_host(names_pods=True, tape=tape)
    be_busy(host)
    while len(tape.files) < 2 or len(tape.files[-1]) > 2:
        host.settle()
    before = live_in(host)
    replayed = Replayed(Mode.EXACT, tape.files[-1], sideband=True, group_by=BOTH, names_pods=True)
    assert replayed.table.live_in_groups() == host.table.live_in_groups()
    assert before["web"] > 1


# -- rules of groups -----------------------------------------------------------------------------------------


def rules(text: str) -> Rules:
    return parse_rules(text.encode(), "rules.yml")


def test_a_group_that_the_rules_exclude_is_in_no_series_and_its_events_are_counted(host: Host) -> None:
    host.tallies.apply_rules(rules("exclude: {container: ['[0-9a-f]{12}']}"))
    host.lives_in(30, b"main", CONTAINER._replace(container_id=64 * "d"))
    host.drain()
    for n in range(3):
        host.fork(30, 400 + n)
        host.exec(400 + n, b"true")
        host.end(400 + n, b"true")
    host.drain()
    host.settle()
    assert host.by_group == {}
    excluded = host.tallies.excluded()
    assert (excluded["fork"], excluded["exec"], excluded["exit"]) == (3, 3, 3)
    assert "dddddddddddd" not in live_in(host)


def test_groups_that_the_rules_give_one_name_are_one() -> None:
    host = make_host()
    host.tallies.apply_rules(rules("unit: [{match: '(web)-[0-9]+(.service)', replace: '$1$2'}]"))
    for n in (1, 2):
        host.lives_in(30 + n, b"web", Placement("", "", f"web-{n}.service", ""))
    host.drain()
    for n in (1, 2):
        host.fork(30 + n, 400 + n)
    host.drain()
    assert host.by_group == {("", "", "", "web.service"): {"forks": 2}}


def test_after_a_reload_a_process_counts_in_its_new_group_once_it_is_looked_at() -> None:
    host = make_host()
    host.fork(10, 400)
    host.drain()
    host.tallies.apply_rules(rules("unit: [{match: 'daemon.*', replace: spirit}]"))
    host.lives_in(10, b"daemon", DAEMON)
    host.drain()
    host.settle()
    host.fork(10, 401)
    host.drain()
    assert host.by_group == {IN_DAEMON: {"forks": 1}, ("", "", "", "spirit"): {"forks": 1}}


def test_after_a_reload_the_name_of_a_pod_is_not_waited_for_again() -> None:
    host = make_host(names_pods=True)
    host.lives_in(30, b"web", IN_POD)
    host.pipeline.name_container(PodContainer(UID, ID), PodName("shop", "cart-1", "web"))
    host.drain()
    host.tallies.apply_rules(rules("pod: [{match: '(.*)-.*', replace: $1}]"))
    host.lives_in(30, b"web", IN_POD)
    host.drain()
    assert host.pipeline.nameless() == []
    host.fork(30, 400)
    host.drain()
    assert host.by_group == {("shop", "cart", "web", ""): {"forks": 1}}


# -- what an observer gets -----------------------------------------------------------------------------------


def observed(host: Host) -> list[Happening]:
    """What an observer of a host gets, from now on."""
    news: list[Happening] = []
    host.pipeline.observe(lambda new: news.extend(one for one in new if isinstance(one, Happening)))
    return news


def told(news: list[Happening], tgid: int) -> list[tuple[str, dict[str, str]]]:
    return [
        (n.event, {name: value for name, value in n.group if value})
        for n in news
        if n.tgid == tgid and n.event not in {"sid", "comm"}
    ]


def test_what_is_observed_has_the_group_that_it_counts_in(host: Host) -> None:
    news = observed(host)
    for parent, child in ((20, 400), (10, 401), (1, 402)):
        host.fork(parent, child)
        host.end(child, b"x")
    host.drain()
    host.settle()
    assert told(news, 400) == [("fork", {"container": "0123456789ab"}), ("exit", {"container": "0123456789ab"})]
    assert told(news, 401) == [("fork", {"unit": "daemon.service"}), ("exit", {"unit": "daemon.service"})]
    assert told(news, 402) == [("fork", {}), ("exit", {})]
    assert {name for name, _ in news[-1].group} == {"namespace", "pod", "container", "unit"}


def test_what_happens_in_an_open_group_is_observed_when_it_is_known(host: Host) -> None:
    news = observed(host)
    host.fork(10, 400)
    host.begin_session(400)
    host.exec(400, b"probe")
    host.drain()
    assert [event for event, _ in told(news, 400)] == ["fork"]
    host.placements[400] = CONTAINER
    answer_and_settle(host)
    host.end(400, b"probe")
    host.settle()
    assert told(news, 400) == [
        ("fork", {"unit": "daemon.service"}),
        ("exec", {"container": "0123456789ab"}),
        ("exit", {"container": "0123456789ab"}),
    ]


def test_what_waits_for_its_group_is_observed_as_unknown_when_track_is_lost() -> None:
    host = make_host()
    news = observed(host)
    host.fork(10, 400)
    host.begin_session(400)
    host.exec(400, b"probe")
    host.drain()
    host.pipeline.lose_track()
    assert told(news, 400)[1:] == [("exec", dict.fromkeys(("namespace", "pod", "container", "unit"), "<unknown>"))]


def test_a_container_with_much_before_its_name_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "_MOST_HELD", 10)
    host = make_host(names_pods=True)
    host.lives_in(30, b"web", IN_POD)
    news = observed(host)
    for n in range(15):
        host.fork(30, 400 + n)
    host.drain()
    assert len(news) == 5
    host.pipeline.name_container(PodContainer(UID, ID), PodName("shop", "cart-1", "web"))
    host.drain()
    assert Counter(dict(n.group)["pod"] for n in news) == {"<unknown>": 5, "cart-1": 10}


def test_what_the_rules_exclude_by_its_group_is_not_observed(host: Host) -> None:
    host.tallies.apply_rules(rules("exclude: {container: ['.+']}"))
    host.lives_in(20, b"main", CONTAINER)
    host.drain()
    host.settle()
    news = observed(host)
    host.fork(20, 400)
    host.end(400, b"main")
    host.fork(10, 401)
    host.begin_session(401)
    host.exec(401, b"probe")
    host.drain()
    host.placements[401] = CONTAINER
    answer_and_settle(host)
    host.settle()
    assert [(n.event, n.tgid) for n in news] == [("fork", 401)]


# -- failures ------------------------------------------------------------------------------------------------


def failures_of(host: Host, *, at_once: bool = True) -> list[Failure]:
    failures: list[Failure] = []
    host.pipeline.take_failures(failures.extend, at_once=at_once)
    return failures


def test_a_failure_has_its_group_when_that_is_known(host: Host) -> None:
    failures = failures_of(host)
    host.fork(20, 400)
    host.end(400, b"main", status=0x100)
    host.fork(10, 401)
    host.begin_session(401)
    host.exec(401, b"probe")
    host.drain()
    host.placements[401] = CONTAINER
    host.end(401, b"probe", status=0x100)
    host.drain()
    assert 401 not in {failure.pid for failure in failures}
    answer_and_settle(host)
    host.settle()
    assert {failure.pid: dict(failure.group)["container"] for failure in failures} == {
        400: "0123456789ab",
        401: "0123456789ab",
    }


def test_a_failure_in_an_excluded_group_is_none(host: Host) -> None:
    host.tallies.apply_rules(rules("exclude: {container: ['.+']}"))
    failures = failures_of(host)
    host.fork(10, 400)
    host.begin_session(400)
    host.exec(400, b"probe")
    host.drain()
    host.placements[400] = CONTAINER
    host.end(400, b"probe", status=0x100)
    answer_and_settle(host)
    host.settle()
    assert failures == []
    assert host.table.bad_ends.noted == 0


# -- mount namespaces ----------------------------------------------------------------------------------------

SPACE = 4026532001


def in_space(host: Host, *tgids: int, inode: int = SPACE) -> None:
    """The records of processes that enter a mount namespace."""
    host.table.sideband.mounts.add([(host.now_ns + 2, tgid, inode) for tgid in tgids])


def test_a_program_that_is_gone_counts_in_the_container_whose_mount_namespace_it_was_in() -> None:
    host = make_host()
    in_space(host, 20)
    host.fork(10, 400)
    in_space(host, 400)
    host.begin_session(400)
    host.exec(400, b"probe")
    host.end(400, b"probe")
    host.drain()
    answer_and_settle(host)
    host.settle()
    assert host.by_group == {IN_DAEMON: {"forks": 1}, IN_CONTAINER: {"execs": 1, "exits": 1}}
    assert not any(host.table.grouping.unresolved.values())


def test_a_runtime_that_ends_without_an_exec_is_not_counted_in_the_namespace_that_it_entered() -> None:
    host = make_host()
    in_space(host, 20)
    host.fork(10, 400)
    in_space(host, 400)
    host.begin_session(400)
    host.end(400, b"runc")
    host.drain()
    answer_and_settle(host)
    host.settle()
    assert host.by_group == {IN_DAEMON: {"forks": 1}, UNKNOWN: {"exits": 1}}


def test_the_program_of_a_runtime_that_is_born_in_the_container_counts_there_too() -> None:
    host = make_host()
    in_space(host, 20)
    host.fork(10, 400)
    in_space(host, 400)
    host.begin_session(400)
    host.fork(400, 401)
    in_space(host, 401)
    host.end(400, b"crun")
    host.exec(401, b"probe")
    host.end(401, b"probe")
    host.drain()
    assert host.answer() == [400]
    assert answer_and_settle(host) == [401]
    host.settle()
    assert host.by_group[IN_CONTAINER] == {"forks": 1, "execs": 1, "exits": 2}


@pytest.mark.parametrize("name", ["<unknown>", "<other>"])
def test_a_machine_that_is_called_like_what_is_not_known_is_escaped(name: str) -> None:
    by = frozenset({"pod"})
    places = Places(Tallies(1000, group_labels=group_label_names(by)), by, names_pods=False)
    assert places.group_of(Placement("", name, "", "")).values == ("", "", f"\\x3c{name[1:]}")
