"""What a kernel before Linux 6.6 takes: no event masks, no listener without CAP_NET_ADMIN, one count of listeners.

Runs in the guest, beside the truth table. There its name is tests/kernel/test_without_masks.py.
"""

import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kernel.harness import (
    LABELS,
    Exporter,
    Programs,
    Row,
    Scrape,
    World,
    free_port,
    running,
    spawn_some,
    wait_until,
)

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
LISTEN, IGNORE = 1, 2
PROC_EVENT_ALL = 0xE00003C7
ALL_EVENTS = "fork,exec,exit,nonzero_exit,uid,gid,sid,ptrace,comm,coredump,thread_fork,thread_exit"

# --events -> the counters that it makes; all others are absent.
SUBSETS = {
    "fork": {"forks"},
    "exec": {"execs"},
    "exit": {"exits", "nonzero_exits"},
    "nonzero_exit": {"nonzero_exits"},
    "fork,exec": {"forks", "execs"},
    "fork,nonzero_exit": {"forks", "nonzero_exits"},
    "exec,exit": {"execs", "exits", "nonzero_exits"},
    "fork,exec,exit": {"forks", "execs", "exits", "nonzero_exits"},
    ALL_EVENTS: set(LABELS),
}


def request(op: int, ack: int, *mask: int) -> bytes:
    """Return nlmsghdr (NLMSG_DONE), cn_msg (CN_IDX_PROC, CN_VAL_PROC), the operation, and perhaps a mask."""
    data = struct.pack(f"={1 + len(mask)}I", op, *mask)
    cn_msg = struct.pack("=IIIIHH", 1, 1, 0, ack, len(data), 0) + data
    return struct.pack("=IHHII", 16 + len(cn_msg), 3, 0, 0, 0) + cn_msg


def tell(op: int, times: int) -> None:
    """Be another program that listens or ignores; kernels without masks count both, whoever says it."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 11) as connector:
        for _ in range(times):
            connector.sendto(request(op, 0), (0, 0))


@contextmanager
def eavesdropper() -> Iterator[socket.socket]:
    """Bind a socket that gets what others listen for, without being a listener that the kernel counts."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 11) as connector:
        connector.bind((0, 1))
        connector.settimeout(2)
        yield connector


def kernel_talks() -> bool:
    """Fork a child and see whether the kernel tells of anything."""
    with eavesdropper() as connector:
        subprocess.run(["true"], check=True)
        try:
            return bool(connector.recv(4096))
        except TimeoutError:
            return False


def silence() -> None:
    """Take the count of listeners below zero, wherever it was."""
    give_up = time.monotonic() + 60
    while kernel_talks():
        assert time.monotonic() < give_up, "the kernel cannot be silenced"
        tell(IGNORE, 500)
    tell(IGNORE, 500)


@pytest.fixture
def put_right() -> Iterator[None]:
    """Leave the count of listeners above zero."""
    yield
    give_up = time.monotonic() + 60
    while not kernel_talks():
        assert time.monotonic() < give_up, "the kernel stays silent"
        tell(LISTEN, 500)


def ready(exporter: Exporter) -> int:
    return exporter.request("/-/ready").status


def canaries_come_back(exporter: Exporter) -> None:
    """Wait until a canary is back that was not back when this was called."""

    def age() -> float:
        return exporter.scrape().get("proc_connector_canary_age_seconds")

    first = age()
    began = time.monotonic()

    def aged() -> float:
        """Return how much more the age has grown than the time has: below 0 only if it began anew."""
        asked = time.monotonic()
        return age() - first - (asked - began)

    wait_until(aged, lambda seconds: seconds < -0.001, "another canary comes back")


def run_to_its_end(*words: str, prefix: tuple[str, ...] = (), code: int = 5) -> list[str]:
    """Start an exporter that cannot run here; return what it said before it ended."""
    address = f"127.0.0.1:{free_port()}"
    command = [*prefix, sys.executable, "-m", "exporter", "--web.listen-address", address, *words]
    result = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == code, result.stderr
    return result.stderr.splitlines()


def test_this_kernel_drops_a_request_with_a_mask_without_a_word() -> None:
    with eavesdropper() as connector:
        for mask in ([PROC_EVENT_ALL], []):
            ack = 4711 + len(mask)
            connector.sendto(request(LISTEN, ack, *mask), (0, 0))
            answers = []
            try:
                while True:
                    what, _, _, err = struct.unpack_from("=IIQI", connector.recv(4096), 36)
                    answers.append((what, err))
            except TimeoutError:
                assert ((0, 0) in answers) == (not mask), mask
        connector.sendto(request(IGNORE, 0), (0, 0))


@pytest.mark.parametrize("mode", ["taskstats", "procfs"])
def test_it_counts_with_a_filter_of_its_own_and_says_so(mode: str, programs: Programs, tmp_path: Path) -> None:
    log = tmp_path / "log"
    asked = "auto" if mode == "taskstats" else mode
    with running(mode, log, attribution=asked) as exporter:
        info = exporter.scrape().samples["proc_connector_attribution_info"]
        assert [dict(labels) for labels in info] == [{"mode": mode, "filter": "bpf", "exec_names": "sideband"}]
        spawn_some(exporter, programs)
    first = log.read_text().splitlines()[0]
    assert "msg=listening" in first
    assert f"mode={mode} filter=bpf" in first
    assert f"kernel={os.uname().release}" in first


def test_a_storm_is_counted_to_the_last_process_and_every_subset_of_events_tells_its_part_of_it(
    programs: Programs, tmp_path: Path
) -> None:
    """One storm, seen by an exporter per subset and mode; the truth is what the spawner's wait4 said."""
    exporters = {
        (mode, events): Exporter(
            mode, tmp_path / f"{mode}.{number}", "--attribution", mode, "--events", events, "--filter", "bpf"
        )
        for number, events in enumerate(SUBSETS)
        for mode in ("taskstats", "procfs")
        if mode == "taskstats" or events in {"fork,nonzero_exit", "nonzero_exit", ALL_EVENTS}
    }
    try:
        world = World(exporters["taskstats", ALL_EVENTS], programs)
        victims = [world.program(f"victim{k}") for k in range(4)]
        count, codes = 400, 4
        spawner = world.program("spawner")
        with world.start(
            spawner, "storm", str(count), "16", str(codes), *victims, stdout=subprocess.PIPE
        ) as storm:
            output, _ = storm.communicate()
        world.count("exits", spawner.name, status=0)
        world.count("forks", spawner.name, count)
        for victim, status, n in (map(int, line.split()) for line in output.splitlines()):
            world.count("execs", victims[victim].name, n)
            world.count("exits", victims[victim].name, n, status=status)
        # As many that succeed.
        quiet = world.program("quiet")
        world.spawn(*[(quiet, "exit", "0")] * 100)
        for (mode, events), exporter in exporters.items():
            wait_for_truth(exporter, world, mode, events)
    finally:
        for exporter in exporters.values():
            exporter.kill()


def wait_for_truth(exporter: Exporter, world: World, mode: str, events: str) -> None:
    counters = SUBSETS[events]

    def wrong() -> str:
        return difference(exporter.scrape(), world, mode, counters)

    assert wait_until(wrong, lambda wrong: not wrong, f"the truth from {mode} with {events}") == ""
    scrape = exporter.scrape()
    families = {f"proc_connector_{counter}" for counter in LABELS} & scrape.families.keys()
    assert families == {f"proc_connector_{counter}" for counter in counters}, (mode, events)
    if events == "nonzero_exit":
        # Nothing else reached user space: no successful exit, and no other event.
        failed = scrape.rows("nonzero_exits").total()
        assert scrape.samples["proc_connector_events_total"] == {frozenset({("event", "exit")}): failed}
    assert exporter.stop() >= 0
    assert "Traceback" not in exporter.log.read_text()


def difference(scrape: Scrape, world: World, mode: str, counters: set[str]) -> str:
    """Return what is wrong, or nothing."""
    for counter in counters - {"uid_changes"}:
        truth: Counter[Row] = world.truth[counter]
        shown = Counter(
            {row: n for row, n in scrape.rows(counter).items() if row[1] in world.uids or row[0] in world.comms}
        )
        if mode == "taskstats":
            if shown != truth:
                return f"{counter}: missing {dict(truth - shown)}, too much {dict(shown - truth)}"
        else:
            named = Counter({row: n for row, n in shown.items() if not row[0].startswith("<")})
            if not named <= truth:
                return f"{counter}: wrong names {dict(named - truth)}"
            # Without records nobody knows the uid of a failure whose fork was not told.
            if counters != {"nonzero_exits"} and shown.total() != truth.total():
                return f"{counter}: {shown.total()} of {truth.total()}"
    return ""


def test_an_event_mask_that_is_insisted_on_is_refused_with_the_way_out() -> None:
    [line] = run_to_its_end("--filter", "kernel", code=1)
    assert "level=error" in line
    assert "event masks" in line
    assert "--filter=bpf or auto" in line


def test_a_start_that_failed_silences_no_other_listener(
    programs: Programs, tmp_path: Path, put_right: None
) -> None:
    silence()
    with running("taskstats", tmp_path / "log", "--canary.interval", "0") as exporter:
        # A host with exactly one listener.
        while kernel_talks():
            tell(IGNORE, 1)
        tell(LISTEN, 1)
        spawn_some(exporter, programs)
        run_to_its_end("--filter", "kernel", code=1)
        spawn_some(exporter, programs)


def test_programs_that_ignore_without_having_listened_silence_nobody(
    programs: Programs, tmp_path: Path, put_right: None
) -> None:
    silence()
    with running("taskstats", tmp_path / "log", "--canary.interval", "0") as exporter:
        for _ in range(30):
            tell(IGNORE, 1)
        spawn_some(exporter, programs)


@pytest.mark.parametrize("attribution", ["auto", "procfs"])
def test_without_the_capability_it_cannot_run_and_names_it(attribution: str) -> None:
    lines = run_to_its_end("--attribution", attribution, prefix=NOBODY)
    [error] = [line for line in lines if "level=error" in line]
    assert "CAP_NET_ADMIN" in error
    assert "Linux 6.6" in error
    assert error == lines[-1]


def test_it_needs_no_other_capability(programs: Programs, tmp_path: Path) -> None:
    become = (
        *NOBODY,
        "--inh-caps=-all,+net_admin",
        "--ambient-caps=-all,+net_admin",
        "--bounding-set=-all,+net_admin",
    )
    with running("taskstats", tmp_path / "log", attribution="auto", prefix=become) as exporter:
        spawn_some(exporter, programs)


def test_after_giving_up_privileges_it_counts_exactly_until_somebody_silences_the_host(
    programs: Programs, tmp_path: Path, put_right: None
) -> None:
    silence()  # so that the exporter's own part of the count is all there is
    flags = ("--user", "65534", "--canary.interval", "1")
    with running("taskstats", tmp_path / "log", *flags, attribution="auto") as exporter:
        status = Path(f"/proc/{exporter.process.pid}/status").read_text()
        assert re.search(r"^Uid:\t65534\t65534\t65534\t65534$", status, re.MULTILINE)
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
        canaries_come_back(exporter)
        spawn_some(exporter, programs)
        tell(IGNORE, 500)
        # This kernel lets nobody listen without CAP_NET_ADMIN, and we have none any more.
        wait_until(lambda: ready(exporter), lambda status: status == 503, "/-/ready says that it is deaf")
        assert ready(exporter) == 503
        tell(LISTEN, 2000)
        wait_until(lambda: ready(exporter), lambda status: status == 200, "/-/ready when it hears again")
        spawn_some(exporter, programs)


@pytest.mark.parametrize("mode", ["taskstats", "procfs"])
def test_somebody_elses_ignore_is_survived(mode: str, programs: Programs, tmp_path: Path, put_right: None) -> None:
    silence()
    with running(mode, tmp_path / "log", "--canary.interval", "1") as exporter:
        spawn_some(exporter, programs)
        tell(IGNORE, 500)
        exporter.wait_for(
            lambda scrape: scrape.get("proc_connector_resubscriptions_total") >= 1, "a resubscription"
        )
        wait_until(lambda: ready(exporter), lambda status: status == 200, "/-/ready when it hears again")
        canaries_come_back(exporter)
        spawn_some(exporter, programs)


def test_a_start_on_a_silenced_host_works(programs: Programs, tmp_path: Path, put_right: None) -> None:
    silence()
    with running("taskstats", tmp_path / "log") as exporter:
        spawn_some(exporter, programs)
