"""Captures of an earlier exporter are counted by this one's rules, and are written the same.

`format_1/*` were written by the exporter of commit 1407210, before captures were a log of the calls of one class:
histories of tests/simulation.py with losses and the comparisons with /proc that follow. Never write them anew. The
texts follow the rules of counting: `--update-golden` writes them anew. Since they were taken, an exit record needs
the wait status of its EXIT, an EXIT whose record was lost may not be the last one, a process that was killed and a
child whose forker is not known give no name to an exec, of a process whose record was lost a comparison says
nothing that can be true of the next one with its pid only, and the record of a thread that neither leads nor ends
its process is left out, so that it is not missed if its EXIT was lost.
"""

from collections import deque
from pathlib import Path

import builders
import pytest
from host import Mode
from replayed import MemoryTape, Replayed, exposition

from exporter.capture.file import open_capture
from exporter.capture.format import Frame, encode_entry, iter_entries, iter_frames
from exporter.capture.kinds import KINDS, READ_COMM, decode_batch
from exporter.kernel.cn_proc import PROC_EVENT_EXIT, decode_proc_event

# Where the datagram of a record has the thread's id, and its struct taskstats.
PID, STATS = 28, 36
FOLDER = Path(__file__).with_name("format_1")
CAPTURES = {
    "exact": Mode.EXACT,
    "old-records": Mode.OLD_RECORDS,
    "procfs": Mode.PROCFS,
    "continued": Mode.EXACT,
}


def frames_of(name: str) -> list[Frame]:
    with open_capture(FOLDER / f"{name}.capture") as (_, file):
        frames = list(iter_frames(file.read))
    return with_tgids(frames) if CAPTURES[name] is Mode.EXACT else frames


def with_tgids(frames: list[Frame]) -> list[Frame]:
    """Say in each record of which process its thread was, as kernels do and the simulation did not yet."""
    tgids: dict[tuple[int, int], deque[int]] = {}
    for frame in frames:
        for letter, body in iter_entries(frame.entries):
            for datagram in datagrams_of(body) if letter == "E" else ():
                what, _, pid, tgid, status, *_ = decode_proc_event(datagram)
                if what == PROC_EVENT_EXIT:
                    tgids.setdefault((pid, status), deque()).append(tgid)
    at = STATS + builders.taskstats_offset("ac_tgid", 16)

    def corrected(body: bytes) -> bytes:
        for datagram in datagrams_of(body):
            pid, status = (int.from_bytes(datagram[i : i + 4], "little") for i in (PID, STATS + 4))
            of_exits = tgids.get((pid, status))
            tgid = of_exits.popleft() if of_exits else pid
            body = body.replace(datagram, datagram[:at] + tgid.to_bytes(4, "little") + datagram[at + 4 :])
        return body

    return [
        frame._replace(
            entries=b"".join(
                encode_entry(letter, corrected(body) if letter == "R" else body)
                for letter, body in iter_entries(frame.entries)
            )
        )
        for frame in frames
    ]


def datagrams_of(body: bytes) -> list[bytes]:
    [(batch,)] = decode_batch(body)
    return [batch.datagram(index) for index in range(len(batch.lengths))]


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
    assert {letter for letter, _ in entries} == {READ_COMM, *(kind.letter for kind in KINDS)} - set("SBDOVUI")
