"""Recording rules and alerts.

Every number that an alert compares with has a name, a reason and one place: `Threshold`. In the rule it is at the
end of a line, followed by its name as a PromQL comment (`> 60 # canary_late_seconds`), so that a Helm chart can
put another number there without parsing PromQL.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

WINDOW = "15m"
"""How far back alerts look for rare events."""
LOOP_WINDOW = "45m"
"""Three times the longest cycle: Kubernetes waits up to five minutes to restart what ran for less than ten."""
KEEP = "5m"
"""How long an alert without `for` stays after its reason ended, so that a failed scrape does not send it twice."""

_BUILD_INFO = "proc_connector_exporter_build_info"
_END_LABELS = ("uid", "exit_code", "signal")
_NONZERO_EXITS = "proc_connector_nonzero_exits_total"
_EXITS = "proc_connector_exits_total"

# Names of recording rules: level:metric:operation.
FORKS = "instance:proc_connector_forks:rate5m"
EXECS = "instance:proc_connector_execs:rate5m"
EXITS = "instance:proc_connector_exits:rate5m"
NONZERO_EXITS = "instance:proc_connector_nonzero_exits:rate5m"
MISSED = "instance:proc_connector_task_exits_missed:ratio_rate5m"
UNATTRIBUTED = "instance:proc_connector_unattributed:ratio_rate5m"
USUAL_FORKS = "instance:proc_connector_forks:rate5m_usual"
FAILURES = f"instance_comm_signal:proc_connector_nonzero_exits:increase{WINDOW}"
LOOP_FAILURES = f"instance_comm:proc_connector_nonzero_exits:increase{LOOP_WINDOW}"
ENDS = f"instance_comm:proc_connector_exits:increase{WINDOW}"
SIGNALS = f"instance_signal:proc_connector_nonzero_exits:increase{WINDOW}"
FOLDED = f"instance_metric:proc_connector_folded:increase{WINDOW}"
COREDUMPS = f"instance:proc_connector_coredumps:increase{WINDOW}"
LOST = f"instance_socket:proc_connector_lost_messages:increase{WINDOW}"
PAST_ENDS = f"instance_comm:proc_connector_exits:offset{WINDOW}"
PAST_FAILURE_RATIO = f"instance_comm:proc_connector_nonzero_exits:ratio_offset{WINDOW}"
FAILED_AT = f"instance_comm:proc_connector_nonzero_exits:timestamp_offset{WINDOW}"


def without(*labels: str) -> str:
    """Return the clause that sums away these labels and `pod`, with which a rollout would begin new series."""
    return f"without ({', '.join(['pod', *labels])})"


def happened(metric: str, *labels: str, window: str = WINDOW) -> str:
    """Return PromQL for how often something happened within the window, the first count of a series included.

    A counter whose first value is 1 has no increase, and neither has one that a restart took from 1 to 1. So where
    the exporter is younger than the window, the value is used. The value is also used where the series did not
    exist a window ago, provided that the exporter was scraped then: otherwise the series may be old and only the
    scrapes were missing. An increase above the value includes counts from before a restart, and is used.

    Args:
        metric: A counter.
        labels: The labels to sum away.
        window: In minutes, such as 15m.
    """
    seconds = int(window.removesuffix("m")) * 60
    return (
        f"sum {without(*labels)} (\n"
        f"  (\n"
        f"    {metric} and on (job, instance) process_start_time_seconds > time() - {seconds}\n"
        f"    or\n"
        f"    ({metric} unless {metric} offset {window}) and on (job, instance) up offset {window} == 1\n"
        f"  )\n"
        f"  unless increase({metric}[{window}]) > {metric}\n"
        f"  or\n"
        f"  increase({metric}[{window}])\n"
        f")"
    )


class Recording(NamedTuple):
    """A recording rule."""

    record: str
    expr: str

    def rule(self) -> dict[str, Any]:
        """Return the rule as Prometheus reads it."""
        return {"record": self.record, "expr": self.expr}


RATES = (
    Recording(FORKS, f'sum {without("event")} (rate(proc_connector_events_total{{event="fork"}}[5m]))'),
    Recording(EXECS, f'sum {without("event")} (rate(proc_connector_events_total{{event="exec"}}[5m]))'),
    Recording(EXITS, f"sum {without('comm', *_END_LABELS)} (rate({_EXITS}[5m]))"),
    Recording(NONZERO_EXITS, f"sum {without('comm', *_END_LABELS)} (rate({_NONZERO_EXITS}[5m]))"),
    Recording(
        MISSED,
        f"1 -\n"
        f'sum {without("source")} (rate(proc_connector_task_exits_total{{source="events"}}[5m]))\n'
        f"/\n"
        f'(sum {without("source")} (rate(proc_connector_task_exits_total{{source="kernel"}}[5m])) > 1)',
    ),
    Recording(
        UNATTRIBUTED,
        f"sum {without('event')} (rate(proc_connector_unattributed_total[5m]))\n"
        f"/\n"
        f'(sum {without("event")} (rate(proc_connector_events_total{{event=~"fork|exec|exit"}}[5m])) > 0)',
    ),
)
RARE = (
    Recording(FAILURES, happened(_NONZERO_EXITS, "uid", "exit_code")),
    Recording(LOOP_FAILURES, happened(_NONZERO_EXITS, *_END_LABELS, window=LOOP_WINDOW)),
    Recording(ENDS, happened(_EXITS, *_END_LABELS)),
    Recording(SIGNALS, f'sum without (comm) ({FAILURES}{{signal!=""}})'),
    Recording(COREDUMPS, happened("proc_connector_coredumps_total", "comm", "uid")),
    Recording(FOLDED, happened("proc_connector_folded_total")),
    Recording(LOST, happened("proc_connector_lost_messages_total")),
)
PAST = (
    # The median, so that a storm of some hours does not become usual; and the highest rate of these hours
    # yesterday, so that a load that comes every night is no storm.
    Recording(
        USUAL_FORKS,
        f"max_over_time({FORKS}[2h] offset 23h) > quantile_over_time(0.5, {FORKS}[1d] offset {WINDOW})\n"
        f"or\n"
        f"quantile_over_time(0.5, {FORKS}[1d] offset {WINDOW})",
    ),
    # Remembers failures for a day, even if their series end, and over an hour in which no rule was evaluated. It
    # reads its own last value, which costs next to nothing; a day of all failures would be too much for a fleet.
    Recording(
        FAILED_AT,
        f"max {without(*_END_LABELS)} (timestamp({_NONZERO_EXITS} offset {WINDOW}))\n"
        f"or\n"
        f"last_over_time({FAILED_AT}[1h]) > time() - 86400",
    ),
    Recording(PAST_ENDS, f"sum {without(*_END_LABELS)} ({_EXITS} offset {WINDOW})"),
    Recording(
        PAST_FAILURE_RATIO,
        f"(\n"
        f"  sum {without(*_END_LABELS)} ({_NONZERO_EXITS} offset {WINDOW})\n"
        f"  or\n"
        f"  0 * {PAST_ENDS}\n"
        f")\n"
        f"/ {PAST_ENDS}",
    ),
)
RECORDINGS = {"proc-connector-rates": RATES, "proc-connector-rare": RARE, "proc-connector-past": PAST}


class Threshold(NamedTuple):
    """A number (or a regular expression) that users can change."""

    value: float | str
    why: str


# Programs that answer with their exit code, so that 1 is no failure, and comms that are not one program.
_ANSWERS = (
    "<unknown>|<other>|test|false|expr|[a-z]*grep|diff|cmp|pidof|kill|pkill|which|command-not-foun|mountpoint"
    "|ping|timeout|lsof|readlink"
)

THRESHOLDS: Mapping[str, Threshold] = {
    "exporter_jobs": Threshold(
        ".*proc-connector.*",
        "regular expression of jobs that are this exporter's even if it has not answered for a day; all others "
        "are known by proc_connector_exporter_build_info",
    ),
    "canary_late_seconds": Threshold(
        60,
        "four times the default --canary.interval: a busy host may miss one or two; raise it with the interval",
    ),
    "exporter_restarts": Threshold(
        3, "within an hour: an upgrade, its rollback and the next upgrade are three; a crash loop is many more"
    ),
    "messages_lost": Threshold(0, "the kernel's count is exact, and every lost message makes a number wrong"),
    "folded": Threshold(0, "folded counts have lost their name; the limit is for hosts under attack"),
    "ends_missed_ratio": Threshold(
        0.05,
        "the kernel's totals in /proc are not read at the moment of the events: at one end per second, the "
        "lowest rate that is compared, a handful within five minutes is one or two percent",
    ),
    "unattributed_ratio": Threshold(
        0.05,
        "in taskstats mode hardly any name is unknown, in procfs mode a few percent while all CPUs are busy "
        "(docs/numbers.md); above that, tables by comm mislead",
    ),
    "fork_storm_floor": Threshold(
        20,
        "forks/s; a fork, an exec and an exit of a small program cost about a millisecond of CPU: below this it "
        "is 2 % of one CPU, whatever the factor",
    ),
    "fork_storm_factor": Threshold(
        5, "times the usual rate of the node: a doubled load and nightly jobs stay far below it"
    ),
    "crash_loop_failures": Threshold(
        3,
        "within 45 minutes: a program that runs for nine minutes and is restarted after five, Kubernetes' longest "
        "back-off, still fails three times",
    ),
    "crash_loop_ratio": Threshold(
        0.9, "of its ends: a program that is restarted because it crashes hardly ever succeeds; a flaky job does"
    ),
    "crash_loop_ignored": Threshold(
        _ANSWERS, "comms whose non-zero exit is an answer, and comms that are not one program"
    ),
    "failure_ratio_jump": Threshold(
        0.3, "30 points above the program's earlier share: with 20 ends, chance alone moves a share by about 20"
    ),
    "failure_ratio_ends": Threshold(20, "ends now and before: with fewer a share means little"),
    "first_failure_successes": Threshold(
        1, "ends with 0, an hour ago or earlier: a program that always failed is no news, nor is a new one"
    ),
    "first_failure_ignored": Threshold(
        _ANSWERS, "comms whose non-zero exit is an answer, and comms that are not one program"
    ),
    "crashes": Threshold(0, "a correct program never ends like that: the first crash counts"),
    "kills": Threshold(0, "no program needs SIGKILL in normal operation; where one does, silence its comm"),
    "coredumps": Threshold(5, "within 15 minutes: one is ProcessCrashed, five fill disks with core files"),
}


@dataclass(frozen=True)
class Alert:
    """An alert. `$name` in its expression is the threshold of that name, at the end of a line."""

    name: str
    severity: str
    hold: str
    expr: str
    summary: str
    description: str
    keep: str | None = None

    @property
    def thresholds(self) -> list[str]:
        """Return the names of the thresholds in the expression, each once."""
        return list(dict.fromkeys(re.findall(r"\$(\w+)", self.expr)))

    def rule(self, thresholds: Mapping[str, Threshold], runbooks: str) -> dict[str, Any]:
        """Return the rule as Prometheus reads it."""

        def number(match: re.Match[str]) -> str:
            name = match[1]
            return f"{json.dumps(thresholds[name].value)} # {name}"

        return {
            "alert": self.name,
            "expr": re.sub(r"\$(\w+)", number, self.expr),
            "for": self.hold,
            **({} if self.keep is None else {"keep_firing_for": self.keep}),
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                **({"runbook_url": f"{runbooks}/{self.name}.md"} if runbooks else {}),
            },
        }


# A target is an exporter by what it exposed, or by its job if it has not answered for a day.
_IS_EXPORTER = f"last_over_time({_BUILD_INFO}[1d])"
_WHERE = "{{ $labels.instance }}"
_WHO = "{{ $labels.comm }} on {{ $labels.instance }}"
_PER_COMM = f"sum without (signal) ({FAILURES})"

TRUST = (
    Alert(
        "ProcConnectorExporterDown",
        "warning",
        "5m",
        f"(\n"
        f"  up and on (job, instance) {_IS_EXPORTER}\n"
        f"  or\n"
        f"  up{{\n"
        f"    job=~\n"
        f"      $exporter_jobs\n"
        f"  }}\n"
        f") == 0",
        f"No process events from {_WHERE}",
        "Prometheus could not scrape this exporter for 5 minutes: no process of the node is counted.",
    ),
    Alert(
        "ProcConnectorExporterAbsent",
        "warning",
        "15m",
        f"absent(up{{\n  job=~\n    $exporter_jobs\n}})\nand\nabsent({_BUILD_INFO})",
        "No proc-connector-exporter is scraped at all",
        "Service discovery finds no target of this exporter, so none of the other alerts can fire.",
    ),
    Alert(
        "ProcConnectorExporterRestarting",
        "warning",
        "0m",
        f"changes(max without (pod) (process_start_time_seconds and on (job, instance) {_IS_EXPORTER})[1h:])\n"
        f"  > $exporter_restarts",
        f"The exporter on {_WHERE} starts again and again",
        'It was started {{ printf "%.0f" $value }} times within an hour, and counted nothing in between.',
        keep=KEEP,
    ),
    Alert(
        "ProcConnectorCanaryLate",
        "warning",
        "1m",
        "proc_connector_canary_age_seconds\n  > $canary_late_seconds",
        f"Process events of {_WHERE} may be missing",
        "The end of a canary (a child process with a known end) has not arrived as an event for "
        "{{ $value | humanizeDuration }}: the exporter gets no events or is far behind, and its numbers are "
        "too low.",
    ),
    Alert(
        "ProcConnectorMessagesLost",
        "warning",
        "0m",
        f"{LOST}\n  > $messages_lost",
        f"Process events of {_WHERE} were lost",
        'The kernel dropped {{ printf "%.0f" $value }} messages of the {{ $labels.socket }} socket within 15 '
        "minutes, because the exporter did not read in time. Their events are in no metric.",
        keep=KEEP,
    ),
    Alert(
        "ProcConnectorSeriesLimitReached",
        "warning",
        "0m",
        f"{FOLDED}\n  > $folded",
        f"Too many programs on {_WHERE} for their own series",
        '{{ printf "%.0f" $value }} counts of {{ $labels.metric }} went to <other> within 15 minutes, because it '
        "has as many series as --limit.series allows.",
        keep=KEEP,
    ),
    Alert(
        "ProcConnectorConfigReloadFailed",
        "warning",
        "5m",
        "proc_connector_config_last_reload_successful == 0",
        f"The exporter on {_WHERE} could not read its configuration",
        "The rules of --config.file are broken. The old rules are in force until the exporter is restarted.",
    ),
    Alert(
        "ProcConnectorEndsMissed",
        "warning",
        "15m",
        f"{MISSED}\n  > $ends_missed_ratio",
        f"The kernel counts more ends on {_WHERE} than the exporter received",
        "No event arrived for {{ $value | humanizePercentage }} of the ends of threads and processes in the "
        "kernel's own totals.",
    ),
    Alert(
        "ProcConnectorUnattributedHigh",
        "info",
        "15m",
        f"{UNATTRIBUTED}\n  > $unattributed_ratio",
        f"Many process events of {_WHERE} have no name",
        "{{ $value | humanizePercentage }} of the forks, execs and exits are counted under comm <unknown>.",
    ),
)
PROGRAMS = (
    Alert(
        "ProcessForkStorm",
        "warning",
        "5m",
        f"{FORKS}\n  > $fork_storm_floor\nand\n{FORKS}\n  > $fork_storm_factor\n  * {USUAL_FORKS}",
        f"Fork storm on {_WHERE}",
        "{{ $value | humanize }} processes are forked per second, far more than in the median of the last day and "
        "than yesterday at this time.",
    ),
    Alert(
        "ProcessCrashLooping",
        "warning",
        "15m",
        f"{LOOP_FAILURES}{{\n"
        f"  comm!~\n"
        f"    $crash_loop_ignored\n"
        f"}}\n"
        f"  >= $crash_loop_failures\n"
        f"and\n"
        f"{_PER_COMM}\n"
        f"  > 0\n"
        f"and\n"
        f"{_PER_COMM}\n"
        f"  >= $crash_loop_ratio\n"
        f"  * {ENDS}",
        f"{_WHO} fails again and again",
        'It failed {{ printf "%.0f" $value }} times within 45 minutes, and for 15 minutes hardly ever succeeded.',
    ),
    Alert(
        "ProcessFailureRatioJumped",
        "warning",
        "5m",
        f"{_PER_COMM} / {ENDS} - {PAST_FAILURE_RATIO}\n"
        f"  > $failure_ratio_jump\n"
        f"and\n"
        f"{ENDS}\n"
        f"  >= $failure_ratio_ends\n"
        f"and\n"
        f"{PAST_ENDS}\n"
        f"  >= $failure_ratio_ends",
        f"{_WHO} fails more often than before",
        "The share of its ends that are failures rose by {{ $value | humanizePercentage }} (as points) over the "
        "share since the exporter's start.",
    ),
    Alert(
        "ProcessFirstFailure",
        "info",
        "0m",
        f"sum {without(*_END_LABELS)} ({_NONZERO_EXITS}{{\n"
        f"  comm!~\n"
        f"    $first_failure_ignored\n"
        f"}})\n"
        f"unless {FAILED_AT}\n"
        f"and\n"
        f'sum {without(*_END_LABELS)} ({_EXITS}{{exit_code="0"}} offset 1h)\n'
        f"  >= $first_failure_successes",
        f"{_WHO} failed for the first time in a day or more",
        'It usually succeeds, had no failure for a day or more, and now failed {{ printf "%.0f" $value }} times.',
        keep=KEEP,
    ),
    Alert(
        "ProcessCrashed",
        "warning",
        "0m",
        f'{FAILURES}{{signal=~"SIGSEGV|SIGABRT|SIGBUS|SIGILL|SIGFPE|SIGTRAP|SIGSYS"}}\n  > $crashes',
        f"{_WHO} died of {{{{ $labels.signal }}}}",
        '{{ printf "%.0f" $value }} of its processes ended like that within 15 minutes: a bug, broken memory or a '
        "forbidden system call, never a normal end.",
        keep=KEEP,
    ),
    Alert(
        "ProcessKilled",
        "info",
        "0m",
        f'{FAILURES}{{signal="SIGKILL"}}\n  > $kills',
        f"{_WHO} was killed",
        '{{ printf "%.0f" $value }} of its processes ended by SIGKILL within 15 minutes. The sender was the '
        "kernel when memory ran out, or a user or program that did not wait for a normal end.",
        keep=KEEP,
    ),
    Alert(
        "ProcessCoreDumps",
        "warning",
        "0m",
        f"{COREDUMPS}\n  >= $coredumps",
        f"Core dumps on {_WHERE}",
        '{{ printf "%.0f" $value }} processes dumped core within 15 minutes. Where core files are kept they can '
        "fill a disk.",
        keep=KEEP,
    ),
)
ALERTS = {"proc-connector-trust": TRUST, "proc-connector-programs": PROGRAMS}


def all_alerts() -> list[Alert]:
    """Return the alerts of all groups."""
    return [alert for group in ALERTS.values() for alert in group]


_NOTE = "# Generated by `make dashboards`: edit dashboards/generate/rules.py instead.\n"


class _Dumper(yaml.SafeDumper):
    """Writes expressions line by line."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _yaml(content: object) -> str:
    return _NOTE + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def _groups(groups: Mapping[str, Iterable[dict[str, Any]]]) -> dict[str, Any]:
    return {"groups": [{"name": name, "rules": list(rules)} for name, rules in groups.items()]}


def recording_yaml() -> str:
    """Return the file of recording rules."""
    return _yaml(_groups({name: [r.rule() for r in rules] for name, rules in RECORDINGS.items()}))


def alerts_yaml(runbooks: str, thresholds: Mapping[str, Threshold] = THRESHOLDS) -> str:
    """Return the file of alerts.

    Args:
        runbooks: Where the runbooks are: what `runbook_url` begins with; empty to leave it out.
        thresholds: Other numbers than the defaults.
    """
    groups = {name: [alert.rule(thresholds, runbooks) for alert in alerts] for name, alerts in ALERTS.items()}
    return _yaml(_groups(groups))


def thresholds_yaml() -> str:
    """Return the file of the thresholds and why they are what they are."""
    return _yaml({name: threshold._asdict() for name, threshold in THRESHOLDS.items()})
