"""Real OOM kills where all memory is the test's own: limits of cgroup v2, memory.oom.group, and the whole host.

Runs in the guest, where no other process is killed; there its name is tests/kernel/test_oom_kills.py. Exporters
with each source listen to the same kills at once. What is true is known from wait(2) of those that were started
here, from their cgroup's memory.events.local, and from the kernel's count for the host.
"""

import functools
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kernel.harness import ROOMY, UNKNOWN, Exporter, Programs, Scrape, wait_until
from kernel.killed import Killed, host_kills, killed_by_signal, oom_kills
from kernel.memory_cgroup import V2, MemoryCgroup, memory_cgroup

# A minute, and what a slow guest needs to look again.
LINES_WAIT_SECONDS = 65
UNPRIVILEGED = ("--user", "65534")
# Name -> source, attribution, and more flags.
EXPORTERS = {
    "kmsg": ("kmsg", "taskstats", UNPRIVILEGED),
    "syslog": ("syslog", "taskstats", ()),
    "vmstat": ("vmstat", "taskstats", UNPRIVILEGED),
    "kmsg-procfs": ("kmsg", "procfs", UNPRIVILEGED),
    "vmstat-procfs": ("vmstat", "procfs", UNPRIVILEGED),
}


@pytest.fixture(scope="module", autouse=True)
def cgroups() -> None:
    """Make cgroups with limits possible: the first program of the guest mounts none."""
    if not (V2 / "cgroup.procs").exists():
        subprocess.run(["mount", "-t", "cgroup2", "none", V2], check=True)
    (V2 / "cgroup.subtree_control").write_text("+memory")


@pytest.fixture(scope="module")
def exporters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Exporter]]:
    folder = tmp_path_factory.mktemp("exporters")

    def start(name: str) -> Exporter:
        source, mode, flags = EXPORTERS[name]
        log = folder / f"{name}.log"
        return Exporter(mode, log, "--attribution", mode, *ROOMY, "--oom-kills", source, *flags)

    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        running = {}
        for name, exporter in zip(EXPORTERS, pool.map(start, EXPORTERS), strict=True):
            running[name] = exporter
            stack.callback(exporter.kill)
        yield running
        for exporter in running.values():
            exporter.finish()


@pytest.fixture(scope="module")
def truth() -> "Truth":
    return Truth()


@pytest.fixture
def cgroup() -> Iterator[MemoryCgroup]:
    with memory_cgroup() as made:
        assert not made.is_v1
        yield made


@dataclass
class Truth:
    """Those that were chosen in all tests so far, and the least and the most that their number alone can say."""

    chosen: list[str] = field(default_factory=list)
    least: int = 0
    most: int = 0
    repeated_by: float = 0.0
    """When the kernel had counted one process twice, if it did (time.monotonic())."""


class Compared:
    """What all exporters counted of the programs that were killed since this was made."""

    def __init__(self, exporters: dict[str, Exporter], killed: Killed, truth: Truth) -> None:
        self._exporters = exporters
        self._killed = killed
        self._truth = truth
        self._before = {name: oom_kills(exporter.scrape()) for name, exporter in exporters.items()}
        self._kernel_before = host_kills()

    @property
    def by_kernel(self) -> int:
        """The kernel's own count, of this host."""
        return host_kills() - self._kernel_before

    def _new(self, name: str, scrape: Scrape) -> Counter[str]:
        return oom_kills(scrape) - self._before[name]

    def check(self, *, may_repeat: bool = False, has_names: bool = False) -> None:
        """Wait for what each exporter has to count at least; assert that it is no more, and of whom.

        Args:
            may_repeat: The kernel can have counted one process twice.
            has_names: The kernel's number alone says who they were.
        """
        for name, exporter in self._exporters.items():
            by_pid = EXPORTERS[name][0] != "vmstat"
            least = self._least(by_pid=by_pid, may_repeat=may_repeat)
            has_counted = functools.partial(self._has_counted, name, least)
            scrape = exporter.wait_for(has_counted, f"{least} OOM kills from {name}")
            self._assert_true(name, scrape, exact=by_pid or has_names)
        self._truth.chosen += self._killed.chosen
        self._truth.least += self._least(by_pid=False, may_repeat=may_repeat)
        self._truth.most += min(self.by_kernel, len(self._killed.chosen + self._killed.by_user))

    def _has_counted(self, name: str, least: int, scrape: Scrape) -> bool:
        return self._new(name, scrape).total() >= least

    def _least(self, *, by_pid: bool, may_repeat: bool) -> int:
        chosen = len(self._killed.chosen)
        # By number at least half of what can be twice.
        return chosen if by_pid or not may_repeat else (self.by_kernel + 1) // 2

    def _assert_true(self, name: str, scrape: Scrape, *, exact: bool) -> None:
        counted = self._new(name, scrape)
        chosen, by_user = self._killed.chosen, self._killed.by_user
        if exact:
            assert counted == Counter(chosen), name
        named = Counter({comm: n for comm, n in counted.items() if comm != UNKNOWN})
        assert named <= Counter(chosen), name
        assert counted.total() <= min(self.by_kernel, len(chosen) + len(by_user)), name
        # The other metric counts all of them, each once.
        if EXPORTERS[name][1] == "taskstats":
            for comm in chosen + by_user:
                assert killed_by_signal(scrape, comm) == 1, (name, comm)


def test_each_exporter_has_the_source_that_it_was_told_and_no_privilege(exporters: dict[str, Exporter]) -> None:
    for name, exporter in exporters.items():
        source, _, flags = EXPORTERS[name]
        assert exporter.scrape().get("proc_connector_oom_source_info", source=source) == 1, name
        status = Path(f"/proc/{exporter.process.pid}/status").read_text()
        assert ("\nUid:\t65534\t65534\t65534\t65534\n" in status) == (flags == UNPRIVILEGED), name


def test_each_process_of_a_group_that_dies_as_a_whole_counts_once(
    exporters: dict[str, Exporter], programs: Programs, cgroup: MemoryCgroup, truth: Truth
) -> None:
    """The kernel can log and count twice the process that it has chosen first."""
    (cgroup.path / "memory.oom.group").write_text("1")
    killed = Killed(programs, cgroup.procs)
    compared = Compared(exporters, killed, truth)
    for _ in range(3):
        killed.is_there()
    killed.is_killed(inside=True)
    killed.is_killed(inside=False)
    killed.eats()
    killed.wait()
    events = dict(line.split() for line in (cgroup.path / "memory.events.local").read_text().splitlines())
    assert events["oom_group_kill"] == "1"
    assert cgroup.kills() == compared.by_kernel
    assert compared.by_kernel in {4, 5}
    compared.check(may_repeat=True)
    truth.repeated_by = time.monotonic()


def test_one_alone_has_its_name_from_each_source(
    exporters: dict[str, Exporter], programs: Programs, cgroup: MemoryCgroup, truth: Truth
) -> None:
    killed = Killed(programs, cgroup.procs)
    compared = Compared(exporters, killed, truth)
    killed.eats()
    killed.wait()
    assert cgroup.kills() == compared.by_kernel == 1
    compared.check(has_names=True)


def test_those_over_the_limit_count_and_those_that_a_user_kills_do_not(
    exporters: dict[str, Exporter], programs: Programs, cgroup: MemoryCgroup, truth: Truth
) -> None:
    killed = Killed(programs, cgroup.procs)
    compared = Compared(exporters, killed, truth)
    killed.are_ready(3)
    for _ in range(3):
        killed.one_that_is_ready_is_killed()
        killed.eats()
        killed.is_killed(inside=False)
    killed.eats_and_ends_late()
    killed.wait()
    assert cgroup.kills() == compared.by_kernel == len(killed.chosen) == 4
    compared.check()


def test_a_kill_by_a_user_is_none(
    exporters: dict[str, Exporter], programs: Programs, cgroup: MemoryCgroup, truth: Truth
) -> None:
    killed = Killed(programs, cgroup.procs)
    compared = Compared(exporters, killed, truth)
    killed.is_killed(inside=True)
    killed.is_killed(inside=False)
    killed.wait()
    # What comes after it has been counted when this one is.
    killed.eats()
    killed.wait()
    assert compared.by_kernel == 1
    compared.check()


def test_those_that_die_because_the_host_has_no_memory_count(
    exporters: dict[str, Exporter], programs: Programs, truth: Truth
) -> None:
    # The cgroup at the root has no limit but the host's memory.
    killed = Killed(programs, V2 / "cgroup.procs")
    compared = Compared(exporters, killed, truth)
    killed.are_ready(1)
    killed.eats()
    killed.eats()
    killed.one_that_is_ready_is_killed()
    killed.wait()
    assert compared.by_kernel == 2
    compared.check()
    for name, exporter in exporters.items():
        assert exporter.process.poll() is None, name


def test_nothing_was_counted_later(exporters: dict[str, Exporter], programs: Programs, truth: Truth) -> None:
    """A line of the log that no end has used up is counted when it has waited for one."""
    wait_until(
        lambda: time.monotonic() - truth.repeated_by,
        lambda seconds: seconds > LINES_WAIT_SECONDS,
        "the second line of one process has waited for another one",
    )
    # Exporters look while something happens.
    killed = Killed(programs, V2 / "cgroup.procs")
    killed.is_killed(inside=False)
    killed.wait()
    [comm] = killed.by_user
    for name, exporter in exporters.items():
        if EXPORTERS[name][1] == "taskstats":
            exporter.wait_for(lambda scrape: killed_by_signal(scrape, comm) == 1, f"the last end from {name}")
        counted = oom_kills(exporter.scrape())
        if EXPORTERS[name][0] != "vmstat":
            assert counted == Counter(truth.chosen), name
        assert truth.least <= counted.total() <= truth.most, name
