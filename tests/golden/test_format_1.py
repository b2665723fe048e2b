"""Captures of an earlier exporter are counted by this one's rules, and are written the same.

`format_1/*` were written by the exporter of commit 1407210, before captures were a log of the calls of one class:
histories of tests/simulation.py with losses and the comparisons with /proc that follow. Never write them anew. The
texts follow the rules of counting: `--update-golden` writes them anew. Since they were taken, an exit record needs
the wait status of its EXIT, an EXIT whose record was lost may not be the last one, a process that was killed and a
child whose forker is not known give no name to an exec, and of a process whose record was lost a comparison says
nothing that can be true of the next one with its pid only.
"""

from pathlib import Path

import pytest
from host import Mode
from replayed import MemoryTape, Replayed, exposition

from exporter.capture.file import open_capture
from exporter.capture.format import Frame, iter_entries, iter_frames
from exporter.capture.kinds import KINDS, READ_COMM

FOLDER = Path(__file__).with_name("format_1")
CAPTURES = {
    "exact": Mode.EXACT,
    "old-records": Mode.OLD_RECORDS,
    "procfs": Mode.PROCFS,
    "continued": Mode.EXACT,
}


def frames_of(name: str) -> list[Frame]:
    with open_capture(FOLDER / f"{name}.capture") as (_, file):
        return list(iter_frames(file.read))


def samples(text: str) -> list[str]:
    """The lines of an exposition but for the help texts, which may be reworded."""
    return [line for line in text.splitlines() if not line.startswith("# HELP")]


def of_then(now: list[str], then: list[str]) -> list[str]:
    """What an exposition has of families and metrics that there were then: others may have come since."""
    families = {line.split(" ")[2] for line in then if line.startswith("# TYPE")}
    metrics = {line.partition('metric="')[2].partition('"')[0] for line in then}
    kept, of_family = [], False
    for line in now:
        if line.startswith("# TYPE"):
            of_family = line.split(" ")[2] in families
        if of_family and line.partition('metric="')[2].partition('"')[0] in metrics:
            kept.append(line)
    return kept


@pytest.mark.parametrize("name", CAPTURES)
def test_an_old_capture_counts_what_it_counted(name: str, request: pytest.FixtureRequest) -> None:
    replayed = Replayed(CAPTURES[name], frames_of(name))
    text = exposition(replayed.tallies, replayed.table)
    path = FOLDER / f"{name}.prom"
    if request.config.getoption("--update-golden"):
        path.write_text(text, encoding="utf-8")
    then = samples(path.read_text(encoding="utf-8"))
    assert of_then(samples(text), then) == then


def calls_of(frames: list[Frame]) -> list[list[tuple[str, bytes]]]:
    """The entries but for what /proc answered: other processes are looked up by other rules."""
    return [[(x, y) for x, y in iter_entries(frame.entries) if x != READ_COMM] for frame in frames]


@pytest.mark.parametrize("name", [name for name in CAPTURES if name != "continued"])
def test_a_recording_of_its_replay_is_the_capture(name: str) -> None:
    frames, tape = frames_of(name), MemoryTape()
    Replayed(CAPTURES[name], frames, tape)
    assert calls_of(tape.files[0]) == calls_of(frames)


def test_there_is_an_old_entry_of_each_kind() -> None:
    entries = (entry for name in CAPTURES for frame in frames_of(name) for entry in iter_entries(frame.entries))
    # Side-band records came with format 2, where processes are with format 3, OOM kills with format 4.
    assert {letter for letter, _ in entries} == {READ_COMM, *(kind.letter for kind in KINDS)} - set("SBDOVU")
