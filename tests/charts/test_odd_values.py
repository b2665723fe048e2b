"""Values that are odd but right arrive as they were meant; what cannot be meant is refused."""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml
from charts.checking import check
from charts.rendering import CHART, NAMESPACE, Object, Rendered, merged, parse, render
from charts.values_table import read_values
from helm_python import HelmRenderError, HelmValuesError

from exporter.command_line import parse_args

DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SECTIONS = {name for name, value in DEFAULTS.items() if isinstance(value, dict)}
PATHS = sorted({value.path for value in read_values()} | SECTIONS)
MORE = {
    "serviceMonitor": {"enabled": True},
    "networkPolicy": {"enabled": True},
    "config": {"inline": {"comm": []}},
    "podSecurityContext": {"supplementalGroups": [1]},
}


def at(path: str, value: object) -> Object:
    """Return values of which only one is given."""
    for name in reversed(path.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def rendered_with(values: Mapping[str, Any]) -> Rendered:
    """Render the parts that the values are about, and check them."""
    parts = {name: {"enabled": True} for name in SECTIONS & values.keys() if "enabled" in DEFAULTS[name]}
    if "podMonitor" in values:
        parts["serviceMonitor"] = {"enabled": False}
    rendered = render(merged(merged(MORE, parts), values))
    for found in rendered.objects:
        check(found)
    return rendered


@pytest.mark.parametrize("path", PATHS)
def test_null_is_refused_or_leaves_out(path: str) -> None:
    """It is what a key has below which everything is commented out."""
    with contextlib.suppress(HelmValuesError):
        rendered_with(at(path, None))


@pytest.mark.parametrize(
    "path",
    ["mode", "exact", "exact.user", "hostPID", "hostNetwork", "image.repository", "service", "service.port"],
)
def test_null_is_refused_where_something_must_be_said(path: str) -> None:
    with pytest.raises(HelmValuesError, match=rf"missing property '{path.rpartition('.')[2]}'"):
        render(at(path, None))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"global": {"imagePullSecrets": ["a"]}}, ["a"]),
        ({"imagePullSecrets": ["a"]}, ["a"]),
        ({"global": {"imagePullSecrets": ["a", {"name": "b"}]}, "imagePullSecrets": ["b", "c"]}, ["a", "b", "c"]),
        ({"global": {"imagePullSecrets": [{"name": "a"}]}, "imagePullSecrets": ["a", {"name": "a"}]}, ["a"]),
        ({"global": {"imagePullSecrets": ["1"]}}, ["1"]),
    ],
    ids=str,
)
def test_a_pull_secret_is_written_as_a_name_or_as_an_object(values: Mapping[str, Any], names: list[str]) -> None:
    rendered = rendered_with(values)
    for pod in (rendered.pod, rendered.one("Pod")):
        assert pod["spec"]["imagePullSecrets"] == [{"name": name} for name in names]


@pytest.mark.parametrize("secret", ["", 1, None, {}, {"name": ""}, {"name": 1}], ids=repr)
def test_a_pull_secret_without_a_name_is_refused(secret: object) -> None:
    for values in ({"global": {"imagePullSecrets": [secret]}}, {"imagePullSecrets": [secret]}):
        with pytest.raises(HelmValuesError, match="imagePullSecrets"):
            render(values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"service": {"nodePort": 30061}}, "service.nodePort needs service.type NodePort or LoadBalancer"),
        (
            {"service": {"type": "NodePort", "clusterIP": "None"}},
            "service.clusterIP None makes a headless service, which cannot be of the type NodePort",
        ),
        (
            {"service": {"type": "LoadBalancer", "clusterIP": "None"}},
            "service.clusterIP None makes a headless service, which cannot be of the type LoadBalancer",
        ),
        (
            {"service": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]}},
            "service.ipFamilies: two of them need service.ipFamilyPolicy PreferDualStack or RequireDualStack",
        ),
        # Since Kubernetes 1.23 there is no default of the policy for two.
        ({"service": {"ipFamilies": ["IPv6", "IPv4"]}}, "service.ipFamilies: two of them need"),
        ({"sidecars": [{"name": "exporter"}]}, "sidecars: the pod has another container called exporter"),
        (
            {"extraInitContainers": [{"name": "exporter"}]},
            "extraInitContainers: the pod has another container called exporter",
        ),
        (
            {"extraInitContainers": [{"name": "a"}], "sidecars": [{"name": "b"}, {"name": "a"}]},
            "sidecars: the pod has another container called a",
        ),
    ],
    ids=str,
)
def test_what_an_api_server_would_refuse_is_refused(values: Mapping[str, Any], words: str) -> None:
    with pytest.raises(HelmRenderError) as refused:
        render(values)
    [line] = str(refused.value).splitlines()
    assert f": {words}" in line


@pytest.mark.parametrize(
    "values",
    [
        *(
            {"service": {"type": kind, "nodePort": port}}
            for kind in ("NodePort", "LoadBalancer")
            for port in (1, 65535)
        ),
        {"service": {"clusterIP": "None"}},
        {"service": {"type": "NodePort", "clusterIP": "10.0.0.9"}},
        *(
            {"service": {"ipFamilyPolicy": policy, "ipFamilies": ["IPv4", "IPv6"]}}
            for policy in ("PreferDualStack", "RequireDualStack")
        ),
        *({"service": {"ipFamilyPolicy": policy, "ipFamilies": ["IPv6"]}} for policy in ("", None, "SingleStack")),
        {"extraInitContainers": [{"name": "a", "image": "i"}], "sidecars": [{"name": "b", "image": "i"}]},
    ],
    ids=str,
)
def test_what_an_api_server_may_take_is_rendered(values: Mapping[str, Any]) -> None:
    rendered_with(values)


def test_what_a_service_would_be_is_of_no_matter_without_one() -> None:
    assert not render({"service": {"enabled": False, "nodePort": 30061}}).of_kind("Service")


@pytest.mark.parametrize("port", [-1, 0, 65536, "30061"])
def test_a_port_that_no_node_has_is_refused(port: object) -> None:
    with pytest.raises(HelmValuesError, match="nodePort"):
        render({"service": {"type": "NodePort", "nodePort": port}})


@pytest.mark.parametrize("probe", ["livenessProbe", "readinessProbe"])
def test_a_probe_can_be_left_out(probe: str) -> None:
    container = rendered_with({probe: None}).container
    assert {"livenessProbe", "readinessProbe"} - container.keys() == {probe}


def test_defaults_that_a_map_would_only_add_to_can_be_left_out() -> None:
    rendered = rendered_with({"affinity": None, "nodeSelector": None, "resources": {"limits": None}})
    assert not {"affinity", "nodeSelector"} & rendered.pod["spec"].keys()
    assert rendered.container["resources"] == {"requests": DEFAULTS["resources"]["requests"]}


@pytest.mark.parametrize("word", ["1e3", "0x10", "042", "1"])
def test_a_name_that_looks_like_a_number_stays_a_name(word: str) -> None:
    names = dict.fromkeys(("nameOverride", "namespaceOverride", "priorityClassName"), word)
    rendered = rendered_with(
        {
            **names,
            "serviceAccount": {"name": word},
            "webConfig": {"existingSecret": word},
            "config": {"key": word},
            **{name: {"namespace": word} for name in ("prometheusRule", "dashboards")},
        }
    )
    namespaces = {found["metadata"]["namespace"] for found in rendered.objects}
    assert namespaces == {word}
    assert rendered.pod["spec"]["priorityClassName"] == rendered.pod["spec"]["serviceAccountName"] == word
    assert rendered.pod["metadata"]["labels"]["app.kubernetes.io/name"] == word
    assert [volume["secret"]["secretName"] for volume in rendered.pod["spec"]["volumes"][1:]] == [word]
    assert word in [key for found in rendered.of_kind("ConfigMap") for key in found["data"]]


@pytest.mark.parametrize("word", ["true", "null", "no", "e1"])
def test_a_name_that_yaml_takes_for_something_else_stays_a_name(word: str) -> None:
    rendered = rendered_with({"fullnameOverride": word})
    assert rendered.one("DaemonSet")["metadata"]["name"] == rendered.one("Service")["metadata"]["name"] == word


def test_the_longest_name_still_makes_labels_that_kubernetes_takes() -> None:
    rendered = rendered_with({"nameOverride": "n" * 63, "fullnameOverride": "f" * 63})
    for found in [*rendered.objects, rendered.pod]:
        assert max(map(len, found["metadata"]["labels"].values())) <= 63
    assert rendered.one("Pod")["metadata"]["labels"]["app.kubernetes.io/name"] != "n" * 63


@pytest.mark.parametrize("release", ["1st", "a.b"])
def test_a_release_that_no_service_can_be_called_after_wants_another_name(release: str) -> None:
    with pytest.raises(
        HelmRenderError, match=f"a service cannot be called {release}-proc.*: set fullnameOverride"
    ):
        render(release=release)
    assert render({"fullnameOverride": "first"}, release=release).one("Service")["metadata"]["name"] == "first"


def test_a_seccomp_profile_of_the_users_replaces_the_charts_as_a_whole() -> None:
    assert render().pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    profile = {"type": "Localhost", "localhostProfile": "a.json"}
    context = rendered_with({"podSecurityContext": {"seccompProfile": profile}}).pod["spec"]["securityContext"]
    assert context["seccompProfile"] == profile
    assert context["runAsUser"] == 0


@pytest.mark.parametrize(("mode", "uid"), [("exact", 0), ("unprivileged", 65534)])
def test_users_and_groups_are_those_of_the_mode(mode: str, uid: int) -> None:
    own = {"runAsUser": uid, "runAsGroup": uid, "runAsNonRoot": uid != 0}
    stranger = {"runAsUser": 1, "runAsGroup": 1, "runAsNonRoot": uid == 0}
    context = rendered_with({"mode": mode, "podSecurityContext": stranger}).pod["spec"]["securityContext"]
    assert {name: context[name] for name in own} == own


def test_extra_arguments_win() -> None:
    values = {"exporter": {"logLevel": "warn"}, "extraArgs": ["--log.level=debug"]}
    assert parse_args(rendered_with(values).container["args"], {}).logging.level == "debug"


@pytest.mark.parametrize("enabled", [True, False])
def test_a_larger_chart_can_have_it_and_turn_it_off(enabled: bool, tmp_path: Path) -> None:
    larger = tmp_path / "larger"
    shutil.copytree(CHART, larger / "charts" / "proc-connector-exporter")
    name = "proc-connector-exporter"
    dependency = {"name": name, "version": "0.1.0", "condition": f"{name}.enabled"}
    chart = {"apiVersion": "v2", "name": "larger", "version": "1.0.0", "dependencies": [dependency]}
    (larger / "Chart.yaml").write_text(yaml.safe_dump(chart))
    values = {"global": {"imageRegistry": "r.example.com"}, name: {"enabled": enabled, "mode": "unprivileged"}}
    (larger / "values.yaml").write_text(yaml.safe_dump(values))
    with helm.Chart.load(larger) as loaded:
        texts = loaded.render({}, name="test", namespace=NAMESPACE)
    kinds = [found["kind"] for path, text in texts.items() if path.endswith(".yaml") for found in parse(text)]
    assert ("DaemonSet" in kinds) is enabled
