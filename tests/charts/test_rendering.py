"""Every scenario of the chart is what Kubernetes and the Prometheus operator take."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # ships no types
import pytest
import yaml
from charts.checking import KUBERNETES, OPERATOR, check
from charts.manifests import MODES, main, manifests
from charts.rendering import NAMESPACE, ROOT, SCENARIOS, lint, render, scenario
from helm_python import HelmRenderError, HelmValuesError

from exporter import __version__
from exporter.command_line import parse_args
from exporter.config import FLAGS
from exporter.settings.web import DEFAULT_PORT

OPTIONAL_KINDS = {"ConfigMap", "GrafanaDashboard", "NetworkPolicy", *OPERATOR}
DEFAULT = render()


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("version", KUBERNETES)
def test_every_scenario_is_linted_strictly_and_valid(name: str, version: str) -> None:
    values = scenario(name)
    assert lint(values, f"v{version}.0") == []
    for found in render(values).objects:
        check(found, version)


def test_a_wrong_field_would_be_seen() -> None:
    pod = DEFAULT.one("Pod")
    pod["spec"]["hostPid"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        check(pod)
    monitor = render(scenario("prometheus-operator")).one("ServiceMonitor")
    monitor["spec"]["endpoints"][0]["intervall"] = "30s"
    with pytest.raises(AssertionError):
        check(monitor)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_says_what_it_is_and_uses_only_what_the_chart_has(name: str) -> None:
    text = SCENARIOS[name].read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert text.splitlines()[0].endswith(".")


def test_scenarios_make_every_kind_of_object() -> None:
    kinds = {found["kind"] for name in SCENARIOS for found in render(scenario(name)).objects}
    optional = OPTIONAL_KINDS - ({"GrafanaDashboard"} if not list((ROOT / "dashboards").glob("*.json")) else set())
    if not (ROOT / "dashboards" / "rules" / "alerts.yaml").exists():
        optional -= {"PrometheusRule"}
    assert optional <= kinds


@pytest.mark.parametrize("mode", MODES)
def test_the_two_modes_are_rendered_as_they_were(mode: str, request: pytest.FixtureRequest) -> None:
    golden = ROOT / "tests" / "charts" / "golden" / f"{mode}.yaml"
    rendered = render({"mode": mode}).files
    text = "".join(f"# {path}\n{content.strip()}\n" for path, content in rendered.items() if content.strip())
    if request.config.getoption("--update-golden"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("mode", MODES)
def test_plain_manifests_stand_without_helm(mode: str) -> None:
    objects = manifests(mode, "processes", {"image": {"tag": "edge"}})
    assert [found["kind"] for found in objects] == ["Namespace", "DaemonSet", "Service", "ServiceAccount"]
    for found in objects:
        check(found)
    namespace, *rest = objects
    assert {found["metadata"]["namespace"] for found in rest} == {namespace["metadata"]["name"]} == {"processes"}
    text = yaml.safe_dump_all(objects)
    assert "elm" not in text
    assert "proc-connector-exporter:edge" in text


@pytest.mark.parametrize("text", ["", "# Nothing is set.\n", "image: {tag: edge}\n"])
def test_make_manifests_takes_a_values_file_that_says_nothing(text: str, tmp_path: Path) -> None:
    values, output = tmp_path / "values.yaml", tmp_path / "manifests"
    values.write_text(text)
    main(["--values", str(values), "--output", str(output)])
    assert {path.stem for path in output.iterdir()} == set(MODES)
    assert ("proc-connector-exporter:edge" in (output / "exact.yaml").read_text()) is ("edge" in text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mode": "rootless"}, "at '/mode': value must be one of 'exact', 'unprivileged'"),
        ({"modes": "exact"}, "additional properties 'modes' not allowed"),
        ({"exporter": {"event": ["fork"]}}, "at '/exporter': additional properties 'event' not allowed"),
        ({"exporter": {"events": ["forks"]}}, "at '/exporter/events/0': value must be one of 'fork'"),
        ({"hostPID": False}, "at '/hostPID': value must be true"),
        ({"hostNetwork": False}, "at '/hostNetwork': value must be true"),
        ({"service": {"port": "http"}}, "at '/service/port': got string, want integer"),
        ({"service": {"port": 70000}}, "at '/service/port': maximum: got 70,000, want 65,535"),
        ({"image": {"digest": "latest"}}, "at '/image/digest': 'latest' does not match pattern"),
        ({"exact": {"user": "nobody"}}, "at '/exact/user': got string, want integer"),
        ({"extraArgs": [1]}, "at '/extraArgs/0': got number, want string"),
        ({"podLabels": {"a": 1}}, "at '/podLabels/a': got number, want string"),
        ({"prometheusRule": {"alerts": {"X": {"fro": "5m"}}}}, "additional properties 'fro' not allowed"),
        ({"prometheusRule": {"alerts": {"X": {"for": "1m2h"}}}}, "/for': '1m2h' does not match pattern"),
        ({"prometheusRule": {"alertLabels": {"a-b": "c"}}}, "'a-b' does not match pattern"),
        ({"prometheusRule": {"thresholds": {"kills": True}}}, "/kills': got boolean, want number or string"),
        ({"config": {"key": ".."}}, "at '/config/key': '..' does not match pattern"),
        ({"fullnameOverride": "1st.name"}, "at '/fullnameOverride': '1st.name' does not match pattern"),
        ({"namespaceOverride": "a.b"}, "at '/namespaceOverride': 'a.b' does not match pattern"),
        ({"podLabels": {"a": "b c"}}, "at '/podLabels/a': 'b c' does not match pattern"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(values: Mapping[str, Any], words: str) -> None:
    with pytest.raises(HelmValuesError) as refused:
        render(values)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"webConfig": {"tls": True}}, "webConfig.tls needs webConfig.existingSecret"),
        ({"config": {"inline": {"comm": []}, "existingConfigMap": "x"}}, "take one of them"),
        ({"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}, "scraped twice"),
        ({"serviceMonitor": {"enabled": True}, "service": {"enabled": False}}, "needs service.enabled"),
        ({"prometheusRule": {"enabled": True, "alerts": {"NoSuch": {}}}}, "there is no alert NoSuch"),
        ({"prometheusRule": {"enabled": True, "thresholds": {"no_such": 1}}}, "no rule has a threshold no_such"),
        ({"prometheusRule": {"enabled": True, "disabledGroups": ["no-such"]}}, "there is no group no-such"),
        ({"exporter": {"groupHistograms": True}}, "groupHistograms needs exporter.groupBy"),
        ({"extraArgs": ["--web.listen-address=:80"]}, "monitors would ask elsewhere"),
        ({"extraArgs": ["--web.telemetry-path=/m"]}, "monitors would ask elsewhere"),
    ],
)
def test_values_that_do_not_go_together_are_refused(values: Mapping[str, Any], words: str) -> None:
    with pytest.raises(HelmRenderError) as refused:
        render(values)
    assert words in str(refused.value)


def test_chart_image_and_exporter_have_one_version_and_one_port() -> None:
    chart = yaml.safe_load((ROOT / "helm" / "proc-connector-exporter" / "Chart.yaml").read_text(encoding="utf-8"))
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert chart["appVersion"] == __version__
    assert 'org.opencontainers.image.version="${VERSION}"' in dockerfile
    assert f"EXPOSE {DEFAULT_PORT}\n" in dockerfile
    assert DEFAULT.one("Service")["spec"]["ports"][0]["port"] == DEFAULT_PORT


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_exporter_knows_every_argument(name: str) -> None:
    known = {flag.name for flag in FLAGS}
    assert {argument.partition("=")[0] for argument in render(scenario(name)).container["args"]} <= known


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("port", [10061, 9999])
def test_the_exporter_takes_the_arguments_as_they_are_meant(mode: str, port: int) -> None:
    config = parse_args(render({"mode": mode, "service": {"port": port}}).container["args"], {})
    assert config.names.attribution == {"exact": "taskstats", "unprivileged": "procfs"}[mode]
    assert (config.privileges.user and config.privileges.user.uid) == {"exact": 65534, "unprivileged": None}[mode]


def test_on_the_nodes_address_it_listens_there_only() -> None:
    container = render(scenario("placement")).container
    assert "--web.listen-address=[$(HOST_IP)]:9999" in container["args"]
    assert container["env"] == [{"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]
    address = container["args"][0].partition("=")[2]
    for ip in ("10.0.0.7", "fd00::7"):
        assert parse_args(["--web.listen-address", address.replace("$(HOST_IP)", ip)], {})


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({}, f"proc-connector-exporter:{__version__}"),
        ({"tag": "edge"}, "proc-connector-exporter:edge"),
        ({"registry": "r.example.com:5000/a"}, f"r.example.com:5000/a/proc-connector-exporter:{__version__}"),
        ({"tag": "edge", "digest": f"sha256:{'0' * 64}"}, f"proc-connector-exporter@sha256:{'0' * 64}"),
    ],
)
def test_the_image_is_taken_by_tag_or_digest(values: Mapping[str, Any], image: str) -> None:
    rendered = render({"image": values})
    assert rendered.container["image"] == image
    assert rendered.one("Pod")["spec"]["containers"][0]["image"] == image


def test_with_tls_everybody_asks_by_https() -> None:
    values = scenario("tls")
    rendered = render({**values, "probes": {"type": "http"}})
    assert rendered.one("ServiceMonitor")["spec"]["endpoints"][0]["scheme"] == "https"
    for probe in ("livenessProbe", "readinessProbe"):
        assert rendered.container[probe]["httpGet"]["scheme"] == "HTTPS"
    assert rendered.one("Pod")["spec"]["containers"][0]["command"][-1].startswith("https://")
    assert render(values).container["livenessProbe"]["tcpSocket"] == {"port": "metrics"}
    plain = {**values, "serviceMonitor": {"enabled": False}}
    assert render(plain).one("Service")["metadata"]["annotations"]["prometheus.io/scheme"] == "https"


def test_what_a_monitor_scrapes_is_not_marked_for_others_too() -> None:
    assert DEFAULT.one("Service")["metadata"]["annotations"]["prometheus.io/scrape"] == "true"
    for monitor in ("serviceMonitor", "podMonitor"):
        assert "annotations" not in render({monitor: {"enabled": True}}).one("Service")["metadata"]


def test_labels_of_the_user_never_replace_those_that_objects_are_found_by() -> None:
    labels = {"app.kubernetes.io/name": "stolen", "team": "sre"}
    rendered = render({"commonLabels": labels, "podLabels": labels, "service": {"labels": labels}})
    for found in [*rendered.objects, rendered.pod]:
        assert found["metadata"]["labels"]["team"] == "sre"
        assert found["metadata"]["labels"]["app.kubernetes.io/name"].startswith("proc-connector-exporter")
    selector = rendered.one("DaemonSet")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= rendered.pod["metadata"]["labels"].items()
    # The test's pod is not one of them.
    assert not selector.items() <= rendered.one("Pod")["metadata"]["labels"].items()


def test_notes_name_the_real_port_and_the_next_step() -> None:
    notes = render({"service": {"port": 9999}}).files["NOTES.txt"]
    assert "http://NODE:9999/metrics" in notes
    assert f"kubectl --namespace {NAMESPACE} rollout status daemonset/test-proc-connector-exporter" in notes
    assert "serviceMonitor.enabled=true" in notes
    operated = render(scenario("prometheus-operator")).files["NOTES.txt"]
    assert "open the dashboards" in operated


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "cannot start its pod"),
        ({"image": {"registry": "r.example.com"}}, None),
        ({"image": {"repository": "r.example.com/exporter"}}, None),
    ],
)
def test_notes_say_that_an_image_must_come_from_somewhere(values: Mapping[str, Any], words: str | None) -> None:
    notes = render(values).files["NOTES.txt"]
    assert ("image.registry is empty" in notes) is (words is not None)
    assert words is None or words in notes


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mode": "unprivileged"}, "needs Linux 6.6 or later on every node"),
        ({}, "uid 65534 after it opened its sockets"),
        ({"exact": {"user": 4_000_000_000}}, "uid 4000000000 after it opened its sockets"),
        ({"livenessProbe": None}, "uid 65534 after it opened its sockets"),
        ({"exact": {"user": 0}}, None),
        (scenario("old-kernels"), None),
        ({**scenario("old-kernels"), "probes": {"type": "tcp"}}, "uid 65534 after it opened its sockets"),
    ],
)
def test_notes_say_what_does_not_heal_on_old_kernels(values: Mapping[str, Any], words: str | None) -> None:
    notes = render(values).files["NOTES.txt"]
    assert ("Linux 6.6" in notes) is (words is not None)
    assert words is None or words in notes
