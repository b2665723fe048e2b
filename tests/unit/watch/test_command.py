"""`watch` of a capture, without a kernel: what it writes to, and how it ends."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import IO

import pytest
from golden.busy_minute import HEADER as SAMPLE_HEADER
from golden.busy_minute import SAMPLE
from unit.capture.test_format import HEADER

from exporter.capture.file import CaptureFile
from exporter.errors import ConfigError
from exporter.watch import command as watching
from exporter.watch.flags import parse_watch_args

PATIENCE_SECONDS = 30
SAMPLE_BEGAN_SECONDS = SAMPLE_HEADER.wall_ns // 1_000_000_000
PIPE_BYTES = 1 << 16
WATCH = (sys.executable, "-m", "exporter", "watch", "--replay")


def watch(*flags: str | Path, **how: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # type: ignore[call-overload,no-any-return]  # whatever run takes
        [*WATCH, *flags], stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE_SECONDS, **how
    )


def test_a_failed_write_ends_it_with_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        ended = watch(SAMPLE, stdout=full)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "cannot write to standard output" in line
    assert "No space left on device" in line


def test_a_closed_output_is_refused_with_one_line() -> None:
    ended = watch(SAMPLE, preexec_fn=lambda: os.close(1))
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "there is no standard output" in line


def waiting_bytes(pipe: IO[bytes]) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_reader_that_does_not_read_cannot_keep_it_from_ending(number: signal.Signals) -> None:
    with subprocess.Popen(
        [*WATCH, SAMPLE, "--output", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            give_up = time.monotonic() + PATIENCE_SECONDS
            # The test does not read it, and the capture has many more events than the pipe has room.
            while waiting_bytes(process.stdout) < PIPE_BYTES // 2:
                assert time.monotonic() < give_up
                time.sleep(0.05)
            process.send_signal(number)
            assert process.wait(PATIENCE_SECONDS) == 0
            assert process.stderr is not None
            assert process.stderr.read() == b""
        finally:
            process.kill()


def test_a_second_signal_ends_it_without_the_pending_events(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never_ends(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(PATIENCE_SECONDS)

    async def interrupted() -> None:
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
        await watching.watch(parse_watch_args(["--replay", str(SAMPLE), "--speed", "1"]))

    monkeypatch.setattr(watching, "_finish", never_ends)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(interrupted())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_without_events_a_capture_is_printed_with_the_events_that_it_has(tmp_path: Path) -> None:
    CaptureFile(tmp_path / "capture", 1 << 20, HEADER._replace(events=frozenset({"fork", "nonzero_exit"}))).close()
    ended = watch(tmp_path / "capture", "--output", "json", "--summary", stdout=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == {"event": "summary", "lost": 0}
    refused = watch(tmp_path / "capture", "--events", "exec")
    assert refused.returncode == 2
    assert "the capture has none of exec" in refused.stderr


def test_the_rates_of_a_replay_are_those_of_the_time_of_the_capture() -> None:
    ended = watch(SAMPLE, "--top", "--speed", "30", stdout=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (0, "")
    # In the capture mail-worker fails every second.
    exits = [float(line.split()[3]) for line in ended.stdout.splitlines() if line.startswith("mail-worker")]
    assert exits
    assert max(exits) < 3
    assert ended.stdout.startswith(time.strftime("%H:", time.localtime(SAMPLE_BEGAN_SECONDS)))


@pytest.mark.parametrize(
    ("arguments", "groups"),
    [
        ([], set()),
        (["--group.by", "unit"], {"unit"}),
        (["--container", "3f2a*"], {"pod"}),
        (["--unit", "cron.service", "--group.by", "pod"], {"pod", "unit"}),
    ],
)
def test_a_filter_by_where_processes_run_implies_that_it_is_known(arguments: list[str], groups: set[str]) -> None:
    assert parse_watch_args(arguments).groups == groups


async def test_a_capture_that_does_not_say_where_processes_ran_is_not_watched_by_it() -> None:
    with pytest.raises(ConfigError, match="the capture does not say where processes ran"):
        await watching.watch(parse_watch_args(["--replay", str(SAMPLE), "--unit", "cron.service"]))


async def test_a_filter_by_the_name_of_a_pod_is_refused_where_such_names_are_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    with pytest.raises(ConfigError, match="--pod can match nothing here"):
        await watching.watch(parse_watch_args(["--pod", "cart-1"]))
