"""Thresholds and alerts, and how rules are written.

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

from dashboards.generate.queries import BUILD_INFO
from dashboards.generate.recordings import (
    CHOSEN,
    COREDUMPS,
    END_LABELS,
    ENDS,
    FAILED_AT,
    FAILURES,
    FOLDED_RECENTLY,
    FORKS,
    GROUP_LABELS,
    INTERVALS,
    LOOP_FAILURES,
    LOST,
    MISSED,
    PAST_ENDS,
    PAST_FAILURE_RATIO,
    RECORDINGS,
    UNATTRIBUTED,
    USUAL_FORKS,
    WINDOW,
    Recording,
    by_program,
)
from exporter.exposition.metrics import EXITS

SUSPECTS = "instance_alert_comm:proc_connector_suspects:all"
"""The programs that an alert is about, by the name of the alert."""
NAMED = "instance_alert_comm:proc_connector_suspects:named"
"""Those of them that get an alert of their own."""


class Threshold(NamedTuple):
    """A number (or a regular expression) that users can change."""

    value: float | str
    why: str


# Programs that answer with their exit code, so that 1 is no failure, and comms that are not one program.
_ANSWERS = (
    "<unknown>|<other>|test|false|expr|[a-z]*grep|diff|cmp|pidof|kill|pkill|which|command-not-foun|mountpoint"
    "|ping|timeout|lsof|readlink"
)

_OF_WHICH = "of whose programs no alert is to speak (with --group.by)"

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
    "named_programs": Threshold(
        3, "per alert and node: a burst of one kind is no more than these, and the alert of all others"
    ),
    "named_in_all": Threshold(
        10,
        "per node, of all alerts of programs together, each one's worst among them: with the ten others of the "
        "node and its exporter, a node has no more than 20 alerts, whatever its users do",
    ),
    "silenced_comms": Threshold("", "regular expression of the programs of which no alert is to speak"),
    "silenced_instances": Threshold("", "regular expression of the nodes of whose programs no alert is to speak"),
    "silenced_namespaces": Threshold("", f"regular expression of the namespaces {_OF_WHICH}"),
    "silenced_pods": Threshold("", f"regular expression of the pods {_OF_WHICH}"),
    "silenced_units": Threshold("", f"regular expression of the systemd units {_OF_WHICH}"),
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
    "oom_kills": Threshold(
        0, "the kernel kills when nothing else is left: what the process did is lost, and others may follow"
    ),
    "coredumps": Threshold(5, "within 15 minutes: one is ProcessCrashed, five fill disks with core files"),
}


def with_thresholds(expr: str, thresholds: Mapping[str, Threshold]) -> str:
    """Return an expression with the value and the name of each threshold in the place of `$name`."""
    return re.sub(r"\$(\w+)", lambda name: f"{json.dumps(thresholds[name[1]].value)} # {name[1]}", expr)


# The filters are the labels that an alert can have. Without one of them its filter is empty, and lets all through.
_FAILURES = "/failures?comm={{ $labels.comm | urlquery }}&signal={{ $labels.signal | urlquery }}"


# What a runbook begins with, filled in. Names of pods, containers and units are used as they are if they look like
# some; a comm, which any user can choose, is quoted for a shell. The logs of sessions and of transient units are
# not by the name of their group, and those of instances for a connection by a pattern.
# vmalert has no text for a label that is absent, and functions want one: printf makes one.
_NAME = "`^[a-z0-9][a-z0-9.-]*$`"
_ID = "`^[0-9a-f]{12}$`"
_COMMAND = (
    f"{{{{ if match {_NAME} (printf `%s` $labels.pod) }}}}"
    "kubectl logs -n {{ $labels.namespace }} {{ $labels.pod }}"
    f"{{{{ if match {_NAME} (printf `%s` $labels.container) }}}}"
    " -c {{ $labels.container }}{{ end }} --tail 50"
    f"{{{{ else if match {_ID} (printf `%s` $labels.container) }}}}"
    "docker logs --tail 50 {{ $labels.container }}"
    "{{ else if and (match `^[A-Za-z0-9:_.@\\\\-]+\\.(service|socket|mount|swap)$` (printf `%s` $labels.unit)) "
    '(ne (printf `%s` $labels.unit) "run.service") }}'
    "journalctl -u '{{ reReplaceAll `@\\.` `@*.` $labels.unit }}' -n 50"
    "{{ else }}"
    "journalctl _COMM='{{ reReplaceAll `'` `'\\''` $labels.comm }}' -n 50"
    "{{ end }}"
)


@dataclass(frozen=True)
class Alert:
    """An alert. `$name` in its expression is the threshold of that name, at the end of a line."""

    name: str
    severity: str
    hold: str
    expr: str
    summary: str
    description: str
    suspects: str = ""
    """Finds the programs that it is about, and how bad each is; `expr` has those of them that are named."""

    @property
    def thresholds(self) -> list[str]:
        """Return the names of the thresholds in the expression, each once."""
        return list(dict.fromkeys(re.findall(r"\$(\w+)", f"{self.suspects}\n{self.expr}")))

    def rule(self, thresholds: Mapping[str, Threshold], runbooks: str, failures: str = "") -> dict[str, Any]:
        """Return the rule as Prometheus reads it; see alerts_yaml."""
        of_programs = failures and self.name.startswith("Process")
        return {
            "alert": self.name,
            "expr": with_thresholds(self.expr, thresholds),
            "for": self.hold,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                **({"runbook_url": f"{runbooks}/{self.name}.md"} if runbooks else {}),
                **({"failures_url": f"{failures}{_FAILURES}"} if of_programs else {}),
                **({"command": _COMMAND} if self.suspects else {}),
            },
        }


# A target is an exporter by what it exposed, or by its job if it has not answered for a day.
_IS_EXPORTER = f"last_over_time({BUILD_INFO}[1d])"
_WHERE = "{{ $labels.instance }}"
_WHO = (
    "{{ $labels.comm }}"
    "{{ if $labels.pod }} in {{ $labels.namespace }}/{{ $labels.pod }}"
    f"{{{{ else if match {_ID} (printf `%s` $labels.container) }}}} in {{{{ $labels.container }}}}"
    "{{ else if $labels.unit }} of {{ $labels.unit }}{{ end }}"
    " on {{ $labels.instance }}"
)
_PER_COMM = f"sum without (signal) ({FAILURES})"
_SUCCEEDED = by_program(f'{EXITS.name}{{exit_code="0"}} offset 1h', *END_LABELS, seen=f"{BUILD_INFO} offset 1h")
_SILENCED = {"comm": "comms", "instance": "instances", "namespace": "namespaces", "pod": "pods", "unit": "units"}
# An empty expression is that of none, and not of all programs that are in no pod.
_LOUD = (
    f"({SUSPECTS}\n"
    + "".join(
        f'unless {SUSPECTS}{{{label}!="", {label}=~\n  $silenced_{names}\n}}\n'
        for label, names in _SILENCED.items()
    )
    + ")"
)
"""The suspects that a user has not silenced."""
_FURTHER = ("comm", "signal", *GROUP_LABELS)
_OF_ALERT = f"without ({', '.join(_FURTHER)})"
_OF_NODE = f"without ({', '.join(('alert', *_FURTHER))})"
# What is named stays named for as long as it is a suspect. Else a user whose programs fail ever more often could
# have every evaluation name other ones.
_RANKED = (
    f"{_LOUD} + (1e12 + 0 * {NAMED} or 0 * {SUSPECTS})\n"
    # Who is named has the place for as long as one event is a reason. Else a user with a few new names a minute
    # could have other ones named at each evaluation: those whose reason was about to end.
    f"or\n"
    f"1e12 + 0 * ({NAMED} unless {NAMED} offset {WINDOW})"
)
NAMING = Recording(
    NAMED,
    # The worst of each alert goes before all others, or a burst of one kind would hide the other kinds.
    f"topk {_OF_NODE} (\n"
    f"  $named_in_all\n"
    f"  ,\n"
    f"topk {_OF_ALERT} (1, {_RANKED}) + 1e15\n"
    f"or\n"
    f"topk {_OF_ALERT} (\n"
    f"  $named_programs\n"
    f"  ,\n"
    f"{_RANKED}))",
)
"""Which programs have alerts: the worst few of each node and alert. All that silences programs is here."""


def _of_programs(name: str, severity: str, hold: str, *, suspects: str, summary: str, description: str) -> Alert:
    """Return an alert of the programs that are named; see NAMING."""
    expr = f'max without (alert) ({SUSPECTS}{{alert="{name}"}} and {NAMED})'
    return Alert(name, severity, hold, expr, summary, description, suspects)


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
        f"absent(up{{\n  job=~\n    $exporter_jobs\n}})\nand\nabsent({BUILD_INFO})",
        "No proc-connector-exporter is scraped at all",
        "Service discovery finds no target of this exporter, so none of the other alerts can fire.",
    ),
    Alert(
        "ProcConnectorExporterRestarting",
        "warning",
        "0m",
        # Not changes(): VictoriaMetrics takes the first value of a series for one more.
        "resets((\n"
        f"  0 - max without (pod) (process_start_time_seconds and on (job, instance) {_IS_EXPORTER})\n"
        ")[1h:])\n"
        f"  > $exporter_restarts",
        f"The exporter on {_WHERE} starts again and again",
        'It was started {{ printf "%.0f" $value }} times within an hour, and counted nothing in between.',
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
        f"sum without (socket) ({LOST})\n  > $messages_lost",
        f"Process events of {_WHERE} were lost",
        'The kernel dropped {{ printf "%.0f" $value }} messages for the exporter within 15 minutes, because it '
        "did not read in time. Their events are in no metric.",
    ),
    Alert(
        "ProcConnectorSeriesLimitReached",
        "warning",
        "0m",
        f"{FOLDED_RECENTLY}\n  > $folded",
        f"Too many programs on {_WHERE} for their own series",
        '{{ printf "%.0f" $value }} counts of all metrics went to <other> within 15 minutes, because a metric has '
        "as many series as --limit.series allows.",
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
    _of_programs(
        "ProcessCrashLooping",
        "warning",
        "15m",
        suspects=f"{LOOP_FAILURES}{{\n"
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
        summary=f"{_WHO} fails again and again",
        description='It failed {{ printf "%.0f" $value }} times within 45 minutes, and for 15 minutes hardly ever '
        "succeeded.",
    ),
    _of_programs(
        "ProcessFailureRatioJumped",
        "warning",
        "5m",
        suspects=f"{_PER_COMM} / {ENDS} - {PAST_FAILURE_RATIO}\n"
        f"  > $failure_ratio_jump\n"
        f"and\n"
        f"{ENDS}\n"
        f"  >= $failure_ratio_ends\n"
        f"and\n"
        f"{PAST_ENDS}\n"
        f"  >= $failure_ratio_ends",
        summary=f"{_WHO} fails more often than before",
        description="The share of its ends that are failures rose by {{ $value | humanizePercentage }} (points) "
        "over the share since the exporter's start.",
    ),
    _of_programs(
        "ProcessFirstFailure",
        "info",
        "0m",
        suspects=f"sum without (signal) ({FAILURES}{{\n"
        f"  comm!~\n"
        f"    $first_failure_ignored\n"
        f"}})\n"
        f"unless {FAILED_AT}\n"
        f"and\n"
        f"(\n{_SUCCEEDED}\n)\n"
        f"  >= $first_failure_successes",
        summary=f"{_WHO} failed for the first time in a day or more",
        description="It usually succeeds, had no failure for a day or more, and now failed "
        '{{ printf "%.0f" $value }} times.',
    ),
    _of_programs(
        "ProcessCrashed",
        "warning",
        "0m",
        suspects=f'{FAILURES}{{signal=~"SIGSEGV|SIGABRT|SIGBUS|SIGILL|SIGFPE|SIGTRAP|SIGSYS"}}\n  > $crashes',
        summary=f"{_WHO} died of {{{{ $labels.signal }}}}",
        description='{{ printf "%.0f" $value }} of its processes ended like that within 15 minutes: a bug, broken '
        "memory or a forbidden system call, never a normal end.",
    ),
    _of_programs(
        "ProcessKilled",
        "info",
        "0m",
        suspects=f'{FAILURES}{{signal="SIGKILL"}}\n  > $kills',
        summary=f"{_WHO} was killed",
        description='{{ printf "%.0f" $value }} of its processes ended by SIGKILL within 15 minutes. The sender '
        "was the kernel when memory ran out, or a user or program that did not wait for a normal end.",
    ),
    _of_programs(
        "ProcessOutOfMemory",
        "warning",
        "0m",
        suspects=f"{CHOSEN}\n  > $oom_kills",
        summary=f"{_WHO} was killed because memory ran out",
        description='{{ printf "%.0f" $value }} of its processes were chosen by the OOM killer within 15 minutes: '
        "the limit of their container or unit was reached, or the memory of the node.",
    ),
    Alert(
        "ProcessMoreSuspects",
        "warning",
        "5m",
        f"count {_OF_NODE} ({_LOUD} unless {NAMED})",
        f"More programs fail on {_WHERE} than have alerts of their own",
        '{{ printf "%.0f" $value }} more alerts of programs of this node would fire or wait. Only the worst '
        "programs are named, a few at most; the dashboard Failures lists all.",
    ),
    Alert(
        "ProcessCoreDumps",
        "warning",
        "0m",
        f"{COREDUMPS}\n  >= $coredumps",
        f"Core dumps on {_WHERE}",
        '{{ printf "%.0f" $value }} processes dumped core within 15 minutes. Where core files are kept they can '
        "fill a disk.",
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
    return {
        "groups": [
            {"name": name, **({"interval": INTERVALS[name]} if name in INTERVALS else {}), "rules": list(rules)}
            for name, rules in groups.items()
        ]
    }


def recording_yaml() -> str:
    """Return the file of recording rules."""
    return _yaml(_groups({name: [r.rule() for r in rules] for name, rules in RECORDINGS.items()}))


def alerts_yaml(runbooks: str, thresholds: Mapping[str, Threshold] = THRESHOLDS, *, failures: str = "") -> str:
    """Return the file of alerts.

    Args:
        runbooks: Where the runbooks are: what `runbook_url` begins with; empty to leave it out.
        thresholds: Other numbers than the defaults.
        failures: Where the exporter of an alert is: what `failures_url` begins with, a template such as
            `http://{{ $labels.instance }}`; empty to leave it out.
    """
    groups = {
        name: [alert.rule(thresholds, runbooks, failures) for alert in alerts] for name, alerts in ALERTS.items()
    }
    # In the same group and before the alerts, so that these are evaluated with what was found at the same moment.
    groups["proc-connector-programs"][:0] = _naming(thresholds)
    return _yaml(_groups(groups))


def _naming(thresholds: Mapping[str, Threshold]) -> list[dict[str, Any]]:
    found = [
        {
            "record": SUSPECTS,
            "expr": with_thresholds(alert.suspects, thresholds),
            "labels": {"alert": alert.name},
        }
        for alert in PROGRAMS
        if alert.suspects
    ]
    return [*found, {"record": NAMED, "expr": with_thresholds(NAMING.expr, thresholds)}]


def thresholds_yaml() -> str:
    """Return the file of the thresholds and why they are what they are."""
    return _yaml({name: threshold._asdict() for name, threshold in THRESHOLDS.items()})
