"""A crash loop in one pod, from the kernel to a webhook: exporter, Prometheus, Alertmanager, and the route."""

import contextlib
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel.harness import DEADLINE_SECONDS, Programs, free_port, wait_until
from kernel.test_monitoring import PROGRAMS, Prometheus, Webhook
from kernel.test_pods import Api, cgroup, copy_shell, following, last_sync, write_token
from kubernetes_api import TOKEN, pod_of

from dashboards.generate import recordings, rules
from deploy.demo import demo

pytestmark = pytest.mark.slow

HURRY = 60
NEEDED = ("prometheus", "prometheus-alertmanager")
OWN_POD = "exporter-x2x9v"
# argv: the cgroup, then the program that fails, started anew three times a second.
_LOOP = """
import pathlib, subprocess, sys, time
pathlib.Path(sys.argv[1], "cgroup.procs").write_text("0")
while True:
    subprocess.run([sys.argv[2], "-c", sys.argv[3]])
    time.sleep(0.3)
"""


@contextlib.contextmanager
def looping(group: Path, shell: Path, code: int) -> Iterator[None]:
    """Let a program end with a code in a cgroup, again and again."""
    with subprocess.Popen([sys.executable, "-c", _LOOP, group, shell, f"exit {code}"]) as process:
        try:
            yield
        finally:
            process.kill()


def configured(folder: Path, exporter: int, alertmanager: int, webhook: Webhook) -> None:
    """Write what Prometheus and Alertmanager read: rules in a hurry, and a route by namespace."""
    # What else fails on this machine must not take the names.
    thresholds = {**rules.THRESHOLDS, "named_programs": rules.Threshold(1000, "")}
    texts = {
        "recording.yaml": rules.recording_yaml(),
        "alerts.yaml": rules.alerts_yaml("docs/runbooks", thresholds),
    }
    for name, text in texts.items():
        (folder / name).write_text(demo.hurried(text, HURRY))
    plain = demo.configuration(
        [folder / name for name in texts],
        {"node-17": f"127.0.0.1:{exporter}"},
        alertmanager=f"127.0.0.1:{alertmanager}",
    )
    # As a monitor of the Prometheus operator does it: the target has a pod and a namespace of its own.
    target = f"labels: {{pod: {OWN_POD}, namespace: monitoring, container: exporter, "
    config = plain.replace("labels: {", target).replace("  - job_name", "  - honor_labels: true\n    job_name")
    (folder / "prometheus.yml").write_text(config)
    (folder / "alertmanager.yml").write_text(
        "route:\n"
        "  {receiver: others, group_by: ['...'], group_wait: 0s, group_interval: 1s,\n"
        "   routes: [{receiver: shop, matchers: [namespace = shop]}]}\n"
        "receivers:\n"
        "  - name: others\n"
        f"  - {{name: shop, webhook_configs: [{{url: '{webhook.url}'}}]}}\n"
    )


def test_an_alert_of_a_crash_loop_in_one_pod_reaches_the_webhook_of_its_namespace(
    programs: Programs, tmp_path: Path
) -> None:
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not here (Debian: apt-get install {' '.join(PROGRAMS[program] for program in missing)})")
    folder = programs.folder
    # Another run on this machine may have the same cgroups but for the uid.
    looper, neighbour, other = (
        pod_of(name, container, namespace=namespace, uid=str(uuid.uuid4()))
        for namespace, name, container in (
            ("shop", "cart-0", "cart"),
            ("shop", "cart-1", "cart"),
            ("mail", "mailer-0", "mailer"),
        )
    )
    shell, port, alertmanager = copy_shell(programs), free_port(), free_port()
    with contextlib.ExitStack() as running:
        api = running.enter_context(Api(folder))
        write_token(folder, TOKEN)
        webhook = running.enter_context(Webhook())
        threading.Thread(target=webhook.serve_forever, daemon=True).start()
        running.callback(webhook.shutdown)
        for (pod, ids), code in ((looper, 3), (neighbour, 0), (other, 3)):
            api.do(api.fake.put, pod)
            [container] = ids.values()
            group = running.enter_context(cgroup(f"kubepods/burstable/pod{pod['metadata']['uid']}/{container}"))
            running.enter_context(looping(group, shell, code))
        exporter = running.enter_context(following("taskstats", folder, api))
        wait_until(lambda: last_sync(exporter), bool, "the first list")
        configured(tmp_path, exporter.port, alertmanager, webhook)
        for command in (
            [
                "prometheus-alertmanager",
                f"--config.file={tmp_path / 'alertmanager.yml'}",
                f"--storage.path={tmp_path / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{alertmanager}",
                "--cluster.listen-address=",
            ],
            [
                "prometheus",
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
        ):
            running.enter_context(demo.started(command, tmp_path / f"{command[0]}.log"))
        prometheus = Prometheus(port)
        wait_until(prometheus.is_ready, bool, "prometheus is ready")

        def loops() -> list[dict[str, Any]]:
            alerts = list(webhook.received)
            return [alert for alert in alerts if alert["labels"]["alertname"] == "ProcessCrashLooping"]

        alert = wait_until(loops, bool, "the alert reaches the webhook", patience_seconds=6 * DEADLINE_SECONDS)[0]
        assert alert["labels"] == {
            "alertname": "ProcessCrashLooping",
            "severity": "warning",
            "job": demo.JOB,
            "instance": "node-17",
            "comm": shell.name,
            "namespace": "shop",
            "pod": "cart-0",
            "container": "cart",
        }
        assert alert["annotations"]["summary"] == f"{shell.name} in shop/cart-0 on node-17 fails again and again"
        assert alert["annotations"]["command"] == "kubectl logs -n shop cart-0 -c cart --tail 50"
        assert alert["annotations"]["runbook_url"] == "docs/runbooks/ProcessCrashLooping.md"
        # The neighbour is well, and the other namespace's alert is not this webhook's.
        assert {loop["labels"]["pod"] for loop in loops()} == {"cart-0"}
        found = prometheus.get(
            "query", query=f'last_over_time({recordings.LOOP_FAILURES}{{comm="{shell.name}"}}[1m])'
        )
        pods = {series["metric"].get("pod") for series in found["result"]}
        assert pods == {"cart-0", "mailer-0"}
