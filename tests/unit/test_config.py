"""exporter/config.py: flags and variables."""

import dataclasses
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from exporter.config import FLAGS, Config, ListenAddress, parse_args, parse_listen_addresses
from exporter.errors import ConfigError
from exporter.flags import Flag
from exporter.service.privileges import User

PREFIX = "PROC_CONNECTOR_EXPORTER_"


class Setting(NamedTuple):
    """One flag, two values for it, and what the first becomes."""

    flag: str
    variable: str
    value: str
    other: str
    field: str
    parsed: object


SETTINGS = [
    Setting(
        "--web.listen-address", "WEB_LISTEN_ADDRESS", "[::1]:9", "127.0.0.1:80",
        "listen_addresses", (ListenAddress("::1", 9),),
    ),
    Setting("--web.systemd-socket", "WEB_SYSTEMD_SOCKET", "true", "false", "systemd_socket", True),
    Setting("--web.config.file", "WEB_CONFIG_FILE", "web.yml", "other.yml", "web_config_file", "web.yml"),
    Setting("--web.max-requests", "WEB_MAX_REQUESTS", "0", "7", "max_requests", 0),
    Setting("--web.telemetry-path", "WEB_TELEMETRY_PATH", "/a/b", "/other", "telemetry_path", "/a/b"),
    Setting("--web.created-timestamps", "WEB_CREATED_TIMESTAMPS", "true", "false", "created_timestamps", True),
    Setting("--web.native-histograms", "WEB_NATIVE_HISTOGRAMS", "true", "false", "native_histograms", True),
    Setting("--attribution", "ATTRIBUTION", "procfs", "taskstats", "attribution", "procfs"),
    Setting("--exec-names", "EXEC_NAMES", "sideband", "events", "exec_names", "sideband"),
    Setting("--events", "EVENTS", "exit, nonzero_exit", "fork", "events", frozenset({"exit", "nonzero_exit"})),
    Setting("--filter", "FILTER", "bpf", "kernel", "filter_by", "bpf"),
    Setting("--canary.interval", "CANARY_INTERVAL", "2.5", "0", "canary_interval_seconds", 2.5),
    Setting("--user", "USER", "4000000001", "12345", "user", User(4000000001, 4000000001)),
    Setting("--receive-buffer.bytes", "RECEIVE_BUFFER_BYTES", "4096", "8192", "receive_buffer_bytes", 4096),
    Setting("--stream.socket", "STREAM_SOCKET", "/a/b", "c", "stream_socket", Path("/a/b")),
    Setting("--stream.mode", "STREAM_MODE", "0660", "666", "stream_mode", 0o660),
    Setting("--stream.group", "STREAM_GROUP", "4000000001", "0", "stream_gid", 4000000001),
    Setting("--stream.allow-uid", "STREAM_ALLOW_UID", "0, 1000", "7", "stream_uids", frozenset({0, 1000})),
    Setting("--stream.max-clients", "STREAM_MAX_CLIENTS", "2", "3", "stream_max_clients", 2),
    Setting("--stream.buffer-bytes", "STREAM_BUFFER_BYTES", "4096", "8192", "stream_buffer_bytes", 4096),
    Setting("--capture", "CAPTURE", "/a/b", "c", "capture", Path("/a/b")),
    Setting("--capture.max-bytes", "CAPTURE_MAX_BYTES", "65536", "1000000", "capture_max_bytes", 65536),
    Setting("--replay", "REPLAY", "/a/b", "c", "replay", Path("/a/b")),
    Setting("--speed", "SPEED", "2.5", "0", "speed", 2.5),
    Setting("--limit.series", "LIMIT_SERIES", "1000", "20000", "series_limit", 1000),
    Setting("--limit.idle", "LIMIT_IDLE", "3600", "0", "idle_seconds", 3600.0),
    Setting("--config.file", "CONFIG_FILE", "/etc/rules.yml", "other.yml", "rules_path", "/etc/rules.yml"),
    Setting("--web.enable-lifecycle", "WEB_ENABLE_LIFECYCLE", "true", "false", "enable_lifecycle", True),
    Setting("--path.procfs", "PATH_PROCFS", "/host/proc", "/elsewhere", "procfs_path", "/host/proc"),
    Setting("--log.level", "LOG_LEVEL", "debug", "error", "log_level", "debug"),
    Setting("--log.format", "LOG_FORMAT", "json", "logfmt", "log_format", "json"),
]  # fmt: skip
BY_FLAG = {flag.name: flag for flag in FLAGS}


def test_every_flag_is_tested_here() -> None:
    assert [setting.flag for setting in SETTINGS] == list(BY_FLAG)
    assert {setting.field for setting in SETTINGS} == {field.name for field in dataclasses.fields(Config)}


def test_nothing_set_gives_the_documented_defaults() -> None:
    assert parse_args([], {}) == Config(
        listen_addresses=(ListenAddress(None, 10061),),
        systemd_socket=False,
        web_config_file=None,
        max_requests=40,
        telemetry_path="/metrics",
        attribution="auto",
        procfs_path="/proc",
        log_level="info",
        log_format="logfmt",
    )
    assert parse_args([], {}) == Config()


@pytest.mark.parametrize("setting", SETTINGS, ids=[setting.flag for setting in SETTINGS])
def test_a_setting_comes_from_its_flag_or_its_variable_and_the_flag_wins(setting: Setting) -> None:
    flag, variable, value, other, field, parsed = setting
    variable = PREFIX + variable
    expected = dataclasses.replace(Config(), **{field: parsed})  # type: ignore[arg-type]
    assert expected != Config()
    assert parse_args([f"{flag}={value}"], {}) == expected
    assert parse_args([flag, value], {}) == expected
    assert parse_args([], {variable: value}) == expected
    assert parse_args([flag, value], {variable: other}) == expected
    assert BY_FLAG[flag].variable == variable


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":10061", ListenAddress(None, 10061)),
        ("localhost:0", ListenAddress("localhost", 0)),
        ("0.0.0.0:65535", ListenAddress("0.0.0.0", 65535)),
        ("[::]:80", ListenAddress("::", 80)),
    ],
)
def test_a_listen_address_is_read_and_written_in_the_same_way(text: str, address: ListenAddress) -> None:
    assert parse_listen_addresses("--flag", text) == (address,)
    assert str(address) == text


SEVERAL = (ListenAddress("127.0.0.1", 1), ListenAddress("::1", 2), ListenAddress(None, 3))


@pytest.mark.parametrize(
    ("argv", "environment"),
    [
        ([f"--web.listen-address={address}" for address in SEVERAL], {}),
        (["--web.listen-address", "127.0.0.1:1,[::1]:2", "--web.listen-address", ":3"], {}),
        ([], {PREFIX + "WEB_LISTEN_ADDRESS": "127.0.0.1:1,[::1]:2,:3"}),
    ],
    ids=["a flag each", "both ways", "one variable"],
)
def test_there_can_be_several_listen_addresses(argv: list[str], environment: dict[str, str]) -> None:
    assert parse_args(argv, environment).listen_addresses == SEVERAL


def test_a_switch_needs_no_value() -> None:
    assert parse_args(["--web.enable-lifecycle"], {}).enable_lifecycle
    assert parse_args(["--web.systemd-socket"], {}).systemd_socket
    assert not parse_args(["--web.systemd-socket=false"], {PREFIX + "WEB_SYSTEMD_SOCKET": "true"}).systemd_socket


BAD_VALUES = [
    *(
        ("--web.listen-address", text)
        for text in (
            "", "localhost", "10061", "localhost:", ":http", ":65536", ":-1", ":+1", ": 80",
            ":8_0", ":٣", ":" + "9" * 5000,
            "::1:80", "[::1:80", "::1]:80", ":1,", ",:1", ":1,,:2",
        )
    ),
    *(("--web.max-requests", text) for text in ("", "-1", "many", "1.5", "٣", "9" * 5000)),
    *(
        ("--receive-buffer.bytes", text)
        for text in ("", "64MiB", "4095", "-1", "1e9", "1073741825", "٣" * 5, "9" * 5000)
    ),
    *(
        ("--web.telemetry-path", text)
        for text in ("", "/", "metrics", "/-/ready", "/-/anything", "/{name}", "/a?b", "/a#b", "/a}")
    ),
    *(("--limit.series", text) for text in ("", "0", "999", "1000001", "1e4", "-1", "1_000", "9" * 5000)),
    *(("--limit.idle", text) for text in ("", "1", "3599", "-1", "nan", "inf", "1h")),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "value"), BAD_VALUES, ids=[f"{flag} {value:.10}" for flag, value in BAD_VALUES])
def test_an_impossible_value_is_refused_by_a_text_that_names_its_flag(flag: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(flag)}"):
        parse_args([f"{flag}={value}"], {})
    with pytest.raises(ConfigError, match=f"^{re.escape(flag)}"):
        parse_args([], {BY_FLAG[flag].variable: value})


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.choices], ids=lambda flag: flag.name)
@pytest.mark.parametrize("value", ["", "bogus", "INFO"])
def test_a_choice_that_does_not_exist_is_refused(
    flag: Flag, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=f"^{flag.variable} must be one of {', '.join(flag.choices or ())}, got"):
        parse_args([], {flag.variable: value})
    with pytest.raises(SystemExit) as stop:
        parse_args([f"{flag.name}={value}"], {})
    assert stop.value.code == 2
    assert flag.name in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--web.listen-addres=:1"], ["--bogus"], ["word"], ["--log.level"]])
def test_an_unknown_flag_stops_the_program_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_args(argv, {})
    assert stop.value.code == 2
    assert argv[0].partition("=")[0] in capsys.readouterr().err


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_args(["--help"], {})
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert [flag.name for flag in FLAGS if flag.name not in text] == []


def test_a_config_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().log_level = "debug"  # type: ignore[misc]
