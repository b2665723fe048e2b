"""A real Prometheus stores what only some ask for: births of series, native histograms, and exemplars."""

import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel.harness import Exporter, Programs, World, running, wait_until
from kernel.prometheus import JOB, scraping

LIFETIME = "proc_connector_process_lifetime_seconds"
BUCKET = 2**0.25
"""How far apart the bounds of a native bucket are."""

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no prometheus here (Debian: apt-get install prometheus)"
)


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    # Other tests may run beside this one, and fill what there is by default.
    flags = ("--web.created-timestamps", "--web.native-histograms", "--web.exemplars", "--limit.series", "100000")
    with running("taskstats", tmp_path_factory.mktemp("exporter") / "log", *flags) as made:
        yield made


def test_prometheus_stores_native_histograms_that_are_right_within_a_bucket(
    exporter: Exporter, programs: Programs, tmp_path: Path
) -> None:
    world = World(exporter, programs)
    sleeper = world.program("sleeper")
    with scraping(exporter.port, tmp_path, "--enable-feature=native-histograms") as prometheus:
        ended = [child.seconds for child in world.spawn(*11 * [(sleeper, "sleep", "40", "0")])]
        selector = f'{LIFETIME}{{comm="{sleeper.name}"}}'

        def number(expr: str) -> float:
            result = prometheus.get("query", query=expr)["result"]
            return float(result[0]["value"][1]) if result else 0

        wait_until(lambda: number(f"histogram_count({selector})"), lambda n: n == 11, "all ends are stored")
        assert prometheus.get("query", query=f"{LIFETIME}_bucket")["result"] == [], "2.42 stores one kind only"
        median = number(f"histogram_quantile(0.5, {selector})")
        truth = statistics.median(ended)
        # The harness sees a little more than the kernel: from before the fork to after the wait.
        assert truth / BUCKET / 1.2 < median < truth * BUCKET


def test_prometheus_stores_when_a_series_was_born(exporter: Exporter, programs: Programs, tmp_path: Path) -> None:
    world = World(exporter, programs)
    with scraping(exporter.port, tmp_path) as prometheus:
        failing = world.program("failing")
        before = time.time()
        world.spawn([failing, "exit", "3"])
        query = f'proc_connector_nonzero_exits_created{{comm="{failing.name}"}}'
        (series,) = wait_until(
            lambda: prometheus.get("query", query=query)["result"], bool, "the series and its birth are stored"
        )
        born = float(series["value"][1])
        assert before - 0.001 <= born <= float(series["value"][0])
        assert series["metric"]["exit_code"] == "3"


def test_prometheus_stores_the_last_process_that_failed_as_an_exemplar(
    exporter: Exporter, programs: Programs, tmp_path: Path
) -> None:
    world = World(exporter, programs)
    failing = world.program("failing")
    # 2.42 asks for OpenMetrics by itself.
    with scraping(exporter.port, tmp_path, "--enable-feature=exemplar-storage") as prometheus:
        selector = f'proc_connector_nonzero_exits_total{{comm="{failing.name}"}}'

        def stored() -> list[dict[str, Any]]:
            now = time.time()
            series = prometheus.get("query_exemplars", query=selector, start=str(now - 600), end=str(now + 60))
            return [exemplar for one in series for exemplar in one["exemplars"]]

        before = time.time()
        ((first,), (second,)) = (world.spawn([failing, "exit", "3"]) for _ in range(2))
        exemplars = wait_until(stored, lambda found: str(second.pid) in pids(found), "the last one is stored")
        # The first one too, if a scrape came in between.
        assert pids(exemplars)[-1] == str(second.pid)
        assert set(pids(exemplars)) <= {str(first.pid), str(second.pid)}
        last = exemplars[-1]
        assert set(last["labels"]) <= {"pid", "ppid"}
        assert before <= last["timestamp"] + 0.001 <= time.time() + 0.001
        assert float(last["value"]) == 1
        # As often as it is scraped, it is one exemplar.
        scrapes = f'count_over_time(up{{job="{JOB}"}}[10m])'
        count = int(prometheus.get("query", query=scrapes)["result"][0]["value"][1])
        wait_until(
            lambda: int(prometheus.get("query", query=scrapes)["result"][0]["value"][1]),
            lambda now: now >= count + 3,
            "three scrapes more",
        )
        assert stored() == exemplars


def pids(exemplars: list[dict[str, Any]]) -> list[str]:
    return [exemplar["labels"]["pid"] for exemplar in exemplars]
