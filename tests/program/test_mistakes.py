"""Mistyped flags and variables, given to the real program: one line that names the mistake, and an exit code."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

PREFIX = "PROC_CONNECTOR_EXPORTER_"
# Neither YAML nor a capture.
BROKEN = "/bin/true"
SAMPLE = str(Path(__file__).parents[2] / "examples/busy-minute.capture")


def run(*argv: str, before: Sequence[str] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-m", "exporter", *argv],
        env={"PATH": "/usr/bin:/bin", **{PREFIX + name: value for name, value in variables.items()}},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@contextlib.contextmanager
def start(*argv: str) -> Iterator[list[str]]:
    """Run the program until the block ends; yields its log up to the line that says where it listens."""
    command = [sys.executable, "-m", "exporter", *argv]
    with subprocess.Popen(
        command, env={"PATH": "/usr/bin:/bin"}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stderr is not None
            lines: list[str] = []
            for line in process.stderr:
                lines.append(line)
                if "msg=listening" in line:
                    break
            else:
                assert process.wait(60) == 5, lines
                pytest.skip(f"the kernel sends no process events here: {lines[-1]}")
            yield lines
        finally:
            process.terminate()


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
    (["--log"], {}, "unknown flag --log; did you mean --log.level, --log.format or --failures.log?"),
    (["-V"], {}, "unknown flag -V; did you mean --version?"),
    (["watch", "-V"], {}, "unknown flag -V"),
    (["--events", "fork", "watch"], {}, "unexpected argument 'watch'; it comes first: proc-connector-"),
    (["wacth"], {}, "unexpected argument 'wacth'; did you mean watch?"),
    (["watch", "--tob"], {}, "unknown flag --tob; did you mean --top?"),
    # Durations.
    (["--canary.interval=soon"], {}, "--canary.interval must be 0, or a duration from 1s to 1d"),
    (["--canary.interval=15 s"], {}, "--canary.interval must be 0, or a duration from 1s to 1d"),
    (["--canary.interval=2d"], {}, "--canary.interval must be 0, or a duration from 1s to 1d"),
    (["--limit.idle", "-1h"], {}, "--limit.idle wants a value; write --limit.idle=VALUE"),
    (["--limit.idle=-1h"], {}, "--limit.idle must be 0, or a duration from 1h to 365d"),
    (["--limit.idle=30m"], {}, "--limit.idle must be 0, or a duration from 1h to 365d"),
    ([], {"LIMIT_IDLE": "30m"}, f"{PREFIX}LIMIT_IDLE must be 0, or a duration from 1h to 365d"),
    (["watch", "--duration=1x"], {}, "--duration must be a duration above 0"),
    # Sizes.
    (["--receive-buffer.bytes=64mb"], {}, "67108864, got '64mb'; did you mean 64MB?"),
    (["--receive-buffer.bytes=2G"], {}, "--receive-buffer.bytes must be a size from 4KiB to 1GiB"),
    ([], {"RECEIVE_BUFFER_BYTES": "1K"}, f"{PREFIX}RECEIVE_BUFFER_BYTES must be a size from 4KiB to 1GiB"),
    (["--capture=c", "--capture.max-bytes=1.5G"], {}, "--capture.max-bytes must be a size from 64KiB to 1PiB"),
    (["--stream.socket=s", "--stream.buffer-bytes=8 MiB"], {}, "--stream.buffer-bytes must be a size from 4KiB"),
    # Choices, switches and others.
    (["--log.level=warning"], {}, "--log.level must be one of debug, info, warn, error, got 'warning'; did"),
    ([], {"LOG_FORMAT": "xml"}, f"{PREFIX}LOG_FORMAT must be one of logfmt, json, got 'xml'"),
    (["--web.systemd-socket=yes"], {}, "--web.systemd-socket must be one of true, false, got 'yes'"),
    (["--no-web.systemd-socket=true"], {}, "--no-web.systemd-socket takes no value, got 'true'"),
    (["--log.level"], {}, "--log.level wants a value; write --log.level=VALUE"),
    (["--events=forks"], {}, "--events does not know forks; there are fork, exec"),
    ([], {"EVENTS": "forks"}, f"{PREFIX}EVENTS does not know forks; there are fork, exec"),
    (["--user=no-such-user"], {}, "--user: there is no user 'no-such-user'"),
    ([], {"USER": "root"}, f"{PREFIX}USER must be another user than root"),
    (["--web.listen-address=localhost"], {}, "--web.listen-address must be HOST:PORT, [IPV6]:PORT or :PORT"),
    (["--web.listen-address=http://localhost:1"], {}, "--web.listen-address must be HOST:PORT, without http://"),
    # Files.
    (["--config.file=/no/such/file"], {}, "--config.file: cannot read /no/such/file"),
    ([], {"CONFIG_FILE": "/no/such/file"}, f"{PREFIX}CONFIG_FILE: cannot read /no/such/file"),
    ([f"--config.file={BROKEN}"], {}, f"--config.file: {BROKEN}:1: not YAML"),
    ([], {"CONFIG_FILE": BROKEN}, f"{PREFIX}CONFIG_FILE: {BROKEN}:1: not YAML"),
    (["--replay", SAMPLE, f"--web.config.file={BROKEN}"], {}, f"--web.config.file {BROKEN}: "),
    (["--replay", SAMPLE], {"WEB_CONFIG_FILE": BROKEN}, f"{PREFIX}WEB_CONFIG_FILE {BROKEN}: "),
    ([], {"WEB_TELEMETRY_PATH": "/failures"}, f"{PREFIX}WEB_TELEMETRY_PATH must not be /failures"),
    (["--config.file=/no/such/file"], {"CONFIG_FILE": "/other"}, "--config.file: cannot read /no/such/file"),
    (["--replay", SAMPLE, "--web.config.file=/no/such/file"], {}, "--web.config.file /no/such/file: No such"),
    (["--replay", SAMPLE], {"WEB_CONFIG_FILE": "/no/such/file"}, f"{PREFIX}WEB_CONFIG_FILE /no/such/file"),
    (["--stream.socket=s", "--stream.group=nobodies"], {}, "--stream.group: there is no group 'nobodies'"),
    (["--stream.socket=s"], {"STREAM_GROUP": "nobodies"}, f"{PREFIX}STREAM_GROUP: there is no group 'nobodies'"),
    # Another command.
    (["dashboards"], {}, "--output is missing: the folder to write to"),
    (["dashboards", "--output"], {}, "--output wants a value; write --output=VALUE"),
    (["dashboards", "--output="], {}, "--output is missing: the folder to write to"),
    (["dashboards", "--outptu=d"], {}, "unknown flag --outptu; did you mean --output?"),
    (["dashboards", "--bogus"], {}, "unknown flag --bogus"),
    (["dashboards", "d"], {}, "unexpected argument 'd'"),
    (["dashboards", "--output=/dev/null"], {}, "--output: /dev/null is a file, not a folder"),
    (["dashboards", "--output=/proc/d"], {}, "--output: cannot write /proc/d/"),
    # Settings without effect.
    (["--speed=2"], {}, "--speed has no effect without --replay"),
    ([], {"SPEED": "2"}, f"{PREFIX}SPEED has no effect without --replay ({PREFIX}REPLAY)"),
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


def test_an_address_that_this_host_does_not_have_now_is_none_that_is_wrong_for_good() -> None:
    # For documentation alone: RFC 5737.
    result = run("--replay", SAMPLE, "--web.listen-address=192.0.2.1:0")
    [line] = [line for line in result.stderr.splitlines() if "level=error" in line]
    assert error_of(line).startswith("cannot listen on 192.0.2.1:0: Cannot assign requested address; choose")
    assert result.returncode == 1


@pytest.mark.parametrize(
    ("argv", "variables", "named"),
    [
        (["--web.listen-address={taken}"], {}, "choose another --web.listen-address"),
        ([], {"WEB_LISTEN_ADDRESS": "{taken}"}, f"choose another {PREFIX}WEB_LISTEN_ADDRESS"),
        (["--web.listen-address=:0"], {"STREAM_SOCKET": "/proc/s"}, f"choose another {PREFIX}STREAM_SOCKET"),
        ([], {"WEB_SYSTEMD_SOCKET": "true"}, f"{PREFIX}WEB_SYSTEMD_SOCKET: no socket was passed"),
    ],
    ids=["flag", "variable", "unix socket", "systemd"],
)
def test_an_address_is_named_by_what_set_it(
    taken: str, argv: list[str], variables: dict[str, str], named: str
) -> None:
    words = [word.format(taken=taken) for word in argv]
    result = run(
        "--replay", SAMPLE, *words, **{name: text.format(taken=taken) for name, text in variables.items()}
    )
    [line] = [line for line in result.stderr.splitlines() if "level=error" in line]
    assert error_of(line).endswith(named) or error_of(line).startswith(named)
    assert result.returncode == 3


@pytest.mark.parametrize("by_variable", [False, True], ids=["flag", "variable"])
def test_a_group_that_the_socket_cannot_get_is_named_by_what_set_it(by_variable: bool, tmp_path: Path) -> None:
    group = "4711"
    flags = [] if by_variable else ["--stream.group", group]
    # As in the systemd unit: the kernel permits the change to those with CAP_CHOWN alone.
    without: tuple[str, ...] = ()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("no setpriv here (Debian: apt-get install util-linux)")
        without = ("setpriv", "--bounding-set", "-chown")
    path = tmp_path / "socket"
    words = ("--replay", SAMPLE, "--web.listen-address=127.0.0.1:0", f"--stream.socket={path}", *flags)
    result = run(*words, before=without, **({"STREAM_GROUP": group} if by_variable else {}))
    [line] = [line for line in result.stderr.splitlines() if "level=error" in line]
    assert error_of(line).startswith(f"cannot give {path} to group {group}: Operation not permitted; ")
    assert error_of(line).endswith(f" change {PREFIX}STREAM_GROUP" if by_variable else " change --stream.group")
    assert result.returncode == 3


@pytest.mark.parametrize(
    ("argv", "variables", "named"),
    [
        (["--replay", BROKEN], {}, f"--replay: {BROKEN}: this is not a capture"),
        ([], {"REPLAY": BROKEN}, f"{PREFIX}REPLAY: {BROKEN}: this is not a capture"),
        ([], {"REPLAY": "/no/such/file"}, f"{PREFIX}REPLAY: cannot read /no/such/file: No such file"),
        (["watch", "--replay", BROKEN], {}, f"--replay: {BROKEN}: this is not a capture"),
    ],
)
def test_a_file_that_is_no_capture_has_an_exit_code_of_its_own(
    argv: list[str], variables: dict[str, str], named: str
) -> None:
    result = run(*argv, **variables)
    [line] = result.stderr.splitlines()
    assert error_of(line).startswith(named)
    assert result.returncode == 4


@pytest.mark.parametrize(
    ("argv", "variables", "named"),
    [
        (["--capture=/no/dir/x"], {}, "--capture: cannot write /no/dir/x: No such file"),
        ([], {"CAPTURE": "/no/dir/x"}, f"{PREFIX}CAPTURE: cannot write /no/dir/x: No such file"),
    ],
    ids=["flag", "variable"],
)
@pytest.mark.kernel
def test_a_capture_that_cannot_be_written_has_an_exit_code_of_its_own(
    argv: list[str], variables: dict[str, str], named: str
) -> None:
    result = run("--web.listen-address=127.0.0.1:0", *argv, **variables)
    [line] = [line for line in result.stderr.splitlines() if "level=error" in line]
    if result.returncode == 5:
        pytest.skip(f"the kernel sends no process events here: {error_of(line)}")
    assert error_of(line).startswith(named)
    assert result.returncode == 4


# A column a kind: two durations, two sizes, two switches. None of them is the default.
RIGHT = [
    (["canary.interval=15s", "limit.idle=1h", "receive-buffer.bytes=64M", "limit.client-bytes=1G"], {}),
    (["canary.interval=2m", "limit.idle=1d", "receive-buffer.bytes=1G", "limit.client-bytes=32MiB"], {}),
    (["canary.interval=1h", "limit.idle=7200", "receive-buffer.bytes=65536", "limit.client-bytes=2097152"], {}),
    (["canary.interval=1d", "limit.idle=2w", "receive-buffer.bytes=128KiB", "limit.client-bytes=64MB"], {}),
    (["canary.interval=90", "limit.idle=1h30m", "receive-buffer.bytes=64K", "limit.client-bytes=1T"], {}),
    (["canary.interval=2.5", "limit.idle=1.5d", "receive-buffer.bytes=64MiB"], {}),
    (["web.enable-lifecycle", "no-web.systemd-socket", "web.disable-exporter-metrics=true"], {}),
    (["no-web.enable-lifecycle", "web.systemd-socket=false", "no-web.disable-exporter-metrics"], {}),
    (["canary.interval", "15s", "receive-buffer.bytes", "64M", "web.enable-lifecycle"], {}),
    ([], {"CANARY_INTERVAL": "15s", "LIMIT_IDLE": "1d", "RECEIVE_BUFFER_BYTES": "64M"}),
    ([], {"CANARY_INTERVAL": "90", "RECEIVE_BUFFER_BYTES": "65536", "WEB_ENABLE_LIFECYCLE": "true"}),
]


@pytest.mark.parametrize(("words", "variables"), RIGHT, ids=lambda value: " ".join(value)[:60])
def test_a_right_setting_is_taken_in_each_form(words: list[str], variables: dict[str, str], taken: str) -> None:
    flags = [word if word[0].isdigit() else f"--{word}" for word in words]
    result = run(*flags, "--web.listen-address", taken, **variables)
    assert "wrong setting" not in result.stderr
    [line] = [line for line in result.stderr.splitlines() if "level=error" in line]
    # It has read all settings, and opened the kernel, when it says so.
    assert result.returncode == 3 or (result.returncode == 5 and "kernel" in error_of(line)), line
    assert "unknown variable" not in result.stderr


@pytest.mark.parametrize("size", ["128KiB", "128K", "128KB", "128Ki", "131072"])
@pytest.mark.kernel
def test_a_size_is_the_same_in_each_form(size: str) -> None:
    with start("--receive-buffer.bytes", size, "--web.listen-address=127.0.0.1:0") as lines:
        [listening] = [line for line in lines if "msg=listening" in line]
    assert " connector_buffer_bytes=131072 " in listening


@pytest.mark.parametrize(
    ("flag", "has_own"),
    [
        ("--web.disable-exporter-metrics", False),
        ("--web.disable-exporter-metrics=true", False),
        ("--no-web.disable-exporter-metrics", True),
        ("--web.disable-exporter-metrics=false", True),
    ],
)
def test_a_switch_has_its_effect_in_each_form(flag: str, has_own: bool) -> None:
    with start("--replay", SAMPLE, flag, "--web.listen-address=127.0.0.1:0") as lines:
        [address] = re.findall(r" address=(127\.0\.0\.1:\d+) ", "".join(lines))
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
            metrics = answer.read().decode()
    assert ("\nprocess_cpu_seconds_total " in metrics) is has_own


@pytest.mark.parametrize("duration", ["15s", "2m", "1h", "1d", "600"])
def test_watch_takes_a_duration_in_each_form(duration: str) -> None:
    result = run("watch", "--replay", SAMPLE, "--output=json", "--count=1", "--duration", duration)
    assert (result.returncode, result.stderr, len(result.stdout.splitlines())) == (0, "", 1)


def test_dashboards_writes_where_it_is_asked_to(tmp_path: Path) -> None:
    result = run("dashboards", f"--output={tmp_path}/made/here")
    assert (result.returncode, result.stderr) == (0, "")
    written = {Path(line) for line in result.stdout.splitlines()}
    assert written == {path for path in (tmp_path / "made/here").rglob("*") if path.is_file()}
    assert {path.suffix for path in written} == {".json", ".yaml"}


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
