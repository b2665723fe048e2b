"""Processes in cgroups like the kubelet's, an API that knows the pods, and what the exporter calls them."""

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from kernel.harness import DEADLINE_SECONDS, Exporter, Programs, running, wait_until
from kernel.served import Served
from kubernetes_api import NODE, TOKEN, FakeApi, make_id, make_pod, pod_of, serving_api, status_of
from serving import Authority

FAILURES = 40
HASH = "9aac5b5c8815def09a2ef9e37b89da55"
# Where containers are kept apart: systemd's hierarchy on a hybrid host, else the unified one.
HIERARCHIES = tuple(map(Path, ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup")))
NOBODY = 65534
PODS, CONTAINERS = 110, 200
MOST_RESIDENT = 60 << 20


class Api(Served[FakeApi]):
    """The API in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(lambda: serving_api(Authority(folder)))


@pytest.fixture
def api(folder: Path) -> Iterator[Api]:
    with Api(folder) as api:
        write_token(folder, TOKEN)
        yield api


def write_token(folder: Path, token: str, mode: int = 0o640) -> None:
    """Write a token as the kubelet does where the pod has an fsGroup, which is the exporter's own group."""
    new = folder / "token.new"
    new.write_text(token)
    os.chown(new, 0, NOBODY)
    new.chmod(mode)
    new.replace(folder / "token")


@contextmanager
def cgroup(path: str) -> Iterator[Path]:
    """Make a cgroup, with those above it; remove what is left of them."""
    hierarchy = next((root for root in HIERARCHIES if (root / "cgroup.procs").exists()), None)
    if hierarchy is None:
        pytest.skip("no hierarchy of cgroups is mounted in /sys/fs/cgroup")
    made = hierarchy / path
    try:
        made.mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"cannot make a cgroup: {error}")
    try:
        yield made
    finally:
        deadline = time.monotonic() + DEADLINE_SECONDS
        for folder in [made, *made.parents]:
            if folder == hierarchy:
                break
            while folder.exists() and time.monotonic() < deadline:
                with suppress(OSError):
                    folder.rmdir()
                    break
                if folder != made:
                    break
                time.sleep(0.01)


class Container:
    """A shell in a cgroup, whose children fail."""

    def __init__(self, shell: Path, group: Path) -> None:
        script = (
            f"while read _; do i=0; while [ $i -lt {FAILURES} ]; do (exit 7); i=$((i+1)); done; echo done; done"
        )
        self.process = subprocess.Popen([shell, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        (group / "cgroup.procs").write_text(str(self.process.pid))

    def fail(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == b"done\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def copy_shell(programs: Programs) -> Path:
    path = programs.folder / programs.name("pod")
    shutil.copy("/bin/sh", path)
    return path


def failures_of(exporter: Exporter, comm: str) -> Counter[tuple[str, str, str]]:
    """Return the failures of a comm, by namespace, pod and container."""
    found = Counter[tuple[str, str, str]]()
    series = exporter.scrape().samples.get("proc_connector_nonzero_exits_total", {})
    for key, count in series.items():
        labels = dict(key)
        if labels["comm"] == comm and labels["exit_code"] == "7":
            found[labels["namespace"], labels["pod"], labels["container"]] += int(count)
    return found


def last_sync(exporter: Exporter) -> float:
    return exporter.scrape().get("proc_connector_kubernetes_last_sync_timestamp_seconds")


@contextmanager
def following(mode: str, folder: Path, api: Api) -> Iterator[Exporter]:
    """Run an exporter that follows the pods, as a user without privileges."""
    flags = {
        "--group.by": "pod",
        "--kubernetes.api-server": f"https://127.0.0.1:{api.fake.port}",
        "--kubernetes.token-file": str(folder / "token"),
        "--kubernetes.ca-file": str(folder / "ca.pem"),
        "--kubernetes.node-name": NODE,
        "--user": str(NOBODY),
    }
    with running(mode, folder / "log", *(f"{flag}={value}" for flag, value in flags.items())) as exporter:
        yield exporter


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["taskstats", "procfs"])
def test_failures_count_under_namespace_pod_and_container(
    mode: str, programs: Programs, folder: Path, api: Api
) -> None:
    cart, cart_ids = pod_of("cart-0", "cart", "proxy")
    static_id, pause_id, late_id, foreign_id = (make_id() for _ in range(4))
    annotations = {"kubernetes.io/config.hash": HASH, "kubernetes.io/config.mirror": HASH}
    mirror = make_pod(
        "etcd-a", "kube-system", annotations=annotations, containerStatuses=[status_of("etcd", static_id)]
    )
    late = make_pod("late-0", "jobs")
    uid, late_uid = (pod["metadata"]["uid"] for pod in (cart, late))
    foreign = make_pod("foreign-0", node="node-18", containerStatuses=[status_of("foreign", foreign_id)])
    underscored = late_uid.replace("-", "_")
    paths = {
        ("shop", "cart-0", "cart"): f"kubepods/burstable/pod{uid}/{cart_ids['cart']}",
        ("shop", "cart-0", "proxy"): f"kubepods/burstable/pod{uid}/{cart_ids['proxy']}",
        # pause: the API lists no such container.
        ("shop", "cart-0", "<unknown>"): f"kubepods/burstable/pod{uid}/{pause_id}",
        ("kube-system", "etcd-a", "etcd"): f"kubepods/burstable/pod{HASH}/{static_id}",
        (
            "jobs",
            "late-0",
            "work",
        ): f"kubepods.slice/kubepods-pod{underscored}.slice/cri-containerd-{late_id}.scope",
        ("<unknown>",) * 3: f"kubepods/pod{foreign['metadata']['uid']}/{foreign_id}",
        ("", "", foreign_id[:12]): f"docker/{foreign_id}",
    }
    for pod in (cart, mirror, late, foreign):
        api.do(api.fake.put, pod)
    shell = copy_shell(programs)
    containers: dict[tuple[str, ...], Container] = {}
    with ExitStack() as stack:
        for names, path in paths.items():
            containers[names] = Container(shell, stack.enter_context(cgroup(path)))
            stack.callback(containers[names].end)
        with following(mode, folder, api) as exporter:
            wait_until(lambda: last_sync(exporter), bool, "the first list")
            for container in containers.values():
                container.fail()
            # The id of a new container reaches the API when its processes have ended.
            api.do(api.fake.put, {**late, "status": {"containerStatuses": [status_of("work", late_id)]}})
            expected = Counter(dict.fromkeys(paths, FAILURES))
            wait_until(
                lambda: failures_of(exporter, shell.name),
                lambda found: found == expected,
                f"the truth: {expected}",
            )


def test_a_token_that_is_replaced_can_be_read_by_the_user_that_the_exporter_has_become(
    programs: Programs, folder: Path, api: Api
) -> None:
    with following("taskstats", folder, api) as exporter:
        first = wait_until(lambda: last_sync(exporter), bool, "the first list")

        def replace(token: str) -> None:
            api.fake.tokens = {token}

        # With an fsGroup, which is the gid of the exporter's user.
        api.do(replace, "second")
        write_token(folder, "second")
        api.do(api.fake.tear)
        second = wait_until(
            lambda: last_sync(exporter), lambda seconds: seconds > first, "a watch by the second token"
        )
        # Without: the kubelet makes the file readable for the user that the container started as.
        write_token(folder, "third", 0o600)
        api.do(api.fake.tear)
        wait_until(lambda: last_sync(exporter), lambda seconds: seconds > second, "a watch by the token before")
        assert 'msg="the Kubernetes API is asked with what was read before"' in (folder / "log").read_text()
        api.do(replace, "third")
        api.do(api.fake.tear)
        refused = {"reason": "refused"}
        wait_until(
            lambda: exporter.scrape().get("proc_connector_kubernetes_failures_total", **refused), bool, "a refusal"
        )


def test_a_setting_without_effect_or_without_what_it_needs_is_refused() -> None:
    for words, said in (
        (("--group.by=unit", "--kubernetes.node-name=a"), "--kubernetes.node-name has no effect"),
        (("--group.by=pod", "--kubernetes.node-name=a"), "--kubernetes.api-server is not set"),
        (("--group.by=pod", "--kubernetes.api-server=https://a"), "--kubernetes.node-name is not set"),
    ):
        command = [sys.executable, "-m", "exporter", "--web.listen-address=127.0.0.1:0", *words]
        environment = {name: text for name, text in os.environ.items() if not name.startswith("KUBERNETES_")}
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
        assert result.returncode == 2, result.stderr
        assert said in result.stderr


@pytest.mark.slow
def test_two_hundred_containers_of_a_hundred_and_ten_pods_take_little_memory(
    programs: Programs, folder: Path, api: Api
) -> None:
    shell = copy_shell(programs)
    expected = Counter[tuple[str, str, str]]()
    with ExitStack() as stack:
        containers = []
        for number in range(PODS):
            names = ("app", "proxy")[: 2 if number < CONTAINERS - PODS else 1]
            # Another run on this machine may have the same cgroups but for the uid.
            pod, ids = pod_of(f"cart-{number}", *names, uid=str(uuid.uuid4()))
            api.do(api.fake.put, pod)
            for name, container_id in ids.items():
                path = f"kubepods/burstable/pod{pod['metadata']['uid']}/{container_id}"
                containers.append(Container(shell, stack.enter_context(cgroup(path))))
                stack.callback(containers[-1].end)
                expected["shop", f"cart-{number}", name] = FAILURES
        assert len(containers) == CONTAINERS
        with following("taskstats", folder, api) as exporter:
            wait_until(lambda: last_sync(exporter), bool, "the first list")
            for container in containers:
                container.fail()
            wait_until(
                lambda: failures_of(exporter, shell.name), lambda found: found == expected, "all are counted"
            )
            resident = resident_bytes(exporter)
            assert resident <= MOST_RESIDENT, f"{resident / (1 << 20):.1f} MiB"


def resident_bytes(exporter: Exporter) -> int:
    status = Path(f"/proc/{exporter.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10
