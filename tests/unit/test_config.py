"""exporter/config.py, exporter/settings/ and exporter/command_line.py: flags and variables."""

import dataclasses
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from exporter.command_line import chosen_log_format, parse_args
from exporter.config import FLAGS, ROWS, Config
from exporter.errors import ConfigError
from exporter.flags import Flag
from exporter.service.privileges import User
from exporter.settings.names import Names
from exporter.settings.service import Logging
from exporter.settings.web import ListenAddress, Web, parse_listen_addresses

PREFIX = "PROC_CONNECTOR_EXPORTER_"


class Setting(NamedTuple):
    """One flag, two values for it, and what the first becomes."""

    flag: str
    variable: str
    value: str
    other: str
    field: str
    """Its section and its name there."""
    parsed: object
    beside: tuple[str, ...] = ()
    """Flags without which it has no effect."""


SOCKET, CAPTURE, REPLAY = ("--stream.socket=s",), ("--capture=c",), ("--replay=c",)
SETTINGS = [
    Setting(
        "--web.listen-address", "WEB_LISTEN_ADDRESS", "[::1]:9", "127.0.0.1:80",
        "web.listen_addresses", (ListenAddress("::1", 9),),
    ),
    Setting("--web.systemd-socket", "WEB_SYSTEMD_SOCKET", "true", "false", "web.systemd_socket", True),
    Setting("--web.config.file", "WEB_CONFIG_FILE", "web.yml", "other.yml", "web.config_file", "web.yml"),
    Setting("--web.max-requests", "WEB_MAX_REQUESTS", "0", "7", "web.max_requests", 0),
    Setting("--web.telemetry-path", "WEB_TELEMETRY_PATH", "/a/b", "/other", "web.telemetry_path", "/a/b"),
    Setting("--web.created-timestamps", "WEB_CREATED_TIMESTAMPS", "true", "false", "web.created_timestamps", True),
    Setting("--web.native-histograms", "WEB_NATIVE_HISTOGRAMS", "true", "false", "web.native_histograms", True),
    Setting("--web.exemplars", "WEB_EXEMPLARS", "true", "false", "web.exemplars", True),
    Setting("--web.enable-lifecycle", "WEB_ENABLE_LIFECYCLE", "true", "false", "web.enable_lifecycle", True),
    Setting(
        "--web.disable-exporter-metrics", "WEB_DISABLE_EXPORTER_METRICS", "true", "false",
        "web.disable_exporter_metrics", True,
    ),
    Setting("--attribution", "ATTRIBUTION", "procfs", "taskstats", "names.attribution", "procfs"),
    Setting("--exec-names", "EXEC_NAMES", "sideband", "events", "names.exec_names", "sideband"),
    Setting("--oom-kills", "OOM_KILLS", "syslog", "vmstat", "names.oom_kills", "syslog"),
    Setting("--config.file", "CONFIG_FILE", "/etc/rules.yml", "other.yml", "names.rules_path", "/etc/rules.yml"),
    Setting("--path.procfs", "PATH_PROCFS", "/host/proc", "/elsewhere", "names.procfs_path", "/host/proc"),
    Setting("--events", "EVENTS", "exit, nonzero_exit", "fork", "events.wanted",
            frozenset({"exit", "nonzero_exit"})),
    Setting("--filter", "FILTER", "bpf", "kernel", "events.filter_by", "bpf"),
    Setting("--canary.interval", "CANARY_INTERVAL", "2500ms", "0", "events.canary_interval_seconds", 2.5),
    Setting("--receive-buffer.bytes", "RECEIVE_BUFFER_BYTES", "4KiB", "8192", "events.receive_buffer_bytes", 4096),
    Setting("--user", "USER", "4000000001", "12345", "privileges.user", User(4000000001, 4000000001)),
    Setting("--failures.keep", "FAILURES_KEEP", "50", "0", "failures.keep", 50),
    Setting("--failures.log", "FAILURES_LOG", "true", "false", "failures.log", True),
    Setting("--stream.socket", "STREAM_SOCKET", "/a/b", "c", "stream.socket", Path("/a/b")),
    Setting("--stream.mode", "STREAM_MODE", "0660", "666", "stream.mode", 0o660, SOCKET),
    Setting("--stream.group", "STREAM_GROUP", "4000000001", "0", "stream.gid", 4000000001, SOCKET),
    Setting("--stream.allow-uid", "STREAM_ALLOW_UID", "0, 9", "7", "stream.uids", frozenset({0, 9}), SOCKET),
    Setting("--stream.max-clients", "STREAM_MAX_CLIENTS", "2", "3", "stream.max_clients", 2, SOCKET),
    Setting("--stream.buffer-bytes", "STREAM_BUFFER_BYTES", "4096", "8192", "stream.buffer_bytes", 4096, SOCKET),
    Setting("--capture", "CAPTURE", "/a/b", "c", "capture.file", Path("/a/b")),
    Setting("--capture.max-bytes", "CAPTURE_MAX_BYTES", "65536", "1000000", "capture.max_bytes", 65536, CAPTURE),
    Setting("--replay", "REPLAY", "/a/b", "c", "capture.replay", Path("/a/b")),
    Setting("--speed", "SPEED", "2.5", "0", "capture.speed", 2.5, REPLAY),
    Setting("--limit.series", "LIMIT_SERIES", "1000", "20000", "limits.series", 1000),
    Setting("--limit.client-bytes", "LIMIT_CLIENT_BYTES", "1MiB", "2097152", "limits.client_bytes", 1 << 20),
    Setting("--limit.idle", "LIMIT_IDLE", "1h", "0", "limits.idle_seconds", 3600.0),
    Setting("--limit.gone", "LIMIT_GONE", "1h", "2h", "limits.gone_seconds", 3600.0, ("--group.by=pod",)),
    Setting("--group.by", "GROUP_BY", "pod, unit", "pod", "groups.by", frozenset({"pod", "unit"})),
    Setting("--group.histograms", "GROUP_HISTOGRAMS", "true", "false", "groups.histograms", True,
            ("--group.by=pod",)),
    Setting("--kubernetes.api-server", "KUBERNETES_API_SERVER", "https://a:6443", "http://127.0.0.1:8001",
            "kubernetes.api_server", "https://a:6443", ("--group.by=pod",)),
    Setting("--kubernetes.token-file", "KUBERNETES_TOKEN_FILE", "/a/b", "c", "kubernetes.token_file", "/a/b",
            ("--group.by=pod",)),
    Setting("--kubernetes.ca-file", "KUBERNETES_CA_FILE", "/a/b", "c", "kubernetes.ca_file", "/a/b",
            ("--group.by=pod",)),
    Setting("--kubernetes.node-name", "KUBERNETES_NODE_NAME", "node-17", "a.b", "kubernetes.node_name", "node-17",
            ("--group.by=pod",)),
    Setting("--containers.socket", "CONTAINERS_SOCKET", "/run/docker.sock", "c", "containers.socket",
            Path("/run/docker.sock"), ("--group.by=pod",)),
    Setting("--log.level", "LOG_LEVEL", "debug", "error", "logging.level", "debug"),
    Setting("--log.format", "LOG_FORMAT", "json", "logfmt", "logging.format", "json"),
]  # fmt: skip
BY_FLAG = {flag.name: flag for flag in FLAGS}


def test_every_flag_is_tested_here() -> None:
    assert [setting.flag for setting in SETTINGS] == list(BY_FLAG)
    assert [setting.field for setting in SETTINGS] == list(ROWS)


def test_nothing_set_gives_the_documented_defaults() -> None:
    assert parse_args([], {}) == Config(
        web=Web(
            listen_addresses=(ListenAddress(None, 10061),),
            systemd_socket=False,
            config_file=None,
            max_requests=40,
            telemetry_path="/metrics",
        ),
        names=Names(attribution="auto", procfs_path="/proc"),
        logging=Logging(level="info", format="logfmt"),
    )
    assert parse_args([], {}) == Config()


@pytest.mark.parametrize("setting", SETTINGS, ids=[setting.flag for setting in SETTINGS])
def test_a_setting_comes_from_its_flag_or_its_variable_and_the_flag_wins(setting: Setting) -> None:
    flag, variable, value, other, field, parsed, beside = setting
    variable = PREFIX + variable
    alone = parse_args(beside, {})
    section, _, name = field.partition(".")
    expected = dataclasses.replace(
        alone, **{section: dataclasses.replace(getattr(alone, section), **{name: parsed})}
    )
    assert expected != alone
    assert parse_args([*beside, f"{flag}={value}"], {}) == expected
    assert parse_args([*beside, flag, value], {}) == expected
    assert parse_args(beside, {variable: value}) == expected
    assert parse_args([*beside, flag, value], {variable: other}) == expected
    assert BY_FLAG[flag].variable == variable


def test_the_metrics_do_not_take_the_page_of_the_failures() -> None:
    with pytest.raises(ConfigError, match=r"^--web.telemetry-path must not be /failures, .*--failures.keep=0"):
        parse_args(["--web.telemetry-path=/failures"], {})
    assert parse_args(["--web.telemetry-path=/failures", "--failures.keep=0"], {}).failures.keep == 0


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
    assert parse_args(argv, environment).web.listen_addresses == SEVERAL


def test_a_switch_needs_no_value() -> None:
    assert parse_args(["--web.enable-lifecycle"], {}).web.enable_lifecycle
    assert parse_args(["--web.systemd-socket"], {}).web.systemd_socket
    assert not parse_args(
        ["--web.systemd-socket=false"], {PREFIX + "WEB_SYSTEMD_SOCKET": "true"}
    ).web.systemd_socket


@pytest.mark.parametrize("address", ["http://localhost:1", "https://[::1]:2", "http://:3", "http://a"])
def test_a_listen_address_is_no_url(address: str) -> None:
    scheme = address.partition(":")[0]
    with pytest.raises(ConfigError) as refusal:
        parse_args(["--web.listen-address", address], {})
    assert str(refusal.value) == (f"--web.listen-address must be HOST:PORT, without {scheme}://, got {address!r}")


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
        for text in ("", "64Mi B", "4095", "-1", "1e9", "1073741825", "٣" * 5, "9" * 5000)
    ),
    *(
        ("--web.telemetry-path", text)
        for text in ("", "/", "metrics", "/-/ready", "/-/anything", "/{name}", "/a?b", "/a#b", "/a}")
    ),
    *(("--limit.series", text) for text in ("", "0", "999", "1000001", "1e4", "-1", "1_000", "9" * 5000)),
    *(("--limit.client-bytes", text) for text in ("", "0", "1048575", "64 M", "-1")),
    *(("--group.by", text) for text in ("", "node", "pod,", "none,pod", "pod unit")),
    *(("--kubernetes.api-server", text) for text in ("a:6443", "https://", "ftp://a", "https://a b")),
    *(("--kubernetes.node-name", text) for text in ("A", "a,b", "-a")),
    *(("--limit.gone", text) for text in ("", "1", "59", "-1", "nan")),
    *(("--limit.idle", text) for text in ("", "1", "3599", "59m", "-1", "nan", "inf", "1 h")),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "value"), BAD_VALUES, ids=[f"{flag} {value:.10}" for flag, value in BAD_VALUES])
def test_an_impossible_value_is_refused_by_a_text_that_names_its_flag_or_its_variable(
    flag: str, value: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(flag)}[ :]"):
        parse_args([f"{flag}={value}"], {})
    variable = BY_FLAG[flag].variable
    with pytest.raises(ConfigError, match=f"^{variable}[ :]"):
        parse_args([], {variable: value})


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.choices], ids=lambda flag: flag.name)
@pytest.mark.parametrize("value", ["", "bogus", "INFO"])
def test_a_choice_that_does_not_exist_is_refused(flag: Flag, value: str) -> None:
    rest = f" must be one of {', '.join(flag.choices or ())}, got '{value}'"
    with pytest.raises(ConfigError, match=f"^{flag.variable}{rest}"):
        parse_args([], {flag.variable: value})
    with pytest.raises(ConfigError, match=f"^{flag.name}{rest}"):
        parse_args([f"{flag.name}={value}"], {})


def test_every_flag_is_under_a_heading() -> None:
    assert [flag.name for flag in FLAGS if not flag.group] == []


def test_a_flag_that_needs_another_one_names_one_that_there_is() -> None:
    named = {name for flag in FLAGS for name in (flag.needs, *flag.no_effect_with) if name}
    assert named <= set(BY_FLAG)


@pytest.mark.parametrize(
    ("argv", "environment", "chosen"),
    [
        ([], {}, "logfmt"),
        (["--log.format", "json", "--bogus"], {}, "json"),
        (["--bogus", "--log.format=json"], {}, "json"),
        (["--log.format=json", "--log.format"], {}, "logfmt"),
        (["--log.format=yaml"], {}, "logfmt"),
        ([], {PREFIX + "LOG_FORMAT": "json"}, "json"),
        (["--log.format=logfmt"], {PREFIX + "LOG_FORMAT": "json"}, "logfmt"),
    ],
)
def test_the_format_of_a_complaint_is_known_before_the_settings_are(
    argv: list[str], environment: dict[str, str], chosen: str
) -> None:
    assert chosen_log_format(argv, environment) == chosen


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_args(["--help"], {})
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert [flag.name for flag in FLAGS if flag.name not in text] == []


def test_a_config_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().logging.level = "debug"  # type: ignore[misc]
