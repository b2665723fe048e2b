"""Captures in memory, and what comes out when they are replayed."""

from dataclasses import asdict, dataclass, field
from typing import Any

from host import Mode, make_pipeline

from exporter.capture.format import Frame
from exporter.capture.recorder import Recorder, Tape
from exporter.capture.replay import Answers, Player
from exporter.events import EVENTS
from exporter.exposition.metrics import program_metrics
from exporter.exposition.render import render
from exporter.exposition.snapshot import TallySnapshot
from exporter.processes.bad_ends import Take
from exporter.processes.pipeline import Pipeline
from exporter.processes.places import Places
from exporter.processes.table import ProcessTable
from exporter.tallies.labels import group_label_names
from exporter.tallies.tallies import Tallies


@dataclass
class MemoryTape:
    """Files that are full after so many frames."""

    frames_per_file: int = 1 << 30
    files: list[list[Frame]] = field(default_factory=lambda: [[]])

    @property
    def full(self) -> bool:
        return len(self.files[-1]) >= self.frames_per_file

    def write(self, frame: Frame) -> None:
        self.files[-1].append(frame)

    def begin_next(self) -> None:
        self.files.append([])


class Replayed:
    """What an exporter that plays the frames counts.

    Args:
        mode: Which the frames were taken in.
        frames: What it plays.
        tape: Gets a capture of the replay.
        sideband: They have side-band records.
        take: Gets the failures after each batch.
        group_by: What groups are made of.
        names_pods: Names of pods come.
        names_containers: Names of other containers come.
        oom_source: What says which processes the OOM killer chose.
    """

    def __init__(
        self,
        mode: Mode,
        frames: list[Frame],
        tape: Tape | None = None,
        *,
        sideband: bool = False,
        take: Take | None = None,
        group_by: frozenset[str] = frozenset(),
        names_pods: bool = False,
        names_containers: bool = False,
        oom_source: str = "",
    ) -> None:
        answers = Answers()
        self.tallies = Tallies(group_labels=group_label_names(group_by))
        recorder = None if tape is None else Recorder(tape, answers.read_comm, answers.read_ns)
        proc = answers if recorder is None else recorder
        self.pipeline = make_pipeline(
            mode,
            self.tallies,
            proc.read_comm,
            proc.read_ns,
            lambda socket, error: None,
            sideband=sideband,
            places=Places(self.tallies, group_by, names_pods=names_pods, names_containers=names_containers)
            if group_by
            else None,
            oom_source=oom_source,
        )
        if recorder is not None:
            recorder.record(self.pipeline)
        self.table = self.pipeline.table
        self.pipeline.take_failures(take, at_once=True)
        self.player = Player(self.pipeline, answers)
        for frame in frames:
            for _ in self.player.play(frame):
                pass


def exposition(tallies: Tallies, table: ProcessTable) -> str:
    """The text of all families of processes."""
    shown = program_metrics(EVENTS, records=True, live=True, oom_kills=True)
    names = tallies.groups.names
    snapshot = TallySnapshot(
        tallies.snapshot_cells(),
        tallies.snapshot_programs(),
        table.live(),
        shown,
        group_labels=names,
        live_in_groups=table.live_in_groups() if names else None,
    )
    return "".join(render(snapshot, openmetrics=False))


def status(tallies: Tallies, pipeline: Pipeline) -> dict[str, Any]:
    """What an exporter says of itself that a replay can say too."""
    table = pipeline.table
    return {
        "events": asdict(table.events),
        "pending": table.pending(),
        "unattributed": tallies.unattributed(),
        "group_unresolved": table.grouping.unresolved,
        "unknown_lifetimes": table.unknown_lifetimes,
        "lost_ends": table.lost_ends,
        "missed": table.missed_events,
        "canaries": (table.canaries.ended, table.canaries.recorded),
        "records": pipeline.records,
        "lost": pipeline.lost,
        "malformed": pipeline.malformed,
    }
