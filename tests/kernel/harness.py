"""The running exporter as its users see it, and closed worlds of processes whose truth the tests know."""

import contextlib
import http.client
import itertools
import os
import secrets
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple, Protocol, TypeVar

from prometheus_client.parser import text_string_to_metric_families

UNKNOWN = "<unknown>"
PATIENCE = float(os.environ.get("TEST_PATIENCE", "1"))  # on an emulated machine everything takes longer
DEADLINE_SECONDS = 30.0 * PATIENCE  # how long a condition may take on a machine that is busy with something else

LABELS = {
    "forks": ("comm", "uid"),
    "execs": ("comm", "uid"),
    "exits": ("comm", "uid", "exit_code", "signal"),
    "nonzero_exits": ("comm", "uid", "exit_code", "signal"),
    "coredumps": ("comm", "uid"),
    "uid_changes": ("comm", "uid"),
    "ptrace_attaches": ("comm", "uid"),
}
"""The counters of processes, `proc_connector_<name>_total`, and the order of their labels here."""

EVENT_OF = {"forks": "fork", "execs": "exec", "exits": "exit", "coredumps": "coredump", "uid_changes": "uid"}
"""The event that each adds exactly 1 to one series of a counter."""

ROOMY = ("--limit.series", "1000000", "--receive-buffer.bytes", str(256 << 20))
"""Flags for an exporter that other programs of the host cannot fill with their names or events."""

Row = tuple[str, ...]
T = TypeVar("T")


def wait_until(
    read: Callable[[], T], holds: Callable[[T], bool], what: str, patience_seconds: float = DEADLINE_SECONDS
) -> T:
    """Read until the condition holds; fail with the last value when it never does."""
    give_up = time.monotonic() + patience_seconds
    while not holds(value := read()):
        assert time.monotonic() < give_up, f"never came true: {what}; last seen: {value}"
        time.sleep(0.05)
    return value


def free_port() -> int:
    """Return a port that no socket has, of those that the kernel gives to no socket by itself.

    Until the exporter binds it, each connection of another program takes one: of the range of the kernel.
    """
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    begin = max(1024, end - 12_000)
    while True:
        port = begin + secrets.randbelow(end - begin) if end > begin else 0
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])


def exit_labels(status: int) -> tuple[str, str]:
    """Return exit_code and signal for a wait status, the way a shell and kill -l name them."""
    if not os.WIFSIGNALED(status):
        return str(os.WEXITSTATUS(status)), ""
    number = os.WTERMSIG(status)
    offset = number - signal.SIGRTMIN
    if offset < 0:
        return str(128 + number), signal.Signals(number).name
    return str(128 + number), f"SIGRTMIN+{offset}" if offset else "SIGRTMIN"


class Response(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def ask(port: int, path: str, method: str = "GET", **headers: str) -> Response:
    """Ask a server on the loopback; a header's name is given with underscores."""
    return ask_over(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS), path, method, headers)


def ask_over(
    connection: http.client.HTTPConnection, path: str, method: str, headers: Mapping[str, str]
) -> Response:
    """Ask once over a connection of one's own making, and close it."""
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): v for name, v in headers.items()})
        answer = connection.getresponse()
        return Response(answer.status, answer.msg, answer.read())


class Scrape:
    """The samples of one answer of /metrics: sample name -> labels -> value."""

    def __init__(self, text: str) -> None:
        self.families: dict[str, str] = {}
        self.samples: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
        for family in text_string_to_metric_families(text):
            self.families[family.name] = family.type
            for sample in family.samples:
                series = self.samples.setdefault(sample.name, {})
                key = frozenset(sample.labels.items())
                assert key not in series, f"{sample.name} has one series twice: {sample.labels}"
                series[key] = sample.value

    def get(self, name: str, **labels: str) -> float:
        """Return one sample's value; 0 where there is no such series."""
        return self.samples.get(name, {}).get(frozenset(labels.items()), 0.0)

    def total(self, name: str) -> float:
        return sum(self.samples.get(name, {}).values())

    def names_execs_of_the_killed(self) -> bool:
        """Return whether side-band records name them: an exec that fails too late kills its process, too."""
        [attribution] = self.samples["proc_connector_attribution_info"]
        return ("exec_names", "sideband") in attribution

    def rows(self, counter: str) -> Counter[Row]:
        """Return all series of one of LABELS' counters, of all groups together."""
        order = LABELS[counter]
        rows = Counter[Row]()
        for key, n in self.samples.get(f"proc_connector_{counter}_total", {}).items():
            rows[tuple(dict(key)[label] for label in order)] += int(n)
        return +rows

    def buckets(self, histogram: str, comm: str) -> dict[float, float]:
        """Return upper bound -> cumulative count."""
        series = self.samples.get(f"proc_connector_{histogram}_bucket", {})
        found = {float(dict(key)["le"]): n for key, n in series.items() if ("comm", comm) in key}
        return dict(sorted(found.items()))


# Most processes of other programs whose leader has ended before an exporter starts and whose threads end later:
# the exporter counts such an end without a leader's EXIT.
_LEADERLESS_BEFORE = 5
# Processes whose exit record was sent before the exporter asked for records, and whose EXIT after it listened:
# between the two a process gives its memory back, which takes long where the host is busy.
RECORDED_BEFORE = 2


def assert_sums(scrape: Scrape, mode: str) -> None:
    """Assert what holds in every scrape, whatever else the host is doing."""
    for counter, event in EVENT_OF.items():
        counted: float = sum(scrape.rows(counter).values())
        for elsewhere in ("pending_events", "excluded_total", "expired_total"):
            counted += scrape.get(f"proc_connector_{elsewhere}", event=event)
        seen = scrape.get("proc_connector_events_total", event=event)
        # The end of a process is counted, not its leader's EXIT: a leader that ended before its threads has not
        # ended the process, and a process whose thread execs (Go programs do that) has two leader's EXITs.
        if counter == "exits":
            assert counted <= seen + _LEADERLESS_BEFORE, f"{counted} ends of processes from {seen} EXIT events"
        else:
            assert counted == seen, f"{counter}: counted and pending {counted}, events {seen}"
    exits = scrape.rows("exits")
    assert scrape.rows("nonzero_exits") == Counter({row: n for row, n in exits.items() if row[2:] != ("0", "")})
    # Detaching is an event too.
    assert scrape.total("proc_connector_ptrace_attaches_total") <= scrape.get(
        "proc_connector_events_total", event="ptrace"
    )
    for counter in ("forks", "execs", "exits"):
        unknown = sum(n for row, n in scrape.rows(counter).items() if row[0] == UNKNOWN)
        assert scrape.get("proc_connector_unattributed_total", event=EVENT_OF[counter]) == unknown, counter
    # Groups share a comm's histograms: an end is in them before its group is known, and after its group is gone.
    elsewhere_too = sum(
        scrape.get(f"proc_connector_{name}", event="exit") for name in ("pending_events", "expired_total")
    )
    for histogram in ("process_lifetime_seconds", "process_cpu_seconds", "process_max_rss_bytes"):
        counted = scrape.total(f"proc_connector_{histogram}_count")
        if mode == "taskstats":
            # Each end has its exit record, unless taskstats dropped it: then its FORK may say how long it lived.
            lost = scrape.get("proc_connector_lost_messages_total", socket="taskstats")
            lost += min(scrape.get("proc_connector_unattributed_total", event="exit"), RECORDED_BEFORE)
            if histogram == "process_lifetime_seconds":
                lost = scrape.get("proc_connector_unknown_lifetimes_total")
            assert exits.total() - lost <= counted <= exits.total() + elsewhere_too, (
                f"{histogram} describes {counted} of {exits.total()} exits, {lost} may lack"
            )
        elif histogram != "process_lifetime_seconds":
            assert counted == 0, f"{histogram} without taskstats"


class Exporter:
    """One running exporter; `python -m exporter` with a free port unless a command says otherwise."""

    def __init__(
        self,
        mode: str,
        log: Path,
        *flags: str,
        prefix: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int | None = None,
    ) -> None:
        self.mode = mode
        self.port = free_port() if port is None else port
        self.log = log
        address = () if "--web.systemd-socket" in flags else ("--web.listen-address", f"{host}:{self.port}")
        command = [*prefix, sys.executable, "-m", "exporter", *address, *flags]
        with log.open("wb") as stderr:
            # Of the environment nothing that changes how Python behaves.
            environment = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
            self.process = subprocess.Popen(command, stderr=stderr, cwd="/", env=environment)
        self.worlds: list[World] = []
        try:
            wait_until(self._status_of_ready, lambda status: status == 200, f"{self.mode}: /-/ready")
        except BaseException:
            self.kill()
            raise

    def _status_of_ready(self) -> int | str:
        assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log.read_text()}"
        try:
            return self.request("/-/ready").status
        except OSError as error:
            return str(error)

    def request(self, path: str, method: str = "GET", **headers: str) -> Response:
        return ask(self.port, path, method, **headers)

    def scrape_raw(self) -> str:
        answer = self.request("/metrics")
        assert answer.status == 200, answer.body
        return answer.body.decode()

    def scrape(self) -> Scrape:
        return Scrape(self.scrape_raw())

    def wait_for(self, holds: Callable[[Scrape], bool], what: str) -> Scrape:
        give_up = time.monotonic() + DEADLINE_SECONDS
        while not holds(scrape := self.scrape()):
            assert time.monotonic() < give_up, f"no scrape ever showed {what}"
            time.sleep(0.05)
        return scrape

    def beginning_of_log(self) -> str:
        """Return the beginning of the log: /dev/full has no end."""
        with self.log.open() as log:
            return log.read(100_000)

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Send the signal; return the seconds until the process had ended with exit code 0."""
        begin = time.monotonic()
        self.process.send_signal(number)
        try:
            assert self.process.wait(DEADLINE_SECONDS) == 0, self.beginning_of_log()
        finally:
            self.kill()
        return time.monotonic() - begin

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @contextlib.contextmanager
    def closing(self) -> Iterator["Exporter"]:
        """Kill it in the end if it still runs; whether its worlds are true is for the test to say."""
        try:
            yield self
        finally:
            self.kill()

    def finish(self) -> None:
        """Check every world once more, for what was counted too late or twice, and stop."""
        try:
            scrape = self.scrape()
            for world in self.worlds:
                world.compare(scrape)
            assert_sums(scrape, self.mode)
        finally:
            self.stop()
        assert "Traceback" not in self.log.read_text(), self.log.read_text()


@contextlib.contextmanager
def running(
    mode: str,
    log: Path,
    *flags: str,
    attribution: str | None = None,
    prefix: Sequence[str] = (),
    host: str = "127.0.0.1",
) -> Iterator[Exporter]:
    """Run an exporter that is in this mode, whatever it was asked for, and check it to its end."""
    words = ("--attribution", attribution or mode, *ROOMY, *flags)
    exporter = Exporter(mode, log, *words, prefix=prefix, host=host)
    try:
        yield exporter
        exporter.finish()
    finally:
        exporter.kill()


def living_processes() -> set[int]:
    """Return the thread groups that have a thread which is not dead."""
    return {int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit() and _lives(folder)}


def _lives(folder: Path) -> bool:
    try:
        states = [(task / "stat").read_text().rpartition(") ")[2][0] for task in (folder / "task").iterdir()]
    except OSError:
        return False
    return any(state not in "ZX" for state in states)


class TableLook(NamedTuple):
    """The number of processes in the table, and the least and the most that /proc can have had at that moment."""

    in_table: float
    least: int
    most: int

    @property
    def agrees(self) -> bool:
        return self.least <= self.in_table <= self.most

    @property
    def doubt(self) -> int:
        return self.most - self.least


def look_at_the_table(exporter: Exporter) -> TableLook:
    before = living_processes()
    in_table = exporter.scrape().total("proc_connector_processes")
    after = living_processes()
    return TableLook(in_table, len(before & after), len(before | after))


def wait_until_the_table_equals_proc(exporter: Exporter) -> None:
    """Wait until there are as many processes in the table as in /proc.

    On a host where other programs start and end all the time /proc never stands still: there the table has to
    agree with the closest limits that were seen.
    """
    give_up = time.monotonic() + DEADLINE_SECONDS
    best = look_at_the_table(exporter)
    while not (best.agrees and best.doubt == 0) and time.monotonic() < give_up:
        time.sleep(0.05)
        best = min(best, look_at_the_table(exporter), key=lambda look: (look.doubt, not look.agrees))
    assert best.agrees, f"processes in the table and in /proc differ: {best}"


# Names and uids begin at random places, so that two runs of the tests on one host have different ones.
_NAME_DIGITS = string.digits + string.ascii_letters
_NAME_LENGTH = 3
# Above what systemd and shadow give to users, services, containers and user namespaces, below what is a negative
# number to some programs.
_UIDS = range(1_900_000_000, 2_100_000_000)


def _text_of(number: int) -> str:
    digits = []
    for _ in range(_NAME_LENGTH):
        number, digit = divmod(number, len(_NAME_DIGITS))
        digits.append(_NAME_DIGITS[digit])
    return "".join(reversed(digits))


class Programs:
    """Hard links of the one helper program under names that no other process has."""

    def __init__(self, folder: Path, binary: Path) -> None:
        self.folder = folder
        self.binary = binary
        self._numbers = itertools.count(secrets.randbelow(len(_NAME_DIGITS) ** _NAME_LENGTH))
        self._uids = itertools.count(secrets.choice(_UIDS))

    def name(self, hint: str) -> str:
        name = f"{hint}.{_text_of(next(self._numbers))}"
        assert len(name) <= 15, f"{name} is too long for a comm"
        return name

    def link(self, hint: str) -> Path:
        path = self.folder / self.name(hint)
        os.link(self.binary, path)
        return path

    def setuid_copy(self, hint: str) -> Path:
        path = self.folder / self.name(hint)
        shutil.copy(self.binary, path)
        path.chmod(0o4755)
        return path

    def script(self, hint: str, text: str) -> Path:
        path = self.folder / self.name(hint)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def new_uid(self) -> int:
        return next(self._uids)

    def directory(self, uid: int) -> Path:
        """Make a directory that the uid can write to."""
        path = self.folder / f"cwd.{next(self._numbers)}"
        path.mkdir()
        os.chown(path, uid, uid)
        return path


@contextlib.contextmanager
def compiled_programs() -> Iterator[Programs]:
    """Compile the helper program into a folder of its own, which is gone afterwards."""
    # Not tmp_path: pytest's folders are closed to other users, and the cases run under other uids.
    with tempfile.TemporaryDirectory(prefix="proc-connector-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        binary = folder / "programs"
        source = Path(__file__).with_name("programs.c")
        subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", binary, source], check=True)
        yield Programs(folder, binary)


class Ended(NamedTuple):
    """What a parent saw of its child: wait4's answer and the time between before fork and after wait4."""

    pid: int
    status: int
    seconds: float
    cpu_seconds: float
    max_rss_bytes: int


class Watcher(Protocol):
    """What has an exporter's numbers: the exporter itself, or a client of it."""

    mode: str
    worlds: list["World"]

    def scrape(self) -> Scrape:
        """Return the numbers as they are now."""


@dataclass
class World:
    """Processes under uids and comms that no other process on the host has.

    All series with one of the uids or one of the comms are compared with the truth, so a process that went to
    a wrong name, uid or code is seen twice: where it is missing and where it is too much. The truth comes from
    wait4 in the parents; `spawn` writes it down, and a case adds what its processes do besides.
    """

    exporter: Watcher
    programs: Programs
    uid: int = field(init=False)
    uids: set[str] = field(default_factory=set)
    comms: set[str] = field(default_factory=set)
    truth: dict[str, Counter[Row]] = field(default_factory=lambda: {name: Counter() for name in LABELS})
    # Counters where a short look may be too late for the name, even with taskstats: an exec before a rename or
    # a second exec leaves no record.
    may_be_unknown: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.uid = self.programs.new_uid()
        self.uids.add(str(self.uid))
        self.exporter.worlds.append(self)

    @property
    def mode(self) -> str:
        return self.exporter.mode

    def program(self, hint: str) -> Path:
        path = self.programs.link(hint)
        self.comms.add(path.name)
        return path

    def count(
        self, counter: str, comm: str, n: int = 1, *, status: int | None = None, uid: int | None = None
    ) -> None:
        """Write down n events under the comm; an exit's wait status gives its labels."""
        row: Row = (comm, str(self.uid if uid is None else uid))
        if status is not None:
            row += exit_labels(status)
            if row[2:] != ("0", ""):
                self.truth["nonzero_exits"][row] += n
        self.truth[counter][row] += n

    def run(
        self, program: Path, *args: str | Path, caps: Sequence[str] = (), cwd: Path | None = None
    ) -> list[str]:
        """Run the program to its end under this world's uid; count its exec and exit; return its lines."""
        with self.start(program, *args, caps=caps, cwd=cwd, stdout=subprocess.PIPE) as process:
            output, _ = process.communicate()
        assert process.returncode == 0, f"{program} {args} ended with {process.returncode}"
        self.count("exits", program.name, status=0)
        return str(output, "ascii").splitlines()

    def start(
        self,
        program: Path,
        *args: str | Path,
        caps: Sequence[str] = (),
        cwd: Path | None = None,
        stdout: int | IO[bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start the program under this world's uid with these capabilities and count its exec."""
        become = ["setpriv", "--reuid", str(self.uid), "--regid", str(self.uid), "--clear-groups"]
        if caps:
            become += [f"--{which}-caps=-all,+" + ",+".join(caps) for which in ("inh", "ambient")]
        self.count("uid_changes", "setpriv")
        self.count("execs", program.name)
        return subprocess.Popen(
            [*become, program, *args], stdin=subprocess.DEVNULL, stdout=stdout, cwd=cwd or self.programs.folder
        )

    def spawn(
        self,
        *children: Sequence[str | Path],
        caps: Sequence[str] = (),
        cwd: Path | None = None,
        count_exits: bool = True,
        exit_comm: str | None = None,
        exit_uid: int | None = None,
    ) -> list[Ended]:
        """Let a parent of its own name run the commands one after the other, and count what it saw.

        Args:
            children: Commands; the first word is the program's path.
            caps: Capabilities of parent and children.
            cwd: Where they run.
            count_exits: Whether to count the children's ends, too.
            exit_comm: The comm at the end, if it is not the program's name.
            exit_uid: The uid at the end, if it is not this world's.
        """
        parent = self.program("parent")
        words = [word for command in children for word in (*command, ";")]
        ended = []
        for command, line in zip(children, self.run(parent, "spawn", *words, caps=caps, cwd=cwd), strict=True):
            pid, status, us, cpu_us, rss_kib = (int(word) for word in line.split())
            ended.append(Ended(pid, status, us / 1e6, cpu_us / 1e6, rss_kib * 1024))
            name = Path(command[0]).name[:15]
            self.count("forks", parent.name)
            self.count("execs", name)
            if count_exits:
                self.count("exits", name if exit_comm is None else exit_comm, status=status, uid=exit_uid)
        return ended

    def check(self) -> Scrape:
        """Wait until the exporter shows the truth about this world; return that scrape."""
        give_up = time.monotonic() + DEADLINE_SECONDS
        while True:
            scrape = self.exporter.scrape()
            try:
                self.compare(scrape)
            except AssertionError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.05)
            else:
                assert_sums(scrape, self.mode)
                return scrape

    def compare(self, scrape: Scrape) -> None:
        """Assert that the scrape shows the truth about this world.

        Exact to the last unit with taskstats. Without it each name is right or `<unknown>`: the sums over all
        names are exact and no name has more than it should. And none of the programs lives any more.
        """
        for counter, truth in self.truth.items():
            shown = Counter(
                {row: n for row, n in scrape.rows(counter).items() if row[1] in self.uids or row[0] in self.comms}
            )
            if counter == "uid_changes":  # sent before the exec, so the name is the one before or the one after
                assert _without_comm(shown) == _without_comm(truth), self._difference(counter, shown, truth)
            elif self.mode == "taskstats" and counter not in self.may_be_unknown:
                assert shown == truth, self._difference(counter, shown, truth)
            else:
                named = Counter({row: n for row, n in shown.items() if row[0] != UNKNOWN})
                assert named <= truth, self._difference(counter, shown, truth)
                assert _without_comm(shown) == _without_comm(truth), self._difference(counter, shown, truth)
        alive = {comm for comm in self.comms if scrape.get("proc_connector_processes", comm=comm)}
        assert not alive, f"{self.mode}: dead, but still in the table"

    def _difference(self, counter: str, shown: Counter[Row], truth: Counter[Row]) -> str:
        return f"{self.mode} {counter}: missing {dict(truth - shown)}, too much {dict(shown - truth)}"


def _without_comm(rows: Counter[Row]) -> Counter[Row]:
    sums: Counter[Row] = Counter()
    for row, n in rows.items():
        sums[row[1:]] += n
    return sums


def spawn_some(exporter: Watcher, programs: Programs) -> World:
    """Run processes of a new world to their ends, and wait until the exporter shows the truth about them."""
    world = World(exporter, programs)
    program = world.program("some")
    if not exporter.scrape().names_execs_of_the_killed():
        world.may_be_unknown.add("execs")
    world.spawn(*[(program, "exit", str(code)) for code in (0, 1, 42, 255)], (program, "signal", "9", "0"))
    world.check()
    return world
