"""VictoriaMetrics with given samples, and vmalert that evaluates the rules over their time, as fast as it can."""

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from kernel.harness import free_port

from deploy.demo.demo import started, wait_until_ready
from deploy.fleet.remote_write import Series, send

PROGRAMS = ("victoria-metrics", "vmalert")


class Answering:
    """A server with Prometheus' API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, path: str, **parameters: object) -> list[dict[str, Any]]:
        """Return the series of an answer."""
        series: list[dict[str, Any]] = json.loads(self._get(f"/api/v1/{path}", **parameters))["data"]["result"]
        return series

    def _get(self, path: str, **parameters: object) -> str:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=60) as answer:  # noqa: S310  # the loopback
            return str(answer.read().decode())


class VictoriaMetrics(Answering):
    """A running server."""

    def write(self, series: Iterable[Series]) -> None:
        """Store samples, so that queries find them."""
        send(f"{self.url}/api/v1/write", series)
        self.flush()

    def flush(self) -> None:
        """Let queries find what was stored."""
        self._get("/internal/force_flush")

    def exported(self, selector: str) -> Iterator[tuple[dict[str, str], list[tuple[int, float]]]]:
        """Return the labels and the stored samples, with times in milliseconds, of all series of a selector."""
        for line in self._get("/api/v1/export", **{"match[]": selector}).splitlines():
            series = json.loads(line)
            # A marker of an end comes as null.
            points = zip(series["timestamps"], series["values"], strict=True)
            yield series["metric"], [(time_ms, float(value)) for time_ms, value in points if value is not None]

    def replay(self, rules: Sequence[Path], first_seconds: int, last_seconds: int, folder: Path) -> None:
        """Let vmalert evaluate rules once a minute of the past, and store what they record.

        Args:
            rules: Files of rules, in the order in which they need one another.
            first_seconds: The first time.
            last_seconds: The last one.
            folder: For files of some of the rules.
        """
        begin, end = (
            datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            for seconds in (first_seconds, last_seconds)
        )
        file = folder / "stage.yaml"
        for stage in _stages(rules):
            file.write_text(yaml.safe_dump({"groups": [{"name": "stage", "interval": "1m", "rules": stage}]}))
            command = [
                "vmalert",
                f"-rule={file}",
                f"-datasource.url={self.url}",
                f"-remoteWrite.url={self.url}",
                f"-replay.timeFrom={begin}",
                f"-replay.timeTo={end}",
                "-replay.rulesDelay=1ms",
                "-replay.disableProgressBar",
                "-datasource.queryStep=60s",
                f"-httpListenAddr=127.0.0.1:{free_port()}",
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
            self.flush()


def _stages(rules: Sequence[Path]) -> list[list[dict[str, Any]]]:
    """Divide rules so that none needs one of its own stage: vmalert does not wait until a record can be read."""
    stages: list[list[dict[str, Any]]] = [[]]
    for group in chain.from_iterable(yaml.safe_load(path.read_text())["groups"] for path in rules):
        for rule in group["rules"]:
            if any(before.get("record", "ALERTS") in rule["expr"] for before in stages[-1]):
                stages.append([])
            stages[-1].append(rule)
    return stages


@contextmanager
def running(folder: Path) -> Iterator[VictoriaMetrics]:
    """Run a server on data of its own."""
    port, log = free_port(), folder / "victoria-metrics.log"
    command = [
        "victoria-metrics",
        f"-storageDataPath={folder / 'data'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-search.disableCache",
        # A vmalert that lives marks where what it records ends; one that replays does not. What is between two
        # samples is found all the same.
        "-search.maxStalenessInterval=45s",
    ]
    with started(command, log) as process:
        wait_until_ready(f"http://127.0.0.1:{port}/health", process, log)
        yield VictoriaMetrics(f"http://127.0.0.1:{port}")
