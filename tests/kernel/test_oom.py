"""Real OOM kills in cgroups with a small limit, amid kills by a user: which of them count, from each source."""

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.harness import Exporter, Programs, Scrape, running, wait_until
from kernel.memory_cgroup import MemoryCgroup, memory_cgroup

LATE_MS = 2000
UNKNOWN = "<unknown>"


@pytest.fixture
def cgroup() -> Iterator[MemoryCgroup]:
    with memory_cgroup() as made:
        yield made


def host_kills() -> int:
    lines = (line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(dict(lines)["oom_kill"])


class Killed:
    """What happened: programs that the OOM killer chose and programs that a user killed."""

    def __init__(self, programs: Programs, cgroup: MemoryCgroup) -> None:
        self._programs = programs
        self._cgroup = cgroup
        self.chosen: list[str] = []
        self.by_user: list[str] = []
        self._waited: list[tuple[subprocess.Popen[bytes], int]] = []

    def eats(self) -> None:
        """A program takes more memory than it may."""
        victim = self._programs.link("eats")
        self.chosen.append(victim.name)
        self._waited.append((subprocess.Popen([victim, "eat", self._cgroup.procs]), -signal.SIGKILL))

    def eats_and_ends_late(self) -> None:
        victim = self._programs.link("slow")
        self.chosen.append(victim.name)
        words: list[str | Path] = [
            self._programs.link("tracer"),
            "late",
            str(LATE_MS),
            victim,
            "eat",
            self._cgroup.procs,
        ]
        self._waited.append((subprocess.Popen(words), 0))

    def is_killed(self, *, inside: bool) -> None:
        """A user kills a program, in the cgroup or outside of it."""
        victim = self._programs.link("user")
        self.by_user.append(victim.name)
        words: list[str | Path] = [victim, "sleep", "60000", "0"]
        if inside:
            words = [victim, "join", self._cgroup.procs, "60000"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        if inside:
            assert process.stdout is not None
            assert process.stdout.readline() == b"joined\n"
        process.kill()
        self._waited.append((process, -signal.SIGKILL))

    def wait(self) -> None:
        """Wait until all have ended, as they should have."""
        for process, status in self._waited:
            with process:
                assert process.wait(60) == status
        self._waited.clear()


def oom_kills(scrape: Scrape) -> Counter[str]:
    counts: Counter[str] = Counter()
    for labels, number in scrape.samples.get("proc_connector_oom_kills_total", {}).items():
        counts[dict(labels)["comm"]] += int(number)
    return +counts


def killed_by_signal(scrape: Scrape, comm: str) -> int:
    return sum(n for row, n in scrape.rows("exits").items() if row[0] == comm and row[3] == "SIGKILL")


SOURCES = {
    "kmsg": ("--oom-kills", "kmsg"),
    "syslog": ("--oom-kills", "syslog"),
    "vmstat": ("--oom-kills", "vmstat"),
    "after dropping privileges": ("--oom-kills", "kmsg", "--user", "65534"),
}


def kill_many(killed: Killed, exporter: Exporter, rules: Path) -> None:
    """Ten programs are chosen, and three that end late; a user kills others, in the cgroup and outside of it."""
    for number in range(3):
        killed.eats_and_ends_late()
        killed.is_killed(inside=True)
        for _ in range(3):
            killed.eats()
        killed.is_killed(inside=False)
        if number == 1:
            rules.write_text("{}\n")
            os.kill(exporter.process.pid, signal.SIGHUP)
        killed.is_killed(inside=True)
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
    killed = Killed(programs, cgroup)
    source = flags[1]
    with running(mode, tmp_path / "log", "--config.file", str(rules), *flags) as exporter:
        assert exporter.scrape().get("proc_connector_oom_source_info", source=source) == 1
        before = host_kills()
        kill_many(killed, exporter, rules)
        assert cgroup.kills() == len(killed.chosen) == 13
        chosen = host_kills() - before
        scrape = exporter.wait_for(lambda s: oom_kills(s).total() >= chosen, f"{chosen} OOM kills")
    counted = oom_kills(scrape)
    assert counted.total() == chosen
    for comm in killed.by_user:
        assert counted[comm] == 0
    if source != "vmstat":
        assert {comm: counted[comm] for comm in killed.chosen} == dict.fromkeys(killed.chosen, 1)
        assert counted[UNKNOWN] == chosen - 13
    assert all(counted[comm] <= 1 for comm in killed.chosen)
    # The other metric is what it was.
    for comm in killed.chosen + killed.by_user:
        assert killed_by_signal(scrape, comm) == 1


@pytest.mark.parametrize("source", ["kmsg", "vmstat"])
def test_one_alone_has_its_name_from_each_source(
    source: str, programs: Programs, cgroup: MemoryCgroup, tmp_path: Path
) -> None:
    """On a host where others kill at the same moment, their number alone does not say which it was."""
    killed = Killed(programs, cgroup)
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
    killed = Killed(programs, cgroup)
    killed.eats_and_ends_late()
    wait_until(cgroup.kills, lambda kills: kills == 1, "an OOM kill", 10)
    with running("taskstats", tmp_path / "log", "--oom-kills", "kmsg") as exporter:
        killed.wait()
        counted = oom_kills(exporter.wait_for(lambda s: bool(oom_kills(s)), "an OOM kill"))
    assert counted == Counter(killed.chosen)


def test_a_replay_counts_the_same(programs: Programs, cgroup: MemoryCgroup, tmp_path: Path) -> None:
    capture, rules = tmp_path / "capture", tmp_path / "rules.yml"
    rules.write_text("{}\n")
    killed = Killed(programs, cgroup)
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
    killed = Killed(programs, cgroup)
    with running("taskstats", tmp_path / "log", "--oom-kills", "kmsg", "--failures.log") as exporter:
        killed.eats()
        killed.is_killed(inside=True)
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
