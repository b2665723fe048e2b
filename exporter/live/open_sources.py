"""Opening the sockets: takes the best source of names that the kernel permits, found by trying."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from exporter.errors import SetupError
from exporter.kernel.bpf import EventFilter
from exporter.kernel.connector_socket import Connector, open_connector
from exporter.kernel.perf_rings import PerfRings, open_perf_rings
from exporter.kernel.pidfd import knows_cgroup_ids
from exporter.kernel.taskstats import AGROUP_SINCE_VERSION
from exporter.kernel.taskstats_socket import Taskstats, open_taskstats
from exporter.live.sessions import SESSIONS
from exporter.plan import Plan, make_plan
from exporter.processes.name_hints import FORKS_AND_EXECS

_LOG = logging.getLogger(__name__)

_POSSIBLE_CPUS = Path("/sys/devices/system/cpu/possible")


class Sources(NamedTuple):
    """The open sockets, and what they were opened for.

    Names come from side-band records and exit records, or where there are neither from /proc: then a second
    connector socket says when to read there.
    """

    plan: Plan
    connector: Connector
    taskstats: Taskstats | None
    names: Connector | None
    rings: PerfRings | None = None
    sessions: Connector | None = None
    """Receives SID at once; None where groups are not asked for."""

    @property
    def exec_names(self) -> str:
        """Where the comm of an exec comes from, as --exec-names calls it."""
        return "events" if self.rings is None else "sideband"

    @property
    def mode(self) -> str:
        """Where comm and uid come from, as --attribution calls it."""
        return "procfs" if self.taskstats is None else "taskstats"

    @property
    def filter(self) -> str:
        """What leaves out unwanted events, as --filter calls it."""
        return "kernel" if self.connector.kernel_masks else "bpf"

    @property
    def records_end_processes(self) -> bool:
        """Exit records mark the last thread of a process."""
        return _records_end_processes(self.taskstats)


@contextmanager
def open_sources(
    attribution: str,
    events: frozenset[str],
    filter_by: str,
    buffer_bytes: int,
    *,
    exec_names: str = "auto",
    named: bool = False,
    grouped: bool = False,
) -> Iterator[Sources]:
    """Open the sockets, and close them when the block ends.

    Args:
        attribution: taskstats, procfs, or auto: taskstats if it is permitted.
        events: What the user asked for, of events.EVENTS.
        filter_by: kernel, bpf or auto.
        buffer_bytes: Size of each socket's receive buffer.
        exec_names: sideband, events, or auto: side-band records if they are permitted.
        named: Each event is to have a name, even if that takes events that the user did not ask for.
        grouped: It is to be known in which group a process is.

    Raises:
        SetupError: The kernel does not permit or does not have it; says what is missing.
    """
    with ExitStack() as sockets:
        # Records first: then every EXIT finds its own. The first comparison with /proc drops older records.
        taskstats = _open_taskstats(attribution, buffer_bytes)
        if taskstats is not None:
            sockets.enter_context(closing(taskstats))
        plan = make_plan(
            events,
            exact=taskstats is not None,
            records_end_processes=_records_end_processes(taskstats),
            named=named,
            grouped=grouped,
        )
        if taskstats is not None:
            if plan.failures_only:
                taskstats.keep_failed_only()
            else:
                taskstats.keep_ends_only()

        # Before the subscription: then each event finds its record.
        # Of a process that is gone they say in which container it was, where the kernel does not say its cgroup.
        mounts = grouped and not knows_cgroup_ids()
        rings = _open_rings(exec_names, mounts=mounts) if plan.keeps_table else None
        if rings is not None:
            sockets.enter_context(closing(rings))

        def subscribe(wanted: EventFilter) -> Connector:
            return sockets.enter_context(closing(open_connector(wanted, filter_by, buffer_bytes=buffer_bytes)))

        connector = subscribe(plan.deliver)
        reads_proc = taskstats is None and rings is None and plan.keeps_table
        names = subscribe(FORKS_AND_EXECS) if reads_proc else None
        sessions = subscribe(SESSIONS) if grouped else None
        yield Sources(plan, connector, taskstats, names, rings, sessions)


def _records_end_processes(taskstats: Taskstats | None) -> bool:
    return taskstats is not None and taskstats.version >= AGROUP_SINCE_VERSION


def _open_taskstats(attribution: str, buffer_bytes: int) -> Taskstats | None:
    if attribution == "procfs":
        return None
    try:
        return open_taskstats(_POSSIBLE_CPUS.read_text(encoding="ascii").strip(), buffer_bytes=buffer_bytes)
    except (SetupError, OSError) as error:
        if attribution == "taskstats":
            raise SetupError(f"--attribution=taskstats: {error}") from error
        _LOG.info(
            "names come from /proc, those of very short-lived processes may be unknown", extra={"why": error}
        )
        return None


def _open_rings(exec_names: str, *, mounts: bool) -> PerfRings | None:
    if exec_names == "events":
        return None
    try:
        return open_perf_rings(mounts=mounts)
    except SetupError as error:
        if exec_names == "sideband":
            raise SetupError(f"--exec-names=sideband: {error}") from error
        _LOG.info(
            "no side-band records: an exec whose process execs again at once may have no name",
            extra={"why": error},
        )
        return None
