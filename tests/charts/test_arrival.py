"""Every value arrives where it is meant to, in every scenario that gives it."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml
from charts.rendering import CHART, ROOT, SCENARIOS, Object, Rendered, render, scenario
from charts.values_table import read_values

Look = Callable[[Rendered], Any]
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
RULES = ROOT / "dashboards" / "rules"
ALERTS = [
    rule["alert"]
    for group in yaml.safe_load((RULES / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
GROUPS = [
    group["name"]
    for name in ("recording.yaml", "alerts.yaml")
    for group in yaml.safe_load((RULES / name).read_text(encoding="utf-8"))["groups"]
]
MODES = {"taskstats": "exact", "procfs": "unprivileged"}


def argument(rendered: Rendered, flag: str) -> str | None:
    """Return the value of the exporter's flag, which must be there once at most."""
    values = [word.partition("=")[2] for word in rendered.container["args"] if word.partition("=")[0] == flag]
    assert len(values) < 2
    return values[0] if values else None


def number(flag: str) -> Look:
    return lambda rendered: yaml.safe_load(argument(rendered, flag) or "null")


def file_name(flag: str) -> Look:
    return lambda rendered: PurePosixPath(argument(rendered, flag) or "").name


def in_pod(*path: str) -> Look:
    return lambda rendered: dig(rendered.pod["spec"], path)


def in_container(*path: str) -> Look:
    return lambda rendered: dig(rendered.container, path)


def of(kind: str, *path: str) -> Look:
    """What all objects of a kind have in common; None without any, or where they differ."""

    def look(rendered: Rendered) -> Any:
        found = [dig(one, path) for one in rendered.of_kind(kind) if not is_configuration(one)]
        return found[0] if found and all(other == found[0] for other in found) else None

    return look


def made(kind: str) -> Look:
    return lambda rendered: any(not is_configuration(found) for found in rendered.of_kind(kind))


def dig(found: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        found = (found or {}).get(key)
    return found


def is_configuration(found: Object) -> bool:
    name: str = found["metadata"]["name"]
    return found["kind"] == "ConfigMap" and name.endswith("-config")


def configuration(rendered: Rendered) -> Any:
    [found] = [found for found in rendered.of_kind("ConfigMap") if is_configuration(found)]
    [text] = found["data"].values()
    return yaml.safe_load(text)


def volume(name: str, *path: str) -> Look:
    def look(rendered: Rendered) -> Any:
        [found] = [found for found in rendered.pod["spec"]["volumes"] if found["name"] == name]
        return dig(found, path)

    return look


def image(part: str) -> Look:
    form = re.compile(r"(?P<registry>\S+:\d+/\w+)?/?(?P<repository>[^:@]+)(?::(?P<tag>.+)|@(?P<digest>.+))")

    def look(rendered: Rendered) -> Any:
        found = form.fullmatch(rendered.container["image"])
        return found and found[part]

    return look


def scheme(rendered: Rendered) -> Any:
    monitors = rendered.of_kind("ServiceMonitor") + rendered.of_kind("PodMonitor")
    [monitor] = monitors
    [endpoint] = monitor["spec"].get("endpoints", []) + monitor["spec"].get("podMetricsEndpoints", [])
    return endpoint["scheme"]


def probe_kinds(rendered: Rendered) -> Any:
    [kind] = {key for name in PROBES for key in rendered.container[name] if key in ("httpGet", "tcpSocket")}
    return {"httpGet": "http", "tcpSocket": "tcp"}[kind]


def probe_headers(rendered: Rendered) -> Any:
    first, second = (rendered.container[name]["httpGet"]["httpHeaders"] for name in PROBES)
    assert first == second
    return first


def common_labels(rendered: Rendered) -> Any:
    labels = [set(found["metadata"]["labels"].items()) for found in [*rendered.objects, rendered.pod]]
    return dict(set.intersection(*labels))


def groups(rendered: Rendered) -> list[Any]:
    found: list[Any] = rendered.one("PrometheusRule")["spec"]["groups"]
    return found


def alerts(rendered: Rendered) -> dict[str, Any]:
    return {rule["alert"]: rule for group in groups(rendered) for rule in group["rules"] if "alert" in rule}


def on_every_alert(field: str) -> Look:
    return lambda rendered: dict(
        set.intersection(*(set(rule[field].items()) for rule in alerts(rendered).values()))
    )


def alert_changes(rendered: Rendered) -> Any:
    found = alerts(rendered)
    there = {name: {"enabled": True, "for": rule["for"], **rule["labels"]} for name, rule in found.items()}
    return {name: there.get(name, {"enabled": False}) for name in ALERTS}


def thresholds(rendered: Rendered) -> Any:
    text = "\n".join(rule["expr"] for rule in alerts(rendered).values())
    return {name: yaml.safe_load(value) for value, name in re.findall(r"(\S+) # (\w+)$", text, re.MULTILINE)}


def runbooks(rendered: Rendered) -> Any:
    urls = {name: rule["annotations"]["runbook_url"] for name, rule in alerts(rendered).items()}
    [base] = {url.removesuffix(f"{name}.md") for name, url in urls.items()}
    return base


def failures(rendered: Rendered) -> Any:
    urls = [rule["annotations"].get("failures_url", "") for rule in alerts(rendered).values()]
    [base] = {url.partition("/failures?")[0] for url in urls if url}
    return base


def monitor_values(kind: str, endpoints: str) -> dict[str, Look]:
    def endpoint(field: str) -> Look:
        def look(rendered: Rendered) -> Any:
            [found] = rendered.one(kind)["spec"][endpoints]
            return found.get(field)

        return look

    fields = ("interval", "scrapeTimeout", "tlsConfig", "basicAuth", "relabelings", "metricRelabelings")
    return {
        "enabled": made(kind),
        "namespace": of(kind, "metadata", "namespace"),
        "labels": of(kind, "metadata", "labels"),
        "sampleLimit": of(kind, "spec", "sampleLimit"),
        "podTargetLabels": of(kind, "spec", "podTargetLabels"),
        "attachMetadata": of(kind, "spec", "attachMetadata"),
        **{field: endpoint(field) for field in fields},
    }


PROBES = ("livenessProbe", "readinessProbe")
ARRIVAL: dict[str, Look] = {
    "mode": lambda rendered: MODES[argument(rendered, "--attribution") or ""],
    "exact.user": lambda rendered: int(argument(rendered, "--user") or 0),
    "exact.sysAdmin": lambda rendered: (
        "SYS_ADMIN" in rendered.container["securityContext"]["capabilities"].get("add", [])
    ),
    "hostNetwork": in_pod("hostNetwork"),
    "hostPID": in_pod("hostPID"),
    **{f"image.{part}": image(part) for part in ("registry", "repository", "tag", "digest")},
    "image.pullPolicy": in_container("imagePullPolicy"),
    "imagePullSecrets": in_pod("imagePullSecrets"),
    "global.imageRegistry": image("registry"),
    "global.imagePullSecrets": lambda rendered: rendered.pod["spec"]["imagePullSecrets"][:1],
    "daemonsetAnnotations": of("DaemonSet", "metadata", "annotations"),
    "revisionHistoryLimit": of("DaemonSet", "spec", "revisionHistoryLimit"),
    "terminationGracePeriodSeconds": in_pod("terminationGracePeriodSeconds"),
    "extraInitContainers": in_pod("initContainers"),
    "sidecars": lambda rendered: rendered.pod["spec"]["containers"][1:],
    "extraObjects": lambda rendered: rendered.of_kind("Secret"),
    "service.nodePort": lambda rendered: rendered.one("Service")["spec"]["ports"][0].get("nodePort"),
    "service.ipFamilyPolicy": of("Service", "spec", "ipFamilyPolicy"),
    "service.ipFamilies": of("Service", "spec", "ipFamilies"),
    "nameOverride": of("DaemonSet", "metadata", "labels", "app.kubernetes.io/name"),
    "fullnameOverride": of("DaemonSet", "metadata", "name"),
    "namespaceOverride": of("DaemonSet", "metadata", "namespace"),
    "commonLabels": common_labels,
    "exporter.events": lambda rendered: (argument(rendered, "--events") or "").split(","),
    "exporter.groupBy": lambda rendered: (argument(rendered, "--group.by") or "").split(","),
    "exporter.groupHistograms": lambda rendered: "--group.histograms" in rendered.container["args"],
    "exporter.seriesLimit": number("--limit.series"),
    "exporter.seriesIdle": number("--limit.idle"),
    "exporter.receiveBufferBytes": number("--receive-buffer.bytes"),
    "exporter.canaryInterval": number("--canary.interval"),
    "exporter.maxRequests": number("--web.max-requests"),
    "exporter.enableLifecycle": lambda rendered: "--web.enable-lifecycle" in rendered.container["args"],
    "exporter.logLevel": lambda rendered: argument(rendered, "--log.level"),
    "exporter.logFormat": lambda rendered: argument(rendered, "--log.format"),
    "config.inline": configuration,
    "config.existingConfigMap": volume("config", "configMap", "name"),
    "config.key": file_name("--config.file"),
    "webConfig.existingSecret": volume("web", "secret", "secretName"),
    "webConfig.key": file_name("--web.config.file"),
    "webConfig.tls": lambda rendered: scheme(rendered) == "https",
    "extraArgs": in_container("args"),
    "extraEnv": in_container("env"),
    "extraVolumes": in_pod("volumes"),
    "extraVolumeMounts": in_container("volumeMounts"),
    "resources": in_container("resources"),
    "probes.type": probe_kinds,
    "probes.httpHeaders": probe_headers,
    **{f"{probe}.path": in_container(probe, "httpGet", "path") for probe in PROBES},
    **{
        f"{probe}.{field}": in_container(probe, field)
        for probe in PROBES
        for field in ("periodSeconds", "timeoutSeconds", "failureThreshold")
    },
    "podSecurityContext": in_pod("securityContext"),
    "updateStrategy": of("DaemonSet", "spec", "updateStrategy"),
    **{name: in_pod(name) for name in ("priorityClassName", "nodeSelector", "tolerations", "affinity")},
    "podAnnotations": lambda rendered: rendered.pod["metadata"].get("annotations"),
    "podLabels": lambda rendered: rendered.pod["metadata"]["labels"],
    "serviceAccount.create": made("ServiceAccount"),
    "serviceAccount.name": in_pod("serviceAccountName"),
    "serviceAccount.annotations": of("ServiceAccount", "metadata", "annotations"),
    "rbac.create": made("ClusterRole"),
    "service.enabled": made("Service"),
    "service.type": of("Service", "spec", "type"),
    "service.clusterIP": of("Service", "spec", "clusterIP"),
    "service.port": lambda rendered: rendered.one("Service")["spec"]["ports"][0]["port"],
    "service.listenOnAllInterfaces": lambda rendered: "$(HOST_IP)" not in rendered.container["args"][0],
    "service.scrapeAnnotation": lambda rendered: (
        "prometheus.io/scrape" in rendered.one("Service")["metadata"].get("annotations", {})
    ),
    "service.annotations": of("Service", "metadata", "annotations"),
    "service.labels": of("Service", "metadata", "labels"),
    **{f"serviceMonitor.{name}": look for name, look in monitor_values("ServiceMonitor", "endpoints").items()},
    **{f"podMonitor.{name}": look for name, look in monitor_values("PodMonitor", "podMetricsEndpoints").items()},
    "prometheusRule.enabled": made("PrometheusRule"),
    "prometheusRule.namespace": of("PrometheusRule", "metadata", "namespace"),
    "prometheusRule.labels": of("PrometheusRule", "metadata", "labels"),
    "prometheusRule.recording": lambda rendered: any(
        group["name"] == "proc-connector-increments" for group in groups(rendered)
    ),
    "prometheusRule.disabledGroups": lambda rendered: (
        [name for name in GROUPS if name not in {group["name"] for group in groups(rendered)}]
    ),
    "prometheusRule.runbookUrlBase": runbooks,
    "prometheusRule.failuresUrlBase": failures,
    "prometheusRule.alertLabels": on_every_alert("labels"),
    "prometheusRule.alertAnnotations": on_every_alert("annotations"),
    "prometheusRule.alerts": alert_changes,
    "prometheusRule.thresholds": thresholds,
    "dashboards.enabled": made("ConfigMap"),
    "dashboards.namespace": of("ConfigMap", "metadata", "namespace"),
    "dashboards.labels": of("ConfigMap", "metadata", "labels"),
    "dashboards.annotations": of("ConfigMap", "metadata", "annotations"),
    "grafanaDashboard.enabled": made("GrafanaDashboard"),
    "grafanaDashboard.namespace": of("GrafanaDashboard", "metadata", "namespace"),
    "grafanaDashboard.labels": of("GrafanaDashboard", "metadata", "labels"),
    "grafanaDashboard.folder": of("GrafanaDashboard", "spec", "folder"),
    "grafanaDashboard.instanceSelector": of("GrafanaDashboard", "spec", "instanceSelector"),
    "grafanaDashboard.allowCrossNamespaceImport": of("GrafanaDashboard", "spec", "allowCrossNamespaceImport"),
    "networkPolicy.enabled": made("NetworkPolicy"),
    "networkPolicy.from": lambda rendered: rendered.one("NetworkPolicy")["spec"]["ingress"][0].get("from"),
}
# They are what they are.
FIXED = {"hostNetwork", "hostPID"}


def given(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values that a scenario gives, by their paths."""
    for name, value in values.items():
        path = f"{prefix}{name}"
        if path in ARRIVAL:
            yield path, value
        else:
            yield from given(value, f"{path}.")


def has(there: Any, value: Any) -> bool:
    """Tell whether a value is what is there, or the part of it that a user adds to."""
    if isinstance(value, dict):
        return isinstance(there, dict) and all(has(there.get(name), part) for name, part in value.items())
    if isinstance(value, list):
        return isinstance(there, list) and there[-len(value) :] == value
    return bool(there == value)


def test_it_is_known_of_every_value_where_it_arrives() -> None:
    assert set(ARRIVAL) == {value.path for value in read_values()}


def default(path: str) -> Any:
    return dig(DEFAULTS, tuple(path.split(".")))


def test_every_value_is_another_than_by_default_in_some_scenario() -> None:
    scenarios = [given(scenario(name)) for name in SCENARIOS]
    changed = {path for values in scenarios for path, value in values if value != default(path)}
    assert set(ARRIVAL) - changed == FIXED


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_value_of_a_scenario_arrives(name: str) -> None:
    rendered = render(scenario(name))
    arrived = {path: (value, ARRIVAL[path](rendered)) for path, value in given(scenario(name))}
    assert [(path, *pair) for path, pair in arrived.items() if not has(pair[1], pair[0])] == []


@pytest.mark.parametrize(
    "path",
    sorted(
        {
            *FIXED,
            "mode",
            "exact.user",
            "exact.sysAdmin",
            "image.repository",
            "image.pullPolicy",
            "resources",
            "affinity",
        }
    ),
)
def test_what_is_not_given_is_as_by_default(path: str) -> None:
    assert has(ARRIVAL[path](render()), default(path))
