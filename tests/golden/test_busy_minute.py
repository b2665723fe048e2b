"""The sample capture: it is what its script makes, and whoever tries the product sees something in it."""

from collections import Counter

from golden.busy_minute import HEADER, SAMPLE, Minute
from host import Mode
from replayed import Replayed

from exporter.capture.file import open_capture
from exporter.capture.format import iter_frames


def test_the_sample_is_what_its_script_makes() -> None:
    with open_capture(SAMPLE) as (header, file):
        assert header == HEADER
        assert list(iter_frames(file.read)) == Minute().run()


def test_the_sample_shows_a_build_a_crash_loop_a_kill_and_a_core_dump() -> None:
    with open_capture(SAMPLE) as (_, file):
        replayed = Replayed(Mode.EXACT, list(iter_frames(file.read)))
    cells = replayed.tallies.snapshot_cells()
    exits: dict[str, Counter[int]] = {}
    for (comm, _), counted in zip(cells.keys, cells.exits, strict=True):
        exits.setdefault(comm, Counter()).update(counted)
    assert exits["mail-worker"] == {0x100: 60}
    assert exits["cc1"][0] > 500
    assert 0 < exits["cc1"][0x100] < 50
    assert (exits["pg_dump"], exits["image-resize"]) == ({9: 1}, {0x0B: 1})
    assert sum(cells.counters["coredumps"]) == 1
    assert replayed.tallies.unattributed()["exit"] == 0
