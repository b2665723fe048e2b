"""What the parts of the table (exits.py, ends.py, changes.py, reconcile.py ...) all work on."""

from dataclasses import dataclass

from exporter.processes.bad_ends import BadEnds
from exporter.processes.canaries import Canaries
from exporter.processes.grouping import Grouping
from exporter.processes.last_threads import LastThreads
from exporter.processes.naming import Naming
from exporter.processes.observer import Observer
from exporter.processes.roster import Roster
from exporter.processes.sideband import Sideband
from exporter.processes.waiting_records import WaitingRecords
from exporter.tallies.tallies import Tallies


@dataclass(frozen=True, slots=True)
class Shared:
    """One table's parts, and what is delivered to it.

    Attributes:
        roster: All processes.
        naming: Gives them names.
        grouping: Gives them groups.
        tallies: Where all is counted.
        observer: Gets each event.
        bad_ends: Gets each end with a wait status other than 0.
        canaries: Processes that are left out of all counts.
        records: Exit records that wait for their EXIT.
        last_threads: Those of last threads that are not leaders.
        sideband: Side-band records that wait for their event.
        follow_threads: Remember which threads a process has: records do not mark the last one.
        keeps: All processes are kept, not only those of which something odd was seen.
        failures_only: No event comes of a thread that exits well, but the records of leaders that do so before
            their process ends.
    """

    roster: Roster
    naming: Naming
    grouping: Grouping
    tallies: Tallies
    observer: Observer
    bad_ends: BadEnds
    canaries: Canaries
    records: WaitingRecords
    last_threads: LastThreads
    sideband: Sideband
    follow_threads: bool
    keeps: bool
    failures_only: bool
