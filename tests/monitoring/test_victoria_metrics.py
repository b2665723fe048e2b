"""VictoriaMetrics and vmalert give the same answers as Prometheus: to the rules and to the panels.

All samples are of the past, so that vmalert evaluates two and a half hours within half a minute (`-replay.*`).
"""

import math
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import Any, NamedTuple

import pytest
from kernel.harness import free_port
from monitoring import promtool, victoria_metrics
from monitoring.panels import Asked, interpolate, queries, windows
from monitoring.stories import JOB, STORIES, Fired, Story
from monitoring.test_counts import CASES, NODE, Case
from monitoring.test_increments import MINUTES as LASTS
from monitoring.test_increments import WORLDS, core_dumps_only, nodes_of, notation
from monitoring.victoria_metrics import Answering, VictoriaMetrics

from dashboards.generate import recordings
from deploy.demo.demo import started, wait_until_ready
from deploy.fleet.__main__ import record_page
from deploy.fleet.pages import Fleet
from deploy.fleet.remote_write import STALE, Series, send

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(shutil.which(program) is None for program in (*victoria_metrics.PROGRAMS, "prometheus")),
        reason="no VictoriaMetrics here (Debian: apt-get install victoria-metrics prometheus)",
    ),
]

MINUTES = 150
NODES = 3
SHOWN_SECONDS = 3600
REMEMBERS = {
    "two failures after the restart of the exporter are no loop, whatever ended well",
    "a failure soon after the restart of an exporter that had seen one before is not the first",
    "a failure soon after a rollout is not the first if the old pod had seen one",
    "what is named stays named, whatever else happens",
}
"""What needs a rule that reads its own last value: one that is replayed has none yet."""
SHORT = {
    str(number): story
    for number, story in enumerate(STORIES)
    if max(story.firing) <= MINUTES and story.name not in REMEMBERS
}
"""By the node that each happens on."""
OF_CASES = {f"case{number}": case for number, case in enumerate(CASES)}
OFTEN_SECONDS = 15
OF_WORLDS = {
    f"world{number}": dict(nodes_of(world, OFTEN_SECONDS, f"world{number}")) for number, world in enumerate(WORLDS)
}
"""Nodes that are scraped four times a minute, by the world that they live in."""

NOT_IN_THE_CAPTURE = {
    # The rule that remembers nodes reads its own last value.
    "fleet: Missing nodes A",
    *(f"node: Traced processes in the shown time {ref}" for ref in "ABC"),
    "failures: Killed or dumped in the shown time B",
    "exporter: Lost messages, per point A",
    "exporter: Fill of the receive buffers A",
    "exporter: Ends without an event, over 5 min A",
    "exporter: Drain time, 99 % A",
}
"""What a panel has no series of: nothing like it happened, or a replay has no sockets to drain."""

Answer = dict[frozenset[tuple[str, str]], dict[float, float]]
"""Times and numbers by labels."""

_LINE = re.compile(r"^(\w+)(\{.*\})? (\S+)$")


def written(series: str, values: str, began_seconds: int, step_seconds: int = 60) -> Series:
    """Return a series that is written as for promtool."""
    # Of all metrics of the stories only this one is a time.
    shift = began_seconds if series.startswith("process_start_time_seconds") else 0
    samples = [
        # A sum with the marker of an end is another NaN.
        ((began_seconds + seconds) * 1000, value if math.isnan(value) else value + shift)
        for seconds, value in zip(
            range(0, 60 * MINUTES + 1, step_seconds), promtool.expanded(values), strict=False
        )
        if value is not None
    ]
    return Series(promtool.labels_of(series), samples)


def of_case(node: str, case: Case) -> Iterator[tuple[str, str]]:
    counter = {f'proc_connector_coredumps_total{{{NODE},comm="x",uid="0"}}': case.values}
    for series, values in (case.world | counter).items():
        yield series.replace('instance="a"', f'instance="{node}"'), values


def of_fleet(page: str, began_seconds: int) -> list[Series]:
    """Return what scrapes of three busy nodes bring; one of them goes at last."""
    fleet = Fleet(page, began_seconds - 600)
    found = defaultdict[str, list[tuple[int, float]]](list)
    for minute in range(MINUTES + 1):
        seconds = began_seconds + 60 * minute
        for node in range(NODES):
            gone = node == NODES - 1 and minute > MINUTES - 20
            where = f'instance="fleet-{node}",pod="p{node}"'
            found[f'up{{job="{JOB}",{where}}}'].append((seconds * 1000, float(not gone)))
            lines = fleet.page(node, seconds).splitlines() if minute <= MINUTES - 19 or not gone else []
            lines += [f"scrape_samples_scraped {len(lines)}", f"node_vmstat_oom_kill {minute // 7}"]
            for line in lines:
                name, labels, value = _LINE.findall(line)[0]
                job = "node" if name.startswith("node_") else JOB
                series = f'{name}{{job="{job}",{where}{"," * bool(labels)}{labels[1:-1]}}}'
                found[series].append((seconds * 1000, STALE if gone else float(value)))
    return [Series(_honored(series), samples) for series, samples in found.items()]


def _honored(series: str) -> dict[str, str]:
    """Return the labels of a series: the scraped ones go before the target's, and what is empty is none."""
    return {label: value for label, value in promtool.labels_of(series).items() if value}


class Replayed(NamedTuple):
    """What vmalert recorded."""

    server: VictoriaMetrics
    began_seconds: int
    fleet: list[Series]
    """What was scraped of the fleet."""

    def firing(self, node: str) -> dict[int, set[Fired]]:
        """Return the alerts that fire for a node of a story, by minute."""
        found = defaultdict[int, set[Fired]](set)
        for labels, points in self.server.exported(f'ALERTS{{alertstate="firing",instance=~"|.-{node}"}}'):
            kept = (row for row in labels.items() if row[0] not in {"__name__", "alertstate", "alertgroup"})
            fired = tuple(sorted(kept))
            for time_ms, _ in points:
                found[(time_ms // 1000 - self.began_seconds) // 60].add(fired)
        return found

    def counted(self, node: str) -> Iterator[tuple[float, float]]:
        """Return the minutes and the increments of the core dumps of a node."""
        for labels, points in self.server.exported(f'{recordings.COREDUMPS_EACH}{{instance="{node}"}}'):
            if "cluster" not in labels:
                yield from (((time_ms / 1000 - self.began_seconds) / 60, value) for time_ms, value in points)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replayed]:
    began = int(time.time()) // 60 * 60 - 4 * 3600
    folder = tmp_path_factory.mktemp("victoria-metrics")
    fleet = of_fleet(record_page(folder), began)
    stories = (
        (row["series"], row["values"]) for node, story in SHORT.items() for row in promtool.series_of(node, story)
    )
    cases = (row for node, case in OF_CASES.items() for row in of_case(node, case))
    with victoria_metrics.running(folder) as server:
        server.write(written(*row, began) for row in chain(stories, cases))
        server.write(fleet)
        server.replay(promtool.FILES, began, began + 60 * MINUTES, folder)
        yield Replayed(server, began, fleet)


@pytest.mark.parametrize(("node", "story"), SHORT.items(), ids=[story.name for story in SHORT.values()])
def test_vmalert_fires_what_prometheus_fires(node: str, story: Story, replayed: Replayed) -> None:
    firing = replayed.firing(node)
    for minute, alerts in story.firing.items():
        expected = {tuple(sorted(promtool.on_node(node, alert).items())) for alert in alerts}
        assert firing[minute] == expected, minute


@pytest.mark.parametrize(("node", "case"), OF_CASES.items(), ids=[case.name for case in CASES])
def test_increments_that_vmalert_records_add_up_to_what_was_counted(
    node: str, case: Case, replayed: Replayed
) -> None:
    end = float(case.at.partition("m")[0]) + (0.5 if case.at.endswith("30s") else 0)
    shown = [count for minute, count in replayed.counted(node) if end - case.shown_minutes < minute <= end]
    assert sum(shown) == case.counted


@pytest.fixture(scope="module")
def often(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    """Run a server with the increments of nodes that are scraped four times a minute."""
    began = int(time.time()) // 60 * 60 - 4 * 3600
    folder = tmp_path_factory.mktemp("often")
    with victoria_metrics.running(folder) as server:
        for scraped in chain.from_iterable(nodes.values() for nodes in OF_WORLDS.values()):
            server.write(
                written(series, notation(values), began, OFTEN_SECONDS)
                for series, values in scraped.series.items()
            )
        server.replay([core_dumps_only(folder)], began, began + 60 * (LASTS + 3), folder)
        yield server


@pytest.mark.parametrize("world", OF_WORLDS, ids=[world.name for world in WORLDS])
def test_increments_of_nodes_that_are_scraped_often_add_up(world: str, often: VictoriaMetrics) -> None:
    found = defaultdict[tuple[str, str], float](float)
    for labels, points in often.exported(f'{recordings.COREDUMPS_EACH}{{instance=~"{world}-.*"}}'):
        found[labels["instance"], labels["comm"]] += sum(value for _, value in points)
    assert found == {
        (node, comm): count
        for node, scraped in OF_WORLDS[world].items()
        for comm, count in scraped.truth.items()
        if count
    }


@pytest.fixture(scope="module")
def prometheus(replayed: Replayed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    """Run a Prometheus with the same samples, those that vmalert recorded among them."""
    recorded = list(_recorded(replayed))
    replayed.server.write(Series(one.labels, [s for s in one.samples if math.isnan(s[1])]) for one in recorded)
    folder = tmp_path_factory.mktemp("prometheus")
    port, log, config = free_port(), folder / "log", folder / "prometheus.yml"
    config.write_text("{}")
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--log.level=warn",
    ]
    with started(command, log) as process:
        wait_until_ready(f"http://127.0.0.1:{port}/-/ready", process, log)
        # It takes no sample that is an hour older than another one.
        for begin_ms in range(replayed.began_seconds * 1000, int(time.time() * 1000), 1_800_000):
            send(f"http://127.0.0.1:{port}/api/v1/write", _within(replayed.fleet + recorded, begin_ms))
        yield Answering(f"http://127.0.0.1:{port}")


def _within(series: Iterable[Series], begin_ms: int) -> Iterator[Series]:
    """Return the samples of half an hour."""
    for labels, samples in series:
        if found := [sample for sample in samples if begin_ms <= sample[0] < begin_ms + 1_800_000]:
            yield Series(labels, found)


def _recorded(replayed: Replayed) -> Iterator[Series]:
    """Return what was recorded of the fleet, with markers where it ends.

    Prometheus and a vmalert that lives write them; one that replays does not.
    """
    raw = {series.labels["__name__"] for series in replayed.fleet}
    last_ms = (replayed.began_seconds + 60 * MINUTES) * 1000
    for labels, points in replayed.server.exported('{instance=~"fleet-.*"}'):
        if labels["__name__"] not in raw:
            samples = []
            for (time_ms, value), (next_ms, _) in pairwise([*points, (0, 0.0)]):
                samples.append((time_ms, value))
                if next_ms != time_ms + 60_000 and time_ms < last_ms:
                    samples.append((time_ms + 60_000, STALE))
            yield Series(labels, samples)


@pytest.mark.parametrize("asked", list(queries()), ids=str)
def test_a_panel_shows_what_it_shows_of_prometheus(
    asked: Asked, replayed: Replayed, prometheus: Answering
) -> None:
    # Between two samples, as a person's clock is.
    end = replayed.began_seconds + 60 * MINUTES + 30
    values = windows(shown_seconds=SHOWN_SECONDS, step_seconds=60) | {"instance": "fleet-.*"}
    expr = interpolate(asked.expr, values)
    answers = []
    for server in prometheus, replayed.server:
        if asked.target.get("instant"):
            found = server.query("query", query=expr, time=end, nocache=1)
        else:
            span = {"start": end - SHOWN_SECONDS, "end": end, "step": 60, "nocache": 1}
            found = server.query("query_range", query=expr, **span)
        answers.append(_by_labels(found))
    ours, theirs = answers
    assert bool(ours) == (str(asked) not in NOT_IN_THE_CAPTURE)
    is_exact = "rate(" not in expr and "increase(" not in expr
    # Of two programs that have as much of something either may be the last of the first six.
    if expr.startswith("topk("):
        assert [pytest.approx(values) for values in _by_time(ours)] == _by_time(theirs)
    elif "topk(" in expr:
        assert len(theirs) == len(ours)
    else:
        assert set(theirs) == set(ours)
    if is_exact and not expr.startswith("topk("):
        both = set(theirs) & set(ours)
        assert both or not ours
        assert {labels: pytest.approx(ours[labels]) for labels in both} == {
            labels: theirs[labels] for labels in both
        }


def _by_time(answer: Answer) -> list[list[float]]:
    """Return the numbers at each time, the lowest first."""
    found = defaultdict[float, list[float]](list)
    for points in answer.values():
        for at, value in points.items():
            found[at].append(value)
    return [sorted(values) for _, values in sorted(found.items())]


def _by_labels(found: list[dict[str, Any]]) -> Answer:
    """Return the numbers of an answer by series and time."""
    made = {}
    for series in found:
        points = series.get("values") or [series["value"]]
        numbers = {float(at): number for at, value in points if not math.isnan(number := float(value))}
        labels = {label: value for label, value in series["metric"].items() if label != "__name__"}
        if numbers:
            made[frozenset(labels.items())] = numbers
    return made
