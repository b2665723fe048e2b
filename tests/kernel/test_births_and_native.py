"""A real Prometheus stores what only some ask for: births of series, and native histograms."""

import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.harness import Exporter, Programs, World, running, wait_until
from kernel.prometheus import scraping

LIFETIME = "proc_connector_process_lifetime_seconds"
BUCKET = 2**0.25
"""How far apart the bounds of a native bucket are."""

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no prometheus here (Debian: apt-get install prometheus)"
)


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    # Other tests may run beside this one, and fill what there is by default.
    flags = ("--web.created-timestamps", "--web.native-histograms", "--limit.series", "100000")
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
