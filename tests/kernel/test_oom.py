"""Real OOM kills in cgroups with a small limit, amid kills by a user: which of them count, from each source."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.harness import UNKNOWN, Exporter, Programs, running, wait_until
from kernel.killed import Killed, host_kills, killed_by_signal, oom_kills
from kernel.memory_cgroup import MemoryCgroup, memory_cgroup
from kernel.test_stream import clients
from kernel.watching import watching


@pytest.fixture
def cgroup() -> Iterator[MemoryCgroup]:
    with memory_cgroup() as made:
        yield made


SOURCES = {
    "kmsg": ("--oom-kills", "kmsg"),
    "syslog": ("--oom-kills", "syslog"),
    "vmstat": ("--oom-kills", "vmstat"),
    "after dropping privileges": ("--oom-kills", "kmsg", "--user", "65534"),
}


def kill_many(killed: Killed, exporter: Exporter, rules: Path) -> None:
    """Ten programs are chosen, and three that end late; a user kills others, in the cgroup and outside of it."""
    killed.are_ready(6)
    for number in range(3):
        killed.eats_and_ends_late()
        killed.one_that_is_ready_is_killed()
        for _ in range(3):
            killed.eats()
        killed.is_killed(inside=False)
        if number == 1:
            rules.write_text("{}\n")
            os.kill(exporter.process.pid, signal.SIGHUP)
        killed.one_that_is_ready_is_killed()
    killed.eats()
    killed.wait()


@pytest.mark.parametrize("flags", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("mode", ["taskstats", "procfs"])
def test_those_that_the_oom_killer_chose_count_and_no_others(
    mode: str, flags: tuple[str, ...], programs: Programs, cgroup: MemoryCgroup, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    rules = tmp_path / "rules.yml"
    rules.write_text("{}\n")
    killed = Killed(programs, cgroup.procs)
    source = flags[1]
    with running(mode, tmp_path / "log", "--config.file", str(rules), *flags) as exporter:
        assert exporter.scrape().get("proc_connector_oom_source_info", source=source) == 1
        before = host_kills()
        kill_many(killed, exporter, rules)
        assert cgroup.kills() == len(killed.chosen) == 13
        chosen = host_kills() - before
        scrape = exporter.wait_for(lambda s: oom_kills(s).total() >= chosen, f"{chosen} OOM kills")
        most = host_kills() - before
    counted = oom_kills(scrape)
    # On a host where others are chosen meanwhile they count, too.
    assert chosen <= counted.total() <= most
    for comm in killed.by_user:
        assert counted[comm] == 0
    if source != "vmstat":
        assert {comm: counted[comm] for comm in killed.chosen} == dict.fromkeys(killed.chosen, 1)
        assert counted[UNKNOWN] <= most - 13
    assert all(counted[comm] <= 1 for comm in killed.chosen)
    # The other metric is what it was.
    for comm in killed.chosen + killed.by_user:
        assert killed_by_signal(scrape, comm) == 1


@pytest.mark.parametrize("source", ["kmsg", "vmstat"])
def test_one_alone_has_its_name_from_each_source(
    source: str, programs: Programs, cgroup: MemoryCgroup, tmp_path: Path
) -> None:
    """On a host where others kill at the same moment, their number alone does not say which it was."""
    killed = Killed(programs, cgroup.procs)
    with running("taskstats", tmp_path / "log", "--oom-kills", source) as exporter:
        killed.eats()
        killed.wait()
        counted = oom_kills(exporter.wait_for(lambda s: bool(oom_kills(s)), "an OOM kill"))
    assert counted in (
        Counter(killed.chosen),
        Counter([UNKNOWN]) if source == "vmstat" else Counter(killed.chosen),
    )


def test_one_that_was_chosen_before_the_start_and_ends_after_it_counts(
    programs: Programs, cgroup: MemoryCgroup, tmp_path: Path
) -> None:
    killed = Killed(programs, cgroup.procs)
    # On a busy host the exporter takes seconds to start.
    killed.eats_and_ends_late(10_000)
    wait_until(cgroup.kills, lambda kills: kills == 1, "an OOM kill")
    with running("taskstats", tmp_path / "log", "--oom-kills", "kmsg") as exporter:
        killed.wait()
        counted = oom_kills(exporter.wait_for(lambda s: bool(oom_kills(s)), "an OOM kill"))
    assert counted == Counter(killed.chosen)


def test_a_replay_counts_the_same(programs: Programs, cgroup: MemoryCgroup, tmp_path: Path) -> None:
    capture, rules = tmp_path / "capture", tmp_path / "rules.yml"
    rules.write_text("{}\n")
    killed = Killed(programs, cgroup.procs)
    with running(
        "taskstats", tmp_path / "log", "--capture", str(capture), "--config.file", str(rules)
    ) as exporter:
        kill_many(killed, exporter, rules)
        live = exporter.wait_for(lambda s: oom_kills(s).total() >= 13, "13 OOM kills")
    with Exporter("taskstats", tmp_path / "log2", "--replay", str(capture), "--speed", "0").closing() as again:
        replayed = again.wait_for(lambda s: oom_kills(s).total() >= 13, "13 OOM kills")
        assert oom_kills(replayed) == oom_kills(live) == Counter(killed.chosen)
        again.stop()


def test_a_failure_says_it(programs: Programs, cgroup: MemoryCgroup, tmp_path: Path) -> None:
    killed = Killed(programs, cgroup.procs)
    with running("taskstats", tmp_path / "log", "--oom-kills", "kmsg", "--failures.log") as exporter:
        killed.are_ready(1)
        killed.eats()
        killed.one_that_is_ready_is_killed()
        killed.wait()
        exporter.wait_for(lambda s: bool(oom_kills(s)), "an OOM kill")
        chosen = exporter.request("/failures?oom=true&format=json").body.decode()
        others = exporter.request("/failures?oom=false&signal=SIGKILL&format=json").body.decode()
    log = (tmp_path / "log").read_text()
    assert killed.chosen[0] in chosen
    assert killed.chosen[0] not in others
    assert killed.by_user[0] in others
    assert killed.by_user[0] not in chosen
    [line] = [line for line in log.splitlines() if f"comm={killed.chosen[0]}" in line]
    assert "oom=true" in line


@pytest.mark.parametrize("mode", ["taskstats", "procfs"])
def test_watch_prints_it(mode: str, programs: Programs, cgroup: MemoryCgroup, tmp_path: Path) -> None:
    """Each program that is killed is printed once, with what is true of it."""
    killed = Killed(programs, cgroup.procs)
    with watching(mode, tmp_path, "--output", "json", "--signal", "KILL") as watch:
        killed.are_ready(3)
        for _ in range(3):
            killed.eats()
            killed.one_that_is_ready_is_killed()
            killed.is_killed(inside=False)
        killed.eats_and_ends_late()
        killed.wait()
        truth = sorted([(comm, True) for comm in killed.chosen] + [(comm, False) for comm in killed.by_user])

        def printed() -> list[tuple[str, bool]]:
            return sorted((o["comm"], o["oom"]) for o in watch.received().objects if (o["comm"], True) in truth
                          or (o["comm"], False) in truth)  # fmt: skip

        wait_until(lambda: len(printed()), lambda number: number >= len(truth), "all ends are printed")
        assert printed() == truth
        watch.stop()


def test_the_filter_of_the_stream_lets_only_them_through(
    programs: Programs, cgroup: MemoryCgroup, tmp_path: Path
) -> None:
    killed = Killed(programs, cgroup.procs)
    path = tmp_path / "events.sock"
    flags = ("--oom-kills", "kmsg", "--stream.socket", str(path))
    with (
        running("taskstats", tmp_path / "log", *flags),
        clients(path, ["oom=true", "oom=false&signal=KILL"]) as [of_chosen, of_others],
    ):
        killed.are_ready(1)
        killed.eats()
        killed.one_that_is_ready_is_killed()
        killed.wait()
        for client, (comm,) in ((of_chosen, killed.chosen), (of_others, killed.by_user)):
            # Others may be killed on this host meanwhile.
            while not any(comm.encode() in line for line in client.lines):
                assert client.read()
        assert not any(killed.by_user[0].encode() in line for line in of_chosen.lines)
        assert not any(killed.chosen[0].encode() in line for line in of_others.lines)
