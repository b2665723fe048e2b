"""The pod of the rendered chart, an API that knows pods, containers in their cgroups, and a Prometheus that asks.

The containers are runc's, in cgroups such as the kubelet gives them. The test's programs say themselves how they
ended, so the truth is known apart from the exporter.
"""

import contextlib
import re
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from charts.rendering import Object, render
from container.engine import Engine
from container.oci import Runtime
from container.test_pod import ATTRIBUTION, NOBODY, playing
from kernel.harness import DEADLINE_SECONDS, Programs, wait_until
from kernel.prometheus import Prometheus, scraping
from kernel.test_pods import Api, write_token
from kubernetes_api import NODE, TOKEN, make_pod, status_of

FAILURES = 400
CODES = 3
QUERY = "sum by (namespace, pod, container, comm) (proc_connector_nonzero_exits_total)"
GROUPED: Object = {"exporter": {"groupBy": ["pod"]}, "podMonitor": {"enabled": True}}
OWN_POD, OWN_NAMESPACE = "exporter-x2x9v", "monitoring"


class Work(NamedTuple):
    """A container's processes, and what the API calls it."""

    namespace: str
    pod: str
    container: str
    comm: str


@pytest.fixture
def account() -> Iterator[Path]:
    """The folder of a service account, as the kubelet makes it where the pod has an fsGroup: nobody's group."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def api(account: Path) -> Iterator[Api]:
    with Api(account) as api:
        write_token(account, TOKEN)
        (account / "ca.pem").rename(account / "ca.crt")
        yield api


def job_of(monitor: Object) -> tuple[dict[str, str], Object]:
    """Make a job of Prometheus of a PodMonitor, as its operator does; returns the target's labels too."""
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    labels = {
        "__meta_kubernetes_namespace": OWN_NAMESPACE,
        "__meta_kubernetes_pod_name": OWN_POD,
        "__meta_kubernetes_pod_container_name": "exporter",
        "__meta_kubernetes_pod_node_name": NODE,
    }
    of_operator = [
        {"source_labels": [f"__meta_kubernetes_{name}"], "target_label": label}
        for name, label in (("namespace", "namespace"), ("pod_container_name", "container"), ("pod_name", "pod"))
    ]
    of_monitor = [
        {re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name): value for name, value in rule.items()}
        for rule in endpoint["relabelings"]
    ]
    return labels, {
        "honor_labels": endpoint.get("honorLabels", False),
        "scheme": endpoint["scheme"],
        "relabel_configs": [*of_operator, *of_monitor],
    }


def fail(runtime: Runtime, container: str, storm: str, program: str) -> int:
    """Let a program fail many times in a container; returns how often it did, as the container says."""
    told = runtime.exec(container, storm, "storm", str(FAILURES), "16", str(CODES), program)
    return sum(int(line.split()[2]) for line in told.splitlines())


def answered(server: Prometheus, comms: set[str], pods: set[str]) -> Counter[Work]:
    """Return what the query answers of these programs, wherever, and of these pods, whatever the program."""
    found = Counter[Work]()
    for series in server.get("query", query=QUERY)["result"]:
        work = Work(*(series["metric"].get(name, "") for name in Work._fields))
        if work.comm in comms or work.pod in pods:
            found[work] += int(float(series["value"][1]))
    return found


@pytest.mark.parametrize("mode", ATTRIBUTION)
def test_prometheus_knows_in_which_pod_and_container_each_failure_was(  # noqa: PLR0917 - all are fixtures
    mode: str, engine: Engine, programs: Programs, api: Api, account: Path, tmp_path: Path
) -> None:
    runtime = Runtime("runc", tmp_path)
    main, storm = (runtime.add(programs.binary, programs.name(hint)) for hint in ("main", "storm"))
    failing = [runtime.add(programs.binary, programs.name(hint)) for hint in ("one", "two")]
    cart, etcd, job = (str(uuid.uuid4()) for _ in range(3))
    config_hash = uuid.uuid4().hex
    annotations = {"kubernetes.io/config.hash": config_hash, "kubernetes.io/config.mirror": config_hash}
    truth = Counter[Work]()
    environment = {
        "NODE_NAME": NODE,
        "POD_UID": str(uuid.uuid4()),
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(api.fake.port),
    }
    monitor = render({**GROUPED, "mode": mode}).one("PodMonitor")
    with contextlib.ExitStack() as stack:

        def run(uid: str) -> str:
            parent = f"/kubepods/burstable/pod{uid}"
            return stack.enter_context(runtime.running(main, "sleep", "3600000", "0", parent=parent))

        def do(namespace: str, pod: str, container: str, container_id: str) -> None:
            for program in failing:
                number = fail(runtime, container_id, storm, program)
                assert number == FAILURES
                truth[Work(namespace, pod, container, program[1:])] += number

        def put(name: str, namespace: str, uid: str, **more: Any) -> None:
            api.do(api.fake.put, make_pod(name, namespace, uid=uid, **more))

        exporter = stack.enter_context(playing(engine, mode, environment=environment, account=account, **GROUPED))
        exporter.wait_until_ready()
        labels, config = job_of(monitor)
        server = stack.enter_context(scraping(exporter.port, tmp_path, labels=labels, job=config))
        first, proxy, of_etcd, of_job = run(cart), run(cart), run(config_hash), run(job)
        both = [status_of("cart", first), status_of("proxy", proxy)]
        put("cart-0", "shop", cart, containerStatuses=both)
        put("etcd-a", "kube-system", etcd, annotations=annotations, containerStatuses=[status_of("etcd", of_etcd)])
        put("job-0", "jobs", job)
        do("shop", "cart-0", "cart", first)
        do("shop", "cart-0", "proxy", proxy)
        do("kube-system", "etcd-a", "etcd", of_etcd)
        do("jobs", "job-0", "setup", of_job)
        # The API learns of an init container when all is over, and of a container that was started again.
        put("job-0", "jobs", job, initContainerStatuses=[status_of("setup", of_job, ended=True)])
        second = run(cart)
        put(
            "cart-0",
            "shop",
            cart,
            containerStatuses=[status_of("cart", second, last=first), status_of("proxy", proxy)],
        )
        do("shop", "cart-0", "cart", second)
        comms, pods = {work.comm for work in truth}, {work.pod for work in truth}

        def told() -> Counter[Work]:
            found = answered(server, comms, pods)
            # Without exit records what is gone when it could be read has no name; where it was is known.
            return found if mode == "exact" else by_place(found)

        expected = truth if mode == "exact" else by_place(truth)
        wait_until(told, lambda found: found == expected, f"the truth: {expected}", 2 * DEADLINE_SECONDS)
        assert [name for name in server.get("labels") if name.startswith("exported_")] == []
        status = exporter.status()
        assert status["Uid"].split() == [str(NOBODY)] * 4
        assert int(status["CapEff"], 16) == 0
        # The exporter's own pod and node are labels of what it says of itself.
        [up] = server.get("query", query="up")["result"]
        assert {name: up["metric"][name] for name in ("namespace", "pod", "node")} == {
            "namespace": OWN_NAMESPACE,
            "pod": OWN_POD,
            "node": NODE,
        }


def by_place(counts: Counter[Work]) -> Counter[Work]:
    """Add up over all programs."""
    places = Counter[Work]()
    for work, number in counts.items():
        places[work._replace(comm="")] += number
    return places
