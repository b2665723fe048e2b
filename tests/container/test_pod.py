"""The pod of the rendered chart, in both modes, on this host's kernel: what it tells, and what it may do."""

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts.rendering import Object, render
from container.engine import Engine, pod_for_podman
from kernel.harness import DEADLINE_SECONDS, Programs, Scrape, World, ask, free_port, spawn_some, wait_until
from kernel.prometheus import Prometheus, scraping
from serving import Authority, basic, hash_password

ATTRIBUTION = {"exact": "taskstats", "unprivileged": "procfs"}
CAP_SETGID, CAP_SETUID, CAP_NET_ADMIN, CAP_SYSLOG, CAP_PERFMON = 6, 7, 12, 34, 38
NOBODY = 65534
MOST_IDLE_BYTES = 50 << 20
SECCOMP_MODE_FILTER = 2
# From the start of the container until the exporter listens, in times that it takes to import it: 0.3 s and 0.6 s.
MOST_IMPORTS = 4.0
_TIME_IMPORTS = """
import subprocess, sys, time
began = time.monotonic()
subprocess.run([sys.executable, "-c", "import exporter.__main__, exporter.app"], check=True)
print(time.monotonic() - began)
"""


class Pod:
    """A pod of the chart, running."""

    def __init__(self, engine: Engine, pod: Object, files: list[Object], mode: str, port: int) -> None:
        self.mode = mode
        self.port = port
        self._engine = engine
        self._pod = pod
        self.pid = engine.play(pod, files)

    def is_ready(self) -> bool | str:
        assert Path(f"/proc/{self.pid}").exists(), self.logs()
        try:
            return ask(self.port, "/-/ready").status == 200
        except OSError as error:
            return str(error)

    def wait_until_ready(self) -> None:
        wait_until(self.is_ready, lambda ready: ready is True, f"{self.mode}: /-/ready")

    def scrape(self) -> Scrape:
        return Scrape(ask(self.port, "/metrics").body.decode())

    def logs(self) -> str:
        return self._engine.logs(self._pod)

    def status(self) -> dict[str, str]:
        """Return the fields of /proc/PID/status."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def started_at(self) -> datetime:
        return datetime.fromisoformat(
            self._engine.inspect(self._pod, '{{.State.StartedAt.Format "2006-01-02T15:04:05.000Z07:00"}}')
        )


@contextlib.contextmanager
def playing(
    engine: Engine,
    mode: str,
    *,
    without: str | None = None,
    secrets: Sequence[Object] = (),
    environment: Mapping[str, str] | None = None,
    account: Path | None = None,
    **values: Any,
) -> Iterator[Pod]:
    """Run a pod of the chart, under a name of its own.

    Args:
        engine: Has the image.
        mode: The chart's.
        without: A capability to take from what the chart gives.
        secrets: What the pod mounts besides, as ConfigMaps.
        environment: As of pod_for_podman.
        account: As of pod_for_podman.
        values: Others of the chart's.
    """
    port = free_port()
    image = {"registry": "localhost", "tag": "test", "pullPolicy": "Never"}
    rendered = render({**values, "mode": mode, "image": image, "service": {"port": port}})
    template = rendered.pod
    if without is not None:
        template["spec"]["containers"][0]["securityContext"]["capabilities"]["add"].remove(without)
    pod = pod_for_podman(template, f"exporter-{port}", environment=environment, account=account)
    try:
        yield Pod(engine, pod, [*rendered.of_kind("ConfigMap"), *secrets], mode, port)
    finally:
        engine.take_down(pod)


@pytest.fixture(scope="module", params=ATTRIBUTION)
def pod(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Pod]:
    with playing(engine, str(request.param)) as started:
        started.wait_until_ready()
        yield started


class Scraped:
    """What a Prometheus server that scrapes the pod knows, as a scrape of the exporter."""

    def __init__(self, server: Prometheus, mode: str) -> None:
        self.mode = mode
        self.worlds: list[World] = []
        self._server = server

    def scrape(self) -> Scrape:
        query = '{__name__=~"proc_connector_.+", __name__!~".+_bucket"}'
        scrape = Scrape("")
        for series in self._server.get("query", query=query)["result"]:
            labels = {name: value for name, value in series["metric"].items() if name not in ("job", "instance")}
            name = labels.pop("__name__")
            if "exit_code" in labels:
                # Prometheus leaves out a label that is empty.
                labels.setdefault("signal", "")
            scrape.samples.setdefault(name, {})[frozenset(labels.items())] = float(series["value"][1])
        return scrape


@pytest.fixture
def scraped(pod: Pod, tmp_path: Path) -> Iterator[Scraped]:
    with scraping(pod.port, tmp_path) as server:
        yield Scraped(server, ATTRIBUTION[pod.mode])


def test_prometheus_has_the_exact_counts_of_the_hosts_processes(scraped: Scraped, programs: Programs) -> None:
    wait_until(
        scraped.scrape, lambda scrape: "proc_connector_attribution_info" in scrape.samples, "a first scrape"
    )
    spawn_some(scraped, programs)


def has_capabilities(mask: str, numbers: tuple[int, ...]) -> bool:
    return int(mask, 16) == sum(1 << number for number in numbers)


def test_the_exporter_has_no_privilege_left(pod: Pod) -> None:
    status = pod.status()
    assert status["Uid"].split() == status["Gid"].split() == [str(NOBODY)] * 4
    assert status["Groups"] in ("", str(NOBODY))
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert has_capabilities(status[name], ()), name
    # Out of the bounding set a capability can only come with a program's file, and no_new_privs forbids that.
    bounding = (CAP_SETGID, CAP_SETUID, CAP_NET_ADMIN, CAP_PERFMON) if pod.mode == "exact" else ()
    assert has_capabilities(status["CapBnd"], bounding)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == str(SECCOMP_MODE_FILTER)


def test_its_root_is_read_only_and_its_namespaces_are_the_hosts(pod: Pod) -> None:
    mounts = [line.split() for line in Path(f"/proc/{pod.pid}/mountinfo").read_text().splitlines()]
    [root] = [fields for fields in mounts if fields[4] == "/"]
    assert "ro" in root[5].split(",")
    for name in ("net", "pid", "user"):
        assert Path(f"/proc/{pod.pid}/ns/{name}").readlink() == Path(f"/proc/self/ns/{name}").readlink(), name
    assert Path(f"/proc/{pod.pid}/ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()


def test_it_is_small_at_rest(pod: Pod) -> None:
    kib = int(pod.status()["VmRSS"].split()[0])
    assert kib * 1024 < MOST_IDLE_BYTES


@pytest.mark.parametrize("mode", ATTRIBUTION)
def test_it_listens_soon_after_its_modules_are_there(engine: Engine, mode: str) -> None:
    """The best of eight: the machine may do other things, too. So the measure is one of the same machine, now."""
    ratios: list[float] = []
    while len(ratios) < 8 and not any(ratio < MOST_IMPORTS for ratio in ratios):
        imports = float(engine.run_in_image("python", "-c", _TIME_IMPORTS))
        with playing(engine, mode) as pod:
            logs = wait_until(pod.logs, lambda logs: "msg=listening" in logs, "it listens")
            [listening] = [line for line in logs.splitlines() if "msg=listening" in line]
            at = datetime.fromisoformat(listening.partition("time=")[2].split()[0])
            ratios.append((at - pod.started_at()).total_seconds() / imports)
    assert min(ratios) < MOST_IMPORTS, ratios


def test_without_a_user_to_become_it_has_three_capabilities_and_no_other(engine: Engine) -> None:
    with playing(engine, "exact", exact={"user": 0}) as pod:
        pod.wait_until_ready()
        status = pod.status()
        assert status["Uid"].split() == ["0"] * 4
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert has_capabilities(status[name], (CAP_NET_ADMIN, CAP_SYSLOG, CAP_PERFMON)), name
        assert pod.scrape().get("proc_connector_oom_source_info", source="syslog") == 1


@pytest.mark.parametrize(
    ("capability", "words"),
    [
        ("NET_ADMIN", "taskstats needs CAP_NET_ADMIN"),
        ("PERFMON", "no side-band records"),
        ("SETGID", "it needs root, or CAP_SETUID and CAP_SETGID"),
        ("SETUID", "it needs root, or CAP_SETUID and CAP_SETGID"),
    ],
)
def test_every_capability_that_the_chart_gives_is_needed(engine: Engine, capability: str, words: str) -> None:
    with playing(engine, "exact", without=capability) as pod:
        wait_until(pod.logs, lambda logs: words in logs, f"it says that it needs {capability}")


@pytest.mark.parametrize("mode", ATTRIBUTION)
def test_the_values_rules_are_in_force(engine: Engine, programs: Programs, mode: str) -> None:
    program = programs.link("ruled")
    rules = {"comm": [{"match": r"ruled\..+", "replace": "by the rules"}]}
    with playing(engine, mode, config={"inline": rules}) as pod:
        pod.wait_until_ready()
        with subprocess.Popen([program, "sleep", "3600000", "0"]) as process:
            try:
                wait_until(
                    lambda: pod.scrape().get("proc_connector_processes", comm="by the rules"),
                    lambda number: number == 1,
                    "a process under the name that the rules give",
                )
                assert not pod.scrape().get("proc_connector_processes", comm=program.name)
            finally:
                process.kill()


@pytest.mark.parametrize("mode", ATTRIBUTION)
def test_it_serves_with_the_certificate_and_password_of_a_secret(
    engine: Engine, mode: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("tls", "localhost")
    web_config = {
        "tls_server_config": {"cert_file": certificate.name, "key_file": key.name},
        "basic_auth_users": {"prometheus": hash_password("secret")},
    }
    files = {path.name: path.read_text() for path in (certificate, key)}
    files["web-config.yml"] = yaml.safe_dump(web_config)
    secret = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": files}
    values = {"existingSecret": "web", "tls": True}
    with playing(engine, mode, secrets=[secret], webConfig=values) as pod:

        def status(**headers: str) -> int | str:
            connection = HTTPSConnection(
                "localhost", pod.port, context=authority.client(), timeout=DEADLINE_SECONDS
            )
            with contextlib.closing(connection):
                try:
                    connection.request("GET", "/-/ready", headers=headers)
                    return connection.getresponse().status
                except OSError as error:
                    return str(error)

        login = basic("prometheus", "secret")
        wait_until(
            lambda: status(Authorization=login), lambda answer: answer == 200, "who has the password is let in"
        )
        assert status() == 401
