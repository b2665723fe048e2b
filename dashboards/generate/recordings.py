"""Recording rules: what alerts and dashboards read instead of raw counters.

A counter with labels is born at its first event, with 1 or more, and `increase()` does not see that. So one rule
per counter turns it into *increments*, once a minute: how often the event happened since the minute before. Alerts
and dashboards add increments up with `sum_over_time`, which is exact over any window, and need not know of births,
restarts and missed scrapes.

An increment is there only where something happened, so a rule of increments costs few samples.
"""

from typing import Any, NamedTuple

from dashboards.generate.queries import BUILD_INFO
from exporter.exposition.metrics import COUNTER_SPECS, EXITS, FOLDED, METRICS, NONZERO_EXITS
from exporter.exposition.spec import MetricSpec
from exporter.tallies.labels import CELL_LABELS
from exporter.tallies.labels import GROUP_LABELS as LABELS_BY_GROUP

WINDOW = "15m"
"""How far back alerts look for rare events."""
LOOP_WINDOW = "45m"
"""Three times the longest cycle: Kubernetes waits up to five minutes to restart what ran for less than ten."""
EACH = "1m"
"""From one increment to the next: the interval of the group that records them."""
GAP = "15m"
"""For how long scrapes may be missing until nothing is known of the time between."""
SETTLED = "20s"
"""How old a sample is that is looked at: a scrape has its time from its start and is stored at its end. Without it
what a scrape brings that runs during an evaluation would be in no increment."""
_BEFORE = "80s"
"""SETTLED and EACH."""
_YOUNG_SECONDS = 16 * 60 + 20
"""GAP, EACH and SETTLED: everything that an exporter of this age has counted is new."""
_AHEAD_SECONDS = 60
"""How far the clock of a host may be ahead of Prometheus'."""
_TWO_BEFORE = "140s"
"""Another EACH."""
# Without the exporter's pod: the series of other pods' processes go on when a rollout changes it. A sample that is
# looked up (`offset`) is absent after a scrape that failed; that of a range (`last_over_time`) is the last one.
_STARTED = "process_start_time_seconds"
_SCRAPED = f"max without (pod) ({_STARTED} offset {SETTLED})"
_START = f"max without (pod) (last_over_time({_STARTED}[{EACH}] offset {SETTLED}))"
_LAST_START = f"max without (pod) (last_over_time({_STARTED}[{GAP}] offset {_BEFORE}))"
_SCRAPED_BEFORE = f"max without (pod) ({_STARTED} offset {_BEFORE})"
_START_BEFORE = f"max without (pod) (last_over_time({_STARTED}[{EACH}] offset {_BEFORE}))"
_LAST_START_BEFORE = f"max without (pod) (last_over_time({_STARTED}[{GAP}] offset {_TWO_BEFORE}))"
# What has become of an exporter within the minute. It stands in each rule and has none of its own, because only
# Prometheus lets a rule read what another one has recorded in the same evaluation: vmalert does not.
_RESTARTED = f"({_START} > {_LAST_START})"
# Which series are of the new life only a scrape that went well can say: a minute later.
_UNCLEAR = f"({_START} > {_LAST_START} unless {_SCRAPED})"
# Where the last scrape before that time went well, a series that it did not have is one of an earlier life; where
# the exporter was then unclear, nothing has been counted yet.
_HAS_NO_OLDER = f"({_SCRAPED_BEFORE} or {_START_BEFORE} > {_LAST_START_BEFORE})"
# An exporter that starts in the future is on a host whose clock is wrong: nothing says how old it is.
_YOUNG = f"{_START} > time() - {_YOUNG_SECONDS} < time() + {_AHEAD_SECONDS}"
_KNOWN = f"(({_START} and {_LAST_START} or {_YOUNG}) unless {_UNCLEAR})"

_SPECS = {spec.name: spec for spec in METRICS}
_BUILD_LABELS = _SPECS[BUILD_INFO].labels
_ONLY_OURS = f"and ignoring ({', '.join(_BUILD_LABELS)}) {BUILD_INFO}"
# node_exporter is another job on another port of the same hosts: they meet at the host part of `instance`.
_HOST = '"host", "$1", "instance", "(.*?)(:[0-9]+)?"'
# A reboot begins at 0 again. The increments are those of `increments`, but a counter of the host says by itself
# that it began anew, by falling.
_OF_HOST = "node_vmstat_oom_kill"
_OF_HOST_HIGHEST = f"max_over_time({_OF_HOST}[{EACH}] offset {SETTLED})"
_OF_HOST_LAST = f"last_over_time({_OF_HOST}[{EACH}] offset {SETTLED})"
_OF_HOST_BEFORE = f"last_over_time({_OF_HOST}[{GAP}] offset {_BEFORE})"


def without(*labels: str) -> str:
    """Return the clause that sums away these labels and `pod`, with which a rollout would begin new series."""
    return f"without ({', '.join(['pod', *labels])})"


class Recording(NamedTuple):
    """A recording rule."""

    record: str
    expr: str

    def rule(self) -> dict[str, Any]:
        """Return the rule as Prometheus reads it."""
        return {"record": self.record, "expr": self.expr}


# Names of recording rules: level:metric:operation. The level `end` is comm, uid, exit_code and signal.
FORKS = "instance:proc_connector_forks:rate5m"
EXECS = "instance:proc_connector_execs:rate5m"
ENDED = "instance:proc_connector_exits:rate5m"
FAILED = "instance:proc_connector_nonzero_exits:rate5m"
EVENTS = "instance:proc_connector_events:rate5m"
CPU = "instance:proc_connector_exporter_cpu_seconds:rate5m"
MEMORY = "instance:proc_connector_exporter_resident_memory_bytes"
SAMPLES = "instance:proc_connector_exporter_scraped_samples"
SEEN = "instance:proc_connector_exporter:seen_timestamp_seconds"
MISSED = "instance:proc_connector_task_exits_missed:ratio_rate5m"
UNATTRIBUTED = "instance:proc_connector_unattributed:ratio_rate5m"
USUAL_FORKS = "instance:proc_connector_forks:rate5m_usual"

FAILURES_EACH = f"end:proc_connector_nonzero_exits:increase{EACH}"
ENDS_EACH = f"comm_uid:proc_connector_exits:increase{EACH}"
COREDUMPS_EACH = f"comm_uid:proc_connector_coredumps:increase{EACH}"
UID_CHANGES_EACH = f"comm_uid:proc_connector_uid_changes:increase{EACH}"
ATTACHES_EACH = f"comm_uid:proc_connector_ptrace_attaches:increase{EACH}"
CPU_TIME_EACH = f"comm:proc_connector_process_cpu_seconds_sum:increase{EACH}"
CHOSEN_EACH = f"comm_uid:proc_connector_oom_kills:increase{EACH}"
OOM_KILLS_EACH = f"instance:proc_connector_oom_kills:increase{EACH}"
LOST_EACH = f"instance_socket:proc_connector_lost_messages:increase{EACH}"
FOLDED_EACH = f"instance:proc_connector_folded:increase{EACH}"

FAILURES = f"instance_comm_signal:proc_connector_nonzero_exits:increase{WINDOW}"
LOOP_FAILURES = f"instance_comm:proc_connector_nonzero_exits:increase{LOOP_WINDOW}"
ENDS = f"instance_comm:proc_connector_exits:increase{WINDOW}"
SIGNALS = f"instance_signal:proc_connector_nonzero_exits:increase{WINDOW}"
COREDUMPS = f"instance:proc_connector_coredumps:increase{WINDOW}"
CHOSEN = f"instance_comm:proc_connector_oom_kills:increase{WINDOW}"
"""Processes that the OOM killer chose, by program."""
FOLDED_RECENTLY = f"instance:proc_connector_folded:increase{WINDOW}"
LOST = f"instance_socket:proc_connector_lost_messages:increase{WINDOW}"
PAST_ENDS = f"instance_comm:proc_connector_exits:offset{WINDOW}"
PAST_FAILURE_RATIO = f"instance_comm:proc_connector_nonzero_exits:ratio_offset{WINDOW}"
FAILED_AT = f"instance_comm:proc_connector_nonzero_exits:timestamp_offset{WINDOW}"

FURTHER_LABELS = ("uid",)
"""What the series of a program have beside comm: alerts and recordings by program sum it away."""
END_LABELS = (*FURTHER_LABELS, "exit_code", "signal")
GROUP_LABELS = tuple(label for labels in LABELS_BY_GROUP.values() for label in labels)
"""Where processes run, with --group.by: alerts and recordings by program keep it, those of a node sum it away."""


def _of_node(*further: str) -> str:
    """Return the clause that sums away the program, where it runs, and further labels."""
    return f"without ({', '.join(dict.fromkeys(('comm', *further, *GROUP_LABELS)))})"


def own_each(metric: str) -> str:
    """Return the name of the increments of a counter of the exporter itself, one series per exporter."""
    return f"instance:{metric.removesuffix('_total')}:increase{EACH}"


def increments(record: str, metric: str, labels: tuple[str, ...], summed: tuple[str, ...] = ()) -> Recording:
    """Return the rule of a counter's increments.

    The base is the last sample that was there a minute ago, the head is the last one that is there now: both are
    the same function of time, so that consecutive increments add up to what the counter rose by, whatever the
    interval of the scrapes is and whichever of them failed. Where there is no base, the counter began at 0: its
    value is what happened, provided that the exporter was scraped before or is young. Else its past is unknown,
    and nothing counts.

    A restart divides a minute: what the old life counted since the base is the highest value of the minute, if it
    is higher than the head, and the head is what the new life counted.

    Args:
        record: The name of the rule.
        metric: A counter.
        labels: The labels that it has beside the target's.
        summed: Those of them that are summed away.
    """
    head, highest = f"{metric} offset {SETTLED}", f"max_over_time({metric}[{EACH}] offset {SETTLED})"
    before, last = f"{metric} offset {_BEFORE}", f"last_over_time({metric}[{GAP}] offset {_BEFORE})"
    grouped = GROUP_LABELS if set(CELL_LABELS) <= set(labels) else ()
    of_exporter = f"ignoring ({', '.join(dict.fromkeys(('pod', *labels, *grouped)))})"
    new_life = f"({head} and {of_exporter} {_RESTARTED})"
    # The pod of a program's series may be that of its processes; see by_program.
    kept = f"without ({', '.join(('life', *summed))})" if grouped else without("life", *summed)
    return Recording(
        record,
        f"sum {kept} (\n"
        f"  ({highest} - ({before} or ({last} unless {of_exporter} {_HAS_NO_OLDER})) >= 0\n"
        f"    unless {of_exporter} {_UNCLEAR} unless {new_life} >= {highest})\n"
        f"  or\n"
        f"  {highest} and {of_exporter} {_KNOWN}\n"
        f"  or\n"
        f'  label_replace({new_life} < {highest}, "life", "new", "", "")\n'
        f") > 0",
    )


def _of_spec(record: str, spec: MetricSpec, *summed: str) -> Recording:
    return increments(record, spec.name, spec.labels, summed)


def by_program(samples: str, *summed: str, seen: str, aggregate: str = "sum") -> str:
    """Return PromQL that sums labels away, and `pod` where it is that of the exporter.

    With --group.by a series has the pod of the processes that it counts. Without, Prometheus may have added the
    exporter's pod, with which a rollout would begin new series.

    Args:
        samples: Series of programs.
        summed: The labels.
        seen: The exporters of that time: build_info.
        aggregate: What makes one of many.
    """
    exporters = f"on (job, instance, pod) {seen}"
    return (
        f"{aggregate} {without(*summed)} ({samples} and {exporters})\n"
        f"or\n"
        f"{aggregate} without ({', '.join(summed)}) ({samples} unless {exporters})"
    )


def _lately(window: str) -> str:
    """Return PromQL for all exporters whose increments are in a window."""
    return f"last_over_time({BUILD_INFO}[{int(window.removesuffix('m')) + 5}m])"


def over(each: str, window: str) -> str:
    """Return PromQL for the sum of the increments of a window that ends at one of them.

    It is half a minute shorter than its name: before Prometheus 3 both ends of a window belong to it.
    """
    return f"sum_over_time({each}[{int(window.removesuffix('m')) * 60 - 30}s])"


RATES = (
    Recording(FORKS, f'sum {without("event")} (rate(proc_connector_events_total{{event="fork"}}[5m]))'),
    Recording(EXECS, f'sum {without("event")} (rate(proc_connector_events_total{{event="exec"}}[5m]))'),
    Recording(EVENTS, f"sum {without('event')} (rate(proc_connector_events_total[5m]))"),
    Recording(ENDED, f"sum {_of_node(*END_LABELS)} (rate({EXITS.name}[5m]))"),
    Recording(FAILED, f"sum {_of_node(*END_LABELS)} (rate({NONZERO_EXITS.name}[5m]))"),
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
    # Remembers nodes for a day after they went.
    Recording(
        SEEN,
        f"max {without(*_BUILD_LABELS)} (timestamp({BUILD_INFO}))\n"
        f"or\n"
        f"last_over_time({SEEN}[1h]) > time() - 86400",
    ),
    Recording(CPU, f"sum {without()} (rate(process_cpu_seconds_total[5m]) {_ONLY_OURS})"),
    Recording(MEMORY, f"sum {without()} (process_resident_memory_bytes {_ONLY_OURS})"),
    Recording(SAMPLES, f"sum {without()} (scrape_samples_scraped {_ONLY_OURS})"),
)
OWN_COUNTERS = (
    "proc_connector_excluded_total",
    "proc_connector_expired_total",
    "proc_connector_resyncs_total",
    "proc_connector_resubscriptions_total",
    "proc_connector_lost_ends_total",
    "proc_connector_unknown_lifetimes_total",
    "proc_connector_malformed_messages_total",
)
"""Counters of the exporter itself that are 0 on a good day."""
INCREMENTS = (
    _of_spec(FAILURES_EACH, NONZERO_EXITS),
    _of_spec(ENDS_EACH, EXITS, "exit_code", "signal"),
    _of_spec(COREDUMPS_EACH, COUNTER_SPECS["coredumps"]),
    _of_spec(CHOSEN_EACH, COUNTER_SPECS["oom_kills"]),
    _of_spec(UID_CHANGES_EACH, COUNTER_SPECS["uid_changes"]),
    _of_spec(ATTACHES_EACH, COUNTER_SPECS["ptrace_attaches"]),
    increments(CPU_TIME_EACH, "proc_connector_process_cpu_seconds_sum", ("comm",)),
    _of_spec(LOST_EACH, _SPECS["proc_connector_lost_messages_total"]),
    _of_spec(FOLDED_EACH, FOLDED, "metric"),
    *(_of_spec(own_each(name), _SPECS[name], *_SPECS[name].labels) for name in OWN_COUNTERS),
    Recording(
        OOM_KILLS_EACH,
        f"sum without (host) (\n"
        f"  (sum by (host) (label_replace(\n"
        f"    {_OF_HOST_HIGHEST} - {_OF_HOST_BEFORE} >= 0\n"
        f"    or\n"
        f"    {_OF_HOST_HIGHEST} < {_OF_HOST_BEFORE}\n"
        f"    or\n"
        f'    label_replace({_OF_HOST_LAST} < {_OF_HOST_HIGHEST}, "life", "new", "", ""),\n'
        f"  {_HOST})) > 0)\n"
        f"  * on (host) group_right ()\n"
        # An exporter that is not scraped at the moment, as while its host starts.
        f"  label_replace(max {without(*_BUILD_LABELS)} (last_over_time({BUILD_INFO}[{GAP}])), {_HOST})\n"
        f")",
    ),
)
RECENT = (
    Recording(
        FAILURES, by_program(over(FAILURES_EACH, WINDOW), *FURTHER_LABELS, "exit_code", seen=_lately(WINDOW))
    ),
    Recording(LOOP_FAILURES, by_program(over(FAILURES_EACH, LOOP_WINDOW), *END_LABELS, seen=_lately(LOOP_WINDOW))),
    Recording(ENDS, by_program(over(ENDS_EACH, WINDOW), *FURTHER_LABELS, seen=_lately(WINDOW))),
    Recording(SIGNALS, f'sum {_of_node()} ({FAILURES}{{signal!=""}})'),
    Recording(COREDUMPS, f"sum {_of_node(*FURTHER_LABELS)} ({over(COREDUMPS_EACH, WINDOW)})"),
    Recording(CHOSEN, by_program(over(CHOSEN_EACH, WINDOW), *FURTHER_LABELS, seen=_lately(WINDOW))),
    Recording(FOLDED_RECENTLY, over(FOLDED_EACH, WINDOW)),
    Recording(LOST, over(LOST_EACH, WINDOW)),
)


def _past(samples: str, aggregate: str = "sum") -> str:
    return by_program(samples, *END_LABELS, seen=f"{BUILD_INFO} offset {WINDOW}", aggregate=aggregate)


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
        f"{_past(f'timestamp({NONZERO_EXITS.name} offset {WINDOW})', aggregate='max')}\n"
        f"or\n"
        f"last_over_time({FAILED_AT}[1h]) > time() - 86400",
    ),
    Recording(PAST_ENDS, _past(f"{EXITS.name} offset {WINDOW}")),
    Recording(
        PAST_FAILURE_RATIO,
        f"(\n{_past(f'{NONZERO_EXITS.name} offset {WINDOW}')}\nor\n0 * {PAST_ENDS}\n)\n/ {PAST_ENDS}",
    ),
)
RECORDINGS = {
    "proc-connector-rates": RATES,
    "proc-connector-increments": (*INCREMENTS, *RECENT),
    "proc-connector-past": PAST,
}
INTERVALS = {"proc-connector-increments": EACH}
"""The groups that are not evaluated as often as all others."""


def all_recordings() -> list[Recording]:
    """Return the recording rules of all groups."""
    return [recording for group in RECORDINGS.values() for recording in group]
