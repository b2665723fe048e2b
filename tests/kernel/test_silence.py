"""A host whose listeners are silenced: the canary notices, the subscription is renewed, and nothing else shows it.

These tests silence EVERY listener to the process connector on the host, those of other programs included, for
some seconds each. They run alone: see kernel.alone. A listener that does not check its subscription receives
nothing until a test has ended and `put_right` has run.
"""

import contextlib
import itertools
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from kernel.bystanders import other_listeners
from kernel.canaries import AGE, RESUBSCRIPTIONS, canaries_go_on, lines_of, readiness
from kernel.harness import DEADLINE_SECONDS, Exporter, Programs, World, running, spawn_some, wait_until
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

pytestmark = pytest.mark.alone

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
# Another listener that checks its subscription ends a silence before the exporter under test misses a canary.
_ATTACKS = 20
T = TypeVar("T")


@pytest.fixture(autouse=True)
def _put_right() -> Iterator[None]:
    """Let the kernel send events again, whatever a test did to its count of listeners."""
    try:
        yield
    finally:
        put_right()


@pytest.fixture(autouse=True)
def _by_the_canary_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Side-band records prove a silence within a second, before the canary does: test_sideband.py."""
    monkeypatch.setenv("PROC_CONNECTOR_EXPORTER_EXEC_NAMES", "events")


def attack_until(read: Callable[[], T], what: str) -> tuple[T, float]:
    """Silence the host until `read` returns something true.

    The host is silenced again if another listener has woken the kernel meanwhile. If that goes on, the test is
    skipped.

    Returns:
        What was read, and the time.monotonic() of the last attack.
    """
    for _ in range(_ATTACKS):
        attack()
        attacked = time.monotonic()
        give_up = attacked + DEADLINE_SECONDS
        while True:
            # In this order: what wakes the kernel may be the exporter under test.
            speaks = not is_silent()
            if found := read():
                return found, attacked
            if speaks:
                break
            assert time.monotonic() < give_up, f"the host is silent, and this did not come true: {what}"
            time.sleep(0.05)
    pytest.skip(f"other listeners on this host wake the kernel again and again: {other_listeners()}")


def canaries_missed(exporter: Exporter) -> list[str]:
    return lines_of(exporter, "error")


def recoveries(exporter: Exporter) -> list[str]:
    return [line for line in lines_of(exporter, "warn") if "the canary comes back again" in line]


def seconds_to_recover(exporter: Exporter) -> float:
    """Silence the host; return how long it took the exporter to notice and to receive events again."""
    missed, recovered = len(canaries_missed(exporter)), len(recoveries(exporter))
    # In the log, not in /-/ready: the exporter may be not ready for only 20 ms.
    lines, attacked = attack_until(lambda: canaries_missed(exporter)[missed:], "a canary was missed")
    assert "silent" in lines[0]
    wait_until(lambda: len(recoveries(exporter)), lambda number: number > recovered, "events come again")
    return time.monotonic() - attacked


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
        missed_before = len(canaries_missed(exporter))
        # A machine that is busy with something else may take longer, but not each time.
        promised = 2 * interval
        taken: list[float] = []
        while not taken or (taken[-1] > promised and len(taken) < 3):
            taken.append(seconds_to_recover(exporter))
            wait_until(lambda: readiness(exporter)[0], lambda status: status == 200, "ready again")
        print(f"{words}: counting again after {taken} s")  # noqa: T201 - shown with pytest -rP
        assert min(taken) <= promised
        spawn_some(exporter, programs)
        exporter.wait_for(lambda scrape: scrape.get(AGE) < interval + 2.0, "a canary that came back just now")
        canaries_go_on(exporter, 1)
        # One line for each silence, however many tries it took to end it.
        missed = len(canaries_missed(exporter)) - missed_before
        assert len(taken) <= missed <= exporter.scrape().get(RESUBSCRIPTIONS) - before
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
            pytest.skip(f"other listeners on this host wake the kernel again and again: {other_listeners()}")
        # With a shorter interval a busy machine misses canaries.
        with running(mode, tmp_path / "log", "--canary.interval", "3", *flags) as exporter:
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
    take_away_all()  # so that only the exporters make the kernel send events
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
                    # Before its exec Python's child becomes that user: one change of uid, by the test.
                    world.count("uid_changes", "any", uid=uid)
            connector.close()
        for world in worlds:
            world.check()
            spawn_some(world.exporter, programs)


@pytest.mark.parametrize("filter_by", ["kernel", "bpf"])
def test_a_clean_stop_takes_back_what_was_asked_of_the_kernel(
    filter_by: str, programs: Programs, tmp_path: Path
) -> None:
    for attempt in range(5):
        take_away_all()
        log = tmp_path / f"log{attempt}"
        with running("procfs", log, "--canary.interval", "0", "--filter", filter_by) as exporter:
            spawn_some(exporter, programs)
        if is_silent():
            return
        others = other_listeners()
        assert others, "the exporter has not taken back what it asked for"
    pytest.skip(f"other listeners on this host wake the kernel again and again: {others}")


def test_a_signal_while_it_subscribes_again_stops_it(programs: Programs, tmp_path: Path) -> None:
    exporter = Exporter("taskstats", tmp_path / "log", "--canary.interval", "1", "--log.level", "debug")
    try:
        attack_until(lambda: canaries_missed(exporter), "a canary was missed")
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


def test_a_process_that_gets_the_pid_of_a_missed_canary_is_counted(programs: Programs, tmp_path: Path) -> None:
    with running("taskstats", tmp_path / "log", "--canary.interval", "2") as exporter:
        canaries_go_on(exporter, 1)
        missed, _ = attack_until(
            lambda: zombies_of(exporter.process.pid) if canaries_missed(exporter) else set(),
            "a canary was missed, and is not reaped yet",
        )
        wait_until(lambda: readiness(exporter)[0], lambda status: status == 200, "ready again")
        wait_until(lambda: [p for p in missed if Path(f"/proc/{p}").exists()], lambda left: not left, "reaped")
        world = World(exporter, programs)
        for pid in missed:
            program = world.program("with-pid")
            world.run(program, "with_pid", str(pid), "5", "7", caps=["checkpoint_restore"])
            world.count("forks", program.name, 5)
            world.count("exits", program.name, 5, status=7 << 8)
        world.check()
