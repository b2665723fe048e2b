"""Which ends by SIGKILL count as OOM kills: by the pids of the kernel log, or by the kernel's count alone."""

import re
import time
from collections.abc import Iterable

import pytest
from host import Host, Mode, Thread
from hypothesis import given
from hypothesis import strategies as st
from replayed import MemoryTape, Replayed, exposition

from exporter.groups.cgroup_path import Placement
from exporter.processes.bad_ends import Failure
from exporter.processes.oom_kills import OomKills
from exporter.tallies.rules import Rule, Rules
from exporter.tallies.tallies import Tallies

SIGKILL = 9
JAVA, SH, UNKNOWN = ("java", "1000"), ("sh", "1000"), ("<unknown>", "<unknown>")
A_MINUTE_MS = 60_000
by_pid = pytest.mark.parametrize("source", ["kmsg", "syslog"])


def new_host(source: str, mode: Mode = Mode.EXACT, **options: object) -> Host:
    host = Host(mode, oom_source=source, **options)  # type: ignore[arg-type]
    host.lives(100, b"sh", 1000)
    host.pipeline.take_oom_total(7, host.now_ns)
    return host


def starts(host: Host, *tgids: int, comm: bytes = b"java") -> None:
    for tgid in tgids:
        host.fork(100, tgid)
        host.exec(tgid, comm)
        host.rename(tgid, comm)


def is_killed(host: Host, *tgids: int, comm: bytes = b"java", status: int = SIGKILL) -> None:
    for tgid in tgids:
        host.end(tgid, comm, 1000, status)


def killed(host: Host) -> int:
    return sum(count for (*_, status), count in host.exits.items() if status == SIGKILL)


# -- by pid ------------------------------------------------------------------------------------------------------


@by_pid
@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_of_those_that_die_of_sigkill_the_ones_in_the_log_are_oom_kills(mode: Mode, source: str) -> None:
    host = new_host(source, mode)
    starts(host, 400, 401, 402)
    is_killed(host, 400, 401, 402)
    host.drain()
    host.read_log(401, 400)
    assert host.oom_kills == {JAVA: 2}
    assert killed(host) == 3
    assert not host.table.oom_kills.asks


def test_a_line_waits_for_a_process_that_ends_late() -> None:
    host = new_host("kmsg")
    starts(host, 400, 401)
    host.drain()
    host.read_log(400)
    is_killed(host, 401)
    host.drain()
    host.read_log()
    assert host.oom_kills == {}
    host.rest(10 * A_MINUTE_MS)
    host.read_log()
    is_killed(host, 400)
    host.drain()
    host.read_log()
    assert host.oom_kills == {JAVA: 1}


def test_a_process_that_has_the_pid_later_is_another() -> None:
    """The one that was chosen ended well in the same moment, so that its end is no bad one."""
    host = new_host("kmsg")
    starts(host, 400)
    host.drain()
    host.read_log(400)
    is_killed(host, 400, status=0)
    host.drain()
    starts(host, 400, comm=b"sh")
    is_killed(host, 400, comm=b"sh")
    host.drain()
    host.read_log()
    assert host.oom_kills == {UNKNOWN: 1}
    assert host.exits["sh", "1000", SIGKILL] == 1


def test_a_pid_can_be_chosen_twice() -> None:
    host = new_host("kmsg")
    for _ in range(2):
        starts(host, 400)
        is_killed(host, 400)
        host.drain()
        host.read_log(400)
    assert host.oom_kills == {JAVA: 2}


@pytest.mark.parametrize("readings", [[(400, 400, 401)], [(400,), (400, 401)]], ids=["at once", "one by one"])
def test_the_first_of_a_group_that_dies_as_a_whole_has_two_lines(readings: list[tuple[int, ...]]) -> None:
    """memory.oom.group: the chosen one and each of its cgroup, in which it is, too."""
    host = new_host("kmsg")
    starts(host, 400, 401)
    host.drain()
    for pids in readings:
        host.read_log(*pids)
    is_killed(host, 400, 401)
    host.drain()
    host.read_log()
    assert host.oom_kills == {JAVA: 2}
    # Who has the pid now was not chosen.
    starts(host, 400, comm=b"sh")
    is_killed(host, 400, comm=b"sh")
    host.drain()
    host.read_log()
    host.rest(2 * A_MINUTE_MS)
    host.read_log()
    assert host.oom_kills == {JAVA: 2}


def test_two_of_one_pid_that_were_chosen_within_one_drain_have_a_line_each() -> None:
    host = new_host("kmsg")
    for _ in range(2):
        starts(host, 400)
        is_killed(host, 400)
    host.drain()
    host.read_log(400, 400, 400)
    assert host.oom_kills == {JAVA: 2}


def test_two_lines_that_no_end_follows_are_of_one_process() -> None:
    host = new_host("kmsg")
    host.read_log(777, 777)
    host.rest(A_MINUTE_MS + 100)
    host.read_log()
    assert host.oom_kills == {UNKNOWN: 1}


def test_two_lines_of_a_process_whose_end_was_lost_are_of_one_process() -> None:
    host = new_host("kmsg")
    host.read_log(400, 400)
    host.rest(100)
    starts(host, 400, comm=b"sh")
    is_killed(host, 400, comm=b"sh")
    host.drain()
    host.read_log()
    assert host.oom_kills == {UNKNOWN: 1}


def test_a_pid_that_was_used_again_within_one_drain_is_told_by_time() -> None:
    """Both died of SIGKILL; the line was read in between."""
    host = new_host("kmsg")
    starts(host, 400)
    host.read_log(400)
    is_killed(host, 400)
    starts(host, 400, comm=b"sh")
    is_killed(host, 400, comm=b"sh")
    host.drain()
    host.read_log()
    assert host.oom_kills == {JAVA: 1}


def test_a_line_that_no_end_follows_is_counted_as_unknown() -> None:
    """The first thread had exited: the log has the pid of another one. Or the end was lost."""
    host = new_host("kmsg")
    host.read_log(777)
    host.rest(A_MINUTE_MS - 100)
    host.read_log()
    assert host.oom_kills == {}
    host.rest(200)
    host.read_log()
    assert host.oom_kills == {UNKNOWN: 1}


def test_what_the_kernel_counts_and_the_log_lacks_is_unknown() -> None:
    host = new_host("kmsg")
    starts(host, 400, 401)
    is_killed(host, 400, 401)
    host.drain()
    host.read_log(400, is_whole=False)
    for _ in range(4):
        host.rest(1000)
        host.read_total(9)
    assert host.oom_kills == {JAVA: 1, UNKNOWN: 1}


def test_the_kernel_may_count_a_kill_a_moment_before_it_logs_it() -> None:
    host = new_host("kmsg")
    starts(host, 400)
    host.drain()
    host.rest(1000)
    host.read_total(8)
    host.read_log(400)
    is_killed(host, 400)
    host.drain()
    host.read_log()
    for _ in range(3):
        host.rest(1000)
        host.read_total(8)
    assert host.oom_kills == {JAVA: 1}


def test_an_exec_whose_name_is_not_known_yet_is_counted_under_it_later() -> None:
    host = new_host("kmsg", Mode.PROCFS)
    host.fork(100, 400)
    host.exec(400, b"java")
    host.drain()
    host.exit(400, SIGKILL)
    host.drain()
    host.read_log(400)
    host.settle()
    assert sum(host.oom_kills.values()) == 1
    assert host.exits.keys() == {(*next(iter(host.oom_kills)), SIGKILL)}


def test_it_counts_in_the_group_where_its_end_does() -> None:
    host = new_host("kmsg", group_by=frozenset({"unit"}))
    host.lives_in(100, b"sh", Placement("", "", "web.service", ""))
    starts(host, 400)
    is_killed(host, 400)
    host.drain()
    host.read_log(400)
    cells = host.tallies.snapshot_cells()
    kills = {g: n for g, n in zip(cells.groups, cells.counters["oom_kills"], strict=True) if n}
    assert kills == {("web.service",): 1}


def test_a_group_that_becomes_known_later_has_it_too() -> None:
    host = new_host("kmsg", group_by=frozenset({"unit"}))
    host.placements[100] = Placement("", "", "other.service", "")
    starts(host, 400)
    host.begin_session(400)
    host.placements[400] = Placement("", "", "web.service", "")
    is_killed(host, 400)
    host.drain()
    host.answer()
    host.settle()
    host.read_log(400)
    cells = host.tallies.snapshot_cells()
    ends = {g: sum(e.values()) for g, e in zip(cells.groups, cells.exits, strict=True) if e}
    kills = {g: n for g, n in zip(cells.groups, cells.counters["oom_kills"], strict=True) if n}
    assert kills == ends == {("web.service",): 1}


def test_what_the_rules_exclude_is_in_no_metric() -> None:
    host = new_host("kmsg", tallies=Tallies(rules=Rules((Rule(re.compile("java"), None),))))
    starts(host, 400)
    starts(host, 401, comm=b"sh")
    is_killed(host, 400)
    is_killed(host, 401, comm=b"sh")
    host.drain()
    host.read_log(400, 401)
    assert host.oom_kills == {SH: 1}


# -- by number ---------------------------------------------------------------------------------------------------


def all_ended(host: Host) -> None:
    host.pipeline.oom_victims_ended(host.now_ns)


def test_while_the_number_does_not_grow_no_end_is_an_oom_kill() -> None:
    host = new_host("vmstat")
    starts(host, 400)
    is_killed(host, 400)
    host.drain()
    assert host.table.oom_kills.asks
    assert host.table.waits
    host.read_total(7)
    assert host.oom_kills == {}
    assert not host.table.oom_kills.asks


@pytest.mark.parametrize(
    ("chosen", "ended", "counted"),
    [
        pytest.param(1, 1, {JAVA: 1}, id="one"),
        pytest.param(2, 1, {JAVA: 1}, id="one that is counted twice, as the first of its group"),
        pytest.param(3, 2, {JAVA: 2}, id="two of a group, or one of a group and another"),
        pytest.param(
            4, 3, {JAVA: 2, UNKNOWN: 1}, id="three of a group, or one each of two groups and a kill by a user"
        ),
        pytest.param(2, 2, {JAVA: 1, UNKNOWN: 1}, id="two, or one of a group and a kill by a user"),
        pytest.param(2, 3, {JAVA: 1, UNKNOWN: 1}, id="kills by a user among them"),
        pytest.param(1, 0, {UNKNOWN: 1}, id="one that ended well in the same moment"),
        pytest.param(4, 1, {UNKNOWN: 2}, id="two groups, and one of these ended well in the same moment"),
    ],
)
def test_those_that_died_of_sigkill_are_the_chosen_ones_if_there_are_no_more_than_must_have_been_chosen(
    chosen: int, ended: int, counted: dict[tuple[str, str], int]
) -> None:
    host = new_host("vmstat")
    victims = range(400, 400 + ended)
    starts(host, 500, *victims)
    is_killed(host, *victims)
    host.drain()
    host.read_total(7 + chosen)
    assert host.oom_kills == {}
    # What asks for the number is an end by SIGKILL.
    all_ended(host)
    assert host.oom_kills == counted


def test_if_more_were_killed_and_all_are_of_one_program_it_is_that_program() -> None:
    host = new_host("vmstat")
    failures = taken_by(host)
    starts(host, 400, 401, 402)
    is_killed(host, 400, 401, 402)
    host.drain()
    host.read_total(9)
    all_ended(host)
    assert host.oom_kills == {JAVA: 1, UNKNOWN: 1}, "the kernel may have counted one of them twice"
    assert ooms(failures) == dict.fromkeys((400, 401, 402)), "which of them is not known"


@pytest.mark.parametrize("others", ["web.service", "other.service"])
def test_if_more_were_killed_in_one_group_it_is_in_that_group(others: str) -> None:
    host = new_host("vmstat", group_by=frozenset({"unit"}))
    host.lives(101, b"sh", 1000)
    host.lives_in(100, b"sh", Placement("", "", "web.service", ""))
    host.lives_in(101, b"sh", Placement("", "", others, ""))
    starts(host, 400)
    is_killed(host, 400)
    host.fork(101, 402)
    is_killed(host, 402, comm=b"sh")
    host.drain()
    host.read_total(8)
    all_ended(host)
    cells = host.tallies.snapshot_cells()
    rows = zip(cells.keys, cells.groups, cells.counters["oom_kills"], strict=True)
    group = "web.service" if others == "web.service" else "<unknown>"
    assert [row for row in rows if row[2]] == [(("<unknown>", None), (group,), 1)]


def test_if_more_were_killed_in_one_group_it_is_there_although_that_becomes_known_later() -> None:
    host = new_host("vmstat", group_by=frozenset({"unit"}))
    host.placements[100] = Placement("", "", "other.service", "")
    starts(host, 400)
    host.begin_session(400)
    host.fork(400, 401)
    host.placements[400] = Placement("", "", "web.service", "")
    is_killed(host, 401, comm=b"sh")
    is_killed(host, 400)
    host.drain()
    host.read_total(8)
    all_ended(host)
    host.answer()
    host.settle()
    cells = host.tallies.snapshot_cells()
    rows = zip(cells.keys, cells.groups, cells.counters["oom_kills"], strict=True)
    assert [row for row in rows if row[2]] == [(("<unknown>", None), ("web.service",), 1)]


def test_if_messages_were_lost_the_chosen_one_may_not_be_among_those_of_one_program() -> None:
    host = new_host("vmstat")
    starts(host, 400, 401)
    is_killed(host, 400, 401)
    host.pipeline.lose("connector", 3, host.now_ns)
    host.drain()
    host.read_total(8)
    all_ended(host)
    assert host.oom_kills == {UNKNOWN: 1}


def test_a_kill_that_comes_while_the_chosen_one_takes_long_to_end_is_not_taken_for_it() -> None:
    host = new_host("vmstat")
    starts(host, 400)
    starts(host, 401, comm=b"sh")
    is_killed(host, 401, comm=b"sh")
    host.drain()
    host.read_total(8)
    # Process 400 is still dying, so there is no call that all have ended.
    is_killed(host, 400)
    host.drain()
    host.read_total(8)
    all_ended(host)
    assert host.oom_kills == {UNKNOWN: 1}


def test_a_kill_after_all_had_ended_is_not_among_them() -> None:
    host = new_host("vmstat")
    starts(host, 400, 401)
    is_killed(host, 400)
    host.drain()
    host.read_total(8)
    ended_ns = host.now_ns
    is_killed(host, 401)
    host.drain()
    host.pipeline.oom_victims_ended(ended_ns)
    host.read_total(8)
    assert host.oom_kills == {JAVA: 1}


def test_if_messages_were_lost_it_is_not_known_which_were_chosen() -> None:
    host = new_host("vmstat")
    starts(host, 400)
    is_killed(host, 400)
    host.pipeline.lose("connector", 3, host.now_ns)
    host.drain()
    host.read_total(8)
    all_ended(host)
    assert host.oom_kills == {UNKNOWN: 1}


def test_ends_are_not_waited_for_for_ever() -> None:
    host = new_host("vmstat")
    starts(host, 400)
    is_killed(host, 400)
    host.drain()
    host.read_total(9)
    host.rest(A_MINUTE_MS - 100)
    host.read_total(9)
    assert host.oom_kills == {}
    host.rest(200)
    host.read_total(9)
    assert host.oom_kills == {UNKNOWN: 2}
    assert not host.table.oom_kills.asks


# -- failures ----------------------------------------------------------------------------------------------------


def taken_by(host: Host) -> list[Failure]:
    failures: list[Failure] = []
    host.pipeline.take_failures(failures.extend, at_once=True)
    return failures


def ooms(failures: Iterable[Failure]) -> dict[int, bool | None]:
    return {failure.pid: failure.oom for failure in failures}


def test_a_failure_waits_until_it_is_known_whether_it_is_an_oom_kill() -> None:
    host = new_host("kmsg")
    failures = taken_by(host)
    starts(host, 400, 401, 402)
    is_killed(host, 400, 401)
    is_killed(host, 402, status=0x100)
    host.drain()
    assert ooms(failures) == {402: False}
    host.read_log(400)
    assert ooms(failures) == {400: True, 401: False, 402: False}


def test_after_a_loss_in_the_log_it_is_not_known_of_those_that_it_lacks() -> None:
    host = new_host("kmsg")
    failures = taken_by(host)
    starts(host, 400, 401)
    is_killed(host, 400, 401)
    host.drain()
    host.read_log(400, is_whole=False)
    assert ooms(failures) == {400: True, 401: None}


def test_without_a_source_it_is_not_known() -> None:
    host = Host()
    host.lives(100, b"sh", 1000)
    failures = taken_by(host)
    starts(host, 400)
    is_killed(host, 400)
    host.drain()
    assert ooms(failures) == {400: None}


def test_a_storm_of_failures_hides_no_oom_kill() -> None:
    """Of a kind only the newest notes are kept."""
    host = new_host("kmsg")
    failures: list[Failure] = []
    host.pipeline.take_failures(failures.extend)
    starts(host, *range(400, 1400))
    for tgid in range(400, 1400):
        host.record(Thread(tgid, b"java", 1000), status=SIGKILL)
        host.exit(tgid, SIGKILL)
    host.drain()
    host.read_log(400, 401, 1399)
    assert host.oom_kills == {JAVA: 3}
    host.pipeline.hand_on_failures(host.now_ns)
    assert ooms(failures)[1399] is True


def test_without_a_client_no_note_is_kept() -> None:
    host = new_host("kmsg")
    starts(host, *range(400, 500))
    is_killed(host, *range(400, 500))
    host.drain()
    assert host.table.bad_ends.notes == []
    host.read_log(*range(400, 450))
    assert host.oom_kills == {JAVA: 50}


# -- replay, and all of it in any order --------------------------------------------------------------------------

STEP = st.one_of(
    st.tuples(st.just("start"), st.integers(400, 404)),
    st.tuples(st.just("kill"), st.integers(400, 404)),
    st.tuples(st.just("choose"), st.integers(400, 404)),
    st.tuples(st.just("choose twice"), st.integers(400, 404)),
    st.tuples(st.just("end"), st.integers(400, 404)),
    st.tuples(st.just("drain"), st.integers(0, 2)),
)


class World:
    """Processes and an OOM killer: what happens, and what an exporter counts of it.

    The kernel does not give a pid again within a drain: it has to go through all others before.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.comms: dict[int, bytes] = {}
        self.dying: dict[int, bool] = {}
        self.lines: list[int] = []
        self.total = 7
        self.repeated = 0
        self.chosen: dict[str, int] = {}
        self.counted = 0
        self.just_ended: set[int] = set()

    def take(self, step: str, pid: int) -> None:
        if step == "drain":
            self.drain()
        elif step == "start" and pid not in self.comms:
            if pid in self.just_ended:
                self.drain()
            self.counted += 1
            # Several are of one program.
            self.comms[pid] = b"p%d" % (self.counted % 3)
            starts(self.host, pid, comm=self.comms[pid])
        elif step in {"kill", "choose", "choose twice"} and pid in self.comms and pid not in self.dying:
            self.dying[pid] = step != "kill"
            times = ("kill", "choose", "choose twice").index(step)
            self.total += times
            self.lines += [pid] * times
            self.repeated += times == 2
        elif step == "end" and pid in self.dying:
            comm = self.comms.pop(pid)
            self.just_ended.add(pid)
            is_killed(self.host, pid, comm=comm)
            if self.dying.pop(pid):
                self.chosen[comm.decode()] = self.chosen.get(comm.decode(), 0) + 1

    def drain(self) -> None:
        self.just_ended.clear()
        self.host.drain()
        if self.host.table.oom_kills.source == "kmsg":
            self.host.read_log(*self.lines)
            self.lines.clear()
            return
        self.host.read_total(self.total)
        if not self.dying:
            all_ended(self.host)

    def finish(self) -> None:
        for pid in list(self.dying):
            self.take("end", pid)
        self.drain()


@pytest.mark.parametrize("source", ["kmsg", "vmstat"])
@given(steps=st.lists(STEP, max_size=60))
def test_no_kill_counts_as_one_of_the_oom_killer_nor_the_reverse(
    source: str, steps: list[tuple[str, int]]
) -> None:
    tape = MemoryTape()
    host = new_host(source, tape=tape)
    world = World(host)
    for step, pid in steps:
        world.take(step, pid)
    world.finish()
    counted = {comm: count for (comm, _), count in host.oom_kills.items()}
    unknown = counted.pop("<unknown>", 0)
    assert all(number <= world.chosen.get(comm, 0) for comm, number in counted.items())
    if source == "kmsg":
        assert (counted, unknown) == (world.chosen, 0)
    else:
        most = world.total - 7
        assert most - world.repeated <= sum(counted.values()) + unknown <= most
    # The calls behind the last count are in the next frame.
    host.drain()
    replayed = Replayed(Mode.EXACT, tape.files[0], oom_source=source)
    assert exposition(replayed.tallies, replayed.table) == exposition(host.tallies, host.table)


def test_a_file_of_a_capture_begins_with_the_lines_that_wait() -> None:
    tape = MemoryTape(frames_per_file=1)
    host = new_host("kmsg", tape=tape)
    starts(host, 400)
    host.drain()
    host.read_log(400)
    host.drain()
    is_killed(host, 400)
    host.drain()
    host.read_log()
    host.drain()
    last = [frame for file in tape.files[-3:] for frame in file]
    replayed = Replayed(Mode.EXACT, last, oom_source="kmsg")
    counts = replayed.tallies.snapshot_cells().counters["oom_kills"]
    assert sum(counts) == 1


def test_many_lines_at_once_take_time_in_proportion_to_their_number() -> None:
    """Of a dict whose first entries were deleted the first is looked for from its beginning each time."""

    def take_seconds(lines: int) -> float:
        taken = []
        for _ in range(3):
            kills = OomKills(Tallies(1000), {}, "kmsg")
            began = time.process_time()
            kills.take_lines(range(100, 100 + lines), 1, is_whole=True)
            taken.append(time.process_time() - began)
        return min(taken)

    # 108 times as many are given up; by the square it would be thousands of times as long.
    assert take_seconds(640_000) < 600 * take_seconds(10_000)
