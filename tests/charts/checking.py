"""What Kubernetes and the Prometheus operator say of an object."""

import kubernetes_validate  # type: ignore[import-untyped]  # ships no types
from charts.rendering import Object
from cloudcoil.models.prometheus_operator import v1 as operator
from pydantic import BaseModel

KUBERNETES = ("1.25", "1.30", "1.37")
OPERATOR: dict[str, type[BaseModel]] = {
    "ServiceMonitor": operator.ServiceMonitor,
    "PodMonitor": operator.PodMonitor,
    "PrometheusRule": operator.PrometheusRule,
}


def check(found: Object, version: str = KUBERNETES[-1]) -> None:
    """Assert that who is to take an object knows every field of it. grafana-operator describes none."""
    if found["kind"] in OPERATOR:
        model = OPERATOR[found["kind"]].model_validate(found)
        assert model.model_dump(mode="json", by_alias=True, exclude_unset=True) == found
    elif found["kind"] != "GrafanaDashboard":
        kubernetes_validate.validate(found, version, strict=True)
