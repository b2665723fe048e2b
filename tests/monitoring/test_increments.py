"""Increments add up to the truth at any interval of scrapes, whichever fail and whenever exporters restart.

Exporters are simulated: events at random moments, scrapes of which some fail. The truth is what the last scrape of
each life has brought, and nothing of a past that nobody scraped.
"""

import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from monitoring.stories import BUILD, JOB
from monitoring.test_counts import Expected, answer

from dashboards.generate import recordings

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here (Debian: apt-get install prometheus)"
)

MINUTES = 60
PROGRAMS = 8
NODES = 4
_SEEN_BEFORE_SECONDS = -100_000
_QUIET_SECONDS = 180
"""Before what is known of a past that nobody scraped."""

Fails = Callable[[random.Random, int], bool]
"""Whether the scrape of a second fails."""


class Life(NamedTuple):
    """A run of an exporter."""

    begin: int
    end: int
    pod: str = "p"


class Scraped(NamedTuple):
    """What a Prometheus saw of a node."""

    series: dict[str, list[float | None]]
    """At each scrape; None where there is no sample: Prometheus then marks the end of the series."""
    truth: dict[str, float]
    """How often each program's event happened, as far as scrapes know."""


def watch(node: str, seed: int, step: int, lives: list[Life], fails: Fails, *, gaps: tuple[int, int]) -> Scraped:
    """Simulate a node.

    Args:
        node: Its name.
        seed: For the moments of events and failures.
        step: The interval of scrapes, in seconds.
        lives: One after another.
        fails: Which scrapes fail.
        gaps: The shortest and the longest mean time between two events of a program.
    """
    chance = random.Random(seed)  # noqa: S311
    times = range(0, 60 * MINUTES + 1, step)
    series: dict[str, list[float | None]] = {}
    truth = dict.fromkeys((f"p{number}" for number in range(PROGRAMS)), 0.0)
    failed = {second for second in times if fails(chance, second)}

    def sample(name: str, at: int, value: float) -> None:
        series.setdefault(name, [None] * len(times))[at // step] = value

    for life in lives:
        seen = [second for second in times if life.begin <= second < life.end and second not in failed]
        target = f'job="{JOB}",instance="{node}",pod="{life.pod}"'
        is_old = life.begin == 0
        for second in seen:
            started = _SEEN_BEFORE_SECONDS if is_old else life.begin
            sample(f"process_start_time_seconds{{{target}}}", second, started)
            sample(f"proc_connector_exporter_build_info{{{target},{BUILD}}}", second, 1)
        for comm in truth:
            mean = chance.uniform(*gaps)
            moment, moments = float(life.begin + is_old * _QUIET_SECONDS), []
            while (moment := moment + chance.expovariate(1 / mean)) < life.end:
                moments.append(moment)
            # Half of the programs of an old exporter have been there before.
            past = 100 if is_old and chance.random() < 0.5 else 0
            counts = {second: past + sum(event <= second for event in moments) for second in seen}
            for second, count in counts.items():
                if count:
                    sample(f'proc_connector_coredumps_total{{{target},comm="{comm}",uid="0"}}', second, count)
            if seen:
                truth[comm] += counts[seen[-1]] - (counts[seen[0]] if is_old else 0)
    return Scraped(series, truth)


def notation(values: list[float | None]) -> str:
    """Return values as promtool reads them."""
    words, was_there = [], False
    for value in values:
        words.append(f"{value:g}" if value is not None else "stale" if was_there else "_")
        was_there = value is not None
    return " ".join(words)


def never(chance: random.Random, second: int) -> bool:
    return False


def one_in(number: int) -> Fails:
    return lambda chance, second: chance.random() < 1 / number


def before_evaluations(chance: random.Random, second: int) -> bool:
    """Fail the scrapes that an evaluation would look up, and one of three others."""
    return second % 60 in range(25, 41) or chance.random() < 1 / 3


def in_gaps(chance: random.Random, second: int) -> bool:
    """Fail for up to 12 minutes."""
    return second // 60 % 20 in range(4, 16) or (second > 60 and chance.random() < 1 / 10)


ONE_LIFE = [Life(0, 60 * MINUTES + 1)]


def restarting(step: int, seed: int, *, pods: bool = False) -> list[Life]:
    """Return lives of some minutes, with pauses of up to a minute and a half."""
    chance, begin = random.Random(seed), 0  # noqa: S311
    lives: list[Life] = []
    while begin < 60 * MINUTES:
        end = begin + chance.randrange(400, 1000)
        lives.append(Life(begin, end, f"p{len(lives)}" if pods else "p"))
        begin = end + chance.choice([1, 5, step, 90])
    return lives


class World(NamedTuple):
    """What happens to the nodes."""

    name: str
    fails: Fails
    restarts: bool = False
    pods: bool = False


WORLDS = (
    World("all scrapes go well", never),
    World("one scrape of a hundred fails", one_in(100)),
    World("one scrape of three fails", one_in(3)),
    World("scrapes fail just before evaluations", before_evaluations),
    World("nobody scrapes for minutes", in_gaps),
    World("exporters restart", never, restarts=True),
    World("rollouts", never, restarts=True, pods=True),
)


def nodes_of(world: World, step: int, name: str = "a") -> Iterator[tuple[str, Scraped]]:
    for number in range(NODES):
        lives = restarting(step, number, pods=world.pods) if world.restarts else ONE_LIFE
        # Counters of a life that restarts are high at its end, so that they are told from those of the next one.
        gaps = (5, 40) if world.restarts else (60, 3000)
        yield f"{name}-{number}", watch(f"{name}-{number}", number, step, lives, world.fails, gaps=gaps)


def core_dumps_only(folder: Path) -> Path:
    """Return a file with the rule of these increments: all rules would take their time."""
    (rule,) = (rule.rule() for rule in recordings.INCREMENTS if rule.record == recordings.COREDUMPS_EACH)
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "increments", "interval": "1m", "rules": [rule]}]}))
    return file


def asked(folder: Path, nodes: Iterable[Scraped], expected: Expected, step: int, more: dict[str, str]) -> str:
    """Return what promtool has to say of expressions over the increments of these nodes."""
    series = {name: notation(values) for scraped in nodes for name, values in scraped.series.items()}
    # The last scrapes are looked at two minutes later.
    return answer(
        folder, series | more, expected, f"{MINUTES + 3}m", rules=[core_dumps_only(folder)], interval=f"{step}s"
    )


WHOLE = f"sum by (instance, comm) (sum_over_time({recordings.COREDUMPS_EACH}[{MINUTES + 10}m]))"
each_step = pytest.mark.parametrize("step", [15, 30, 60])


@each_step
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_increments_add_up_to_what_scrapes_saw(world: World, step: int, tmp_path: Path) -> None:
    nodes = dict(nodes_of(world, step))
    truth = [
        (f'{{instance="{node}",comm="{comm}"}}', count)
        for node, scraped in nodes.items()
        for comm, count in scraped.truth.items()
        if count
    ]
    assert len(truth) > NODES * PROGRAMS / 2
    assert asked(tmp_path, nodes.values(), {WHOLE: truth}, step, {}) == ""


@each_step
@pytest.mark.parametrize("pods", [False, True], ids=["restarts", "rollouts"])
@pytest.mark.parametrize("gaps", [(5, 40), (60, 3000)], ids=["many events", "few events"])
def test_restarts_amid_failed_scrapes_count_nothing_twice_and_lose_little(
    gaps: tuple[int, int], pods: bool, step: int, tmp_path: Path
) -> None:
    """What is lost is of the old life, within the minute of its end; see dashboards/rules/README.md."""
    nodes = {
        f"a-{number}": watch(
            f"a-{number}", number, step, restarting(step, number, pods=pods), one_in(5), gaps=gaps
        )
        for number in range(NODES)
    }
    truth = {
        f'truth{{instance="{node}",comm="{comm}"}}': f"{count:g}x500"
        for node, scraped in nodes.items()
        for comm, count in scraped.truth.items()
    }
    expected: Expected = {
        f"count({WHOLE} > truth) or vector(0)": [("{}", 0)],
        f"sum({WHOLE}) > bool 0.97 * sum(truth)": [("{}", 1)],
    }
    assert asked(tmp_path, nodes.values(), expected, step, truth) == ""
