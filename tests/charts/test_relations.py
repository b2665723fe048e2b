"""What one object of the chart says of another is so, in every scenario and with either monitor."""

from collections.abc import Mapping
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import pytest
from charts.rendering import NAMESPACE, SCENARIOS, Object, Rendered, merged, render, scenario

from exporter.command_line import parse_args
from exporter.config import Config

MONITORS = {
    "serviceMonitor": {"service": {"enabled": True}, "podMonitor": {"enabled": False}},
    "podMonitor": {"serviceMonitor": {"enabled": False}},
}
CASES = [(name, monitor) for name in SCENARIOS for monitor in MONITORS]


@cache
def rendered_with(name: str, monitor: str, release: str) -> Rendered:
    more = {**MONITORS[monitor], monitor: {"enabled": True}, "networkPolicy": {"enabled": True}}
    return render(merged(scenario(name), merged(MONITORS[monitor], more)), release=release)


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}, {case[1]}")
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return rendered_with(*request.param, "test")


@pytest.fixture
def neighbour(request: pytest.FixtureRequest, rendered: Rendered) -> Rendered:
    """The same of another release."""
    assert rendered
    return rendered_with(*request.node.callspec.params["rendered"], "other")


def labels(found: Object) -> Mapping[str, str]:
    of_it: dict[str, str] = found["metadata"]["labels"]
    return of_it


def place(found: Object) -> tuple[str, str]:
    return found["metadata"]["namespace"], found["metadata"]["name"]


def the_port(rendered: Rendered) -> Mapping[str, Any]:
    [port] = rendered.container["ports"]
    assert isinstance(port, dict)
    return port


def settings(rendered: Rendered) -> Config:
    return parse_args([word.replace("$(HOST_IP)", "10.0.0.7") for word in rendered.container["args"]], {})


def assert_selects_its_pods_only(selector: Mapping[str, str], rendered: Rendered, neighbour: Rendered) -> None:
    assert selector.items() <= labels(rendered.pod).items()
    others = [neighbour.pod, *rendered.of_kind("Pod"), *neighbour.of_kind("Pod")]
    assert [other for other in others if selector.items() <= labels(other).items()] == []


def test_the_daemon_set_has_its_own_pods(rendered: Rendered, neighbour: Rendered) -> None:
    assert_selects_its_pods_only(rendered.one("DaemonSet")["spec"]["selector"]["matchLabels"], rendered, neighbour)


def test_the_exporter_listens_where_its_pod_says(rendered: Rendered) -> None:
    [address] = settings(rendered).web.listen_addresses
    assert address.port == the_port(rendered)["containerPort"]
    assert the_port(rendered)["protocol"] == "TCP"


def test_probes_ask_at_the_port_of_the_container(rendered: Rendered) -> None:
    for probe in (rendered.container["livenessProbe"], rendered.container["readinessProbe"]):
        [question] = [probe[kind] for kind in ("httpGet", "tcpSocket") if kind in probe]
        assert question["port"] == the_port(rendered)["name"]


def test_a_service_leads_to_the_port_of_the_pods(rendered: Rendered, neighbour: Rendered) -> None:
    for service in rendered.of_kind("Service"):
        assert_selects_its_pods_only(service["spec"]["selector"], rendered, neighbour)
        [port] = service["spec"]["ports"]
        assert port["targetPort"] == the_port(rendered)["name"]
        assert port["port"] == the_port(rendered)["containerPort"]
        assert port["protocol"] == "TCP"
        assert place(service)[0] == place(rendered.one("DaemonSet"))[0]


def test_a_service_monitor_finds_the_service_and_its_port(rendered: Rendered, neighbour: Rendered) -> None:
    for monitor in rendered.of_kind("ServiceMonitor"):
        service, selector = rendered.one("Service"), monitor["spec"]["selector"]["matchLabels"]
        assert selector.items() <= labels(service).items()
        assert not selector.items() <= labels(neighbour.one("Service")).items()
        assert monitor["spec"]["namespaceSelector"] == {"matchNames": [place(service)[0]]}
        assert monitor["spec"]["jobLabel"] in labels(service)
        [endpoint], [port] = monitor["spec"]["endpoints"], service["spec"]["ports"]
        assert endpoint["port"] == port["name"]
        assert endpoint.get("path", "/metrics") == settings(rendered).web.telemetry_path


def test_a_pod_monitor_finds_the_pods_and_their_port(rendered: Rendered, neighbour: Rendered) -> None:
    for monitor in rendered.of_kind("PodMonitor"):
        assert_selects_its_pods_only(monitor["spec"]["selector"]["matchLabels"], rendered, neighbour)
        assert monitor["spec"]["namespaceSelector"] == {"matchNames": [place(rendered.one("DaemonSet"))[0]]}
        assert monitor["spec"]["jobLabel"] in labels(rendered.pod)
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] == the_port(rendered)["name"]
        assert endpoint.get("path", "/metrics") == settings(rendered).web.telemetry_path


def test_one_monitor_is_made(rendered: Rendered) -> None:
    assert len(rendered.of_kind("ServiceMonitor") + rendered.of_kind("PodMonitor")) == 1


def test_a_network_policy_lets_scrapes_in_and_nothing_else(rendered: Rendered, neighbour: Rendered) -> None:
    policy = rendered.one("NetworkPolicy")
    assert place(policy)[0] == place(rendered.one("DaemonSet"))[0]
    assert_selects_its_pods_only(policy["spec"]["podSelector"]["matchLabels"], rendered, neighbour)
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policy["spec"]["egress"] == ([{}] if "pod" in settings(rendered).groups.by else [])
    [rule] = policy["spec"]["ingress"]
    assert rule["ports"] == [{"port": the_port(rendered)["containerPort"], "protocol": "TCP"}]


def test_the_exporter_reads_its_files_where_they_are_mounted(rendered: Rendered) -> None:
    mounts = {mount["mountPath"]: mount["name"] for mount in rendered.container.get("volumeMounts", [])}
    volumes = {volume["name"]: volume for volume in rendered.pod["spec"].get("volumes", [])}
    assert sorted(mounts.values()) == sorted(volumes)
    config = settings(rendered)
    for file, source in ((config.names.rules_path, "configMap"), (config.web.config_file, "secret")):
        if file is not None:
            path = PurePosixPath(file)
            volume = volumes.pop(mounts[str(path.parent)])[source]
            for found in rendered.of_kind("ConfigMap"):
                if found["metadata"]["name"] == volume.get("name"):
                    assert path.name in found["data"]
    assert not any("configMap" in volume or "secret" in volume for volume in volumes.values())


def test_configuration_that_is_made_is_mounted(rendered: Rendered) -> None:
    mounted = {volume.get("configMap", {}).get("name") for volume in rendered.pod["spec"].get("volumes", [])}
    for found in rendered.of_kind("ConfigMap"):
        is_dashboard = all(name.endswith(".json") for name in found["data"])
        assert (found["metadata"]["name"] in mounted) is not is_dashboard


def test_pods_have_the_service_account_that_is_made(rendered: Rendered) -> None:
    pods = [rendered.pod, *rendered.of_kind("Pod")]
    [name] = {pod["spec"]["serviceAccountName"] for pod in pods}
    for account in rendered.of_kind("ServiceAccount"):
        assert place(account) == (place(rendered.one("DaemonSet"))[0], name)


def test_the_test_asks_the_service_from_where_the_exporter_may_run(rendered: Rendered) -> None:
    for pod in rendered.of_kind("Pod"):
        service = rendered.one("Service")
        namespace, name = place(service)
        [container], [port] = pod["spec"]["containers"], service["spec"]["ports"]
        assert container["command"][-1].partition("://")[2] == f"{name}.{namespace}.svc:{port['port']}"
        for field in ("nodeSelector", "tolerations", "affinity", "imagePullSecrets"):
            assert pod["spec"].get(field) == rendered.pod["spec"].get(field)
        assert container["image"] == rendered.container["image"]


def test_what_has_no_namespace_of_its_own_is_in_the_releases(rendered: Rendered) -> None:
    elsewhere = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap", "GrafanaDashboard"}
    # They are in none.
    elsewhere |= {"ClusterRole", "ClusterRoleBinding"}
    namespaces = {place(found)[0] for found in rendered.objects if found["kind"] not in elsewhere}
    assert namespaces in ({NAMESPACE}, {scenario("placement")["namespaceOverride"]})
