"""Each alert fires when it should and is quiet when it should: promtool plays the time series."""

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from dashboards.generate import rules

RULES = Path(__file__).parents[2] / "dashboards" / "rules"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here (Debian: apt-get install prometheus)"
)

EXPORTER = 'job="proc-connector-exporter",instance="a"'
HEALTHY = {
    f"up{{{EXPORTER}}}": "1x2000",
    f"process_start_time_seconds{{{EXPORTER}}}": "-100000x2000",
    f"proc_connector_canary_age_seconds{{{EXPORTER}}}": "3x2000",
}
RESTARTED_AT_40M = {
    f"up{{{EXPORTER}}}": "1x38 0 1x2000",
    f"process_start_time_seconds{{{EXPORTER}}}": "-100000x38 _ 2400x2000",
    f"proc_connector_canary_age_seconds{{{EXPORTER}}}": "3x38 _ 3x2000",
}
NEW_AT_40M = {
    f"up{{{EXPORTER}}}": "_x40 1x2000",
    f"process_start_time_seconds{{{EXPORTER}}}": "_x40 2400x2000",
}
UNSCRAPED_FROM_10M_TO_40M = {
    f"up{{{EXPORTER}}}": "1x9 0x29 1x2000",
    f"process_start_time_seconds{{{EXPORTER}}}": "-100000x9 _x30 -100000x2000",
}


def ended(comm: str, values: str, *, code: str = "0", signal: str = "", uid: str = "0") -> dict[str, str]:
    """Return the series of an end: of exits_total and, if it is a failure, of nonzero_exits_total too."""
    labels = f'{EXPORTER},comm="{comm}",uid="{uid}",exit_code="{code}",signal="{signal}"'
    series = {f"proc_connector_exits_total{{{labels}}}": values}
    if code != "0":
        series[f"proc_connector_nonzero_exits_total{{{labels}}}"] = values
    return series


def events(kind: str, values: str) -> dict[str, str]:
    return {f'proc_connector_events_total{{{EXPORTER},event="{kind}"}}': values}


def unattributed(values: str) -> dict[str, str]:
    return {f'proc_connector_unattributed_total{{{EXPORTER},event="exec"}}': values}


def folded(values: str) -> dict[str, str]:
    return {f'proc_connector_folded_total{{{EXPORTER},metric="proc_connector_execs_total"}}': values}


def reloaded(values: str) -> dict[str, str]:
    return {f"proc_connector_config_last_reload_successful{{{EXPORTER}}}": values}


def task_exits(events: str, kernel: str) -> dict[str, str]:
    told = {"events": events, "kernel": kernel}
    return {f'proc_connector_task_exits_total{{{EXPORTER},source="{s}"}}': v for s, v in told.items()}


def lost(values: str) -> dict[str, str]:
    return {f'proc_connector_lost_messages_total{{{EXPORTER},socket="connector"}}': values}


def coredumps(comm: str, values: str) -> dict[str, str]:
    return {f'proc_connector_coredumps_total{{{EXPORTER},comm="{comm}",uid="0"}}': values}


@dataclass(frozen=True)
class Case:
    """Time series from minute 0 on, one value a minute, and who fires at these times (all others are quiet)."""

    name: str
    series: dict[str, str]
    firing: dict[str, set[str]]
    host: dict[str, str] = field(default_factory=lambda: HEALTHY)


QUIET: set[str] = set()
MANY_THEN_FAILING = ended("job", "0+2x60 120x60") | ended("job", "_x60 1+2x60", code="1")

CASES = (
    Case("a healthy host is quiet", ended("sh", "0+10x100"), {"5m": QUIET, "90m": QUIET}),
    # the exporter itself
    Case(
        "an exporter that does not answer is down after five minutes",
        {},
        {"13m": QUIET, "16m": {"ProcConnectorExporterDown"}},
        {f"up{{{EXPORTER}}}": "1x9 0x60"},
    ),
    Case("other jobs may be down", {'up{job="node",instance="a"}': "0x60"}, {"50m": QUIET}),
    Case(
        "a node that left the service discovery is not down",
        {'up{job="proc-connector-exporter",instance="b"}': "1x100"},
        {"30m": QUIET, "60m": QUIET},
        {f"up{{{EXPORTER}}}": "1x9 stale"},
    ),
    Case(
        "no exporter at all is an alert of its own",
        {},
        {"20m": QUIET, "30m": {"ProcConnectorExporterAbsent"}},
        {f"up{{{EXPORTER}}}": "1x9 stale"},
    ),
    Case(
        "a canary that does not come back is late after a minute more",
        {},
        {"10m": QUIET, "13m": {"ProcConnectorCanaryLate"}, "20m": QUIET},
        HEALTHY | {f"proc_connector_canary_age_seconds{{{EXPORTER}}}": "3x10 63 123 183 243 3x60"},
    ),
    Case(
        "one late canary is a busy host",
        {},
        {"11m": QUIET, "12m": QUIET},
        HEALTHY | {f"proc_connector_canary_age_seconds{{{EXPORTER}}}": "3x10 63 3x60"},
    ),
    Case(
        "an exporter whose canary is turned off is not late",
        {},
        {"30m": QUIET},
        {f"up{{{EXPORTER}}}": "1x60"},
    ),
    Case(
        "one lost message fires, for a window",
        lost("0x20 1x60"),
        {"20m": QUIET, "22m": {"ProcConnectorMessagesLost"}, "40m": QUIET},
    ),
    Case("what was lost long ago is quiet", lost("7x60"), {"30m": QUIET}),
    Case("a loss counter that is reset is quiet", lost("7x38 _ 0x60"), {"45m": QUIET}, RESTARTED_AT_40M),
    Case(
        "a loss before the first scrape of a new exporter fires",
        lost("_x40 5x60"),
        {"42m": {"ProcConnectorMessagesLost"}, "60m": QUIET},
        NEW_AT_40M,
    ),
    Case(
        "a tenth of the events without a name is too much after a quarter of an hour",
        events("exec", "0+100x60") | unattributed("0x10 0+10x50"),
        {"12m": QUIET, "40m": {"ProcConnectorUnattributedHigh"}},
    ),
    Case(
        "a hundredth of the events without a name is quiet",
        events("exec", "0+100x60") | unattributed("0+1x60"),
        {"40m": QUIET},
    ),
    Case(
        "a host without events has no share of them", events("exec", "5x60") | unattributed("0x60"), {"40m": QUIET}
    ),
    Case(
        "the first count that is folded fires, for a window, its series born with it or not",
        folded("_x20 7x60"),
        {"19m": QUIET, "22m": {"ProcConnectorSeriesLimitReached"}, "40m": QUIET},
    ),
    Case("what was folded long ago is quiet", folded("7x60"), {"30m": QUIET}),
    Case("a limit that was never reached is quiet", folded("0x60"), {"30m": QUIET}),
    Case(
        "a broken configuration is one after five minutes",
        reloaded("1x10 0x30 1x20"),
        {"13m": QUIET, "20m": {"ProcConnectorConfigReloadFailed"}, "50m": QUIET},
    ),
    Case("a configuration that is mended at once", reloaded("1x10 0x2 1x20"), {"13m": QUIET, "20m": QUIET}),
    Case(
        "a fifth of the ends without an event is too much after a quarter of an hour",
        task_exits("0+600x10 6000+480x90", "0+600x100"),
        {"12m": QUIET, "40m": {"ProcConnectorEndsMissed"}},
    ),
    Case(
        "a silent kernel is a host without events",
        task_exits("0x60", "0+600x60"),
        {"40m": {"ProcConnectorEndsMissed"}},
    ),
    Case(
        "one end in a hundred is within the error of the check", task_exits("0+99x60", "0+100x60"), {"40m": QUIET}
    ),
    Case("a few missed on a quiet host mean nothing", task_exits("0+10x60", "0+15x60"), {"40m": QUIET}),
    # births
    Case(
        "a fork storm is one in the light of its past",
        events("fork", "0+60x60 3600+6000x30"),
        {"59m": QUIET, "75m": {"ProcessForkStorm"}},
    ),
    Case("a host that always forks so much is quiet", events("fork", "0+6000x90"), {"75m": QUIET}),
    Case("ten times nearly nothing is quiet", events("fork", "0+6x60 360+60x30"), {"75m": QUIET}),
    Case("a host without a past is quiet", events("fork", "0+6000x90"), {"10m": QUIET}),
    Case(
        "a restarted exporter is no fork storm",
        events("fork", "0+600x38 _ 0+600x60"),
        {"42m": QUIET, "50m": QUIET},
        RESTARTED_AT_40M,
    ),
    # failures
    Case(
        "a crash loop that backs off to five minutes",
        ended("daemon", "_x20 1 1 1 1 1 2 2 2 2 2 3 3 3 3 3 4 4 4 4 4 5 5 5 5 5 6 6 6 6 6 7x9", code="1"),
        {"25m": QUIET, "50m": {"ProcessCrashLooping"}},
    ),
    Case(
        "three failures in a row and then peace are no loop",
        ended("daemon", "_x20 1 2 3x60", code="1"),
        {"25m": QUIET, "34m": QUIET, "36m": QUIET, "50m": QUIET},
    ),
    Case(
        "a job that fails now and then but mostly succeeds does not loop",
        ended("job", "0+10x90", code="1") | ended("job", "0+100x90"),
        {"60m": QUIET},
    ),
    Case("grep does not fail by finding nothing", ended("grep", "0+10x90", code="1"), {"60m": QUIET}),
    Case(
        "a loop through a restart of the exporter goes on",
        ended("daemon", "0+1x38 _ 1+1x60", code="1"),
        {"35m": {"ProcessCrashLooping"}, "50m": {"ProcessCrashLooping"}},
        RESTARTED_AT_40M,
    ),
    Case(
        "a program that begins to fail half the time",
        ended("job", "0+4x60 240+2x60") | ended("job", "0x60 0+2x60", code="1"),
        {"59m": QUIET, "80m": {"ProcessFailureRatioJumped"}},
    ),
    Case(
        "a program that always failed half the time",
        ended("job", "0+2x120") | ended("job", "0+2x120", code="1"),
        {"80m": QUIET},
    ),
    Case(
        "two failures of a program that seldom runs are an anecdote",
        ended("job", "0+4x60 240x60") | ended("job", "0x60 2x60", code="1"),
        {"70m": QUIET, "90m": QUIET},
    ),
    Case(
        "the very first failure of a program that ran well, born at 1",
        ended("backup", "5x70 6x60") | ended("backup", "_x70 1x60", code="2"),
        {"69m": QUIET, "72m": {"ProcessFirstFailure"}, "90m": QUIET},
    ),
    Case(
        "a program that fails for the first time and is not known to do well is no news",
        ended("tool", "_x70 1x60", code="2"),
        {"72m": QUIET},
    ),
    Case(
        "a restarted exporter meets all failing programs anew and is quiet",
        ended("backup", "500+1x38 _ 1+1x60") | ended("backup", "3x38 _x10 1x60", code="2"),
        {"50m": QUIET, "60m": QUIET, "99m": QUIET},
        RESTARTED_AT_40M,
    ),
    Case(
        "a new exporter meets all failing programs and is quiet",
        ended("backup", "_x45 0+1x90") | ended("backup", "_x45 1x90", code="2"),
        {"46m": QUIET, "60m": QUIET, "100m": QUIET},
        NEW_AT_40M,
    ),
    Case(
        "one scrape that failed makes no failure the first",
        ended("backup", "5x79 stale 5x90") | ended("backup", "_x70 1x9 stale 1x90", code="2"),
        {"75m": {"ProcessFirstFailure"}, "90m": QUIET, "95m": QUIET},
        HEALTHY | {f"up{{{EXPORTER}}}": "1x79 0 1x90"},
    ),
    # signals
    Case(
        "the very first segfault, born at 1, fires for a window",
        ended("app", "_x30 1x60", code="139", signal="SIGSEGV"),
        {"29m": QUIET, "31m": {"ProcessCrashed"}, "50m": QUIET},
    ),
    Case(
        "a further segfault of a known series",
        ended("app", "1x30 2x60", code="139", signal="SIGSEGV"),
        {"29m": QUIET, "32m": {"ProcessCrashed"}, "60m": QUIET},
    ),
    Case("an exit with 139 is no segfault", ended("app", "_x30 1x60", code="139"), {"32m": QUIET}),
    Case("SIGTERM is no crash", ended("app", "_x30 1x60", code="143", signal="SIGTERM"), {"32m": QUIET}),
    Case(
        "a restarted exporter that has seen no crash since is quiet",
        ended("app", "5x38", code="139", signal="SIGSEGV"),
        {"20m": QUIET, "42m": QUIET},
        RESTARTED_AT_40M,
    ),
    Case(
        "a crash after the restart of the exporter fires, although its counter is lower than before",
        ended("app", "5x38 _x5 1x60", code="139", signal="SIGSEGV"),
        {"42m": QUIET, "46m": {"ProcessCrashed"}, "70m": QUIET},
        RESTARTED_AT_40M,
    ),
    Case(
        "a crash within the first minute of a new exporter fires",
        ended("app", "_x40 1x60", code="134", signal="SIGABRT"),
        {"41m": {"ProcessCrashed"}, "70m": QUIET},
        NEW_AT_40M,
    ),
    Case(
        "old crashes are not new because nobody scraped for half an hour",
        ended("app", "5x9 _x30 5x60", code="139", signal="SIGSEGV"),
        {"42m": QUIET, "60m": QUIET},
        UNSCRAPED_FROM_10M_TO_40M,
    ),
    Case(
        "the very first SIGKILL, born at 1",
        ended("app", "_x30 1x60", code="137", signal="SIGKILL"),
        {"29m": QUIET, "31m": {"ProcessKilled"}, "50m": QUIET},
    ),
    Case("an exit with 137 is no SIGKILL", ended("app", "_x30 1x60", code="137"), {"32m": QUIET}),
    Case(
        "five core dumps of several programs on a node, born at their number",
        coredumps("x", "_x30 3x60") | coredumps("y", "_x31 2x60"),
        {"29m": QUIET, "32m": {"ProcessCoreDumps"}, "60m": QUIET},
    ),
    Case("one core dump fills no disk", coredumps("x", "_x30 1x60"), {"32m": QUIET}),
)


def promtool_test(case: Case) -> dict[str, object]:
    return {
        "rule_files": [str(RULES / "recording.yaml"), str(RULES / "alerts.yaml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "name": case.name,
                "interval": "1m",
                "input_series": [{"series": s, "values": v} for s, v in (case.host | case.series).items()],
                "promql_expr_test": [
                    {
                        "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": time,
                        "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names],
                    }
                    for time, names in case.firing.items()
                ],
            }
        ],
    }


def promtool(*arguments: str | Path) -> tuple[int, str]:
    result = subprocess.run(
        ["promtool", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return result.returncode, result.stdout


@needs_promtool
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_alerts(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(promtool_test(case)))
    code, output = promtool("test", "rules", file)
    assert code == 0, output


@pytest.mark.parametrize("alert", rules.all_alerts(), ids=lambda alert: alert.name)
def test_each_alert_is_seen_to_fire_and_to_be_quiet_in_one_story(alert: rules.Alert) -> None:
    assert [
        case.name
        for case in CASES
        if any(alert.name in names for names in case.firing.values())
        and any(alert.name not in names for names in case.firing.values())
    ]
