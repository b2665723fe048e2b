"""Under which name an end counts."""

from exporter.kernel.taskstats import Record, decode_comm_uid
from exporter.processes.open_names import READING_SETTLES_NS
from exporter.processes.process import Process
from exporter.processes.shared import Shared
from exporter.tallies.cells import Cell


class EndNames:
    """Names processes that end.

    Args:
        shared: The table's parts.
    """

    def __init__(self, shared: Shared) -> None:
        self._naming = shared.naming
        self._tallies = shared.tallies
        self._sideband = shared.sideband

    def cell_of(
        self,
        process: Process | None,
        timestamp_ns: int,
        leader: Record | None,
        last: Record | None,
        *,
        killed: bool,
    ) -> Cell:
        """Return the cell in which an end counts, and count the exec that has waited for that name.

        Args:
            process: The process; None if nothing is known of it.
            timestamp_ns: Of its end.
            leader: The record of its leader, if there is one.
            last: The record of its last thread, if there is one.
            killed: By a signal.

        An exec that fails after the point of no return has changed the comm, and kills its process. So the comm of
        a process that was killed need not be that of its last EXEC.
        """
        # Records of a pid that was used again can be the next process's.
        if process is None or process.is_late:
            unfinished = False
        else:
            names = self._sideband.end(process.tgid, process.start_ns, timestamp_ns)
            died_ns = timestamp_ns if process.odd is None else process.odd.dumped_ns or timestamp_ns
            unfinished = killed and bool(names) and died_ns - names[-1].time_ns < READING_SETTLES_NS
            lost = names[:-1] if unfinished else names
            if lost:
                self._sideband.missed_execs += len(lost)
                self._naming.rename(process, lost[-1].comm, timestamp_ns)
                if leader is not last:
                    # Of the leader before that exec, which another thread called.
                    leader = None
        if leader is not None and not unfinished:
            group = None if process is None else process.cell.group
            cell = self._tallies.claim_cell_of_record(leader[4], group)
            if process is not None and process.execd_ns:
                process.note_exec()
                unsure = self._tallies.claim_cell(None, cell.uid, cell.group) if killed else cell
                self._naming.count_exec(process, unsure)
            return cell
        if process is None:
            # A thread's comm need not be its process's.
            return self._tallies.claim_cell(None, None if last is None else decode_comm_uid(last[4])[1])
        if process.needs_name:
            self._naming.name_at_end(process, timestamp_ns, killed=killed)
        return self._naming.cell_at_end(process, timestamp_ns, killed=killed)
