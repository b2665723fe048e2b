"""Measures the exporter beside its peers on this machine: `PYTHONPATH=tests python -m bench`, as root."""

import argparse
import datetime as dt
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

from bench import growth, machine, matrix, poller, report, scrape_cost, series_table, targets
from bench.exporter_client import ExporterDiedError
from bench.programs import compile_programs
from bench.setup import Bench, say

PARTS = ("storms", "series", "scrape", "growth")

T = TypeVar("T")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="two small rounds: does it work, is anything far off?"
    )
    parser.add_argument(
        "--only", metavar="PARTS", default=",".join(PARTS), help=f"some of {','.join(PARTS)} (comma-separated)"
    )
    parser.add_argument(
        "--output", metavar="FILE.md", type=Path, help="also put the figures between this file's markers"
    )
    arguments = parser.parse_args(argv)
    arguments.only = arguments.only.split(",")
    if unknown := set(arguments.only) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return arguments


def _stop(number: int, _: FrameType | None) -> None:
    # Unwinds all context managers: readers end, settings of the kernel are put back.
    raise SystemExit(128 + number)


def main(argv: list[str]) -> int:
    """Run it."""
    arguments = _parse(argv)
    if os.geteuid() != 0:
        say("bench: needs root: taskstats, peers and kernel.pid_max do")
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    begin = time.monotonic()
    others = machine.connector_listeners()
    machine.leave_events_on()
    failed: list[str] = []

    def run(part: str, measure: Callable[[Bench], T]) -> T | None:
        if part not in arguments.only:
            return None
        try:
            return measure(bench)
        except (ExporterDiedError, OSError, RuntimeError, subprocess.SubprocessError) as error:
            say(f"bench: {part}: {error}")
            failed.append(part)
            return None

    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        bench = Bench(compile_programs(folder), folder, arguments.quick)
        seen = run("storms", poller.measure)
        results = targets.Results(
            run("storms", matrix.measure),
            run("series", series_table.measure),
            run("scrape", scrape_cost.measure),
            run("growth", growth.measure),
        )
    size = "quick: small storms, " if bench.quick else ""
    seconds = time.monotonic() - begin
    circumstances = [
        f"- {dt.datetime.now(dt.UTC):%Y-%m-%d}, {machine.describe()}",
        f"- {size}{bench.rounds} rounds, {seconds:.0f} s in all; medians, lowest and highest round in brackets",
        f"- other listeners to the process connector on this host when it began: {others}",
        *(f"- **could not be measured: {part}**" for part in failed),
    ]
    figures = report.render(results, seen, list(targets.check(results)), circumstances)
    sys.stdout.write(figures)
    if arguments.output is not None:
        report.write_between_markers(arguments.output, figures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
