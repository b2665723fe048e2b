"""What the exporter says of its counts and of itself at one moment: metrics, landing page, first log line."""

import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import NamedTuple

from exporter import __version__
from exporter.events import in_words
from exporter.exposition.metrics import LIFETIME, program_metrics
from exporter.exposition.self_metrics import Status
from exporter.exposition.snapshot import TallySnapshot
from exporter.failures.keeper import Keeper
from exporter.feeds import Core
from exporter.kubernetes.pod_watch import PodWatch
from exporter.live.crosscheck import ExitCheck
from exporter.revision import REVISION
from exporter.runtimes.container_watch import ContainerWatch
from exporter.service.reloading import Reloading
from exporter.stream.hub import Hub
from exporter.tallies.labels import EXCLUDED
from exporter.tallies.native import BOTH_BOUNDS


class Helpers(NamedTuple):
    """What runs beside the core; None is what the user did not ask for, or what this host does not have."""

    failures: Keeper
    hub: Hub | None
    """Streams events to local clients."""
    pods: PodWatch | None
    """Follows the names of pods."""
    containers: ContainerWatch | None
    """Follows the names of other containers."""
    reloading: Reloading | None
    """Reads the file of rules."""
    exit_check: ExitCheck | None
    """Compares the events with the kernel's own totals."""


class Report:
    """Reads the core and its helpers.

    Args:
        core: What counts.
        helpers: What runs beside it.
        canary_age: Returns the seconds since the last canary came back; None where there are no canaries.
    """

    def __init__(self, core: Core, helpers: Helpers, canary_age: Callable[[], float | None]) -> None:
        self._core = core
        self._plan = core.plan
        self._table = core.table
        self._tallies = core.tallies
        self._feed = core.feed
        self._helpers = helpers
        self._canary_age = canary_age
        self._shown = program_metrics(
            self._plan.wanted,
            records=core.has_records,
            live=self._plan.keeps_table,
            oom_kills=core.plan.has_ends and core.table.oom_kills.is_active,
        )
        self._started = time.monotonic()

    def first_line(self) -> dict[str, object]:
        """Return the fields of the log line that says that the exporter serves."""
        buffers = {f"{name}_buffer_bytes": buffer.limit_bytes for name, buffer in self._feed.buffers().items()}
        return {
            "kernel": self._core.kernel,
            "mode": self._core.mode,
            "filter": self._core.filter,
            "exec_names": self._core.exec_names,
            "oom_kills": self._table.oom_kills.source or "none",
            "events": ",".join(sorted(self._plan.wanted)),
            **self._processes(),
            **buffers,
        }

    def subject(self) -> str:
        """Return the sentence of the landing page that says what is counted, and where."""
        events = in_words(self._plan.wanted)
        if not self._feed.buffers():
            return f"A recording (--replay), not this host: every {events} that it has."
        return f"Every {events} of this host."

    def facts(self) -> dict[str, str]:
        """Return what the landing page says."""
        return {
            "version": f"{__version__} (revision {REVISION})",
            "kernel": self._core.kernel,
            "mode (names from)": self._core.mode,
            "filter": self._core.filter,
            "sources": ", ".join(self._feed.buffers()) or "a capture",
            "events": ", ".join(sorted(self._plan.wanted)),
            **self._groups(),
            **{name: str(count) for name, count in self._processes().items()},
            "up for": str(timedelta(seconds=int(time.monotonic() - self._started))),
        }

    def _processes(self) -> dict[str, int]:
        """Return how many processes live, if that is known."""
        return {"processes": sum(self._table.live().values())} if self._plan.keeps_table else {}

    def _groups(self) -> dict[str, str]:
        """Return what says where processes run, and what that is called, if that is asked for."""
        if not self._core.places:
            return {}
        pods, containers = self._helpers.pods, self._helpers.containers
        names = "" if pods is None else "; names of pods from the Kubernetes API"
        names += "" if containers is None else f"; names of containers from {containers.path}"
        return {"groups": f"{', '.join(self._tallies.groups.names)} from {self._core.places}{names}"}

    def snapshot(self) -> TallySnapshot:
        """Copy what is counted of programs."""
        live = self._table.live()
        live.pop(EXCLUDED, None)
        names = self._tallies.groups.names
        in_groups = None
        if names:
            in_groups = {key: n for key, n in self._table.live_in_groups().items() if key[0] != EXCLUDED}
        return TallySnapshot(
            self._tallies.snapshot_cells(),
            self._tallies.snapshot_programs(),
            live,
            self._shown,
            self._tallies.limit,
            has_native=self._tallies.bounds is BOTH_BOUNDS,
            began_seconds=None if self._tallies.births is None else self._tallies.births.began_seconds,
            group_labels=names,
            live_in_groups=in_groups,
        )

    def _missed(self) -> dict[str, int] | None:
        """Return the events that did not come, of the kinds that records show; None if that is none."""
        table, kinds = self._table, set[str]()
        if self._plan.keeps_table and self._core.has_records:
            kinds.add("exit")
        if table.sideband.is_active:
            kinds |= {"fork", "exec"}
        return {kind: count for kind, count in table.missed_events.items() if kind in kinds} or None

    def status(self) -> Status:
        """Copy the exporter's own state."""
        failures, hub, pods, containers, reloading, exit_check = self._helpers
        buffers = self._feed.buffers()
        wanted = self._plan.wanted
        return Status(
            events=_only(wanted, asdict(self._table.events)),
            records=self._core.pipeline.records - self._table.canaries.recorded
            if self._core.has_records
            else None,
            task_exits=None if exit_check is None else exit_check.ended,
            pending=_only(wanted, self._table.pending()),
            unattributed=_only(wanted, self._tallies.unattributed()),
            excluded=_only(wanted, self._tallies.excluded()),
            group_unresolved=self._table.grouping.unresolved or None,
            kubernetes_last_sync_seconds=None if pods is None else pods.last_sync_seconds or 0.0,
            kubernetes_failures=None if pods is None else pods.failures,
            containers_connected=None if containers is None else containers.is_connected,
            containers_failures=None if containers is None else containers.failures,
            expired=_only(wanted, self._tallies.expired()),
            reload_successful=None if reloading is None else reloading.successful,
            reload_timestamp_seconds=None if reloading is None else reloading.timestamp_seconds,
            unknown_lifetimes=self._table.unknown_lifetimes if LIFETIME in self._shown else None,
            lost_ends=self._table.lost_ends if self._plan.keeps_table else None,
            missed=self._missed(),
            resyncs=self._feed.resyncs,
            resubscriptions=self._feed.resubscriptions,
            failures_left_out=failures.left_out(),
            canary_age_seconds=self._canary_age(),
            lost_messages=self._core.pipeline.lost,
            malformed=self._feed.malformed(),
            drain_ns=self._feed.drain_ns,
            receive_buffer_bytes={name: buffer.limit_bytes for name, buffer in buffers.items()},
            receive_buffer_used_bytes={name: buffer.used_bytes for name, buffer in buffers.items()},
            attribution=(self._core.mode, self._core.filter, self._core.exec_names),
            oom_source=(self._table.oom_kills.source or "none",) if self._plan.has_ends else None,
            stream_clients=None if hub is None else hub.clients,
            stream_dropped=None if hub is None else hub.dropped,
        )


def _only(wanted: frozenset[str], counts: dict[str, int]) -> dict[str, int]:
    """Leave out the events that the user did not ask for. A non-zero exit arrives as an exit."""
    names = wanted | ({"exit"} if "nonzero_exit" in wanted else set())
    return {name: count for name, count in counts.items() if name in names}
