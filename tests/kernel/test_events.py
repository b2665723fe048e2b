"""Any mix of events: the same families and numbers, whichever filter leaves the others out."""

import itertools
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from bench.machine import netlink_sockets, sockets_of
from kernel.harness import (
    LABELS,
    ROOMY,
    UNKNOWN,
    Exporter,
    Programs,
    Row,
    Scrape,
    World,
    exit_labels,
    free_port,
    running,
    wait_until,
)

KINDS = ("fork", "exec", "exit", "nonzero_exit")
SUBSETS = [subset for size in range(1, 5) for subset in itertools.combinations(KINDS, size)]
COUNTERS = {
    "fork": {"forks"},
    "exec": {"execs"},
    "exit": {"exits", "nonzero_exits"},
    "nonzero_exit": {"nonzero_exits"},
    "uid": {"uid_changes"},
    "ptrace": {"ptrace_attaches"},
    "coredump": {"coredumps"},
}
NAMED_BY_TABLE = {"fork", "exec", "uid", "ptrace", "coredump"}
EVENTS = "proc_connector_events_total"
LEADER_GONE_FIRST = ("leader_first", "thread", "17", "group", "33")


class Setting(NamedTuple):
    mode: str
    kind: str  # of filter
    events: tuple[str, ...]

    @property
    def keeps_table(self) -> bool:
        return bool(NAMED_BY_TABLE & {*self.events}) or ("exit" in self.events and self.mode == "procfs")

    @property
    def counters(self) -> set[str]:
        return {counter for event in self.events for counter in COUNTERS.get(event, ())}

    @property
    def families(self) -> set[str]:
        found = {f"proc_connector_{counter}" for counter in self.counters}
        if "exit" in self.events:
            found.add("proc_connector_process_lifetime_seconds")
            if self.mode == "taskstats":
                found |= {"proc_connector_process_cpu_seconds", "proc_connector_process_max_rss_bytes"}
        if self.keeps_table:
            found.add("proc_connector_processes")
        return found

    @property
    def shown_events(self) -> set[str]:
        return {"exit" if event == "nonzero_exit" else event for event in self.events}


ALL_FAMILIES = {
    *(f"proc_connector_{counter}" for counter in LABELS),
    *(f"proc_connector_process_{name}" for name in ("lifetime_seconds", "cpu_seconds", "max_rss_bytes")),
    "proc_connector_processes",
}


def free_ports(count: int) -> list[int]:
    """All different, as programs that start at the same time need them."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


@contextmanager
def all_running(settings: Sequence[Setting], folder: Path, *flags: str) -> Iterator[dict[Setting, Exporter]]:
    """Run an exporter for each setting, all at the same time."""
    exporters: dict[Setting, Exporter] = {}

    def start(setting: Setting, port: int) -> None:
        words = ("--attribution", setting.mode, "--filter", setting.kind, "--events", ",".join(setting.events))
        log = folder / f"{setting.mode}.{setting.kind}.{'.'.join(setting.events)}"
        exporters[setting] = Exporter(setting.mode, log, *words, *ROOMY, *flags, port=port)

    try:
        with ThreadPoolExecutor(4) as starters:
            list(starters.map(start, settings, free_ports(len(settings))))
        yield exporters
        with ThreadPoolExecutor(4) as stoppers:
            list(stoppers.map(Exporter.stop, exporters.values()))
        for setting, exporter in exporters.items():
            said = exporter.log.read_text()
            assert not re.search("level=(warn|error)|Traceback", said), (setting, said)
    finally:
        for exporter in exporters.values():
            exporter.kill()


def assert_right(setting: Setting, scrape: Scrape, world: World) -> None:
    """Assert that just what was asked for is shown, and that it is the truth about this world."""
    assert scrape.families.keys() & ALL_FAMILIES == setting.families
    [labels] = scrape.samples["proc_connector_attribution_info"]
    assert {("mode", setting.mode), ("filter", setting.kind)} < labels
    for family in (EVENTS, "proc_connector_pending_events", "proc_connector_unattributed_total"):
        shown = {dict(key)["event"] for key in scrape.samples.get(family, {})}
        assert shown <= setting.shown_events, family
        assert family != EVENTS or shown == setting.shown_events
    assert scrape.total("proc_connector_lost_messages_total") == 0
    assert scrape.total("proc_connector_malformed_messages_total") == 0
    for counter in setting.counters:
        rows = ours(scrape, counter, world)
        truth = world.truth[counter]
        if setting.mode == "taskstats":
            assert rows == truth, f"{counter}: missing {dict(truth - rows)}, too much {dict(rows - truth)}"
        elif setting.keeps_table:
            assert sums(rows) == sums(truth), counter
            assert Counter({row: n for row, n in rows.items() if row[0] != UNKNOWN}) <= truth, counter
    if setting.mode == "taskstats" and "exit" in setting.events:
        for comm in world.comms:
            ends = sum(n for row, n in world.truth["exits"].items() if row[0] == comm)
            for name in ("lifetime_seconds", "cpu_seconds", "max_rss_bytes"):
                assert scrape.get(f"proc_connector_process_{name}_count", comm=comm) == ends, (name, comm)
    alive = {comm for comm in world.comms if scrape.get("proc_connector_processes", comm=comm)}
    assert not alive, f"dead, but still in the table: {alive}"


def ours(scrape: Scrape, counter: str, world: World) -> Counter[Row]:
    return Counter(
        {row: n for row, n in scrape.rows(counter).items() if row[0] in world.comms or row[1] in world.uids}
    )


def sums(rows: Counter[Row]) -> Counter[Row]:
    """Leave the name out."""
    found: Counter[Row] = Counter()
    for row, n in rows.items():
        found[row[1:]] += n
    return found


def run_a_medley(world: World) -> None:
    """Run processes of all kinds to their ends, twenty of each."""
    plain, failing = world.program("plain"), world.program("failing")
    forking, killed = world.program("forking"), world.program("killed")
    threads, leader = world.program("threads"), world.program("leader")
    kinds: list[list[str | Path]] = [
        [plain, "exit", "0"],
        [failing, "exit", "7"],
        [killed, "signal", "9", "0"],
        [threads, "threads", "3", "15", "0"],
        [leader, *LEADER_GONE_FIRST],
        [forking, "fork", "2", "6"],
    ]
    rounds = 20
    world.spawn(*(kinds * rounds))
    world.count("forks", forking.name, 2 * rounds)
    world.count("exits", forking.name, 2 * rounds, status=6 << 8)


SETTINGS = [
    *(Setting("taskstats", kind, subset) for subset in SUBSETS for kind in ("kernel", "bpf")),
    *(
        Setting("procfs", kind, subset)
        for subset in [("fork",), ("exit",), ("nonzero_exit",), ("exec", "nonzero_exit"), KINDS]
        for kind in ("kernel", "bpf")
    ),
]


@pytest.mark.slow
def test_every_subset_is_let_through_alike_by_the_kernels_mask_and_by_bpf(
    programs: Programs, tmp_path: Path
) -> None:
    with (
        running("taskstats", tmp_path / "reference", "--canary.interval", "0") as reference,
        all_running(SETTINGS, tmp_path, "--canary.interval", "0") as exporters,
    ):
        world = World(reference, programs)
        run_a_medley(world)
        world.check()
        wrong: dict[Setting, str] = {}
        for setting, exporter in exporters.items():

            def difference(setting: Setting = setting, exporter: Exporter = exporter) -> str:
                try:
                    assert_right(setting, exporter.scrape(), world)
                except AssertionError as error:
                    return str(error)
                return ""

            # All was counted by the reference, so what is missing here now hardly comes any more.
            for _ in range(20):
                wrong[setting] = difference()
                if not wrong[setting]:
                    del wrong[setting]
                    break
        assert not wrong, "\n".join(f"{setting}: {why}" for setting, why in wrong.items())


def uid_and_gid(world: World) -> dict[str, int]:
    world.run(world.program("become"), "exit", "0")
    return {"uid": 1, "gid": 1}


def session(world: World) -> dict[str, int]:
    subprocess.run(["setsid", "--fork", "--wait", world.program("session"), "exit", "0"], check=True)
    return {"sid": 1}


def rename(world: World) -> dict[str, int]:
    world.spawn([world.program("rename"), "rename", b"renamed".hex(), "0"], exit_comm="renamed")
    return {"comm": 1}


def attach(world: World) -> dict[str, int]:
    world.spawn([world.program("attach"), "attach"])
    return {"ptrace": 1}


def dump(world: World) -> dict[str, int]:
    world.spawn([world.program("dump"), "signal", "11", "0"])
    return {"coredump": 1}


def threads(world: World) -> dict[str, int]:
    world.spawn([world.program("threads"), "threads", "4", "15", "0"])
    return {"thread_fork": 3, "thread_exit": 3}


DEEDS: tuple[Callable[[World], dict[str, int]], ...] = (uid_and_gid, session, rename, attach, dump, threads)
ALONE = ("uid", "gid", "sid", "thread_fork", "thread_exit", "comm", "ptrace", "coredump")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """An exporter that counts all events, to show what else happened on the host."""
    events = "fork,exec,exit,uid,gid,sid,thread_fork,thread_exit,comm,ptrace,coredump"
    log = tmp_path_factory.mktemp("everything") / "log"
    exporter = Exporter("taskstats", log, "--canary.interval", "0", "--events", events, *ROOMY)
    try:
        yield exporter
    finally:
        exporter.stop()


def test_each_rare_event_alone_is_counted_and_nothing_else_is_shown(
    everything: Exporter, programs: Programs, tmp_path: Path
) -> None:
    settings = [Setting("taskstats", kind, (event,)) for event in ALONE for kind in ("kernel", "bpf")]
    with all_running(settings, tmp_path, "--canary.interval", "0") as exporters:

        def look() -> tuple[Scrape, dict[Setting, Scrape], Scrape]:
            return (
                everything.scrape(),
                {s: exporter.scrape() for s, exporter in exporters.items()},
                everything.scrape(),
            )

        first = look()
        known: Counter[str] = Counter()
        for deed in DEEDS:
            known.update(deed(World(everything, programs)))
        wait_until(
            lambda: (
                everything.scrape().get(EVENTS, event="thread_exit") - first[2].get(EVENTS, event="thread_exit")
            ),
            lambda grown: grown >= known["thread_exit"],
            "the ends of the last threads",
        )
        last = look()
        for setting in settings:
            [event] = setting.events
            scrape = last[1][setting]
            assert scrape.families.keys() & ALL_FAMILIES == setting.families, setting
            assert {dict(key)["event"] for key in scrape.samples[EVENTS]} == {event}, setting
            grown = scrape.get(EVENTS, event=event) - first[1][setting].get(EVENTS, event=event)
            low = last[0].get(EVENTS, event=event) - first[2].get(EVENTS, event=event)
            high = last[2].get(EVENTS, event=event) - first[0].get(EVENTS, event=event)
            # The one in the middle was asked between two scrapes of the one that counts everything.
            assert max(known[event], low) <= grown <= high, setting
    everything.worlds.clear()


def test_the_canary_proves_a_subscription_to_any_event(tmp_path: Path) -> None:
    settings = [
        Setting(mode, kind, (event,))
        for mode, kind in (("taskstats", "kernel"), ("procfs", "bpf"))
        for event in (*KINDS, *ALONE)
    ]
    # An exporter is ready when its first canary has come back.
    with all_running(settings, tmp_path, "--canary.interval", "1") as exporters:
        for setting, exporter in exporters.items():
            scrape = exporter.scrape()
            assert scrape.samples.get("proc_connector_canary_age_seconds"), setting
            assert {dict(key)["event"] for key in scrape.samples[EVENTS]} == setting.shown_events


def queued_bytes(pid: int, protocol: int) -> dict[int, tuple[int, int]]:
    """Return (Rmem, Drops) of a process's netlink sockets of this protocol, by inode."""
    inodes = sockets_of(pid)
    return {
        row.inode: (row.receive_bytes, row.drops)
        for row in netlink_sockets()
        if row.inode in inodes and row.protocol == protocol
    }


@pytest.mark.parametrize("kind", ["kernel", "bpf"])
@pytest.mark.parametrize("mode", ["taskstats", "procfs"])
def test_of_nonzero_exits_alone_nothing_else_reaches_user_space(
    mode: str, kind: str, everything: Exporter, programs: Programs, tmp_path: Path
) -> None:
    setting = Setting(mode, kind, ("nonzero_exit",))
    with all_running([setting], tmp_path, "--canary.interval", "0") as exporters:
        exporter = exporters[setting]
        pid = exporter.process.pid
        outer = everything.scrape()
        before = exporter.scrape()
        world = World(everything, programs)
        plain, failing = world.program("plain"), world.program("failing")
        children: list[list[str | Path]] = [[plain, "exit", "0"]] * 495
        for place, fate in (
            (0, "exit 1"),
            (100, "exit 2"),
            (200, "signal 9 0"),
            (300, "exit 3"),
            (499, "exit 255"),
        ):
            children.insert(place, [failing, *fate.split()])
        # The exporter does not read meanwhile: what lies in its sockets then is what reached it.
        exporter.process.send_signal(signal.SIGSTOP)
        try:
            world.spawn(*children)
            world.check()
            queues = {protocol: queued_bytes(pid, protocol) for protocol in (11, 16)}
        finally:
            exporter.process.send_signal(signal.SIGCONT)
        scrape = exporter.scrape()
        failed = everything.scrape().total("proc_connector_nonzero_exits_total")
        failed -= outer.total("proc_connector_nonzero_exits_total")
        assert failed >= 5
        # Threads of other programs may have failed, too: all threads of a process that is killed.
        failed += everything.scrape().get(EVENTS, event="thread_exit") - outer.get(EVENTS, event="thread_exit")
        # 832 bytes are charged for an event, 2304 for a record of a process that had threads.
        [(connector_bytes, connector_drops)] = queues[11].values()
        assert 5 * 700 <= connector_bytes <= (failed + 20) * 832
        assert connector_drops == 0
        assert len(queues[16]) == (mode == "taskstats")
        for taskstats_bytes, taskstats_drops in queues[16].values():
            assert 5 * 1200 <= taskstats_bytes <= (failed + 20) * 2304
            assert taskstats_drops == 0
        grown = scrape.get(EVENTS, event="exit") - before.get(EVENTS, event="exit")
        assert 5 <= grown <= failed + 20
        assert_right(setting, scrape, world)
    everything.worlds.clear()


@pytest.mark.parametrize("kind", ["kernel", "bpf"])
def test_a_failed_process_whose_leader_did_not_fail_has_its_leaders_name(
    kind: str, programs: Programs, tmp_path: Path
) -> None:
    """Only a record shows a leader that ends well."""
    setting = Setting("taskstats", kind, ("nonzero_exit",))
    with (
        running("taskstats", tmp_path / "reference", "--canary.interval", "0") as reference,
        all_running([setting], tmp_path, "--canary.interval", "0") as exporters,
    ):
        world = World(reference, programs)
        failing, well = world.program("leader-ok"), world.program("all-well")
        world.spawn(
            *[(well, "leader_first", "pthread", "0", "group", "0")] * 3,
            *[(failing, "leader_first", "pthread", "0", "group", "33")] * 3,
        )
        world.check()
        exporter = exporters[setting]
        shown = wait_until(
            lambda: ours(exporter.scrape(), "nonzero_exits", world),
            lambda rows: sum(rows.values()) >= 3,
            "three failures",
        )
        assert shown == world.truth["nonzero_exits"]


def test_a_failure_with_a_kernel_worker_has_the_status_that_its_parent_saw(
    programs: Programs, tmp_path: Path
) -> None:
    """The worker of io_uring exits with 0, mostly last. Of failures alone its EXIT does not come."""
    settings = [
        Setting(mode, kind, events)
        for mode in ("taskstats", "procfs")
        for kind, events in (
            ("kernel", ("nonzero_exit",)),
            ("bpf", ("nonzero_exit",)),
            ("kernel", ("exec", "nonzero_exit")),
        )
    ]
    with (
        running("taskstats", tmp_path / "reference", "--canary.interval", "0") as reference,
        all_running(settings, tmp_path, "--canary.interval", "0") as exporters,
    ):
        all_before = by_status(reference.scrape())
        before = {setting: by_status(exporter.scrape()) for setting, exporter in exporters.items()}
        world = World(reference, programs)
        world.may_be_unknown.add("execs")
        program = world.program("worker")
        for how, number, dumps in (("exit", 15, 0), ("signal", 9, 0), ("signal", 11, 10), ("signal", 6, 10)):
            ended = world.spawn(*[(program, "sqpoll", how, str(number))] * 10)
            if exit_labels(ended[0].status) == ("98", ""):
                pytest.skip("no io_uring here")
            world.count("coredumps", program.name, dumps)
        world.check()
        rows = world.truth["nonzero_exits"]
        truth = Counter({row[2:]: n for row, n in rows.items()})
        assert truth.total() == 40
        for setting, exporter in exporters.items():
            shown = wait_until(
                exporter.scrape,
                lambda scrape, old=before[setting]: by_status(scrape) - old >= truth,  # type: ignore[misc]
                f"forty failures: {setting}, {truth}",
            )
            # The reference sees what fails of other programs, too.
            most = by_status(reference.scrape()) - all_before
            for status in truth:
                assert by_status(shown)[status] - before[setting][status] <= most[status], (setting, status)
            if setting.mode == "taskstats":
                assert ours(shown, "nonzero_exits", world) == rows, setting


def by_status(scrape: Scrape) -> Counter[Row]:
    """Return all failures by exit code and signal."""
    found: Counter[Row] = Counter()
    for row, n in scrape.rows("nonzero_exits").items():
        found[row[2:]] += n
    return found


@pytest.mark.parametrize("event", ["thread_fork", "gid"])
def test_nothing_is_kept_of_processes_whose_end_was_not_asked_for(
    event: str, programs: Programs, tmp_path: Path
) -> None:
    """What is never heard to end must not be remembered."""
    setting = Setting("taskstats", "kernel", (event,))
    with all_running([setting], tmp_path, "--canary.interval", "0") as exporters:
        exporter = exporters[setting]

        def resident_kib() -> int:
            status = Path(f"/proc/{exporter.process.pid}/status").read_text()
            return int(status.partition("VmRSS:")[2].split()[0])

        def storm() -> None:
            subprocess.run([str(programs.link("forking")), "fork", "5000", "0"], check=True)
            exporter.scrape()

        def storms() -> None:
            for _ in range(3):
                storm()

        # What the largest drain takes is kept.
        storms()
        before = resident_kib()
        storms()
        # Of each process that is remembered there are more than a hundred bytes.
        assert resident_kib() - before < 15000 * 100 / 1024
        assert exporter.scrape().get("proc_connector_lost_ends_total") == 0


def test_the_exit_records_of_threads_stay_in_the_kernel(programs: Programs, tmp_path: Path) -> None:
    records = "proc_connector_exit_records_total"
    with running("taskstats", tmp_path / "log", "--canary.interval", "0") as exporter:
        world = World(exporter, programs)
        before = exporter.scrape().get(records)
        threads, leader = world.program("threads"), world.program("leader")
        processes = 20
        kinds: list[list[str | Path]] = [[threads, "threads", "50", "15", "0"], [leader, *LEADER_GONE_FIRST]]
        world.spawn(*(kinds * (processes // 2)))
        taken = world.check().get(records) - before
        # Of a leader that is gone first, and of the last thread. Other programs end on a host too.
        assert processes + processes // 2 <= taken < 10 * 49
