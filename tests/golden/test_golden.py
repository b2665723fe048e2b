"""Captures in, the exact exposition out. `pytest --update-golden` accepts what comes out now."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from golden import record
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from replayed import Replayed

from exporter.capture.file import open_capture
from exporter.capture.format import iter_frames
from exporter.events import EVENTS
from exporter.exposition.metrics import program_metrics
from exporter.exposition.scrape import Exposition
from exporter.exposition.self_metrics import Status
from exporter.exposition.snapshot import TallySnapshot
from exporter.tallies.histograms import DRAIN_NS, new_histogram

HERE = Path(__file__).parent
# What differs from machine to machine, or from one moment to the next.
VOLATILE = ("process_", "python_", "proc_connector_exporter_build_info")
FORMATS = {"prom": "text/plain", "openmetrics": "application/openmetrics-text;version=1.0.0"}
RECORDED = [(name, mode) for name in record.RECORDINGS for mode in record.MODES]
CASES = [(name, mode, suffix) for name, mode in RECORDED for suffix in FORMATS]


class Replay:
    """An exporter that is fed with a recording."""

    def __init__(self, path: Path, mode: str) -> None:
        self._mode = mode
        with open_capture(path) as (_, file):
            replayed = Replayed(record.MODES[mode], list(iter_frames(file.read)))
        self._tallies = replayed.tallies
        self._pipeline = replayed.pipeline
        self._table = replayed.pipeline.table

    def snapshot(self) -> TallySnapshot:
        return TallySnapshot(
            self._tallies.snapshot_cells(),
            self._tallies.snapshot_programs(),
            self._table.live(),
            program_metrics(EVENTS, records=self._mode == "taskstats", live=True),
        )

    def status(self) -> Status:
        sockets = self._pipeline.malformed
        return Status(
            events=asdict(self._table.events),
            records=self._pipeline.records if self._mode == "taskstats" else None,
            pending=self._table.pending(),
            unattributed=self._tallies.unattributed(),
            excluded=self._tallies.excluded(),
            expired=self._tallies.expired(),
            unknown_lifetimes=self._table.unknown_lifetimes,
            lost_ends=self._table.lost_ends,
            missed={"exit": self._table.missed_events["exit"]} if self._mode == "taskstats" else None,
            resyncs=0,
            resubscriptions=0,
            lost_messages=dict.fromkeys(sockets, 0),
            malformed=sockets,
            drain_ns=new_histogram(DRAIN_NS),
            receive_buffer_bytes=dict.fromkeys(sockets, 1 << 20),
            receive_buffer_used_bytes=dict.fromkeys(sockets, 832),
            attribution=(self._mode, "kernel", "events"),
        )

    def scrape(self, suffix: str) -> str:
        _, pieces = Exposition(self.snapshot, self.status).pieces(FORMATS[suffix])
        return "".join(stable(b"".join(pieces).decode()))


def stable(text: str) -> Iterator[str]:
    """The lines of all families that are the same everywhere."""
    for line in text.splitlines(keepends=True):
        name = line.split(" ")[2] if line.startswith(("# HELP", "# TYPE", "# UNIT")) else line
        if not name.startswith(VOLATILE):
            yield line


def golden_file(name: str, mode: str, suffix: str) -> Path:
    return HERE / f"{name}.{mode}.{suffix}"


@pytest.mark.parametrize(("name", "mode"), RECORDED)
def test_the_recordings_are_what_their_script_makes(name: str, mode: str) -> None:
    with open_capture(golden_file(name, mode, "capture")) as (header, file):
        assert header == record.header(mode)
        assert list(iter_frames(file.read)) == record.RECORDINGS[name](record.MODES[mode])


@pytest.mark.parametrize(("name", "mode", "suffix"), CASES)
def test_the_exposition_of_a_recording_is_the_golden_file(
    name: str, mode: str, suffix: str, request: pytest.FixtureRequest
) -> None:
    text = Replay(golden_file(name, mode, "capture"), mode).scrape(suffix)
    golden = golden_file(name, mode, suffix)
    if request.config.getoption("--update-golden"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "mode", "suffix"), CASES)
def test_the_library_can_parse_the_golden_file(name: str, mode: str, suffix: str) -> None:
    text = golden_file(name, mode, suffix).read_text(encoding="utf-8")
    families = list(parse_text(text) if suffix == "prom" else parse_openmetrics(text))  # type: ignore[no-untyped-call]
    assert {"proc_connector_forks", "proc_connector_process_lifetime_seconds"} <= {f.name for f in families}
    samples = [(s.name, tuple(sorted(s.labels.items()))) for f in families for s in f.samples]
    assert len(samples) == len(set(samples))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: apt-get install prometheus)")
@pytest.mark.parametrize(("name", "mode"), RECORDED)
def test_promtool_accepts_the_golden_file(name: str, mode: str) -> None:
    with golden_file(name, mode, "prom").open("rb") as text:
        told = subprocess.run(["promtool", "check", "metrics"], stdin=text, capture_output=True, check=False)
    assert (told.returncode, told.stdout + told.stderr) == (0, b"")
