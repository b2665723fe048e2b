"""Dashboards and alerts as people see them: workload, exporters, Prometheus, Alertmanager, a webhook."""

import contextlib
import itertools
import json
import math
import os
import re
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from kernel.harness import DEADLINE_SECONDS, Exporter, Programs, ask, free_port, wait_until
from kernel.memory_cgroup import memory_cgroup
from monitoring.panels import interpolate, queries, windows

from dashboards.generate import recordings, rules
from dashboards.generate.queries import counted
from deploy.demo import demo

HURRY = 60
STEP_SECONDS = 2
CROWD = 100
BURST = 8000
LESS_HURRY = 5
"""The burst takes seconds, and all of it has to be within the windows of the rules."""
PROGRAMS = {
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "prometheus-node-exporter": "prometheus-node-exporter",
}
WORKLOAD = Path(demo.__file__).with_name("workload.py")
ROOT = WORKLOAD.parents[2]

Fired = tuple[str, str, str, str]
"""Alert, node, program, signal."""

DID_IT: set[Fired] = {
    ("ProcConnectorExporterDown", "gone", "", ""),
    ("ProcConnectorExporterRestarting", "restless", "", ""),
    ("ProcConnectorCanaryLate", "blind", "", ""),
    ("ProcConnectorMessagesLost", "blind", "", ""),
    ("ProcConnectorSeriesLimitReached", "blind", "", ""),
    ("ProcConnectorConfigReloadFailed", "blind", "", ""),
    ("ProcessForkStorm", "exact", "", ""),
    ("ProcessCrashLooping", "exact", "payments", ""),
    ("ProcessFailureRatioJumped", "exact", "mailer", ""),
    ("ProcessFirstFailure", "exact", "nightly", ""),
    ("ProcessCrashed", "exact", "web-worker", "SIGSEGV"),
    ("ProcessCrashed", "exact", "web-worker", "SIGABRT"),
    ("ProcessKilled", "exact", "importer", "SIGKILL"),
    ("ProcessOutOfMemory", "exact", "hoarder", ""),
    ("ProcessCoreDumps", "exact", "", ""),
}
ONLY_PENDING: set[Fired] = {
    ("ProcConnectorUnattributedHigh", "blind", "", ""),
}
"""What has to last longer than this workload is sure to."""
NEVER = {"ProcConnectorExporterAbsent"}
"""What needs a fleet of nothing."""
BY_CHANCE = {"ProcConnectorEndsMissed"}
"""What lasts for a few scrapes here; the rule tests drive it."""
BY_A_BURST = {"ProcessMoreSuspects"}
"""What needs more names than this workload has."""

pytestmark = pytest.mark.slow


class Webhook(socketserver.ThreadingTCPServer):
    """Takes what Alertmanager sends."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.extend(json.loads(body)["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Prometheus:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, **parameters: str | float) -> Any:
        answer = ask(self.port, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        assert answer.status == 200, answer.body
        return json.loads(answer.body)["data"]

    def is_ready(self) -> bool:
        try:
            return bool(self.get("targets")["activeTargets"])
        except (OSError, AssertionError):  # it does not listen yet, or is not ready
            return False


class Monitored(Prometheus):
    """Two exporters, a node that is down, and what Prometheus knows of them."""

    def __init__(self, port: int, webhook: Webhook) -> None:
        super().__init__(port)
        self.webhook = webhook
        self.began = time.time()
        self.ended = 0.0

    @property
    def variables(self) -> dict[str, str]:
        """What Grafana puts for its variables if it shows all of this."""
        return windows(shown_seconds=math.ceil(self.ended - self.began), step_seconds=STEP_SECONDS)

    def series(self, expr: str, *, instant: bool = True) -> list[dict[str, Any]]:
        """Return what a query gives that is a number, as of the end."""
        if instant:
            result = self.get("query", query=expr, time=self.ended)["result"]
        else:
            span = {"start": self.began, "end": self.ended, "step": STEP_SECONDS}
            result = self.get("query_range", query=expr, **span)["result"]
        values = ((series, series.get("values") or [series["value"]]) for series in result)
        return [series for series, points in values if any(value != "NaN" for _, value in points)]

    def alerts(self, *states: str) -> set[Fired]:
        """Return the alerts that have been in one of these states."""
        expr = f'max_over_time(ALERTS{{alertstate=~"{"|".join(states)}"}}[1h])'
        found = (series["metric"] for series in self.get("query", query=expr)["result"])
        return {(m["alertname"], m.get("instance", ""), m.get("comm", ""), m.get("signal", "")) for m in found}


@pytest.fixture(scope="module")
def monitored(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not here (Debian: apt-get install {' '.join(PROGRAMS[program] for program in missing)})")
    folder = tmp_path_factory.mktemp("monitored")
    prometheus, alertmanager, node_exporter, restless = (free_port() for _ in range(4))
    with contextlib.ExitStack() as running:
        webhook = running.enter_context(Webhook())
        threading.Thread(target=webhook.serve_forever, daemon=True).start()
        running.callback(webhook.shutdown)
        exact = Exporter("taskstats", folder / "exact.log", "--attribution", "taskstats")
        running.callback(exact.kill)
        config = folder / "config.yml"
        config.write_text("exclude: {comm: [grep]}")
        # Without CAP_NET_ADMIN its receive buffer is small, its canary is as good as off, and a crowd is too much
        # for its series.
        blind = Exporter(
            "procfs",
            folder / "blind.log",
            *("--attribution", "procfs", "--exec-names", "events", "--canary.interval", "3600"),
            *("--limit.series", "1000", "--config.file", str(config)),
            prefix=("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"),
        )
        running.callback(blind.kill)
        thresholds = {
            **rules.THRESHOLDS,
            "canary_late_seconds": rules.Threshold(30, "above the exact one's interval"),
            "unattributed_ratio": rules.Threshold(0, "any"),
            "named_programs": rules.Threshold(100, "what else happens on this machine must not take the names"),
        }
        files = {
            "recording.yaml": rules.recording_yaml(),
            "alerts.yaml": rules.alerts_yaml("docs/runbooks", thresholds),
        }
        for name, text in files.items():
            (folder / name).write_text(demo.hurried(text, HURRY))
        targets = {
            "exact": f"127.0.0.1:{exact.port}",
            "blind": f"127.0.0.1:{blind.port}",
            "gone": f"127.0.0.1:{free_port()}",
            "restless": f"127.0.0.1:{restless}",
            "node/exact": f"127.0.0.1:{node_exporter}",
        }
        (folder / "prometheus.yml").write_text(
            demo.configuration(
                [folder / name for name in files], targets, alertmanager=f"127.0.0.1:{alertmanager}"
            )
        )
        (folder / "alertmanager.yml").write_text(
            "route: {receiver: webhook, group_by: ['...'], group_wait: 0s, group_interval: 1s}\n"
            f"receivers: [{{name: webhook, webhook_configs: [{{url: '{webhook.url}'}}]}}]\n"
        )
        for command in (
            [
                "prometheus-alertmanager",
                f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{alertmanager}",
                "--cluster.listen-address=",
            ],
            [
                "prometheus-node-exporter",
                "--collector.disable-defaults",
                "--collector.vmstat",
                f"--web.listen-address=127.0.0.1:{node_exporter}",
            ],
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{prometheus}",
                "--log.level=warn",
            ],
        ):
            running.enter_context(demo.started(command, folder / f"{command[0]}.log"))
        world = Monitored(prometheus, webhook)
        wait_until(world.is_ready, bool, "prometheus is ready")
        running.enter_context(demo.started([sys.executable, WORKLOAD], folder / "workload.log"))
        _crowd(folder)
        _run_out_of_memory(programs, folder / "hoarder")
        _overflow(blind)
        _restart_again_and_again(world, restless, folder / "restless.log")
        config.write_text("exclude: [")
        blind.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: (DID_IT - world.alerts("firing")) | (ONLY_PENDING - world.alerts("firing", "pending")),
            lambda quiet: not quiet,
            "every alert fires once",
            patience_seconds=4 * DEADLINE_SECONDS,
        )
        world.ended = time.time()
        yield world


def _crowd(folder: Path) -> None:
    """Run a hundred programs, each with a name of its own."""
    for number in range(CROWD):
        program = folder / f"crowd-{number}"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        subprocess.run([program], check=True)


def _run_out_of_memory(programs: Programs, hoarder: Path) -> None:
    """Let a program take more memory than it may."""
    os.link(programs.binary, hoarder)
    with memory_cgroup() as cgroup:
        assert subprocess.run([hoarder, "eat", cgroup.procs], check=False).returncode == -signal.SIGKILL


# Each write is a COMM event: quickly more than fit into the receive buffer of an exporter without CAP_NET_ADMIN,
# and less than fit into the other one's.
_RENAMES = """
with open("/proc/self/comm", "w") as comm:
    for number in range(20_000):
        comm.seek(0)
        comm.write(f"renamed-{number % 2}")
        comm.flush()
"""


def _overflow(blind: Exporter) -> None:
    """Let an exporter sleep while more happens than its receive buffer holds, ends of processes among it."""
    os.kill(blind.process.pid, signal.SIGSTOP)
    try:
        subprocess.run([sys.executable, "-c", _RENAMES], check=True)
        for _ in range(100):
            subprocess.run(["true"], check=True)
    finally:
        os.kill(blind.process.pid, signal.SIGCONT)


def _restart_again_and_again(world: Monitored, port: int, log: Path) -> None:
    """Let Prometheus see an exporter that does not live long."""
    seen: set[str] = set()

    def new_starts() -> set[str]:
        found = world.get("query", query='process_start_time_seconds{instance="restless"}')["result"]
        return {series["value"][1] for series in found} - seen

    for _ in range(5):
        with Exporter("procfs", log, "--attribution", "procfs", port=port).closing() as exporter:
            seen |= wait_until(new_starts, bool, "a new start of the exporter is scraped")
            exporter.stop()


def test_every_query_of_every_panel_returns_data(monitored: Monitored) -> None:
    def hurried(expr: str) -> str:
        """Return a query that looks as often as increments are recorded: they are there for one evaluation."""
        return interpolate(expr, monitored.variables).replace(":1m]", f":{60 / HURRY:g}s]")

    empty = [
        str(asked)
        for asked in queries()
        if not OF_GROUPS.search(asked.expr)
        and not monitored.series(hurried(asked.expr), instant=bool(asked.target.get("instant")))
    ]
    assert empty == []


def test_dashboards_count_what_was_run(monitored: Monitored) -> None:
    labels = f'job="{demo.JOB}",instance="exact",comm=~"crowd-.*"'
    expr = interpolate(f"sum by (comm) ({counted(recordings.ENDS_EACH, labels)})", monitored.variables)
    told = {series["metric"]["comm"]: float(series["value"][1]) for series in monitored.series(expr)}
    assert told == {f"crowd-{number}": 1 for number in range(CROWD)}


OF_GROUPS = re.compile(r'(pod|container|unit)!=""')
"""What a panel asks only of exporters with --group.by, which these are not: test_victoria_metrics.py asks it."""
QUIET_DAY = {
    recordings.OOM_KILLS_EACH,
    recordings.own_each("proc_connector_expired_total"),
    recordings.own_each("proc_connector_malformed_messages_total"),
    recordings.own_each("proc_connector_resubscriptions_total"),
    recordings.own_each("proc_connector_lost_ends_total"),
    recordings.own_each("proc_connector_unknown_lifetimes_total"),
}
"""Increments of what does not happen here, or not for sure; the rule tests drive one such rule for all."""


def test_every_recording_rule_returns_data(monitored: Monitored) -> None:
    records = [recording.record for recording in recordings.all_recordings()]
    # An increment is there for one evaluation: a query in steps passes by it.
    silent = {record for record in records if not monitored.series(f"max_over_time({record}[1h])")}
    assert silent <= QUIET_DAY


def test_prometheus_evaluates_every_rule_without_complaint(monitored: Monitored) -> None:
    suspects = len([alert for alert in rules.all_alerts() if alert.suspects]) + 1
    evaluated = [rule for group in monitored.get("rules")["groups"] for rule in group["rules"]]
    assert len(evaluated) == len(recordings.all_recordings()) + len(rules.all_alerts()) + suspects
    assert [(rule["name"], rule["lastError"]) for rule in evaluated if rule["health"] != "ok"] == []


def test_the_alert_that_nobody_is_there_fires_where_nobody_is(monitored: Monitored) -> None:
    (absent,) = (alert for alert in rules.all_alerts() if alert.name in NEVER)
    expr = absent.rule(rules.THRESHOLDS, "")["expr"]
    assert monitored.get("query", query=expr)["result"] == []
    assert monitored.get("query", query=expr, time=monitored.began - 3600)["result"] != []


def test_every_alert_is_driven_once() -> None:
    driven = {name for name, *_ in DID_IT | ONLY_PENDING} | NEVER | BY_CHANCE | BY_A_BURST
    assert driven == {alert.name for alert in rules.all_alerts()}


def test_alerts_leave_alone_who_did_nothing(monitored: Monitored) -> None:
    fired = monitored.alerts("firing")
    assert fired >= DID_IT
    assert not {alert for alert in fired if alert[:2] == ("ProcConnectorMessagesLost", "exact")}
    looping = {comm for name, _, comm, _ in fired if name == "ProcessCrashLooping"}
    assert not looping & {"tool", "mailer", "grep", "backup", "nightly"}
    assert not {comm for name, _, comm, _ in fired if name == "ProcessFirstFailure"} & {"grep", "tool"}


def test_an_alert_reaches_a_webhook(monitored: Monitored) -> None:
    def crashes() -> list[dict[str, Any]]:
        return [
            alert
            for alert in list(monitored.webhook.received)
            if alert["labels"].get("alertname") == "ProcessCrashed" and alert["labels"].get("instance") == "exact"
        ]

    alert = wait_until(crashes, bool, "Alertmanager sends the crash to the webhook")[0]
    assert alert["labels"]["comm"] == "web-worker"
    assert alert["annotations"]["summary"] == f"web-worker on exact died of {alert['labels']['signal']}"
    assert alert["annotations"]["runbook_url"] == "docs/runbooks/ProcessCrashed.md"


def test_a_burst_of_8000_failing_names_is_no_more_than_20_alerts(tmp_path: Path, programs: Programs) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus here (Debian: apt-get install prometheus)")
    with contextlib.ExitStack() as running:
        # Room for all names of the burst, and for what else happens on this machine.
        flags = ("--attribution", "taskstats", "--limit.series", "30000")
        exporter = Exporter("taskstats", tmp_path / "exporter.log", *flags)
        running.callback(exporter.kill)
        for name, text in {"recording.yaml": rules.recording_yaml(), "alerts.yaml": rules.alerts_yaml("")}.items():
            (tmp_path / name).write_text(demo.hurried(text, LESS_HURRY))
        files = [tmp_path / "recording.yaml", tmp_path / "alerts.yaml"]
        config, port = tmp_path / "prometheus.yml", free_port()
        hasty = demo.configuration(files, {"exact": f"127.0.0.1:{exporter.port}"})
        # A page of a hundred thousand series takes longer than a second where all CPUs are busy.
        config.write_text(
            hasty.replace("scrape_interval: 1s, scrape_timeout: 1s", "scrape_interval: 10s").replace(
                "evaluation_interval: 1s", "evaluation_interval: 5s"
            )
        )
        server = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        running.enter_context(demo.started(server, tmp_path / "prometheus.log"))
        prometheus = Prometheus(port)
        wait_until(prometheus.is_ready, bool, "prometheus is ready")
        each = f'max_over_time({recordings.ENDS_EACH}{{instance="exact"}}[1h])'
        wait_until(lambda: prometheus.get("query", query=each)["result"], bool, "increments are recorded")
        subprocess.run([programs.link("burst"), "crash_as", str(BURST)], check=True)
        # A step for each evaluation: more would be a load that a busy host cannot carry.
        suspects = f'max_over_time(count({rules.SUSPECTS}{{instance="exact"}})[10m:5s])'
        more = 'ALERTS{alertname="ProcessMoreSuspects", alertstate="firing", instance="exact"}'
        alerts = 'max_over_time(count(ALERTS{instance="exact"})[10m:5s])'

        def number(expr: str) -> int:
            result = prometheus.get("query", query=expr)["result"]
            return int(result[0]["value"][1]) if result else 0

        patience = 4 * DEADLINE_SECONDS
        wait_until(lambda: number(suspects), lambda n: n >= BURST, "the burst is seen", patience_seconds=patience)
        wait_until(lambda: number(more), bool, "one alert says how many others", patience_seconds=patience)
        assert 4 <= number(alerts) <= 20


def test_the_demonstration_shows_what_it_promises_and_ends_on_an_interrupt() -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus here (Debian: apt-get install prometheus)")
    with subprocess.Popen(
        [sys.executable, "-m", "deploy.demo.demo", "--seconds", "120", "--prometheus-port", str(free_port())],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            pages = ["failures", "metrics", "alerts", "queries"]
            addresses = dict(line.split()[:2] for line in itertools.islice(process.stdout, len(pages)))
            assert list(addresses) == pages
            ports = [urllib.parse.urlsplit(addresses[what]).port or 0 for what in ("alerts", "metrics")]
            prometheus = Prometheus(ports[0])
            births = 'proc_connector_execs_total{job="proc-connector-exporter", comm="tool"}'
            wait_until(
                lambda: prometheus.get("query", query=births)["result"], bool, "the demonstration's programs count"
            )
            wait_until(
                lambda: failures_behind_alerts(prometheus),
                bool,
                "the link of an alert opens its program's failures",
                patience_seconds=3 * DEADLINE_SECONDS,
            )
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_SECONDS) == 0
        finally:
            process.terminate()  # not to be killed: it has to end what it started
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            ask(port, "/")


def failures_behind_alerts(prometheus: Prometheus) -> set[str]:
    """Follow the link of each alert that fires for a program; return those programs that have failures there."""
    programs = set()
    for alert in prometheus.get("alerts")["alerts"]:
        comm, url = alert["labels"].get("comm"), alert["annotations"].get("failures_url")
        if alert["state"] != "firing" or not comm or not url:
            continue
        link = urllib.parse.urlsplit(url)
        assert link.port is not None
        answer = ask(link.port, f"{link.path}?{link.query}", Accept="application/json")
        assert answer.status == 200, answer.body
        shown = {row["comm"] for row in json.loads(answer.body)["failures"]}
        assert shown <= {comm}
        programs |= shown
    return programs


def test_the_workload_ends_with_its_children() -> None:
    """Its programs are in a folder of their own, which is gone afterwards, too."""
    # Not tmp_path: pytest's folders are closed to other users, and some of the jobs run under another uid.
    with tempfile.TemporaryDirectory(prefix="proc-connector-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        environment = {**os.environ, "TMPDIR": name}
        subprocess.run([sys.executable, WORKLOAD, "--seconds", "2"], env=environment, check=True)
        assert list(folder.iterdir()) == []
        assert [path for path in Path("/proc").glob("[0-9]*/cmdline") if name in _read(path)] == []


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has just ended
        return ""
