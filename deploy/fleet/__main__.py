"""`make fleet NODES=1000`: a thousand simulated exporters, a Prometheus with all rules, and what it costs.

One process serves the pages of all nodes on the loopback. After some minutes the program prints how many series
and samples there are, what the rules and the queries of the dashboard Fleet take, and how much memory the server
has; then it ends. With --victoria-metrics the same goes through vmagent into VictoriaMetrics, with vmalert for the
rules.
"""

import argparse
import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web

from deploy.demo.demo import JOB, ROOT, RULES, free_port, started, wait_until_ready
from deploy.fleet.history import history
from deploy.fleet.pages import Fleet
from deploy.fleet.remote_write import send

_CAPTURE = ROOT / "examples" / "busy-minute.capture"
_SHOWN_SECONDS = 6 * 3600
_STEP_SECONDS = 60
_MOST_QUERY_SECONDS = 60
_FIRING = 'count(ALERTS{alertstate="firing"})'
_ONE_IS_DOWN_OF = 400
"""Nodes, so that *Fleet* has something to say of missing ones. All have a past."""


def record_page(folder: Path) -> str:
    """Return the page of an exporter that replays the example."""
    port, log = free_port(0), folder / "exporter.log"
    command: list[str | Path] = [sys.executable, "-m", "exporter", "--replay", _CAPTURE, "--speed", "0"]
    with started([*command, f"--web.listen-address=127.0.0.1:{port}"], log) as process:
        wait_until_ready(f"http://127.0.0.1:{port}/-/ready", process, log)
        before: list[str] = []
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                page = str(answer.read().decode())
            ends = [line for line in page.splitlines() if line.startswith("proc_connector_exits_total{")]
            # All of the capture has been replayed.
            if ends and ends == before:
                return page
            before = ends
            time.sleep(0.5)


def serve(fleet: Fleet, port: int) -> None:
    """Answer /NODE with the node's page, for ever, in a thread of its own."""

    async def answer(request: web.Request) -> web.Response:
        if int(request.match_info["node"]) % _ONE_IS_DOWN_OF == _ONE_IS_DOWN_OF - 1:
            return web.Response(status=503)
        text = fleet.page(int(request.match_info["node"]), time.time())
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{node:[0-9]+}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()

    threading.Thread(target=asyncio.run, args=(run(),), daemon=True).start()


def labels_of(nodes: int) -> list[dict[str, str]]:
    """Return the labels of all nodes' targets beside the job."""
    return [{"instance": f"node-{node:04}", "pod": f"{JOB}-{node:05x}"} for node in range(nodes)]


def remember(nodes: int, urls: Sequence[str]) -> None:
    """Write what was recorded in the six hours before into servers, each by the address of its API."""
    targets = [{"job": JOB} | labels for labels in labels_of(nodes)]
    now = int(time.time())
    for piece in history(targets, now - _SHOWN_SECONDS, now):
        for url in urls:
            send(f"{url}/api/v1/write", piece)


def configuration(nodes: int, port: int, own_port: int, rules: Sequence[Path]) -> str:
    """Return a Prometheus configuration that scrapes all nodes once a minute."""
    targets = [
        {
            "targets": [f"127.0.0.1:{port}"],
            "labels": {"__metrics_path__": f"/{node}"} | labels,
        }
        for node, labels in enumerate(labels_of(nodes))
    ]
    return json.dumps(
        {
            # vmagent has no rules, and refuses what is for them.
            "global": {"scrape_interval": "60s"} | ({"evaluation_interval": "60s"} if rules else {}),
            **({"rule_files": list(map(str, rules))} if rules else {}),
            "scrape_configs": [
                {"job_name": JOB, "honor_labels": True, "static_configs": targets},
                {
                    "job_name": "itself",
                    "scrape_interval": "5s",
                    "static_configs": [{"targets": [f"127.0.0.1:{own_port}"]}],
                },
            ],
        }
    )


def queries() -> Iterator[tuple[str, str, bool]]:
    """Return title, expression and whether it is instant, of each query of the dashboard Fleet."""
    dashboard = json.loads((ROOT / "dashboards" / "fleet.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"].replace("$__range", f"{_SHOWN_SECONDS}s").replace("$job", JOB)
            expr = expr.replace("$instance", ".+")
            yield f"{panel['title']} {target['refId']}", expr, bool(target.get("instant"))


class Timed(NamedTuple):
    """A query, how long it took, and what it gave."""

    title: str
    seconds: float
    answer: Any


class Server:
    """A Prometheus, or what answers like one.

    Args:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str, **parameters: object) -> Any:
        """Return the data of an answer, or the error."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=_MOST_QUERY_SECONDS) as answer:  # the loopback
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            return {"result": f"error: {error.read().decode()[:200]}"}

    def value(self, expr: str) -> float:
        """Return the one number that a query gives, 0 if there is none."""
        result = self.get("query", query=expr)["result"]
        return float(result[0]["value"][1]) if result and not isinstance(result, str) else 0.0

    def ask(self, now: float) -> list[Timed]:
        """Time each query of the dashboard Fleet over six hours."""
        asked = []
        for title, expr, instant in queries():
            began = time.monotonic()
            if instant:
                data = self.get("query", query=expr, time=now)
            else:
                span = {"start": now - _SHOWN_SECONDS, "end": now, "step": _STEP_SECONDS}
                data = self.get("query_range", query=expr, **span)
            asked.append(Timed(title, time.monotonic() - began, data["result"]))
        return asked


def report(server: Server, pid: int, minutes: float) -> None:
    """Print the figures of a Prometheus."""
    groups = server.get("rules")["groups"]
    print(f"after {minutes:g} minutes, Prometheus:")
    print(f"  nodes up            {server.value(f'sum(up{{job={json.dumps(JOB)}}})'):,.0f}")
    print(f"  series              {server.value('prometheus_tsdb_head_series'):,.0f}")
    print(f"  samples/s           {server.value('rate(prometheus_tsdb_head_samples_appended_total[2m])'):,.0f}")
    print(f"  resident memory     {_resident_bytes(pid) / 2**30:.2f} GiB")
    used = server.value("60 * rate(process_cpu_seconds_total[4m])")
    print(f"  CPU                 {used:.1f} s per minute")
    for group in groups:
        failed = [rule["lastError"] for rule in group["rules"] if rule["health"] != "ok"]
        print(f"  rules {group['name']:28} {group['evaluationTime']:.2f} s {failed or ''}")
    for title, seconds, answer in server.ask(time.time()):
        found = answer if isinstance(answer, str) else f"{len(answer)} series"
        print(f"  query {title:40} {seconds * 1000:7.0f} ms  {found}")


def minutes_late(counts: Sequence[float], theirs: float) -> int | None:
    """Return for how many minutes one server has had more than another one has now.

    Args:
        counts: What the first one had, minute by minute until now.
        theirs: What the other one has.

    Returns:
        The minutes, None if the first has never had as few.
    """
    return next((late for late, count in enumerate(reversed(counts)) if count <= theirs), None)


def compare(prometheus: Server, victoria: Server, now: float) -> None:
    """Print what VictoriaMetrics answers otherwise, and how long its queries took."""
    span = {"start": now - _STEP_SECONDS * 15, "end": now, "step": _STEP_SECONDS}
    [ours] = prometheus.get("query_range", query=f"{_FIRING} or vector(0)", **span)["result"]
    counts = [float(value) for _, value in ours["values"]]
    late = minutes_late(counts, theirs := victoria.value(_FIRING))
    print(
        f"  firing alerts: {counts[-1]:g} in Prometheus, {theirs:g} by vmalert, "
        f"as in Prometheus {'more than 15' if late is None else late} minutes ago: an alert reads recordings of "
        "recordings, each of which vmalert sees one evaluation later"
    )
    for mine_asked, its_asked in zip(prometheus.ask(now), victoria.ask(now), strict=True):
        same = its_asked.answer
        if not isinstance(its_asked.answer, str):
            mine, its = _labels(mine_asked.answer), _labels(its_asked.answer)
            same = (
                "same series"
                if mine == its
                else f"{len(mine)} series here, {len(its)} there: {sorted(mine ^ its)[:1]}"
            )
        print(f"  VictoriaMetrics {mine_asked.title:40} {its_asked.seconds * 1000:7.0f} ms  {same}")


def _labels(answer: Any) -> set[str]:
    return {json.dumps(series["metric"], sort_keys=True) for series in answer}


def _resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) * 1024


def _victoria_metrics(running: ExitStack, folder: Path, port: int) -> None:
    log = folder / "vm.log"
    data = [f"-storageDataPath={folder / 'vm'}", f"-httpListenAddr=127.0.0.1:{port}"]
    process = running.enter_context(started(["victoria-metrics", *data, "-search.latencyOffset=0s"], log))
    wait_until_ready(f"http://127.0.0.1:{port}/health", process, log)


def _vmagent_and_vmalert(running: ExitStack, folder: Path, config: Path, port: int) -> None:
    here = f"http://127.0.0.1:{port}"
    agent, alerts = folder / "vmagent.log", folder / "vmalert.log"
    for command, log in (
        (
            [
                "vmagent",
                f"-promscrape.config={config}",
                f"-remoteWrite.url={here}/api/v1/write",
                f"-remoteWrite.tmpDataPath={folder / 'vmagent'}",
                f"-httpListenAddr=127.0.0.1:{free_port(0)}",
            ],
            agent,
        ),
        (
            [
                "vmalert",
                *(f"-rule={RULES / name}" for name in ("recording.yaml", "alerts.yaml")),
                f"-datasource.url={here}",
                f"-remoteWrite.url={here}",
                f"-remoteRead.url={here}",
                # No alert is to be sent: nothing listens there.
                f"-notifier.url=http://127.0.0.1:{free_port(0)}",
                "-evaluationInterval=60s",
                f"-httpListenAddr=127.0.0.1:{free_port(0)}",
            ],
            alerts,
        ),
    ):
        running.enter_context(started(command, log))


def main() -> None:
    """Run for some minutes, and say what it cost."""
    parser = argparse.ArgumentParser(prog="make fleet", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=8, help="how long to scrape before the figures are taken")
    parser.add_argument(
        "--victoria-metrics", action="store_true", help="beside it, vmagent, vmalert and their store"
    )
    options = parser.parse_args()
    needed = ["prometheus", *(["victoria-metrics", "vmagent", "vmalert"] if options.victoria_metrics else [])]
    if missing := [program for program in needed if shutil.which(program) is None]:
        raise SystemExit(
            f"make fleet needs {', '.join(missing)} (Debian: apt-get install prometheus victoria-metrics)"
        )
    with tempfile.TemporaryDirectory(prefix="proc-connector-fleet-") as name, ExitStack() as running:
        run(Path(name), running, options.nodes, options.minutes, victoria_metrics=options.victoria_metrics)


def run(folder: Path, running: ExitStack, nodes: int, minutes: float, *, victoria_metrics: bool) -> None:
    """Start everything, wait, and print the figures."""
    port, own, other = free_port(0), free_port(0), free_port(0)
    serve(Fleet(record_page(folder), time.time() - 3600), port)
    config, log = folder / "prometheus.yml", folder / "prometheus.log"
    # Nothing is scraped yet: what was long before comes first.
    config.write_text("{}")
    store = [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{own}"]
    command = ["prometheus", f"--config.file={config}", *store, "--web.enable-remote-write-receiver"]
    process = running.enter_context(started([*command, "--log.level=warn"], log))
    wait_until_ready(f"http://127.0.0.1:{own}/-/ready", process, log)
    urls = [f"http://127.0.0.1:{own}"]
    if victoria_metrics:
        _victoria_metrics(running, folder, other)
        urls.append(f"http://127.0.0.1:{other}")
    remember(nodes, urls)
    config.write_text(configuration(nodes, port, own, [RULES / "recording.yaml", RULES / "alerts.yaml"]))
    process.send_signal(signal.SIGHUP)
    if victoria_metrics:
        scrapes = folder / "vmagent.yml"
        scrapes.write_text(configuration(nodes, port, other, []))
        _vmagent_and_vmalert(running, folder, scrapes, other)
    print(f"{nodes} nodes; Prometheus is {urls[0]}, for {minutes:g} minutes", flush=True)
    try:
        process.wait(60 * minutes)
        raise SystemExit(f"Prometheus ended:\n{log.read_text()[-2000:]}")
    except subprocess.TimeoutExpired:
        report(Server(own), process.pid, minutes)
    if victoria_metrics:
        compare(Server(own), Server(other), time.time())


if __name__ == "__main__":
    main()
