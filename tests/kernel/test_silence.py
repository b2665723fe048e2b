"""A host that somebody silences: the canary notices, the subscription is renewed, and nothing else shows it."""

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.harness import (
    DEADLINE_SECONDS,
    LABELS,
    Exporter,
    Programs,
    Scrape,
    Watcher,
    World,
    ask,
    free_port,
    running,
    wait_until,
)
from kernel.listeners import (
    IGNORE,
    LISTEN,
    NETLINK_CONNECTOR,
    attack,
    is_silent,
    put_right,
    request,
    silenced,
    take_away_all,
)

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
CANARY_EXIT_CODE = "42"
RESUBSCRIPTIONS = "proc_connector_resubscriptions_total"
EVENTS = "proc_connector_events_total"
RECORDS = "proc_connector_exit_records_total"
# The kernel's totals are not of one moment.
_HANDFUL = 2
AGE = "proc_connector_canary_age_seconds"


@pytest.fixture(autouse=True)
def _put_right() -> Iterator[None]:
    """Whatever a test did to the kernel's count of listeners: the host hears again."""
    try:
        yield
    finally:
        put_right()


@pytest.fixture(autouse=True)
def _by_the_canary_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Side-band records prove a silence within a second, before the canary does: test_sideband.py."""
    monkeypatch.setenv("PROC_CONNECTOR_EXPORTER_EXEC_NAMES", "events")


def spawn_some(exporter: Watcher, programs: Programs) -> World:
    """Run processes of a new world to their ends, and wait until the exporter tells the truth about them."""
    world = World(exporter, programs)
    program = world.program("some")
    world.spawn(*[(program, "exit", str(code)) for code in (0, 1, 42, 255)], (program, "signal", "9", "0"))
    world.check()
    return world


def wait_for_truth(world: World, seconds: float) -> None:
    """Like World.check, for what is not expected to take long."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            world.compare(world.exporter.scrape())
        except AssertionError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        else:
            return


def readiness(exporter: Exporter) -> tuple[int, str]:
    answer = exporter.request("/-/ready")
    return answer.status, answer.body.decode()


def lines_of(exporter: Exporter, level: str) -> list[str]:
    return [line for line in exporter.log.read_text().splitlines() if f"level={level}" in line]


def canaries_go_on(exporter: Exporter, times: int = 2) -> None:
    """Wait until the canary's age has gone down so many times."""
    last = exporter.scrape().get(AGE)
    for _ in range(times):

        def goes_down(scrape: Scrape) -> bool:
            nonlocal last
            before, last = last, scrape.get(AGE)
            return last < before

        exporter.wait_for(goes_down, "another canary")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "words", "prefix"),
    [
        pytest.param("taskstats", "--canary.interval 4 --user 65534", (), id="exact, privileges given up"),
        pytest.param("procfs", "--canary.interval 4", NOBODY, id="without privilege"),
        pytest.param("taskstats", "--canary.interval 4 --filter bpf", (), id="filtered by bpf"),
    ],
)
def test_the_attack_that_silences_all_listeners_is_survived(
    mode: str, words: str, prefix: tuple[str, ...], programs: Programs, tmp_path: Path
) -> None:
    interval = int(words.split()[1])
    with running(mode, tmp_path / "log", *words.split(), prefix=prefix) as exporter:
        canaries_go_on(exporter, 1)
        spawn_some(exporter, programs)
        before = exporter.scrape().get(RESUBSCRIPTIONS)
        errors_before = len(lines_of(exporter, "error"))
        # A machine that is busy with something else may take longer, but not each time.
        promised = 2 * interval
        taken: list[float] = []
        while not taken or (taken[-1] > promised and len(taken) < 3):
            attack()
            began = time.monotonic()
            _, why = wait_until(lambda: readiness(exporter), lambda answer: answer[0] == 503, "not ready")
            assert "silent" in why
            wait_until(lambda: readiness(exporter)[0], lambda status: status == 200, "ready again")
            taken.append(time.monotonic() - began)
        print(f"{words}: counting again after {taken} s")  # noqa: T201 - shown with pytest -rP
        assert min(taken) <= promised
        spawn_some(exporter, programs)
        scrape = exporter.scrape()
        renewed = scrape.get(RESUBSCRIPTIONS) - before
        assert renewed >= len(taken)
        assert scrape.get(AGE) < interval + 2.0
        canaries_go_on(exporter, 1)
        # Exactly one for each silence, however often it took to end it.
        assert len(taken) <= len(lines_of(exporter, "error")) - errors_before <= renewed
        assert exporter.scrape().total("proc_connector_processes") > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "flags", "kind"),
    [
        ("taskstats", (), "kernel"),
        ("procfs", (), "kernel"),
        ("taskstats", ("--filter", "bpf"), "bpf"),
    ],
)
def test_a_start_on_a_silenced_host_wakes_it_and_does_not_take_its_kernel_for_an_old_one(
    mode: str, flags: tuple[str, ...], kind: str, programs: Programs, tmp_path: Path
) -> None:
    with silenced():
        if not is_silent():
            pytest.skip("another program on this host wakes the kernel again and again")
        with running(mode, tmp_path / "log", "--canary.interval", "1", *flags) as exporter:
            spawn_some(exporter, programs)
            scrape = exporter.scrape()
            [labels] = scrape.samples["proc_connector_attribution_info"]
            assert {("mode", mode), ("filter", kind)} < labels
            assert scrape.get(RESUBSCRIPTIONS) == 0
            canaries_go_on(exporter, 1)
        assert not lines_of(exporter, "error")


# What another program can do, one after the other; at the end it is gone.
DEEDS = {"listen": (LISTEN,), "ignore": (IGNORE,), "ignore twice": (IGNORE, IGNORE), "die": ()}


def test_other_programs_that_listen_ignore_and_die_in_any_order_change_nothing(
    programs: Programs, tmp_path: Path
) -> None:
    take_away_all()  # so that nobody but the exporters keeps the kernel talking
    with (
        # Without canaries, which would repair what should not break.
        running("taskstats", tmp_path / "taskstats", "--canary.interval", "0") as exact,
        running("procfs", tmp_path / "procfs", "--canary.interval", "0") as plain,
    ):
        worlds = [World(exporter, programs) for exporter in (exact, plain)]
        program = programs.link("between")
        for world in worlds:
            world.comms.add(program.name)
        for order in itertools.permutations(DEEDS):
            connector = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_CONNECTOR)
            connector.bind((0, 1))
            for deed in order:
                for op in DEEDS[deed]:
                    connector.sendto(request(op), (0, 0))
                if deed == "die":
                    connector.close()
                    connector = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_CONNECTOR)
                uid = worlds[0].uid
                pid = subprocess.Popen([program, "exit", "9"], user=uid, group=uid, extra_groups=[])
                assert pid.wait() == 9
                for world in worlds:
                    world.uids.add(str(uid))
                    world.count("exits", program.name, status=9 << 8, uid=uid)
                    world.count("execs", program.name, uid=uid)
                    # Before its exec Python's child becomes that user: one change, by us.
                    world.count("uid_changes", "any", uid=uid)
            connector.close()
        for world in worlds:
            world.check()
            spawn_some(world.exporter, programs)


@pytest.mark.parametrize("filter_by", ["kernel", "bpf"])
def test_a_clean_stop_takes_back_what_was_asked_of_the_kernel(
    filter_by: str, programs: Programs, tmp_path: Path
) -> None:
    take_away_all()
    with running("procfs", tmp_path / "log", "--canary.interval", "0", "--filter", filter_by) as exporter:
        spawn_some(exporter, programs)
    assert is_silent()


def test_the_canary_is_in_no_family_at_all(programs: Programs, tmp_path: Path) -> None:
    uid = programs.new_uid()
    # Its uid is its own, so that its canaries are known by it, and changes before anybody listens.
    become = ("setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups")
    net_admin = ("--inh-caps", "-all,+net_admin", "--ambient-caps", "-all,+net_admin")
    with (
        running(
            "taskstats", tmp_path / "a", "--canary.interval", "1", prefix=(*become, *net_admin)
        ) as with_canary,
        running("taskstats", tmp_path / "b", "--canary.interval", "0") as without,
    ):

        def canaries(scrape: Scrape, counter: str) -> int:
            """To an exporter without canaries of its own those of another are children like any other's."""
            return sum(n for row, n in scrape.rows(counter).items() if row[1] == str(uid))

        def look() -> tuple[Scrape, Scrape, Scrape]:
            return without.scrape(), with_canary.scrape(), without.scrape()

        canaries_go_on(with_canary, 1)
        first = look()
        canaries_go_on(with_canary, 3)
        last = look()
        seen = canaries(last[0], "exits") - canaries(first[2], "exits")
        assert seen >= 3
        for row in last[2].rows("exits"):
            assert row[1] != str(uid) or row[2] == CANARY_EXIT_CODE, "what is known of them is right"
        scrape = last[1]
        for counter in LABELS:
            assert not [row for row in scrape.rows(counter) if row[1] == str(uid)], counter
        events = scrape.samples["proc_connector_events_total"]
        for key in events:
            kind = dict(key)["event"]
            known_as = {"fork": "forks", "exit": "exits"}.get(kind)

            def others(shown: Scrape, kind: str = kind, known_as: str | None = known_as) -> float:
                total = shown.get("proc_connector_events_total", event=kind)
                return total - (canaries(shown, known_as) if known_as else 0)

            # The one in the middle was asked between the other two.
            grown = scrape.get("proc_connector_events_total", event=kind)
            grown -= first[1].get("proc_connector_events_total", event=kind)
            assert others(last[0]) - others(first[2]) <= grown <= others(last[2]) - others(first[0]), kind
        # They are no ends that anything tells of: neither events, nor records, nor the kernel's own totals.
        for source in ("events", "kernel"):
            name = "proc_connector_task_exits_total"
            grown = scrape.get(name, source=source) - first[1].get(name, source=source)
            with_canaries = last[2].get(name, source=source) - first[0].get(name, source=source)
            assert grown <= with_canaries - seen + _HANDFUL, source
        grown = scrape.total(RECORDS) - first[1].total(RECORDS)
        assert grown <= last[2].total(RECORDS) - first[0].total(RECORDS) - seen
        # The families by comm alone: whoever else is called like the exporter would be seen by both.
        [comm] = {row[0] for row in last[2].rows("exits") if row[1] == str(uid)}
        for family in ("process_lifetime_seconds", "process_cpu_seconds", "process_max_rss_bytes"):
            name = f"proc_connector_{family}_count"
            low = last[0].get(name, comm=comm) - canaries(last[0], "exits")
            high = last[2].get(name, comm=comm) - canaries(last[2], "exits")
            grown = scrape.get(name, comm=comm) - first[1].get(name, comm=comm)
            before = [first[i].get(name, comm=comm) - canaries(first[i], "exits") for i in (0, 2)]
            assert low - before[1] <= grown <= high - before[0], family
        assert scrape.total("proc_connector_unknown_lifetimes_total") == 0
        assert scrape.total("proc_connector_lost_ends_total") == 0


def test_a_canary_that_cannot_be_forked_is_a_reason_not_to_be_ready_and_costs_no_event(
    programs: Programs, tmp_path: Path
) -> None:
    uid = programs.new_uid()
    words = ("--canary.interval", "1", "--user", str(uid))
    # With two processes it has its share; root's share is not limited.
    with running("taskstats", tmp_path / "log", *words, prefix=("prlimit", "--nproc=2:2")) as exporter:
        canaries_go_on(exporter, 1)
        with subprocess.Popen(
            [programs.link("hog"), "when_told", "exit", "0"],
            stdin=subprocess.PIPE,
            user=uid,
            group=uid,
            extra_groups=[],
        ) as hog:
            _, why = wait_until(lambda: readiness(exporter), lambda answer: answer[0] == 503, "not ready")
            assert "Resource temporarily unavailable" in why
            before = exporter.scrape().get(RESUBSCRIPTIONS)
            # The kernel talks, so there is nothing to be renewed, and everything is counted.
            world = World(exporter, programs)
            program = world.program("meanwhile")
            give_up = time.monotonic() + 2.5
            while time.monotonic() < give_up:
                world.spawn(*[(program, "exit", "3")] * 200)
            try:
                wait_for_truth(world, 5.0)
                assert exporter.scrape().get(RESUBSCRIPTIONS) == before
                assert "Resource temporarily unavailable" in readiness(exporter)[1]
            finally:
                hog.communicate()
        wait_until(lambda: readiness(exporter)[0], lambda status: status == 200, "ready again")


def test_a_canary_that_never_came_back_grows_old_all_the_same(programs: Programs, tmp_path: Path) -> None:
    """So that an alert on its age sees an exporter which has not heard anything since its start."""
    port = free_port()
    words = ("--web.listen-address", f"127.0.0.1:{port}", "--canary.interval", "1", "--user")
    # With itself it has its share.
    command = ["prlimit", "--nproc=1:1", sys.executable, "-m", "exporter", *words, str(programs.new_uid())]
    log = tmp_path / "log"
    with log.open("wb") as stderr, subprocess.Popen(command, stderr=stderr, cwd="/") as process:
        try:

            def age() -> float:
                assert process.poll() is None, log.read_text()
                with contextlib.suppress(ConnectionRefusedError):
                    return Scrape(ask(port, "/metrics").body.decode()).get(AGE)
                return 0.0

            wait_until(age, lambda seconds: seconds > 2.0, "a canary older than its interval")
            assert b"no canary could be forked" in ask(port, "/-/ready").body
        finally:
            process.kill()


def test_a_signal_while_it_subscribes_again_stops_it(programs: Programs, tmp_path: Path) -> None:
    exporter = Exporter("taskstats", tmp_path / "log", "--canary.interval", "1", "--log.level", "debug")
    try:
        with silenced():
            wait_until(lambda: lines_of(exporter, "error"), bool, "a canary missed")
            assert exporter.stop(signal.SIGTERM) < 5
        assert "Traceback" not in exporter.log.read_text()
    finally:
        exporter.kill()


def zombies_of(pid: int) -> set[int]:
    """The children of a process that have ended and are not reaped."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            head, _, rest = path.read_text().rpartition(") ")
            if rest.split()[:2] == ["Z", str(pid)]:
                found.add(int(head.split()[0]))
    return found


def test_who_gets_the_pid_of_a_canary_that_was_missed_is_counted(programs: Programs, tmp_path: Path) -> None:
    with running("taskstats", tmp_path / "log", "--canary.interval", "2") as exporter:
        canaries_go_on(exporter, 1)
        attack()
        missed = wait_until(lambda: zombies_of(exporter.process.pid), bool, "a canary that was missed")
        wait_until(lambda: readiness(exporter)[0], lambda status: status == 200, "ready again")
        wait_until(lambda: [p for p in missed if Path(f"/proc/{p}").exists()], lambda left: not left, "reaped")
        world = World(exporter, programs)
        for pid in missed:
            program = world.program("with-pid")
            world.run(program, "with_pid", str(pid), "5", "7", caps=["checkpoint_restore"])
            world.count("forks", program.name, 5)
            world.count("exits", program.name, 5, status=7 << 8)
        world.check()


@pytest.mark.slow
def test_a_flood_of_events_holds_up_no_scrape_no_readiness_and_no_end(programs: Programs, tmp_path: Path) -> None:
    """Anybody can make events faster than they can be counted; what is lost is counted."""
    uid = programs.new_uid()
    flood = [str(programs.link("flood")), "flood"]
    with running("taskstats", tmp_path / "first", "--canary.interval", "2") as exporter:
        with subprocess.Popen(flood, user=uid, group=uid, extra_groups=[]) as flooding:
            try:
                before = exporter.scrape().get(EVENTS, event="comm")
                for _ in range(5):
                    now = exporter.scrape().get(EVENTS, event="comm")
                    assert now > before
                    before = now
                    assert readiness(exporter)[0] in (200, 503)
                # One that starts meanwhile answers, and ends when it is told to.
                port = free_port()
                command = [sys.executable, "-m", "exporter", "--web.listen-address", f"127.0.0.1:{port}"]
                with subprocess.Popen(command, cwd="/", stderr=subprocess.DEVNULL) as second:
                    try:
                        wait_until(lambda: answers(port), bool, "an answer")
                        second.send_signal(signal.SIGTERM)
                        assert second.wait(DEADLINE_SECONDS) == 0
                    finally:
                        second.kill()
            finally:
                flooding.kill()
        wait_until(lambda: readiness(exporter)[0], lambda status: status == 200, "ready again")
        exporter.wait_for(
            lambda scrape: (
                scrape.get("proc_connector_lost_messages_total", socket="connector") == 0
                or scrape.get("proc_connector_resyncs_total") > 0
            ),
            "a comparison after what was lost",
        )
        spawn_some(exporter, programs)


def answers(port: int) -> bool:
    try:
        return ask(port, "/-/healthy").status == 200
    except OSError:
        return False


FAULTS = {
    "a step of the loop": "exporter.processes.table.ProcessTable.apply",
    "a scan of /proc": "exporter.live.compare.Comparison.compare",
    "the canary": "exporter.live.canary.Canary._send",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bug_ends_the_program_with_a_traceback_and_an_exit_code(fault: str) -> None:
    module, owner, name = re.fullmatch(r"(.*)\.(\w+)\.(\w+)", FAULTS[fault]).groups()  # type: ignore[union-attr]
    script = f"""
import sys
from exporter.__main__ import main
from {module} import {owner}
calls = 0
right = {owner}.{name}
def wrong(*args, **kwargs):
    global calls
    calls += 1
    if calls > 1 or {fault != "a step of the loop"}:
        raise RuntimeError("this is a bug")
    return right(*args, **kwargs)
{owner}.{name} = wrong
sys.exit(main())
"""
    command = [sys.executable, "-c", script, "--web.listen-address", f"127.0.0.1:{free_port()}"]
    with subprocess.Popen(command, cwd="/", stderr=subprocess.PIPE, text=True) as process:
        try:
            give_up = time.monotonic() + 20
            while process.poll() is None:
                assert time.monotonic() < give_up, "it goes on as if nothing had happened"
                os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
                time.sleep(0.05)
            assert process.stderr is not None
            said = process.stderr.read()
        finally:
            process.kill()
    assert process.returncode not in (0, -signal.SIGKILL)
    assert "Traceback" in said
    assert "this is a bug" in said
