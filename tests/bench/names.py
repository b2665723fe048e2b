"""How many names a reader got right, against what the storm knows."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from bench.exporter_client import UNKNOWN, Scrape
from bench.programs import STORM_COMM
from bench.storms import StormRun


class Names(NamedTuple):
    """Names of execs and exits."""

    expected: int
    right: int
    wrong: int
    """Another program's; the rest was unknown, empty or missing."""

    @property
    def share(self) -> float:
        """Right ones of all."""
        return self.right / self.expected


class Line(NamedTuple):
    """An event as a tool printed it."""

    event: str
    pid: int
    name: str


# Time, event, pid, info and duration (of exits only), cmdline or comm.
_FORKSTAT = re.compile(r"^\S+ +(exec|exit) +(\d+) +(?:(?<=exec) +)?(.*)$")


def parse_forkstat(text: str) -> Iterable[Line]:
    """Read the execs and exits of forkstat's output."""
    for line in text.splitlines():
        if match := _FORKSTAT.match(line):
            event, pid, rest = match.groups()
            words = rest.split()
            if event == "exit":
                words = words[2:]
            yield Line(event, int(pid), _basename(words))


def parse_extrace(text: str) -> Iterable[Line]:
    """Read the output of extrace -f: pid, then the quoted command line; of execs only."""
    for line in text.splitlines():
        pid, *words = line.split()
        if pid.isdecimal():
            yield Line("exec", int(pid), _basename(words))


def _basename(words: list[str]) -> str:
    return words[0].strip("'\"").rpartition("/")[2] if words else ""


def check_lines(lines: Iterable[Line], storm: StormRun, events: tuple[str, ...]) -> Names | None:
    """Check a tool's output; None when the storm has no events of the kinds that the tool prints."""
    printed: dict[tuple[str, int], list[str]] = {}
    for line in lines:
        printed.setdefault((line.event, line.pid), []).append(line.name)
    kinds = [event for event in events if event == "exit" or storm.execs]
    expected = right = wrong = 0
    for birth in storm.births:
        for event in kinds:
            names = Counter(storm.expected(birth, event))
            told = Counter(name for name in printed.get((event, birth.pid), []) if name not in {"", UNKNOWN})
            missing = (names - told).total()
            expected += names.total()
            right += names.total() - missing
            wrong += min(missing, (told - names).total())
    return Names(expected, right, wrong) if expected else None


def check_scrapes(before: Scrape, after: Scrape, storm: StormRun) -> Names:
    """Check what the exporter counted between two scrapes."""
    exits = after.counts("exits_total") - before.counts("exits_total")
    execs = after.counts("execs_total") - before.counts("execs_total")
    truth = Counter((birth.comm, str(birth.exit_code)) for birth in storm.births)
    counted = Counter({key: _sum(exits, comm=key[0], exit_code=key[1]) for key in truth})
    if not storm.execs:
        # The storm's own process has the same comm and exit code.
        counted[STORM_COMM, "0"] -= 1
    right = (counted & truth).total()
    expected = truth.total()
    unknown = _sum(exits, comm=UNKNOWN)
    if storm.execs:
        comms = Counter(comm for birth in storm.births for comm in storm.expected(birth, "exec"))
        right += (Counter({comm: _sum(execs, comm=comm) for comm in comms}) & comms).total()
        expected += comms.total()
        unknown += _sum(execs, comm=UNKNOWN)
    return Names(expected, right, max(0, expected - right - unknown))


def _sum(rows: Counter[tuple[str, ...]], *, comm: str, exit_code: str | None = None) -> int:
    # Labels: comm, uid and for exits exit_code, signal.
    return sum(n for row, n in rows.items() if row[0] == comm and (exit_code is None or row[2] == exit_code))
