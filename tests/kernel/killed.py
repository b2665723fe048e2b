"""Programs that the OOM killer chooses, and programs that a user kills; and what an exporter counted of them."""

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path

from kernel.harness import DEADLINE_SECONDS, Programs, Scrape

LATE_MS = 2000


def host_kills() -> int:
    lines = (line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(dict(lines)["oom_kill"])


class Killed:
    """What happened: programs that the OOM killer chose and programs that a user killed.

    Args:
        programs: They are links of these.
        procs: The cgroup.procs of where they run out of memory.
    """

    def __init__(self, programs: Programs, procs: Path) -> None:
        self._programs = programs
        self._procs = procs
        self.chosen: list[str] = []
        self.by_user: list[str] = []
        self._waited: list[tuple[subprocess.Popen[bytes], int]] = []
        self._ready: list[Path] = []
        self._sleeping: list[subprocess.Popen[bytes]] = []

    def eats(self) -> None:
        """A program takes more memory than it may."""
        victim = self._programs.link("eats")
        self.chosen.append(victim.name)
        self._waited.append((subprocess.Popen([victim, "eat", self._procs]), -signal.SIGKILL))

    def eats_and_ends_late(self, late_ms: int = LATE_MS) -> None:
        victim = self._programs.link("slow")
        self.chosen.append(victim.name)
        words: list[str | Path] = [
            self._programs.link("tracer"),
            "late",
            str(late_ms),
            victim,
            "eat",
            self._procs,
        ]
        self._waited.append((subprocess.Popen(words), 0))

    def is_there(self) -> None:
        """A program takes no memory, but the cgroup that it is in is chosen as a whole."""
        victim = self._programs.link("there")
        self.chosen.append(victim.name)
        self._waited.append((_sleeping_in(self._procs, victim), -signal.SIGKILL))

    def is_killed(self, *, inside: bool, procs: Path | None = None) -> None:
        """A user kills a program, in the cgroup, in another one, or outside of them."""
        victim = self._programs.link("user")
        self.by_user.append(victim.name)
        where = self._procs if inside else procs
        process = (
            subprocess.Popen([victim, "sleep", "60000", "0"]) if where is None else _sleeping_in(where, victim)
        )
        self._kill(process)

    def are_ready(self, count: int) -> None:
        """Let so many programs sleep in the cgroup, for `one_that_is_ready_is_killed`.

        Where one that was chosen still holds memory, one that begins there needs more, and is chosen itself.
        """
        self._ready += [self._programs.link("user") for _ in range(count)]
        self._sleeping += [_sleeping_in(self._procs, victim) for victim in self._ready]

    def one_that_is_ready_is_killed(self) -> None:
        """A user kills a program in the cgroup, which has begun there before."""
        self.by_user.append(self._ready.pop().name)
        self._kill(self._sleeping.pop())

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        # So that nothing else kills it meanwhile.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        self._waited.append((process, -signal.SIGKILL))

    def wait(self) -> None:
        """Wait until all have ended, as they should have."""
        for process, status in self._waited:
            with process:
                assert process.wait(2 * DEADLINE_SECONDS) == status
        self._waited.clear()


def _sleeping_in(procs: Path, program: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([program, "join", procs, "600000"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"joined\n"
    return process


def oom_kills(scrape: Scrape) -> Counter[str]:
    counts: Counter[str] = Counter()
    for labels, number in scrape.samples.get("proc_connector_oom_kills_total", {}).items():
        counts[dict(labels)["comm"]] += int(number)
    return +counts


def killed_by_signal(scrape: Scrape, comm: str) -> int:
    return sum(n for row, n in scrape.rows("exits").items() if row[0] == comm and row[3] == "SIGKILL")
