"""The chart refuses the arguments and variables with which the exporter would not start, and no others."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
from charts.flags_file import PATH, flags_file, up_to
from charts.rendering import render
from helm_python import HelmRenderError, HelmValuesError

from exporter.arguments import parse_rows
from exporter.command_line import parse_args
from exporter.config import FLAGS
from exporter.errors import ConfigError
from exporter.flag_parsers import CountBetween, IntervalBetween, MayBeEmpty, SizeBetween
from exporter.flags import Flag

# Refused because probes and monitors would ask elsewhere.
ADDRESSES = {"--web.listen-address", "--web.telemetry-path"}


def test_the_file_is_made_of_the_flags(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        PATH.write_text(flags_file(), encoding="utf-8")
    assert PATH.read_text(encoding="utf-8") == flags_file()


def complaint(values: Mapping[str, Any]) -> str | None:
    """Return why the chart refuses values, None if it takes them."""
    try:
        render(values)
    except HelmRenderError as error:
        return str(error)
    except HelmValuesError as error:
        return str(error)
    return None


NUMBERS = ["", "0", "1", "00", "007", "-1", "+1", "1.5", "1e3", "1_0", " 1", "1 ", "x", "0x10", "٣", "9" * 19]
DURATIONS = [
    *(
        "5x",
        "15s",
        "15 s",
        "0s",
        "1h30m",
        "30m1h",
        "1m1h",
        "1h1h",
        "1ms",
        "999ms",
        "1000ms",
        "1.5s",
        "0.5s",
        "1.s",
    ),
    *("86399.9s", "86400", "86401", "24h", "1d", "1d1ns", "1d1s", "25h", "59m59s", "59m60s", "3599", "3600", "1h"),
    *("364d24h", "365d", "365d1s", "52w1d", "52w2d", "59s", "60s", "1m", "1w", "1y", "1S", "1.0000000001s", "٣s"),
]
SIZES = [
    *("64MiB", "64mb", "64M", "64MB", "64Mi", "1G", "1024M", "1048577k", "1025M", "2G", "4k", "4K", "3K", "4095"),
    *(
        "4096",
        "4096B",
        "4097B",
        "1T",
        "1025G",
        "1024T",
        "1025T",
        "1P",
        "1.5G",
        "64 MiB",
        "63k",
        "64k",
        "1Mi",
        "1MiBs",
    ),
]
TEXTS: dict[str, list[str]] = {
    "--events": ["exit", "exit,fork", " exit , fork ", "exit,", ",exit", ",", "exits", "exit fork", "exit,,fork"],
    "--group.by": ["none", "unit", "unit, unit", "none,none", "none,unit", "unit,", "pods", " unit "],
    "--stream.mode": ["0660", "660", "0999", "00660", "66", "0o660", "rw"],
    "--stream.allow-uid": [
        "0",
        "0,1000",
        "0, 1000 ",
        "0,",
        "root",
        "4294967294",
        "4294967295",
        "9999999999",
        "00",
    ],
    "--stream.group": ["0", "root", "4294967294", "4294967295", "-1"],
    "--user": ["root", "0", "00", "1", "65534", "4294967294", "4294967295", "99999999999", "-1", "nobody"],
    "--web.telemetry-path": ["/", "/m", "//m", "/-/m", "/-m", "/-", "m", "/m?", "/a/b", "/{a}", "/m#", "/a-/-/b"],
    "--web.listen-address": [
        *(
            ":1",
            "h:1",
            "[::1]:1",
            "::1:1",
            "h",
            "h:",
            ":65535",
            ":65536",
            ":00001",
            ":000001",
            ":1,:2",
            ":1,",
            "1",
        ),
    ],
    "--kubernetes.api-server": [
        *("https://h", "http://h:80", "https://h:65536", "https://", "h", "ftp://h", "https://h/p", "https://h?q"),
        *("https://u@h", "https://[::1]:6443", "https://h h", "HTTPS://h", "https://h#f", "https://h:x"),
    ],
    "--kubernetes.node-name": ["n", "n.a-b", "N", "-n", "n-", "n" * 253, "n" * 254, "n_o"],
}


def candidates(flag: Flag) -> list[str]:
    """Return texts that a user could write for a flag, right and wrong ones."""
    texts = [flag.default or "", *TEXTS.get(flag.name, [])]
    if flag.choices is not None:
        return [*texts, *flag.choices, "", "yes", "True", flag.choices[0].upper(), f"{flag.choices[0]} "]
    parse = flag.parse.parse if isinstance(flag.parse, MayBeEmpty) else flag.parse
    if isinstance(parse, CountBetween | SizeBetween | IntervalBetween):
        bounds = [str(bound + step) for bound in (parse.least, parse.most) for step in (-1, 0, 1)]
        texts += [*bounds, *NUMBERS, *DURATIONS, *SIZES]
    return texts


def exporter_takes(flag: Flag, text: str) -> bool:
    alone = flag._replace(needs=None, no_effect_with=())
    try:
        parse_rows({"flag": alone}, {"flag": text}, {})
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_a_value_is_refused_where_the_exporter_refuses_it(flag: Flag) -> None:
    """As variables, which the schema does not look at: the chart says of all together which are wrong."""
    if flag.name == "--web.telemetry-path":
        pytest.skip("the chart refuses it with any value")
    texts = sorted(set(candidates(flag)))
    variables = [{"name": flag.variable, "value": text} for text in texts]
    said = complaint({"extraEnv": variables}) or ""
    got = re.findall(r"must be .*?, got '(.*?)'(?:; PROC_|$)", said, re.DOTALL)
    refused = [text for text in texts if not exporter_takes(flag, text)]
    assert sorted(got) == refused
    assert bool(refused) == ("the exporter would not start" in said and "must be" in said)


def a_value_of(flag: Flag) -> str:
    """Return a value that the exporter takes and that is not the one that counts as not set."""
    wanted = {
        "--attribution": "taskstats",
        "--exec-names": "sideband",
        "--group.by": "unit",
        "--kubernetes.api-server": "https://h",
        "--oom-kills": "kmsg",
        "--speed": "2",
        "--user": "1000",
    }
    texts = [wanted.get(flag.name, "true" if flag.is_switch else flag.default or "x")]
    return next(text for text in [*texts, "1"] if text and exporter_takes(flag, text))


# What the exporter would refuse with flags that the chart sets.
OTHERS = {
    "--replay": "--replay cannot be set here",
    "--web.systemd-socket": "--web.systemd-socket cannot be set here",
}
# What a setting takes beside its arguments, which the parser does not ask for.
PRIVILEGES = {
    "unprivileged": {
        "--attribution": "needs mode exact",
        "--exec-names": "needs mode exact",
        "--oom-kills": "needs /dev/kmsg",
        "--user": "exact.user sets it",
    },
    "exact": {"--oom-kills": "needs /dev/kmsg"},
}


@pytest.mark.parametrize("mode", sorted(PRIVILEGES))
@pytest.mark.parametrize("before", [[], ["--group.by=unit"], ["--stream.socket=/s", "--capture=/c"]], ids=" ".join)
def test_a_setting_without_effect_is_refused_where_the_exporter_refuses_it(mode: str, before: list[str]) -> None:
    own = render({"mode": mode}).container["args"]
    for flag in FLAGS:
        if flag.name in ADDRESSES or "api-server" in flag.name:
            continue
        argument = f"{flag.name}={a_value_of(flag)}"
        said = complaint({"mode": mode, "extraArgs": [*before, argument]})
        if flag.name.startswith(("--kubernetes.", "--containers.")) and before[:1] == ["--group.by=unit"]:
            # The parser lets it pass, the exporter refuses it when it looks at both.
            assert said is not None
            assert "has no effect unless exporter.groupBy has pod" in said
        elif (words := (PRIVILEGES[mode] | OTHERS).get(flag.name)) is not None:
            assert said is not None
            assert words in said
        else:
            refused = complaint_of_the_exporter([*own, *before, argument])
            assert (said is None) == (refused is None), argument
            assert refused is None or f"{flag.name} has no effect" in refused or f"with {flag.name}" in refused
            assert said is None or f"{flag.name} has no effect" in said or f"with {flag.name}" in said


def complaint_of_the_exporter(argv: list[str]) -> str | None:
    try:
        parse_args(argv, {})
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"extraArgs": ["--canary.interval=5x"]}, "--canary.interval must be 0, or a duration from 1s to 1d"),
        ({"extraArgs": ["--canary.interval=2d"]}, "got '2d'"),
        ({"extraArgs": ["--log.level=warning"]}, "--log.level must be one of debug, info, warn, error"),
        ({"extraArgs": ["--events=forks"]}, "--events must be of fork, exec"),
        ({"extraArgs": ["--speed=2"]}, "--speed has no effect without --replay"),
        ({"extraArgs": ["--replay=/c"]}, ": --replay cannot be set here: every pod would serve one capture"),
        ({"extraArgs": ["--replay=/c", "--speed=2"]}, ": --replay cannot be set here"),
        (
            {"extraEnv": [{"name": "PROC_CONNECTOR_EXPORTER_REPLAY", "value": "/c"}]},
            ": PROC_CONNECTOR_EXPORTER_REPLAY cannot be set here",
        ),
        (
            {"extraEnv": [{"name": "PROC_CONNECTOR_EXPORTER_REPLAY", "valueFrom": {"configMapKeyRef": {}}}]},
            ": PROC_CONNECTOR_EXPORTER_REPLAY cannot be set here",
        ),
        (
            {"extraArgs": ["--web.systemd-socket"]},
            ": --web.systemd-socket cannot be set here: there is no systemd",
        ),
        ({"extraArgs": ["--limit.gone=1h"]}, "--limit.gone has no effect without --group.by"),
        ({"extraArgs": ["--group.by=pod"]}, "exporter.groupBy sets it"),
        ({"extraEnv": [{"name": "PROC_CONNECTOR_EXPORTER_GROUP_BY", "value": "pod"}]}, "exporter.groupBy sets it"),
        (
            {"extraEnv": [{"name": "PROC_CONNECTOR_EXPORTER_SPEED", "value": "2"}]},
            "PROC_CONNECTOR_EXPORTER_SPEED has no effect without --replay",
        ),
        (
            {"extraEnv": [{"name": "PROC_CONNECTOR_EXPORTER_WEB_TELEMETRY_PATH", "value": "/m"}]},
            "monitors would ask elsewhere",
        ),
        ({"exact": {"user": 0}, "extraArgs": ["--user=1000"]}, "exact.user sets it"),
        (
            {"mode": "unprivileged", "extraArgs": ["--exec-names=sideband"]},
            "--exec-names=sideband needs mode exact",
        ),
        (
            {
                "mode": "unprivileged",
                "extraEnv": [{"name": "PROC_CONNECTOR_EXPORTER_EXEC_NAMES", "value": "sideband"}],
            },
            "PROC_CONNECTOR_EXPORTER_EXEC_NAMES=sideband needs mode exact",
        ),
        ({"exact": {"user": 0}, "extraArgs": ["--oom-kills=kmsg"]}, "--oom-kills=kmsg needs /dev/kmsg"),
        (
            {
                "extraArgs": ["--oom-kills=kmsg"],
                "extraVolumes": [{"name": "log", "hostPath": {"path": "/dev/kmsg"}}],
                "extraVolumeMounts": [{"name": "log", "mountPath": "/dev/kmsg"}],
            },
            "only privileged containers may open",
        ),
        ({"exporter": {"seriesIdle": "30m"}}, "--limit.idle must be 0, or a duration from 1h to 365d"),
        ({"exporter": {"seriesIdle": "400d"}}, "--limit.idle must be"),
        ({"exporter": {"canaryInterval": "100ms"}}, "--canary.interval must be"),
        ({"exporter": {"receiveBufferBytes": "1K"}}, "--receive-buffer.bytes must be a size from 4KiB to 1GiB"),
        ({"exporter": {"receiveBufferBytes": "2G"}}, "--receive-buffer.bytes must be"),
    ],
    ids=str,
)
def test_it_is_said_what_the_exporter_would_not_start_with(values: Mapping[str, Any], words: str) -> None:
    said = complaint(values)
    assert said is not None
    assert words in said


@pytest.mark.parametrize(
    "values",
    [
        {"extraArgs": ["--group.by=unit", "--limit.gone=1h"]},
        {"exporter": {"groupBy": ["pod"]}, "extraArgs": ["--limit.gone=1h", "--kubernetes.node-name=n"]},
        {"extraArgs": ["--group.by=none", "--web.exemplars=false", "--no-failures.log"]},
        {"extraArgs": ["--replay=", "--no-web.systemd-socket"]},
        # What stands elsewhere is known on the node only.
        {"extraEnv": [{"name": "PROC_CONNECTOR_EXPORTER_LOG_LEVEL", "valueFrom": {"fieldRef": {}}}]},
        {"extraArgs": ["--stream.socket=/s", "--stream.mode=$(MODE)"]},
        {"extraArgs": ["--exec-names=sideband", "--oom-kills=vmstat"]},
        {"exact": {"user": 0}, "extraArgs": ["--oom-kills=syslog"]},
        {
            "mode": "unprivileged",
            "extraArgs": ["--exec-names=sideband", "--exec-names=events", "--oom-kills=auto"],
        },
        {
            "mode": "unprivileged",
            "podSecurityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "perf.json"}},
            "extraArgs": ["--exec-names=sideband"],
        },
        # Not a variable of the exporter's.
        {"extraEnv": [{"name": "CANARY_INTERVAL", "value": "5x"}]},
    ],
    ids=str,
)
def test_what_the_exporter_takes_is_rendered(values: Mapping[str, Any]) -> None:
    assert complaint(values) is None


@pytest.mark.parametrize("most", [9, 10, 65535, 4294967294, 1000])
def test_a_pattern_of_numbers_ends_at_its_bound(most: int) -> None:
    numbers = {0, 1, 7, *(most * part // 7 for part in range(15)), *(most + step for step in range(-11, 12))}
    assert {n for n in numbers if n >= 0 and re.fullmatch(up_to(most), str(n))} == {
        n for n in numbers if 0 <= n <= most
    }
