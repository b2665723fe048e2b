"""The canary: it is in no count, and what the exporter says when it cannot be forked."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

from kernel.canaries import AGE, CANARY_EXIT_CODE, RESUBSCRIPTIONS, canaries_go_on, readiness
from kernel.harness import LABELS, Programs, Scrape, World, ask, free_port, running, wait_until

RECORDS = "proc_connector_exit_records_total"
# The kernel's totals are not of one moment.
_HANDFUL = 2


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


def test_the_canary_is_in_no_family_at_all(programs: Programs, tmp_path: Path) -> None:
    uid = programs.new_uid()
    # Its uid is its own, so that its canaries are known by it, and changes before the exporter listens.
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
        # Their ends are nowhere: neither in events, nor in records, nor in the kernel's own totals.
        for source in ("events", "kernel"):
            name = "proc_connector_task_exits_total"
            grown = scrape.get(name, source=source) - first[1].get(name, source=source)
            with_canaries = last[2].get(name, source=source) - first[0].get(name, source=source)
            assert grown <= with_canaries - seen + _HANDFUL, source
        grown = scrape.total(RECORDS) - first[1].total(RECORDS)
        assert grown <= last[2].total(RECORDS) - first[0].total(RECORDS) - seen
        # The families by comm alone: both see other programs that are called like the exporter.
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
