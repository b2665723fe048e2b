"""`make demo`: the exporter, a Prometheus with the rules of dashboards/rules, and a workload to look at.

The rules of this demonstration are in a hurry: every window of theirs is so many times shorter, so that an alert
that waits for a quarter of an hour fires within the minute. Nothing else is changed.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from dashboards.generate.rules import alerts_yaml, recording_yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "dashboards" / "rules"
JOB = "proc-connector-exporter"
PATIENCE_SECONDS = 30

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def hurried(rules: str, factor: float) -> str:
    """Return rules whose every duration is shorter by the factor. Names of metrics stay as they are."""

    def shorter(match: re.Match[str]) -> str:
        milliseconds = round(int(match[1]) * _UNITS[match[2]] * 1000 / factor)
        return f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s"

    rules = re.sub(r"(?<=[\[ ])(\d+)([smhd])\b", shorter, rules)
    return re.sub(r"(?<=time\(\) - )(\d+)", lambda match: f"{int(match[1]) / factor:g}", rules)


def configuration(rules: Sequence[Path], targets: dict[str, str], *, alertmanager: str | None = None) -> str:
    """Return a Prometheus configuration that looks every second.

    Args:
        rules: Files of rules.
        targets: The address to scrape by the node's name, or by the job's if it is not this exporter's.
        alertmanager: Where alerts go.
    """
    jobs: dict[str, list[str]] = {}
    for name, address in targets.items():
        job, _, node = name.rpartition("/")
        jobs.setdefault(job or JOB, []).append(
            f"      - {{targets: ['{address}'], labels: {{instance: '{node}'}}}}\n"
        )
    alerting = (
        f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alertmanager}']}}]}}]}}\n"
        if alertmanager
        else ""
    )
    scrapes = "".join(f"  - job_name: {job}\n    static_configs:\n{''.join(lines)}" for job, lines in jobs.items())
    return (
        "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{', '.join(map(repr, map(str, rules)))}]\n{alerting}scrape_configs:\n{scrapes}"
    )


def free_port(wish: int) -> int:
    """Return the wanted port, or another one if it is in use."""
    for port in (wish, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise SystemExit("no free port on 127.0.0.1")


@contextlib.contextmanager
def started(command: Sequence[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of the demonstration, and end it."""
    with log.open("wb") as output:
        # Ctrl-C is for this program alone, which ends the others in order.
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, process_group=0
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the address answers with 200; end with the program's own words if it never does."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):  # noqa: S310  # the loopback
            return
        time.sleep(0.1)
    raise SystemExit(f"{url} does not answer:\n{log.read_text(errors='replace')}")


def main() -> None:
    """Start everything, say where to look, and wait."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1e7, help="how long (default: until Ctrl-C)")
    parser.add_argument("--hurry", type=float, default=60, help="how many times shorter the rules' windows are")
    parser.add_argument("--prometheus-port", type=int, default=9090, help="another one is taken if it is in use")
    options = parser.parse_args()
    if shutil.which("prometheus") is None:
        raise SystemExit("make demo needs prometheus: apt-get install prometheus, or see deploy/demo/compose.yaml")
    if os.geteuid() != 0:
        print("not root: names of short-lived processes may be <unknown> (before Linux 6.6 nothing works)")
    # A script that starts this in the background has it ignore SIGINT.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    with (
        contextlib.suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory(prefix="proc-connector-demo-") as name,
        contextlib.ExitStack() as running,
    ):
        folder = Path(name)
        exporter, prometheus = free_port(10061), free_port(options.prometheus_port)
        texts = {
            "recording.yaml": recording_yaml(),
            "alerts.yaml": alerts_yaml("", failures=f"http://127.0.0.1:{exporter}"),
        }
        for file, text in texts.items():
            (folder / file).write_text(hurried(text, options.hurry))
        config = folder / "prometheus.yml"
        rules = [folder / "recording.yaml", folder / "alerts.yaml"]
        config.write_text(configuration(rules, {socket.gethostname(): f"127.0.0.1:{exporter}"}))
        for program, url, command in (
            (
                "exporter",
                f"http://127.0.0.1:{exporter}/-/ready",
                [sys.executable, "-m", "exporter", "--web.listen-address", f"127.0.0.1:{exporter}"],
            ),
            (
                "prometheus",
                f"http://127.0.0.1:{prometheus}/-/ready",
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{prometheus}",
                    "--log.level=warn",
                ],
            ),
        ):
            log = folder / f"{program}.log"
            wait_until_ready(url, running.enter_context(started(command, log)), log)
        running.enter_context(
            started([sys.executable, Path(__file__).with_name("workload.py")], folder / "workload.log")
        )
        print(
            f"failures     http://127.0.0.1:{exporter}/failures, where the alerts' failures_url leads\n"
            f"metrics      http://127.0.0.1:{exporter}/metrics\n"
            f"alerts       http://127.0.0.1:{prometheus}/alerts\n"
            f"queries      http://127.0.0.1:{prometheus}/graph?g0.tab=0&g0.range_input=5m&g0.expr="
            "sum%20by%20(comm)%20(rate(proc_connector_forks_total%5B10s%5D))\n"
            f"dashboards   import dashboards/*.json into a Grafana, or: docker compose -f "
            f"deploy/demo/compose.yaml up\nThe rules' windows are {options.hurry:g} times shorter here. A fork "
            f"storm comes after half a minute. "
            "Ctrl-C ends everything.",
            flush=True,
        )
        time.sleep(options.seconds)


if __name__ == "__main__":
    main()
