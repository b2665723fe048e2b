"""Which ends by SIGKILL count as OOM kills: by the pids of the kernel log, or by the kernel's count alone."""

import re
from collections.abc import Iterable

import pytest
from host import Host, Mode, Thread
from hypothesis import given
from hypothesis import strategies as st
from replayed import MemoryTape, Replayed, exposition

from exporter.groups.cgroup_path import Placement
from exporter.processes.bad_ends import Failure
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


def test_if_as_many_were_killed_as_were_chosen_they_are_the_same() -> None:
    host = new_host("vmstat")
    starts(host, 400, 401)
    is_killed(host, 400, 401)
    host.drain()
    host.read_total(9)
    assert host.oom_kills == {}
    all_ended(host)
    assert host.oom_kills == {JAVA: 2}


def test_if_more_were_killed_it_is_not_known_which_were_chosen() -> None:
    host = new_host("vmstat")
    starts(host, 400, 401, 402)
    is_killed(host, 400, 401, 402)
    host.drain()
    host.read_total(9)
    all_ended(host)
    assert host.oom_kills == {UNKNOWN: 2}


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
    st.tuples(st.just("end"), st.integers(400, 404)),
    st.tuples(st.just("drain"), st.integers(0, 2)),
)


class World:
    """Processes and an OOM killer: what happens, and what an exporter counts of it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.comms: dict[int, bytes] = {}
        self.dying: dict[int, bool] = {}
        self.lines: list[int] = []
        self.total = 7
        self.chosen: dict[str, int] = {}
        self.counted = 0

    def take(self, step: str, pid: int) -> None:
        if step == "drain":
            self.drain()
        elif step == "start" and pid not in self.comms:
            self.counted += 1
            self.comms[pid] = b"p%d" % self.counted
            starts(self.host, pid, comm=self.comms[pid])
        elif step in {"kill", "choose"} and pid in self.comms and pid not in self.dying:
            self.dying[pid] = step == "choose"
            if step == "choose":
                self.total += 1
                self.lines.append(pid)
        elif step == "end" and pid in self.dying:
            comm = self.comms.pop(pid)
            is_killed(self.host, pid, comm=comm)
            if self.dying.pop(pid):
                self.chosen[comm.decode()] = 1

    def drain(self) -> None:
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
    assert sum(counted.values()) + unknown == world.total - 7
    assert counted.items() <= world.chosen.items()
    if source == "kmsg":
        assert counted == world.chosen
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
