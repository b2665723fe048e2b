"""Comms that are not known yet: what is believed of them, and when.

After an exec the kernel does not say the new comm. What happens under it is counted in cells of its own, shared by
the process and by the children that inherit the comm, until one of them shows it: by its exit record, or by a
reading of /proc.

A late look into /proc can meet the comm after the *next* exec. So what was read is kept as a `Reading` with its
time, and believed only when no other change of that process can explain it; see `OpenNames.leave`.
"""

from collections.abc import Container
from functools import partial

from exporter.processes.process import OpenName, Process
from exporter.tallies.cells import count_events
from exporter.tallies.tallies import Tallies

# An exec changes the comm, maps the program and only then sends its event. A reading can fall in between and show
# a name whose event is still to come, so it is believed when none came for this long.
READING_SETTLES_NS = 100_000_000

# A process that execs again and again before any of its names is known: the oldest is then given up.
_MAX_RIVALS = 8


class OpenNames:
    """All names that are not known yet.

    Args:
        tallies: Where a name's counts go once it is known.

    Attributes:
        graves: Names whose last carrier was read as a zombie, by the tgid that it had. Whether it was read, and
            not the next process with that pid, is known when all events up to the reading are.
    """

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies
        # In the order in which they were opened: what is counted then is the same each time, order and all.
        self._names: dict[OpenName, None] = {}
        self.graves: dict[int, OpenName] = {}

    def __len__(self) -> int:
        return len(self._names)

    def new(self, process: Process) -> OpenName:
        """Open a name for a process."""
        name = OpenName()
        name.carriers[process] = None
        self._names[name] = None
        return name

    def leave(
        self, name: OpenName, process: Process, timestamp_ns: int, successor: OpenName | bytes
    ) -> Process | None:
        """Note that a process gives up a name that is still open.

        The event is sent after the comm has changed. So a reading that is older than the event shows the old
        name or the new one; if it is not the new one, it is the old one. A reading that is younger than the
        event says nothing about the old name.

        Args:
            name: What it was called.
            process: The process.
            timestamp_ns: Of the event.
            successor: What it is called now: known (a COMM event) or open too (an EXEC).

        Returns:
            Another process that carries the name and should be read now, if there is one.
        """
        name.carriers.pop(process, None)
        reading = name.reading
        if reading is not None and reading.process is not process:
            return None
        name.reading = None
        if name.carriers:
            return next(iter(name.carriers))
        if reading is None or timestamp_ns <= reading.read_ns:
            self.resolve(name, None)
        elif isinstance(successor, bytes):
            self.resolve(name, reading.comm if reading.comm != successor else None)
        elif name.depth >= _MAX_RIVALS:
            self.resolve(name, None)
        else:
            successor.rivals.append((name, reading.comm))
            successor.depth = name.depth + 1
        return None

    def bury(
        self, name: OpenName, process: Process, timestamp_ns: int, recorded: bytes | None, *, killed: bool = False
    ) -> Process | None:
        """Note that a process ends under a name that is still open.

        If it was killed, that can have been an exec which failed after it had changed the comm. So what was read
        just before is not believed.

        Args:
            name: What it was called.
            process: The process.
            timestamp_ns: Of its EXIT.
            recorded: The comm in its exit record, if there is one and it is the name.
            killed: By a signal.

        Returns:
            Another process that carries the name and should be read now, if there is one.
        """
        name.carriers.pop(process, None)
        if recorded is not None:
            self.resolve(name, recorded)
            return None
        reading = name.reading
        if reading is not None and reading.process is process and killed:
            is_certain = timestamp_ns > reading.read_ns + READING_SETTLES_NS
            reading = name.reading = reading if is_certain else None
        if reading is None and name.carriers:
            return next(iter(name.carriers))
        if reading is None:
            self.resolve(name, None)
        elif reading.process is not process:
            pass
        elif timestamp_ns > reading.read_ns or process.is_late:
            # A late process was read before it lost its pid (see lose_pid): that was itself.
            self.resolve(name, reading.comm)
        else:
            self.reuse(process.tgid)
            self.graves[process.tgid] = name
        return None

    def lose_pid(self, process: Process, timestamp_ns: int) -> None:
        """Note that a process under an open name has lost its pid to another, which was forked then.

        What was read since can be the other one's.
        """
        name = process.open_name
        reading = None if name is None else name.reading
        if name is not None and reading is not None and reading.process is process:
            name.reading = reading if reading.read_ns < timestamp_ns else None

    def reuse(self, tgid: int) -> None:
        """Give up what was read under a pid that was another process's in the meantime."""
        name = self.graves.pop(tgid, None)
        if name is not None:
            self.resolve(name, None)

    def drop(self, name: OpenName, process: Process) -> Process | None:
        """Note that a process which carried the name is gone, without an event that said when.

        Returns:
            Another process that carries the name and should be read now, if there is one.
        """
        name.carriers.pop(process, None)
        if not name.carriers:
            self.resolve(name, None)
            return None
        if name.reading is not None and name.reading.process is not process:
            return None
        name.reading = None
        return next(iter(name.carriers))

    def resolve(self, name: OpenName, comm: bytes | None) -> None:
        """Close a name (None: its comm will never be known), and count there what was counted under it."""
        todo: list[tuple[OpenName, bytes | None]] = [(name, comm)]
        while todo:
            name, comm = todo.pop()
            if name not in self._names:
                continue
            del self._names[name]
            for (uid, group), counted in name.cells.items():
                self._tallies.absorb(self._tallies.claim_cell(comm, uid, group), counted)
            name.close(partial(self._tallies.claim_cell, comm))
            todo += [(rival, read if comm is not None and read != comm else None) for rival, read in name.rivals]

    def resolve_all_unknown(self) -> None:
        """Give all of them up: messages were lost, so a reading can be of an exec whose event was lost."""
        self.graves.clear()
        for name in list(self._names):
            self.resolve(name, None)

    def end_batch(self, complete_until_ns: int, living: Container[int]) -> None:
        """Believe the readings that have stood for long enough.

        Args:
            complete_until_ns: All events before that have been applied.
            living: The tgids of processes that live.
        """
        if not self._names and not self.graves:
            return
        for tgid, name in list(self.graves.items()):
            if tgid in living or name.reading is None:
                self.reuse(tgid)
            elif name.reading.read_ns < complete_until_ns:
                del self.graves[tgid]
                self.resolve(name, name.reading.comm)
        settled_ns = complete_until_ns - READING_SETTLES_NS
        for name in [name for name in self._names if name.carriers]:
            if name.reading is not None and name.reading.read_ns < settled_ns:
                self.resolve(name, name.reading.comm)

    def pending(self) -> dict[str, int]:
        """Count the events that wait for a name, by kind."""
        return count_events(cell for name in self._names for cell in name.cells.values())
