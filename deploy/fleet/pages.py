"""The pages of a simulated fleet: one recorded page, varied for each node, and growing with time.

A node has programs of its own beside those that all have, is busier or quieter than others, and counts on as an
exporter with `--group.by pod,unit` does: a program runs in a pod of this node or in a unit, every counter grows in
proportion to what was recorded, and a series appears when it has counted 1. Nothing is random: the same node at
the same time has the same page.
"""

import re
from typing import NamedTuple

from deploy.fleet.history import pace

_LINE = re.compile(r"^(\w+)(\{.*\})? (\S+)$")
_COMM = re.compile(r'comm="([^"<]+)"')
_ROLES = 10
_PODS = {
    "nginx": ("shop", "web", "nginx"),
    "image-resize": ("shop", "web", "resizer"),
    "postgres": ("shop", "orders-db", "postgres"),
    "mail-worker": ("mail", "mail-worker", "worker"),
    "healthcheck": ("mail", "mail-worker", "worker"),
    "make": ("ci", "runner", "build"),
    "cc1": ("ci", "runner", "build"),
    "as": ("ci", "runner", "build"),
    "sh": ("ci", "runner", "build"),
}
"""Namespace, beginning of the pod's name, and container, of the recorded programs that a cluster has in pods."""
_UNITS = {"cron": "cron.service", "sshd": "ssh.service", "logrotate": "logrotate.service"}
_UNITS |= {
    "pg_dump": "backup.service",
    "containerd": "containerd.service",
    "gitlab-runner": "gitlab-runner.service",
}
# No label of the recorded page has it.
_NODE = "\0"
_GROUPED = re.compile(r"proc_connector_(?!process_|exporter_)\w+")
_RECORDED_SECONDS = 60
_GROWING = ("_total", "_bucket", "_count", "_sum")


class _Sample(NamedTuple):
    name: str
    labels: str
    value: float
    grows: bool


class Fleet:
    """Makes pages.

    Args:
        page: A recorded page, in the text format.
        began_seconds: When all exporters started, as a Unix time.
    """

    def __init__(self, page: str, began_seconds: float) -> None:
        self._began_seconds = began_seconds
        # A replay has no canary.
        page += "proc_connector_canary_age_seconds 3\n"
        samples = [_sample(match) for line in page.splitlines() if (match := _LINE.match(line))]
        self._of_role = [[_in_role(sample, role) for sample in samples] for role in range(_ROLES)]

    def page(self, node: int, now_seconds: float) -> str:
        """Return what a node's exporter says at a time."""
        times = pace(node) * (now_seconds - self._began_seconds) / _RECORDED_SECONDS
        lines = []
        for name, labels, value, grows in self._of_role[node % _ROLES]:
            if name == "process_start_time_seconds":
                text = repr(self._began_seconds)
            elif not grows:
                text = repr(value)
            elif name.endswith("_sum") or name == "process_cpu_seconds_total":
                text = repr(value * times)
            else:
                count = int(value * times)
                if not count and value:
                    continue
                text = str(count)
            lines.append(f"{name}{labels} {text}\n")
        return "".join(lines).replace(_NODE, f"{node:05x}")


def _sample(match: re.Match[str]) -> _Sample:
    name, labels, value = match[1], match[2] or "", float(match[3])
    comm = _COMM.search(labels)
    if comm and _GROUPED.fullmatch(name):
        labels = f"{labels[:-1]},{_group_of(comm[1])}}}"
    return _Sample(name, labels, value, name.endswith(_GROWING))


def _group_of(comm: str) -> str:
    namespace, pod, container = _PODS.get(comm, ("", "", ""))
    names = {
        "namespace": namespace,
        "pod": f"{pod}-{_NODE}" if pod else "",
        "container": container,
        "unit": _UNITS.get(comm, ""),
    }
    return ",".join(f'{label}="{name}"' for label, name in names.items())


def _in_role(sample: _Sample, role: int) -> _Sample:
    """Rename half of the programs, so that nodes of ten kinds have different ones."""
    comm = _COMM.search(sample.labels)
    if comm is None or sum(comm[1].encode()) % 2:
        return sample
    return sample._replace(labels=_COMM.sub(f'comm="{comm[1][:12]}-{role}"', sample.labels, count=1))
