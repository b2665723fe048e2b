"""Mistyped flags and variables, given to the real program: one line that names the mistake, and an exit code."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PREFIX = "PROC_CONNECTOR_EXPORTER_"
SAMPLE = str(Path(__file__).parents[2] / "examples/busy-minute.capture")


def run(*argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "exporter", *argv],
        env={"PATH": "/usr/bin:/bin", **{PREFIX + name: value for name, value in variables.items()}},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def error_of(line: str) -> str:
    match = re.search(r' error=(?:"((?:[^"\\]|\\.)*)"|(\S+))$', line)
    assert match is not None, line
    return match[2] or str(json.loads(f'"{match[1]}"'))


MISTAKES = [
    # Unknown flags.
    (["--web.config=f"], {}, "unknown flag --web.config; did you mean --web.config.file?"),
    (["--listen-address=:1"], {}, "unknown flag --listen-address; did you mean --web.listen-address?"),
    (["--web.listen-adress", ":1"], {}, "unknown flag --web.listen-adress; did you mean --web.listen-address?"),
    (["--log-level=debug"], {}, "unknown flag --log-level; did you mean --log.level?"),
    (["--no-web.lifecycle"], {}, "unknown flag --no-web.lifecycle; did you mean --no-web.enable-lifecycle?"),
    (["--collector.cpu"], {}, "unknown flag --collector.cpu"),
    (["wacth"], {}, "unexpected argument 'wacth'; did you mean watch?"),
    (["watch", "--tob"], {}, "unknown flag --tob; did you mean --top?"),
    # Durations.
    (["--canary.interval=soon"], {}, "--canary.interval must be 0, or a duration from 1s to 1d"),
    (["--canary.interval=15 s"], {}, "--canary.interval must be 0, or a duration from 1s to 1d"),
    (["--canary.interval=2d"], {}, "--canary.interval must be 0, or a duration from 1s to 1d"),
    (["--limit.idle=30m"], {}, "--limit.idle must be 0, or a duration from 1h to 365d"),
    ([], {"LIMIT_IDLE": "30m"}, f"{PREFIX}LIMIT_IDLE must be 0, or a duration from 1h to 365d"),
    (["watch", "--duration=1x"], {}, "--duration must be a duration above 0"),
    # Sizes.
    (["--receive-buffer.bytes=64mb"], {}, "--receive-buffer.bytes must be a size from 4KiB to 1GiB"),
    (["--receive-buffer.bytes=2G"], {}, "--receive-buffer.bytes must be a size from 4KiB to 1GiB"),
    ([], {"RECEIVE_BUFFER_BYTES": "1K"}, f"{PREFIX}RECEIVE_BUFFER_BYTES must be a size from 4KiB to 1GiB"),
    (["--capture=c", "--capture.max-bytes=1.5G"], {}, "--capture.max-bytes must be a size from 64KiB to 1PiB"),
    (["--stream.socket=s", "--stream.buffer-bytes=8 MiB"], {}, "--stream.buffer-bytes must be a size from 4KiB"),
    # Choices, switches and others.
    (["--log.level=warning"], {}, "--log.level must be one of debug, info, warn, error, got 'warning'; did"),
    ([], {"LOG_FORMAT": "xml"}, f"{PREFIX}LOG_FORMAT must be one of logfmt, json, got 'xml'"),
    (["--web.systemd-socket=yes"], {}, "--web.systemd-socket must be one of true, false, got 'yes'"),
    (["--no-web.systemd-socket=true"], {}, "--no-web.systemd-socket: ignored explicit argument 'true'"),
    (["--log.level"], {}, "--log.level: expected one argument"),
    (["--events=forks"], {}, "--events does not know forks; there are fork, exec"),
    ([], {"EVENTS": "forks"}, f"{PREFIX}EVENTS does not know forks; there are fork, exec"),
    (["--user=no-such-user"], {}, "--user: there is no user 'no-such-user'"),
    ([], {"USER": "root"}, f"{PREFIX}USER must be another user than root"),
    (["--web.listen-address=localhost"], {}, "--web.listen-address must be HOST:PORT, [IPV6]:PORT or :PORT"),
    # Files.
    (["--config.file=/no/such/file"], {}, "--config.file: cannot read /no/such/file"),
    ([], {"CONFIG_FILE": "/no/such/file"}, f"{PREFIX}CONFIG_FILE: cannot read /no/such/file"),
    (["--config.file=/no/such/file"], {"CONFIG_FILE": "/other"}, "--config.file: cannot read /no/such/file"),
    (["--replay", SAMPLE, "--web.config.file=/no/such/file"], {}, "--web.config.file /no/such/file: No such"),
    (["--replay", SAMPLE], {"WEB_CONFIG_FILE": "/no/such/file"}, f"{PREFIX}WEB_CONFIG_FILE /no/such/file"),
    # Settings without effect.
    (["--speed=2"], {}, "--speed has no effect without --replay"),
    ([], {"SPEED": "2"}, f"{PREFIX}SPEED has no effect without --replay"),
    (["--capture.max-bytes=1G"], {}, "--capture.max-bytes has no effect without --capture"),
    (["--stream.mode=0660"], {}, "--stream.mode has no effect without --stream.socket"),
    (["--capture=c", "--replay", SAMPLE], {}, "--capture has no effect with --replay"),
    (["--events=exit", "--replay", SAMPLE], {}, "--events has no effect with --replay"),
    (
        ["--web.systemd-socket", "--web.listen-address=:1"],
        {},
        "--web.listen-address has no effect with --web.systemd-socket",
    ),
    (["watch", "--speed=2"], {}, "--speed has no effect without --replay"),
    (["watch", "--sort=execs"], {}, "--sort has no effect without --top"),
    (["watch", "--top", "--output", "json"], {}, "--top has no effect with --output json"),
    (["watch", "--attribution=procfs", "--replay", SAMPLE], {}, "--attribution has no effect with --replay"),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "variables", "complaint"), MISTAKES, ids=lambda value: " ".join(value)[:60])
def test_a_wrong_setting_is_one_line_with_its_name(
    argv: list[str], variables: dict[str, str], complaint: str
) -> None:
    result = run(*argv, **variables)
    [line] = result.stderr.splitlines()
    assert " level=error " in line
    assert complaint in error_of(line)
    assert (result.returncode, result.stdout) == (2, "")


@pytest.mark.parametrize(
    ("argv", "variables"),
    [
        (["--log.format=json", "--bogus"], {}),
        (["--speed=1", "--log.format", "json"], {}),
        (["--speed=1"], {"LOG_FORMAT": "json"}),
        (["watch", "--log.format=json", "--bogus"], {}),
    ],
)
def test_a_complaint_is_in_the_format_that_was_chosen(argv: list[str], variables: dict[str, str]) -> None:
    result = run(*argv, **variables)
    [line] = result.stderr.splitlines()
    assert json.loads(line).keys() == {"time", "level", "msg", "error"}
    assert result.returncode == 2


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("words", [[], ["--stream.socket=/no/such/folder/socket"]], ids=["port", "unix socket"])
def test_an_address_that_is_in_use_or_not_permitted_has_an_exit_code_of_its_own(
    taken: str, words: list[str]
) -> None:
    address = "127.0.0.1:0" if words else taken
    result = run("--replay", SAMPLE, "--web.listen-address", address, *words)
    [line] = [line for line in result.stderr.splitlines() if "level=error" in line]
    assert "cannot listen on" in error_of(line)
    assert result.returncode == 3


def test_a_file_that_is_no_capture_has_an_exit_code_of_its_own() -> None:
    result = run("--replay", sys.executable, "--web.listen-address", "127.0.0.1:0")
    [line] = result.stderr.splitlines()
    assert "this is not a capture" in error_of(line)
    assert result.returncode == 4


def test_a_variable_that_no_flag_has_is_a_warning(taken: str) -> None:
    result = run("--replay", SAMPLE, "--web.listen-address", taken, LIMIT_SERIE="5000")
    [warning] = [line for line in result.stderr.splitlines() if "level=warn" in line]
    assert f"{PREFIX}LIMIT_SERIE; did you mean {PREFIX}LIMIT_SERIES?" in warning


def test_version_is_printed_as_other_exporters_print_it() -> None:
    result = run("--version")
    first, *rest = result.stdout.splitlines()
    assert re.fullmatch(r"proc-connector-exporter, version \d+\.\d+\.\d+ \(revision: \w+\)", first)
    assert [line.split(":")[0].strip() for line in rest] == ["python version", "platform"]
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("words", [[], ["watch"]], ids=["exporter", "watch"])
def test_help_is_printed_under_headings(words: list[str]) -> None:
    result = run(*words, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    headings = re.findall(r"^(\w[\w ]*):$", result.stdout, re.MULTILINE)
    assert len(headings) > 4
    assert result.stdout.count(PREFIX) == (0 if words else 1)
