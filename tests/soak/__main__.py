"""Storms of hostile names at full rate for a long time: what the exporter weighs, and whether it tells the truth.

`PYTHONPATH=tests python -m soak --minutes 30`, as root. With --attacks, all attacks of attacks.py go on meanwhile.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from attack.cpu_cgroup import cpu_cgroup
from kernel.harness import Exporter, Programs, Scrape, wait_until
from soak.attacked import MOST_DESCRIPTORS, Attacked, attacked

HERE = Path(__file__).parent
SVG = HERE.parents[1] / "docs" / "images" / "soak.svg"

_PROCESSES_PER_STORM = 20_000
_PARALLEL = 64
_SAMPLE_SECONDS = 2.0
# Until caches are full and the limits of series are reached.
_WARM_UP_SHARE = 0.2
_SCRAPE_SECONDS = 1.0
# Two CPUs are shared with the storms and with all who attack. Prometheus waits so long by default.
_SCRAPE_SECONDS_ATTACKED = 10.0
# Of programs that are not the storms', on a quiet host.
_OTHER_FAILURES = 1000
# Of these programs, and the last renames of the attack.
_OTHER_MESSAGES = 5000
# What each process of a storm sends: it is forked, renames itself and exits. The storm itself keeps its name.
_OF_A_PROCESS = ("fork", "comm", "exit")
_OF_A_STORM = ("fork", "exit")
# What is not of the storms and the attack, of all messages.
_OTHERS_SHARE = 0.01
_MIB = 1 << 20
LOST = "proc_connector_lost_messages_total"


class Sample(NamedTuple):
    """The exporter at one moment.

    Attributes:
        descriptors: The open ones, each with what it is of.
    """

    seconds: float
    rss_bytes: int
    descriptors: frozenset[tuple[str, str]]
    scrape_seconds: float
    events: float
    lost: float
    series: int


class Storms(threading.Thread):
    """Storm after storm, under a uid of their own, until told to end.

    Attributes:
        ended: Processes that did, and how many of them failed.
    """

    def __init__(self, program: Path, uid: int, cpu: Sequence[str]) -> None:
        super().__init__()
        self._command = [*cpu, str(program)]
        self._uid = uid
        self._ends = threading.Event()
        self.ended = 0
        self.failed = 0
        self.storms = 0

    @property
    def sent(self) -> int:
        """How many messages of these kinds the kernel has sent of the processes that ended."""
        return len(_OF_A_STORM) * self.storms + len(_OF_A_PROCESS) * (self.ended - self.storms)

    def run(self) -> None:
        while not self._ends.is_set():
            self.storms += 1
            words = ["churn", str(_PROCESSES_PER_STORM), str(_PARALLEL), str(self.storms)]
            output = subprocess.run(
                [*self._command, *words], user=self._uid, group=self._uid, check=True, stdout=subprocess.PIPE
            ).stdout
            ended, well = map(int, output.split())
            # The storm's own end is one too.
            self.ended += ended + 1
            self.failed += ended - well

    def end(self) -> None:
        self._ends.set()
        self.join()


def open_descriptors(pid: int) -> frozenset[tuple[str, str]]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add((link.name, str(link.readlink())))
    return frozenset(found)


def samples(exporter: Exporter, seconds: float) -> Iterator[Sample]:
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        status = Path(f"/proc/{exporter.process.pid}/status").read_text(encoding="utf-8")
        asked = time.monotonic()
        scrape = exporter.scrape_raw()
        took = time.monotonic() - asked
        told = Scrape("".join(line for line in scrape.splitlines(keepends=True) if "comm=" not in line))
        yield Sample(
            now,
            int(status.partition("VmRSS:")[2].split()[0]) << 10,
            open_descriptors(exporter.process.pid),
            took,
            told.total("proc_connector_events_total"),
            told.total(LOST),
            scrape.count("\nproc_connector_"),
        )
        time.sleep(max(0.0, _SAMPLE_SECONDS - (time.monotonic() - asked)))


def verdicts(taken: list[Sample], *, attacked: bool = False) -> Iterator[tuple[str, str, bool]]:
    """Yield (promise, figure, whether it was kept)."""
    warm = taken[int(len(taken) * _WARM_UP_SHARE) :]
    fit = statistics.linear_regression([s.seconds for s in warm], [s.rss_bytes for s in warm])
    grown = fit.slope * (warm[-1].seconds - warm[0].seconds)
    noise = statistics.pstdev(s.rss_bytes - fit.intercept - fit.slope * s.seconds for s in warm)
    figure = f"{grown / _MIB:+.2f} MiB from {warm[0].rss_bytes / _MIB:.1f} MiB, noise {noise / _MIB:.2f} MiB"
    yield "RSS after warm-up does not grow beyond noise", figure, grown <= max(3 * noise, _MIB)
    if attacked:
        most = max(len(s.descriptors) for s in taken)
        yield "file descriptors have a limit, and are given back", f"at most {most}", most <= MOST_DESCRIPTORS
    else:
        # A look can meet a connection that is about to be closed, or a file of /proc that is being read.
        stay = {first.descriptors & second.descriptors for first, second in pairwise(warm)}
        yield "file descriptors stay the same", " or ".join(map(str, sorted(map(len, stay)))), len(stay) == 1
    worst = max(s.scrape_seconds for s in taken)
    most_seconds = _SCRAPE_SECONDS_ATTACKED if attacked else _SCRAPE_SECONDS
    yield (
        f"each scrape is answered within {most_seconds:.0f} s",
        f"slowest {worst:.3f} s of {len(taken)}",
        worst < most_seconds,
    )
    if not attacked:
        yield "nothing is lost", f"{taken[-1].lost:.0f} of {taken[-1].events:,.0f} events", not taken[-1].lost


def balance(sent: int, received: int, lost: int) -> tuple[str, str, bool]:
    """Return the verdict on all messages: each of so many was received, or counted as lost."""
    figure = f"{received:,} received and {lost:,} lost of {sent:,} of the storms and the attack"
    most = sent + sent * _OTHERS_SHARE + _OTHER_MESSAGES
    return "each message is received, or counted as lost", figure, sent <= received + lost <= most


def messages(scrape: Scrape) -> int:
    """How many messages of the storms' kinds were received."""
    return int(sum(scrape.get("proc_connector_events_total", event=kind) for kind in _OF_A_PROCESS))


def truth(exporter: Exporter, storms: Storms, received_before: int) -> Iterator[tuple[str, str, bool]]:
    """Yield the verdicts on what was counted, once all of it is: each failure, or the loss of a message."""

    def failed_and_lost(scrape: Scrape) -> tuple[int, int]:
        # What is folded has no uid, but nothing else on a quiet host fails by the thousand.
        return scrape.rows("nonzero_exits").total(), int(scrape.get(LOST, socket="connector"))

    def received_and_lost(scrape: Scrape) -> tuple[int, int]:
        return messages(scrape) - received_before, int(scrape.get(LOST, socket="connector"))

    sent = storms.sent + (exporter.renames if isinstance(exporter, Attacked) else 0)
    wait_until(
        lambda: received_and_lost(exporter.scrape()),
        lambda counts: sum(counts) >= sent,
        f"each of {sent:,} messages is received, or its loss is counted",
    )
    scrape = exporter.scrape()
    failed, lost = failed_and_lost(scrape)
    figure = f"{failed:,} counted, {storms.failed:,} of {storms.ended:,} ends of the storms; {lost:,} events lost"
    missing = storms.failed - failed
    yield "every failure is counted once, or lost", figure, -_OTHER_FAILURES <= missing <= lost
    yield balance(sent, *received_and_lost(scrape))


def draw(taken: list[Sample], path: Path) -> None:
    """Draw memory and scrapes over time."""
    # Here, so that the run itself needs no more than the tests do.
    import matplotlib as mpl  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    mpl.use("svg")
    from matplotlib import pyplot as plt  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    minutes = [s.seconds / 60 for s in taken]
    figure, (memory, scrape) = plt.subplots(2, 1, sharex=True, figsize=(8, 4.5), layout="constrained")
    memory.plot(minutes, [s.rss_bytes / _MIB for s in taken], color="tab:blue")
    memory.set(ylabel="RSS, MiB", ylim=(0, None))
    scrape.plot(minutes, [s.scrape_seconds * 1000 for s in taken], color="tab:orange", linewidth=0.8)
    scrape.set(ylabel="scrape, ms", xlabel="minutes of storm", ylim=(0, None))
    rate = taken[-1].events / taken[-1].seconds
    memory.set_title(
        f"{taken[-1].events:,.0f} events, {rate:,.0f} a second; {taken[-1].series:,} samples a scrape"
    )
    for axes in (memory, scrape):
        axes.grid(visible=True, alpha=0.3)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


@contextlib.contextmanager
def started(folder: Path, *, attacks: bool) -> Iterator[Exporter]:
    """Run the exporter while the block runs, as it is to be measured."""
    with attacked(folder) if attacks else Exporter("taskstats", folder / "log").closing() as exporter:
        yield exporter


def measure(exporter: Exporter, seconds: float) -> list[Sample]:
    """Take samples for so long, under attack if that is what the exporter is for."""
    taken = []
    with exporter.under_attack() if isinstance(exporter, Attacked) else contextlib.nullcontext():
        for sample in samples(exporter, seconds):
            taken.append(sample)
            sys.stderr.write(f"{sample.seconds:7.0f} s, RSS {sample.rss_bytes / _MIB:.1f} MiB\n")
    return taken


def main(argv: list[str]) -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--output", type=Path, metavar="FILE.svg", help=f"default without --attacks: {SVG}")
    parser.add_argument("--attacks", action="store_true", help="attack it meanwhile, in every way that is known")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        binary = folder / "programs"
        source = HERE.parent / "kernel" / "programs.c"
        subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", str(binary), str(source)], check=True)
        programs = Programs(folder, binary)
        uid = programs.new_uid()
        shared = cpu_cgroup("storms") if arguments.attacks else contextlib.nullcontext(())
        with shared as cpu, started(folder, attacks=arguments.attacks) as exporter:
            received_before = messages(exporter.scrape())
            storms = Storms(programs.link("churn"), uid, cpu)
            storms.start()
            try:
                taken = measure(exporter, arguments.minutes * 60)
            finally:
                storms.end()
            rows = list(verdicts(taken, attacked=arguments.attacks))
            if isinstance(exporter, Attacked) and exporter.cgroup is not None:
                figure = (
                    f"at most {exporter.cgroup.peak_mib:.0f} MiB with the kernel's buffers, in a memory cgroup"
                )
                rows.append(("it lives in the chart's memory", figure, not exporter.cgroup.kills))
            rows += truth(exporter, storms, received_before)
            exporter.stop()
    output = arguments.output or (None if arguments.attacks else SVG)
    if output is not None:
        draw(taken, output)
    for promise, figure, kept in rows:
        sys.stdout.write(f"| {promise} | {figure} | {'kept' if kept else '**broken**'} |\n")
    return 0 if all(kept for _, _, kept in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
