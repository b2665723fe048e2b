"""The names of pods: what the exporter needs to ask for them is there, and nothing of it where it does not ask."""

from typing import Any

import pytest
import yaml
from charts.rendering import NAMESPACE, SCENARIOS, Object, Rendered, merged, render, scenario

from exporter.command_line import parse_args
from exporter.kubernetes.access import CA_FILE, TOKEN_FILE, find_access

ASKING: Object = {"exporter": {"groupBy": ["pod"]}}
MONITORS: list[Object] = [{"serviceMonitor": {"enabled": True}}, {"podMonitor": {"enabled": True}}]


def find_endpoint(rendered: Rendered) -> Object:
    [monitor] = rendered.of_kind("ServiceMonitor") + rendered.of_kind("PodMonitor")
    spec = monitor["spec"]
    [endpoint] = spec.get("endpoints") or spec["podMetricsEndpoints"]
    return dict(endpoint)


def mounted_files(rendered: Rendered) -> set[str]:
    """Return the paths of the files that projected volumes put into the exporter's container."""
    volumes = {volume["name"]: volume for volume in rendered.pod["spec"].get("volumes", [])}
    files = set()
    for mount in rendered.container.get("volumeMounts", []):
        for source in volumes[mount["name"]].get("projected", {}).get("sources", []):
            paths = [
                source.get("serviceAccountToken", {}).get("path"),
                *(item["path"] for item in source.get("configMap", {}).get("items", [])),
            ]
            files |= {f"{mount['mountPath']}/{path}" for path in paths if path}
    return files


@pytest.mark.parametrize(
    "values", [{}, {"mode": "unprivileged"}, {"exact": {"user": 1000}}, {"exact": {"user": 0}}]
)
def test_the_exporter_finds_the_api_and_may_read_its_token_for_good(values: Object) -> None:
    rendered = render(merged(ASKING, values))
    config = parse_args(rendered.container["args"], {})
    assert config.groups.by == {"pod"}
    env = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in rendered.container["env"]}
    assert env == {"NODE_NAME": "spec.nodeName", "POD_UID": "metadata.uid"}
    # The kubelet adds the address of the API.
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "NODE_NAME": "node-17"}
    access = find_access(environ, is_file=mounted_files(rendered).__contains__)
    assert (access.token_file, access.ca_file) == (TOKEN_FILE, CA_FILE)
    # It is in no other container of the pod.
    assert rendered.pod["spec"]["automountServiceAccountToken"] is False
    context = rendered.pod["spec"]["securityContext"]
    reads_as = context["runAsGroup"] if config.privileges.user is None else config.privileges.user.gid
    assert context.get("fsGroup", 0) == reads_as


@pytest.mark.parametrize("account", [{}, {"create": False, "name": "own"}])
def test_the_service_account_of_the_pods_may_list_and_watch_pods_and_nothing_else(account: Object) -> None:
    rendered = render(merged(ASKING, {"serviceAccount": account}))
    role, binding = rendered.one("ClusterRole"), rendered.one("ClusterRoleBinding")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    [subject] = binding["subjects"]
    assert subject == {
        "kind": "ServiceAccount",
        "name": rendered.pod["spec"]["serviceAccountName"],
        "namespace": NAMESPACE,
    }


def test_releases_of_two_namespaces_have_roles_of_their_own() -> None:
    names = {
        render(merged(ASKING, {"namespaceOverride": namespace})).one("ClusterRole")["metadata"]["name"]
        for namespace in ("one", "two")
    }
    assert len(names) == 2


def test_a_role_of_the_users_own_can_take_its_place() -> None:
    rendered = render(merged(ASKING, {"rbac": {"create": False}}))
    assert not rendered.of_kind("ClusterRole")
    assert not rendered.of_kind("ClusterRoleBinding")


def test_an_fs_group_of_the_users_stays() -> None:
    rendered = render(merged(ASKING, {"podSecurityContext": {"fsGroup": 7}}))
    assert rendered.pod["spec"]["securityContext"]["fsGroup"] == 7


@pytest.mark.parametrize("monitor", MONITORS)
def test_a_series_keeps_the_pod_that_it_counts(monitor: Object) -> None:
    assert find_endpoint(render(merged(ASKING, monitor)))["honorLabels"] is True
    assert "honorLabels" not in find_endpoint(render(monitor))


def test_the_network_policy_lets_the_exporter_reach_the_api() -> None:
    policy = {"networkPolicy": {"enabled": True}}
    assert render(merged(ASKING, policy)).one("NetworkPolicy")["spec"]["egress"] == [{}]
    assert render(policy).one("NetworkPolicy")["spec"]["egress"] == []


def asks(values: Object) -> bool:
    return "pod" in (values.get("exporter") or {}).get("groupBy", [])


@pytest.mark.parametrize(
    "values",
    [*(scenario(name) for name in SCENARIOS if not asks(scenario(name))), {"exporter": {"groupBy": ["unit"]}}],
    ids=[*(name for name in SCENARIOS if not asks(scenario(name))), "units only"],
)
def test_a_release_that_does_not_ask_gets_no_token_and_no_role(values: Object) -> None:
    rendered = render(values)
    text = yaml.safe_dump_all(rendered.objects)
    kinds: set[Any] = {found["kind"] for found in rendered.objects}
    assert not kinds & {"ClusterRole", "ClusterRoleBinding"}
    for word in ("serviceAccountToken", "fsGroup", "NODE_NAME", "kube-root-ca.crt"):
        assert word not in text
