"""Processes that behave as Linux does, step by step, and keep the truth about themselves.

What takes time in the kernel takes time here: between a change of comm and its event, between an exit record and
its EXIT, all others go on, and a reader of /proc meets what is there at that moment. Pids are few, so
they are used again at once. Source of every rule: kernel/{exit,fork}.c, fs/exec.c, as observed on Linux 6.18.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import builders
from host import MS, OWN_TGID, Host, Mode, Thread

from exporter.capture.recorder import Tape
from exporter.tallies.tallies import Tallies

Step = tuple[int, int, int]
"""(which of World.STEPS, modulo their number; two numbers that choose among what there is)"""

# A comm is changed before its event is sent; the exporter counts on less than names.READING_SETTLES_NS (100 ms).
WINDOW_NS = 90 * MS
_PIDS = range(10, 22)
_UIDS = (0, 33, 1000, 100005)
_STATUSES = (0, 0x100, 0x700, 0x9, 0xB, 0x86)
_EXPECTED_COMMS = (b"same-0", b"same-1")


class Name:
    """One exec or rename: a process that got its comm by it, or inherited it from one, has this Name."""

    def __init__(self, comm: bytes) -> None:
        self.comm = comm
        self.execs = 0
        self.owner: Process | None = None
        """Which exec'd it."""
        self.ended_under = False
        """Its owner has, and not by a signal: that can have been an exec that failed, which had another name."""


@dataclass
class Task:
    """A thread."""

    tid: int
    comm: bytes
    status: int | None = None
    """Set once it is exiting."""
    last: bool = False
    """The last of its process to begin its exit."""


@dataclass
class Process:
    """A thread group."""

    tgid: int
    parent: int
    uid: int
    name: Name
    leader: Task
    tasks: dict[int, Task]
    """Whose EXIT has not been sent."""
    ended: bool = False
    reaped: bool = False
    unsent: Callable[[], None] | None = None
    """The event of the exec or rename that it is in the middle of."""
    since_ns: int = 0
    start_ns: int = 0
    cloned: bool = False
    """It is not a child of the process that forked it (CLONE_PARENT)."""

    def running(self) -> list[Task]:
        return [task for task in self.tasks.values() if task.status is None]


@dataclass
class Truth:
    """What should be counted, by bytes of comm and number of uid."""

    forks: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    execs: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    exits: Counter[tuple[bytes, int, int]] = field(default_factory=Counter)
    other_exits: Counter[tuple[bytes, int, int]] = field(default_factory=Counter)
    """Of ends in an exec that failed: what they are also called, as the comm changes amid it."""
    names: list[Name] = field(default_factory=list)


class World(Host):
    """A host whose processes do what a list of steps says.

    Args:
        mode: As for Host.
        meanwhile: Steps that are taken while the exporter is at work: around each of its looks into /proc, and
            between the two sockets.
        tallies: Where it is counted, if not in new ones.
        tape: Gets a capture of it.
        sideband: The kernel writes side-band records too.
    """

    def __init__(
        self,
        mode: Mode,
        meanwhile: Iterable[Step] = (),
        tallies: Tallies | None = None,
        *,
        tape: Tape | None = None,
        sideband: bool = False,
    ) -> None:
        super().__init__(mode, tallies=tallies, tape=tape, sideband=sideband)
        self.step_ms = 0.01
        self.truth = Truth()
        self._meanwhile = list(meanwhile)[::-1]
        self._fresh = 0
        init = Task(1, b"init")
        self.processes = {1: Process(1, 0, 0, Name(b"init"), init, {1: init})}
        # Reaped, so that their pids are free, before they have sent all their EXITs.
        self.late: list[Process] = []
        # A child of the exporter that is not reaped yet, and whether it still runs.
        self._canary: int | None = None
        self._canary_runs = False
        self._born_since_drain: set[int] = set()
        # Pids of processes that died in an exec.
        self.dying: set[int] = set()
        self.lives(1, b"init")

    # -- the exporter's side ------------------------------------------------------------------------------------

    def _read_comm(self, tgid: int) -> bytes | None:
        self._go_on()
        process = self.processes.get(tgid)
        comm = None if process is None or process.reaped else process.leader.comm
        self._go_on()
        self.rest()
        return comm

    def _go_on(self) -> None:
        if self._meanwhile:
            self._take(self._meanwhile.pop(), self.KERNEL_STEPS)

    def drain(self, *, complete: bool = True) -> None:
        """As the listener does: early names, connector, taskstats, apply."""
        self.rest()
        began_ns = self.now_ns
        if self.mode is not Mode.EXACT and not self.sideband:
            self.read_early()
        events, self._events = self._events, []
        self._born_since_drain.clear()
        self.pipeline.take_events(builders.batch(events))
        self._go_on()
        records, self._records = self._records, []
        self.pipeline.take_records(builders.batch(records, builders.TASKSTATS_STRIDE))
        self._go_on()
        self.read_rings()
        complete_until_ns = began_ns if complete else 0
        self.pipeline.apply(complete_until_ns)

    def read_early(self) -> None:
        names, self._names_socket = self._names_socket, []
        self.pipeline.take_names(builders.batch(names))

    # -- steps --------------------------------------------------------------------------------------------------

    def run(self, steps: Iterable[Step]) -> Iterator[None]:
        """Take steps, and stop after each at which something can be checked."""
        for step in steps:
            self._take(step, self.STEPS)
            yield

    def _take(self, step: Step, steps: tuple[Callable[["World", int, int], None], ...]) -> None:
        which, a, b = step
        self.rest()
        steps[which % len(steps)](self, a, b)

    def finish(self) -> None:
        """Let everything that has begun come to its end and be counted."""
        self.drain()
        self._meanwhile.clear()
        self.canary_ends(0, 0)
        for process in list(self.processes.values()):
            self._send(process)
            for task in [task for task in process.tasks.values() if task.status is not None]:
                self._exit_event(process, task)
        for process in list(self.late):
            for task in list(process.tasks.values()):
                self._exit_event(process, task)
        for _ in range(3):
            self.settle()

    def _idle(self) -> list[Process]:
        """Processes that can do something: not in the middle of a change of comm, not ended."""
        return [p for p in self.processes.values() if p.unsent is None and not p.ended]

    def _pick(self, a: int) -> Process:
        idle = self._idle()
        return idle[-1 - a % len(idle)]

    def _free_pid(self, a: int) -> int | None:
        free = self._free_pids()
        if not free:
            self._reap_all()
            free = self._free_pids()
        return free[a % len(free)] if free else None

    def _free_pids(self) -> list[int]:
        taken = {tid for p in self.processes.values() for tid in (p.tgid, *p.tasks)}
        # A thread's number is not used again before its EXIT here: nothing distinguishes it from the next owner's.
        # And without records nothing distinguishes two processes that have died with one pid.
        late = [p for p in self.late if set(p.tasks) != {p.tgid} or self.mode is Mode.PROCFS]
        taken |= {tid for p in late for tid in (p.tgid, *p.tasks)}
        return [pid for pid in _PIDS if pid not in taken and pid != self._canary]

    def _free_tid(self, a: int) -> int | None:
        """A number that no EXIT under way has: only the wait status distinguishes a thread's from a process's."""
        free = [pid for pid in self._free_pids() if all(pid != p.tgid for p in self.late)]
        return free[a % len(free)] if free else None

    def _reap_all(self) -> None:
        for process in list(self.processes.values()):
            self._reap(process)

    def _reap(self, process: Process) -> None:
        """The parent's wait returns, perhaps before the EXIT event; the pid is free."""
        if process.ended:
            process.reaped = True
            self.processes.pop(process.tgid, None)
            if process.tasks:
                self.late.append(process)

    def _comm(self, b: int) -> bytes:
        if b % 4 == 0:
            return _EXPECTED_COMMS[b // 4 % 2]
        self._fresh += 1
        return b"name-%d" % self._fresh

    def fork(self, a: int, b: int) -> None:  # type: ignore[override]  # a step of its own
        parent = self._pick(a)
        if parent.cloned and not self.sideband:
            return
        child = self._free_pid(a + b)
        if child is None:
            return
        running = parent.running()
        thread = running[b % len(running)]
        leads = thread is parent.leader
        leader = Task(child, thread.comm)
        name = parent.name if leads else Name(thread.comm)
        born = self.processes[child] = Process(child, parent.tgid, parent.uid, name, leader, {child: leader})
        self.truth.forks[parent.leader.comm, parent.uid] += 1
        super().fork(parent.tgid, child, by_thread=thread.tid, cpu=a % 2)
        born.start_ns = self.now_ns
        self._born_since_drain.add(child)

    def clone_sibling(self, a: int, b: int) -> None:
        """The leader of a process clones a child of its own parent.

        Without side-band records nothing says who forked: the event's parent counts. And then the sibling has that
        one's uid until it ends, so both have the same here, and its name if that is settled, so it forks nothing.
        """
        forker = self._pick(a)
        parent = self.processes.get(forker.parent)
        child = self._free_pid(a + b)
        if (
            child is None
            or not self.is_recorded(child)
            or parent is None
            or parent.ended
            or parent.unsent
            or forker.leader.status is not None
        ):
            return
        if not self.sideband and (forker.uid != parent.uid or not self.mode.has_records or parent.tgid == 1):
            return
        leader = Task(child, forker.leader.comm)
        born = Process(child, parent.tgid, forker.uid, forker.name, leader, {child: leader}, cloned=True)
        self.processes[child] = born
        counts = forker if self.sideband else parent
        self.truth.forks[counts.leader.comm, counts.uid] += 1
        super().fork(parent.tgid, child, forker=forker.tgid, cpu=a % 2)
        born.start_ns = self.now_ns
        self._born_since_drain.add(child)

    def is_recorded(self, child: int) -> bool:
        """Whether a side-band record of a fork with that pid comes, where any come."""
        del child
        return True

    def fork_by_leader(self, a: int, b: int) -> None:
        del b
        if self._pick(a).leader.status is None:
            self.fork(a, 0)

    def brief_child(self, a: int, b: int) -> None:
        """A child that ends at once."""
        before = set(self.processes)
        self.fork(a, b)
        for tgid in set(self.processes) - before:
            child = self.processes[tgid]
            self._exit_begin(child, child.leader, 0x100)
            self._exit_event(child, child.leader)

    def change_comm(self, a: int, b: int) -> None:
        """Send what is unsent, or begin a rename."""
        unsent = [p for p in self.processes.values() if p.unsent is not None]
        if unsent:
            self._send(unsent[a % len(unsent)])
            return
        process = self._pick(a)
        if process.tgid == 1:
            return
        running = process.running()
        task = running[b % len(running)]
        task.comm = self._comm(b)
        if task is process.leader:
            process.name = Name(task.comm)
        self._begin(process, lambda: self.event(builders.comm, tgid=process.tgid, pid=task.tid, comm=task.comm))

    def exec_begin(self, a: int, b: int) -> None:
        """Change the image and the comm; the event comes later."""
        process = self._pick(a)
        if process.tgid == 1:
            return
        name = self._change_image(process, a, b)
        name.execs = 1
        self.truth.names.append(name)

        def send() -> None:
            self.truth.execs[name.comm, process.uid] += 1
            process.cloned = False
            super(World, self).exec(process.tgid)

        self._begin(process, send)

    def _change_image(self, process: Process, a: int, b: int) -> Name:
        running = process.running()
        caller = running[b % len(running)]
        for task in list(process.tasks.values()):
            if task is not caller and task is not process.leader:
                self._die(process, task, 0)
        if caller is not process.leader:
            # The caller takes the leader's pid; its own never gets an EXIT.
            self._die(process, process.leader, 0)
        process.leader = Task(process.tgid, self._comm(b))
        self.ring(
            builders.perf_comm(time_ns=self.now_ns, tgid=process.tgid, comm=process.leader.comm), cpu=(a + b) % 2
        )
        process.tasks = {process.tgid: process.leader}
        name = process.name = Name(process.leader.comm)
        name.owner = process
        return name

    def exec_dies(self, a: int, b: int) -> None:
        """An exec fails after the point of no return: the comm has changed, and the process is killed."""
        process = self._pick(a)
        if process.tgid == 1:
            return
        before = process.leader.comm
        self.dying.add(process.tgid)
        target = self._change_image(process, a, b).comm

        def die() -> None:
            if b % 2:
                self.event(builders.coredump, tgid=process.tgid)
            self._exit_begin(process, process.leader, 0xB)
            self._exit_event(process, process.leader)
            ends = {comm: (comm, process.uid, 0xB) for comm in (before, target)}
            if self.sideband or not self.mode.has_records:
                # Without exit records either can be what was read in /proc.
                self.truth.exits[ends[target]] -= 1
                self.truth.exits = +self.truth.exits
                self.truth.exits[ends[before]] += 1
                self.truth.other_exits[ends[target]] += 1
            else:
                self.truth.other_exits[ends[before]] += 1

        self._begin(process, die)

    def exec_at_once(self, a: int, b: int) -> None:
        self.exec_begin(a, b)
        for process in list(self.processes.values()):
            if process.unsent is not None and process.since_ns == self.now_ns:
                self._send(process)

    def _begin(self, process: Process, send: Callable[[], None]) -> None:
        process.unsent = send
        process.since_ns = self.now_ns

    def _send(self, process: Process) -> None:
        unsent, process.unsent = process.unsent, None
        if unsent is not None:
            unsent()

    def change_uid(self, a: int, b: int) -> None:
        process = self._pick(a)
        # The C library changes the uid of all threads; with one thread there is one event.
        if len(process.tasks) == 1 and process.leader.status is None:
            process.uid = _UIDS[b % len(_UIDS)]
            super().set_uid(process.tgid, process.uid)

    def start_thread(self, a: int, b: int) -> None:
        process = self._pick(a)
        tid = self._free_tid(b)
        if tid is not None:
            running = process.running()
            process.tasks[tid] = Task(tid, running[b % len(running)].comm)
            self.event(builders.fork, parent_tgid=process.parent or 1, child_tgid=process.tgid, child_pid=tid)

    def exit_thread(self, a: int, b: int) -> None:
        """One thread exits, perhaps the leader, perhaps the last."""
        process = self._pick(a)
        if process.tgid == 1:
            return
        running = process.running()
        task = running[b % len(running)]
        # A signal kills all of them.
        self._exit_begin(process, task, (0, 0x100, 0x700)[b % 3] if len(running) > 1 else 0x300)
        if self.mode is not Mode.EXACT and len(process.tasks) > 1:
            # Without AGROUP the last EXIT is taken for the end, which it is not when two exits overlap.
            self._exit_event(process, task)

    def exit_group(self, a: int, b: int) -> None:
        """Every thread dies with the same status; their EXITs come in any order."""
        process = self._pick(a)
        if process.tgid == 1:
            return
        running = process.running()
        status = _STATUSES[b % len(_STATUSES)]
        if self.mode is Mode.PROCFS and process.leader.status:
            # A thread that ends well just after its leader failed would be taken for a kernel worker.
            status = status or 0x200
        for i in range(len(running)):
            self._exit_begin(process, running[(i + a) % len(running)], status)

    def exit_event(self, a: int, b: int) -> None:
        """One EXIT that is under way is sent."""
        exiting = [
            (process, task)
            for process in (*self.late, *self.processes.values())
            for task in process.tasks.values()
            if task.status is not None
        ]
        if exiting:
            process, task = exiting[a % len(exiting)]
            self._exit_event(process, task)
            if b % 2 and not process.reaped:
                self._reap(process)

    def reap(self, a: int, b: int) -> None:
        ended = [process for process in self.processes.values() if process.ended]
        if ended:
            self._reap(ended[(a + b) % len(ended)])

    def _exit_begin(self, process: Process, task: Task, status: int) -> None:
        task.status = status
        task.last = not process.running()
        # Whether others' memory is freed first or not, the record is queued before the EXIT.
        self._record(process, task, status, last=task.last)
        if task.last:
            process.ended = True
            if process.name.owner is process and not status & 0x7F:
                process.name.ended_under = True
            self.truth.exits[process.leader.comm, process.uid, status & ~0x80] += 1

    def _exit_event(self, process: Process, task: Task) -> None:
        assert task.status is not None
        del process.tasks[task.tid]
        parent = 0 if process.reaped or task is not process.leader else process.parent or 1
        self.event(builders.exit_, tgid=process.tgid, pid=task.tid, exit_code=task.status, parent_tgid=parent)
        if process in self.late and not process.tasks:
            self.late.remove(process)

    def _record(self, process: Process, task: Task, status: int, *, last: bool) -> None:
        ms = (self.now_ns - process.start_ns) / MS if process.start_ns else 1.0
        self.record(Thread(task.tid, task.comm, process.uid), status=status, last=last, ms=ms, tgid=process.tgid)

    def _die(self, process: Process, task: Task, status: int) -> None:
        """A thread makes way for another one's exec."""
        if task.tid in process.tasks:
            if task.status is None:
                task.status = status
                self._record(process, task, status, last=False)
            self._exit_event(process, task)

    # -- the exporter's own children ----------------------------------------------------------------------------

    def canary(self, a: int, b: int) -> None:
        """Send one, or reap the one that came back."""
        if self._canary is None:
            pid = self._free_tid(a + b)
            # There are so few pids that they come round within a drain, which those of a host do not.
            if pid is not None and pid not in self._born_since_drain:
                self._canary = pid
                self._canary_runs = True
                super().fork(OWN_TGID, self._canary)
                self.pipeline.expect_canary(self._canary)
        elif self.pipeline.canary_returned(self._canary) is not None:
            self.pipeline.forget_canary(self._canary)
            self._canary = None

    def canary_ends(self, a: int, b: int) -> None:
        del a, b
        if self._canary is not None and self._canary_runs:
            self._canary_runs = False
            self.record(Thread(self._canary, b"exporter"), status=0x2A00)
            self.exit(self._canary, 0x2A00, parent=OWN_TGID)

    # -- time and the exporter ----------------------------------------------------------------------------------

    def pause(self, a: int, b: int) -> None:
        """Up to 150 ms pass; no window is held open for longer than WINDOW_NS."""
        ms = (1, 15, 60, 85, 110, 150)[(a + b) % 6]
        for process in list(self.processes.values()):
            if process.unsent is not None and self.now_ns + ms * MS - process.since_ns > WINDOW_NS:
                self._send(process)
        self.rest(ms)

    def drain_step(self, a: int, b: int) -> None:
        self.drain(complete=(a + b) % 5 != 0)

    def read_early_step(self, a: int, b: int) -> None:
        del a, b
        self.read_early()

    KERNEL_STEPS = (
        fork, fork_by_leader, brief_child, clone_sibling, exec_dies, change_comm, exec_begin, exec_at_once,
        exit_event, exit_group, exit_thread, start_thread, start_thread, change_uid, reap, canary_ends,
    )  # fmt: skip
    STEPS = (*KERNEL_STEPS, exec_begin, change_comm, drain_step, drain_step, pause, read_early_step, canary)
