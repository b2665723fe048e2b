"""exporter/live/oom_sources.py: which source is taken, and when it is read."""

import logging
from pathlib import Path

import pytest
from fake_proc import add_process
from host import MS, Host

from exporter.errors import SetupError
from exporter.kernel.kernel_log_readers import NewKills
from exporter.kernel.procfs import Procfs
from exporter.live import oom_sources
from exporter.live.oom_sources import OomKillReader, OomSource, open_oom_source

SIGKILL = 9
REFUSED = SetupError("not permitted")


class Log:
    """A kernel log."""

    def __init__(self, *readings: NewKills, is_stream: bool = True) -> None:
        self.is_stream = is_stream
        self.readings = list(readings)
        self.reads = 0
        self.is_closed = False

    def read(self) -> NewKills:
        self.reads += 1
        return self.readings.pop(0) if self.readings else NewKills([], is_whole=True)

    def close(self) -> None:
        self.is_closed = True


class Proc:
    """A /proc in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.procfs = Procfs(str(root))
        self.set_total(7)

    def set_total(self, total: int) -> None:
        (self.root / "vmstat").write_text(f"nr_free_pages 1\noom_kill {total}\n")

    def add(self, tgid: int, *, dying: bool) -> None:
        folder = add_process(self.root, tgid, b"java")
        pending = 0x100 if dying else 0
        status = folder / "status"
        status.write_bytes(status.read_bytes() + b"SigPnd:\t%016x\nShdPnd:\t%016x\n" % (pending, 0))

    def let_end(self, tgid: int) -> None:
        (self.root / str(tgid)).rename(self.root / f"ended{tgid}")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


@pytest.fixture
def permitted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Log]:
    """The logs that may be opened, by name."""
    logs: dict[str, Log] = {}

    def opens(name: str) -> object:
        def open_log() -> Log:
            if name not in logs:
                raise REFUSED
            return logs[name]

        return open_log

    monkeypatch.setattr(oom_sources, "Kmsg", opens("kmsg"))
    monkeypatch.setattr(oom_sources, "Syslog", opens("syslog"))
    return logs


# -- which -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "names", "taken"),
    [
        ("auto", {"kmsg", "syslog"}, "kmsg"),
        ("auto", {"syslog"}, "syslog"),
        ("auto", set(), "vmstat"),
        ("syslog", {"kmsg", "syslog"}, "syslog"),
        ("vmstat", {"kmsg", "syslog"}, "vmstat"),
        ("off", {"kmsg", "syslog"}, ""),
    ],
)
def test_the_best_that_is_permitted_is_taken(
    proc: Proc, permitted: dict[str, Log], choice: str, names: set[str], taken: str
) -> None:
    permitted.update({name: Log() for name in names})
    with open_oom_source(choice, proc.procfs, becomes_other=False) as source:
        assert source.name == taken
        assert source.log is permitted.get(taken)
    assert all(log.is_closed == (name == taken) for name, log in permitted.items())


@pytest.mark.parametrize(("restricted", "taken"), [("1\n", "vmstat"), ("0\n", "syslog")])
def test_syslog_is_no_source_if_its_privilege_is_given_up(
    proc: Proc, permitted: dict[str, Log], restricted: str, taken: str
) -> None:
    permitted["syslog"] = Log()
    (proc.root / "sys" / "kernel").mkdir(parents=True)
    (proc.root / "sys" / "kernel" / "dmesg_restrict").write_text(restricted)
    with open_oom_source("auto", proc.procfs, becomes_other=True) as source:
        assert source.name == taken


@pytest.mark.parametrize("choice", ["kmsg", "syslog", "vmstat"])
@pytest.mark.usefixtures("permitted")
def test_what_was_asked_for_and_cannot_be_had_is_said(proc: Proc, choice: str) -> None:
    (proc.root / "vmstat").write_text("nr_free_pages 1\n")
    source = open_oom_source(choice, proc.procfs, becomes_other=False)
    with pytest.raises(SetupError, match=f"--oom-kills={choice}: "), source:
        pass


@pytest.mark.usefixtures("permitted")
def test_where_there_is_none_the_log_says_why(proc: Proc, caplog: pytest.LogCaptureFixture) -> None:
    (proc.root / "vmstat").unlink()
    with caplog.at_level(logging.INFO), open_oom_source("auto", proc.procfs, becomes_other=False) as source:
        assert source.name == ""
        # A start that fails later is one line.
        assert caplog.messages == []
        source.log_choice()
    assert caplog.messages == ["no proc_connector_oom_kills_total"]


def test_of_those_that_were_chosen_before_the_ones_that_are_dying_are_remembered(
    proc: Proc, permitted: dict[str, Log]
) -> None:
    proc.add(400, dying=True)
    proc.add(401, dying=False)
    permitted["kmsg"] = Log(NewKills([400, 401], is_whole=True, is_all=False), NewKills([402, 400], is_whole=True))
    with open_oom_source("auto", proc.procfs, becomes_other=False) as source:
        assert source.dying == (400,)


# -- when --------------------------------------------------------------------------------------------------------


class Rig:
    """A host, and what reads after each of its drains."""

    def __init__(self, proc: Proc, source: OomSource) -> None:
        self.host = Host(oom_source=source.name)
        self.host.lives(100, b"sh", 1000)
        self.host.rest(5000)
        self.reader = OomKillReader(source, self.host.pipeline, proc.procfs, lambda: self.host.now_ns)

    def count(self) -> None:
        self.host.drain()
        # Two steps: the drain began before its read.
        self.reader.answer(self.host.now_ns - MS)

    def is_killed(self, tgid: int) -> None:
        self.host.fork(100, tgid)
        self.host.end(tgid, b"java", 1000, SIGKILL)


def test_a_log_is_read_when_something_died_of_sigkill_or_once_a_second(proc: Proc) -> None:
    log = Log()
    rig = Rig(proc, OomSource("kmsg", log))
    rig.count()
    for _ in range(3):
        rig.count()
    assert log.reads == 1
    rig.is_killed(400)
    rig.count()
    assert log.reads == 2
    rig.host.rest(1000)
    rig.count()
    assert log.reads == 3


def test_what_the_log_says_is_counted(proc: Proc) -> None:
    log = Log(NewKills([], is_whole=True))
    rig = Rig(proc, OomSource("kmsg", log))
    rig.count()
    log.readings = [NewKills([400], is_whole=True, is_all=False), NewKills([402], is_whole=True)]
    for tgid in (400, 401, 402):
        rig.is_killed(tgid)
    rig.count()
    assert rig.host.oom_kills == {("java", "1000"): 2}


def test_a_process_that_was_chosen_before_the_start_is_counted_when_it_ends(proc: Proc) -> None:
    rig = Rig(proc, OomSource("kmsg", Log(), dying=(100,)))
    rig.host.end(100, b"sh", 1000, SIGKILL)
    rig.count()
    assert rig.host.oom_kills == {("sh", "1000"): 1}


def test_syslog_is_read_only_when_the_kernel_has_counted_a_kill(proc: Proc) -> None:
    log = Log(is_stream=False)
    rig = Rig(proc, OomSource("syslog", log))
    rig.is_killed(400)
    rig.count()
    assert log.reads == 0
    assert not rig.host.table.oom_kills.asks
    proc.set_total(8)
    log.readings = [NewKills([401], is_whole=True)]
    rig.is_killed(401)
    rig.count()
    assert rig.host.oom_kills == {("java", "1000"): 1}
    rig.is_killed(402)
    rig.count()
    assert log.reads == 1


def test_what_the_log_has_lost_is_counted_as_unknown_after_a_moment(proc: Proc) -> None:
    log = Log()
    rig = Rig(proc, OomSource("kmsg", log))
    proc.set_total(9)
    for _ in range(4):
        rig.host.rest(1000)
        rig.count()
    assert rig.host.oom_kills == {("<unknown>", "<unknown>"): 2}


def test_by_number_all_ends_are_waited_for(proc: Proc) -> None:
    rig = Rig(proc, OomSource("vmstat"))
    proc.add(401, dying=True)
    proc.set_total(9)
    rig.is_killed(400)
    for _ in range(20):
        rig.count()
        rig.host.rest(100)
    assert rig.host.oom_kills == {}
    proc.let_end(401)
    rig.is_killed(401)
    for _ in range(40):
        rig.host.rest(100)
        rig.count()
    # The kernel may have counted one of them twice, as one of a group.
    assert rig.host.oom_kills == {("java", "1000"): 1, ("<unknown>", "<unknown>"): 1}


def test_by_number_a_kill_while_it_is_looked_spoils_the_look(proc: Proc) -> None:
    rig = Rig(proc, OomSource("vmstat"))
    proc.set_total(8)
    rig.is_killed(400)
    rig.host.drain()
    rig.reader.answer(0)
    proc.set_total(9)
    rig.count()
    assert rig.host.oom_kills == {}


def test_by_number_a_kill_of_another_of_the_program_while_one_is_dying_is_of_that_program(proc: Proc) -> None:
    rig = Rig(proc, OomSource("vmstat"))
    proc.add(401, dying=True)
    proc.set_total(8)
    rig.is_killed(400)
    rig.count()
    proc.let_end(401)
    rig.is_killed(401)
    for _ in range(20):
        rig.host.rest(100)
        rig.count()
    assert rig.host.oom_kills == {("java", "1000"): 1}


# -- /proc -------------------------------------------------------------------------------------------------------


def test_a_process_is_dying_if_sigkill_waits_or_it_exits_and_is_no_zombie(proc: Proc) -> None:
    proc.add(400, dying=True)
    proc.add(401, dying=False)
    proc.add(402, dying=False)
    stat = proc.root / "402" / "stat"
    stat.write_bytes(stat.read_bytes().replace(b" 4194560 ", b" 4194564 "))
    add_process(proc.root, 403, b"zombie", state=b"Z")
    add_process(proc.root, 404, b"leader gone", state=b"Z", threads=(405,))
    add_process(proc.root, 406, b"traced", state=b"t")
    dying = {tgid for tgid in (400, 401, 402, 403, 404, 406, 999) if proc.procfs.is_dying(tgid)}
    assert dying == {400, 402, 404, 406}


def test_without_a_count_of_kills_it_is_not_known(proc: Proc) -> None:
    assert proc.procfs.read_oom_kills() == 7
    (proc.root / "vmstat").write_text("oom_kills 8\n")
    assert proc.procfs.read_oom_kills() is None
