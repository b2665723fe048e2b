"""What to listen to here: the best that is allowed, found by trying."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from exporter.errors import SetupError
from exporter.kernel import cn_proc
from exporter.kernel.sockets import Connector, Taskstats, open_connector, open_taskstats

_LOG = logging.getLogger(__name__)

_POSSIBLE_CPUS = Path("/sys/devices/system/cpu/possible")


class Sources(NamedTuple):
    """The open sockets: exit records, or where they are not to be had a second subscription to read names by."""

    connector: Connector
    taskstats: Taskstats | None
    names: Connector | None

    @property
    def mode(self) -> str:
        """Where comm and uid come from, as --attribution calls it."""
        return "procfs" if self.taskstats is None else "taskstats"


@contextmanager
def open_sources(attribution: str) -> Iterator[Sources]:
    """Open what --attribution asks for.

    Args:
        attribution: taskstats, procfs, or auto: taskstats if it is permitted.

    Raises:
        SetupError: It cannot be had here.
    """
    with ExitStack() as sockets:
        # First the records: then every EXIT finds its own. Whoever listens drops those that are too old.
        taskstats = _open_taskstats(attribution)
        if taskstats is not None:
            sockets.enter_context(closing(taskstats))
        connector = sockets.enter_context(closing(open_connector()))
        if taskstats is not None:
            yield Sources(connector, taskstats, None)
        else:
            names = sockets.enter_context(closing(open_connector()))
            names.narrow(cn_proc.PROC_EVENT_FORK | cn_proc.PROC_EVENT_EXEC)
            yield Sources(connector, None, names)


def _open_taskstats(attribution: str) -> Taskstats | None:
    if attribution == "procfs":
        return None
    try:
        return open_taskstats(_POSSIBLE_CPUS.read_text(encoding="ascii").strip())
    except (SetupError, OSError) as error:
        if attribution == "taskstats":
            raise SetupError(f"--attribution=taskstats: {error}") from error
        _LOG.info(
            "names come from /proc, those of very short-lived processes may be unknown", extra={"why": error}
        )
        return None
