"""A real Prometheus server that scrapes one exporter."""

import contextlib
import json
import subprocess
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from kernel.harness import ask, free_port, wait_until

JOB = "proc-connector"


class Prometheus:
    """The server's API.

    Args:
        port: Where it listens on the loopback.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of /api/v1/."""
        answer = ask(self.port, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        assert answer.status == 200, answer.body
        return json.loads(answer.body)["data"]

    def health(self) -> list[tuple[str, str]] | str:
        """Return health and last error of every target, or why there is no answer."""
        try:
            return [(t["health"], t["lastError"]) for t in self.get("targets")["activeTargets"]]
        except (OSError, AssertionError) as error:  # it does not listen yet, or is not ready
            return str(error)


@contextlib.contextmanager
def scraping(
    exporter_port: int,
    folder: Path,
    *flags: str,
    labels: Mapping[str, str] | None = None,
    job: Mapping[str, Any] | None = None,
) -> Iterator[Prometheus]:
    """Run a server that scrapes a port of the loopback every second, and does so already.

    Args:
        exporter_port: The port.
        folder: For its files.
        flags: Its flags.
        labels: Of the target, as discovery finds them.
        job: What else the configuration of the job has.
    """
    port = free_port()
    config = folder / "prometheus.yml"
    target = {"targets": [f"127.0.0.1:{exporter_port}"], "labels": dict(labels or {})}
    jobs = [{"job_name": JOB, "static_configs": [target], **(job or {})}]
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
        *flags,
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            server = Prometheus(port)
            wait_until(server.health, lambda health: health == [("up", "")], "prometheus scrapes the exporter")
            yield server
        finally:
            process.terminate()
