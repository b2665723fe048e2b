"""What the dashboards ask Prometheus: selectors, and the forms of PromQL that they share."""

from exporter.exposition.metrics import METRICS

NODE = 'job=~"$job", instance=~"$instance"'
COMM = f'{NODE}, comm=~"$comm"'
PROGRAM = f'{COMM}, uid=~"$uid"'

FORKS = "proc_connector_forks_total"
EXECS = "proc_connector_execs_total"
EXITS = "proc_connector_exits_total"
FAILED = "proc_connector_nonzero_exits_total"
COREDUMPS = "proc_connector_coredumps_total"
LIFETIME = "proc_connector_process_lifetime_seconds"
BUILD_INFO = "proc_connector_exporter_build_info"
BUILD = f"{BUILD_INFO}{{{NODE}}}"

STEP = "${__interval_ms}ms"
"""From one point of a graph to the next. $__interval is the same but for a remainder that Grafana cuts off."""

ABSENT = 'ALERTS{alertname="ProcConnectorExporterAbsent", alertstate="firing"}'
FIRING = f'(ALERTS{{alertname=~"Proc.*", alertstate="firing", {NODE}}} or {ABSENT})'
"""The firing alerts of the chosen nodes, and the one that has no node: that no exporter is scraped."""


def rate(metric: str, labels: str = NODE) -> str:
    """Return PromQL for the rate of a counter per second."""
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def share(part: str, whole: str, labels: str) -> str:
    """Return PromQL for what part one counter is of another one now."""
    return f"sum({rate(part, labels)}) / sum({rate(whole, labels)})"


# Counts are differences of what was scraped. increase() would make 12 of 10 (it extrapolates to the ends of its
# window), 0 of the first 3 of a series that is born at 3, and 0 of what a restart took from 1 to 1. A series
# without a sample in the five minutes before a window is born in it, if its exporter was scraped in these five
# minutes or is younger than they are. Else its past is unknown, and only what grew since its first sample counts.
_BEFORE, _BEFORE_SECONDS = "5m", 300
_STARTED = f"process_start_time_seconds{{{NODE}}}"
_OWN_LABELS = ", ".join(sorted({"le"}.union(*(spec.labels for spec in METRICS))))


def _before(selector: str, window: str) -> str:
    return f"last_over_time({selector}[{_BEFORE}] offset {window})"


def _of(exporters: str) -> str:
    """Match series with their exporters by all labels of the target: two clusters may have the same nodes."""
    return f"ignoring ({_OWN_LABELS}) ({exporters})"


def _watched(window: str, seconds: str) -> str:
    return _of(f"{_before(BUILD, window)} or {_STARTED} > time() - {seconds} - {_BEFORE_SECONDS}")


def growth(selector: str, window: str) -> str:
    """Return PromQL for how much more a counter shows than it did a window ago; less than 0 if it was reset."""
    return f"{selector} - {_before(selector, window)}"


def in_step(metric: str, labels: str = NODE) -> str:
    """Return PromQL for how often something was counted since the point before: bars that add up to the whole."""
    selector = f"{metric}{{{labels}}}"
    restarted = _of(f"{growth(_STARTED, STEP)} > 0")
    return (
        f"({selector} and {restarted}"
        f" or {growth(selector, STEP)} >= 0"
        f" or {selector} and {_watched(STEP, '$__interval_ms / 1000')})"
    )


def in_range(metric: str, labels: str = NODE) -> str:
    """Return PromQL for how often something was counted in the shown time.

    It is exact. Where an exporter restarted it is an estimate, but never less than what the new one has counted.
    """
    selector = f"{metric}{{{labels}}}"
    shown = f"{selector}[$__range]"
    young = _of(f"{_STARTED} > time() - $__range_s")
    first = f"min_over_time({shown})"
    before = f"{_before(selector, '$__range')} or 0 * {first} and {_watched('$__range', '$__range_s')} or {first}"
    return (
        f"({selector} and {young} unless increase({shown}) > {selector}"
        f" or (max_over_time({shown}) - {first} unless resets({shown}) > 0 or increase({shown}))"
        f" + clamp_min({first} - ({before}), 0))"
    )


def top(shown: str, ranking: str, n: int = 10) -> str:
    """Return PromQL for those of the shown series that are first in a ranking over the whole shown time.

    A bare topk chooses anew at every point, so that far more than n lines come and go.
    """
    return f"{shown} and topk({n}, {ranking})"


def total(metric: str, labels: str = NODE) -> str:
    """Return PromQL for the increase of a counter over the whole shown time, at every point: what ranks lines."""
    return f"increase({metric}{{{labels}}}[$__range] @ end())"


def top_rate(by: str, metric: str, labels: str = PROGRAM) -> str:
    """Return PromQL for the ten highest rates of a counter."""
    return top(f"sum by ({by}) ({rate(metric, labels)})", f"sum by ({by}) ({total(metric, labels)})")


def quantile(q: float, histogram: str, labels: str = NODE, by: str = "le") -> str:
    """Return PromQL for a quantile, without the moments at which there was nothing (NaN)."""
    return f"histogram_quantile({q}, sum by ({by}) ({rate(f'{histogram}_bucket', labels)})) >= 0"


def quantile_in_range(q: float, histogram: str, labels: str = COMM) -> str:
    """Return PromQL for a quantile by comm of what was counted in the shown time."""
    return f"histogram_quantile({q}, sum by (comm, le) ({in_range(f'{histogram}_bucket', labels)}))"


def or_zero(expr: str) -> str:
    """Return PromQL that says 0 where nothing was counted, provided that an exporter is scraped."""
    return f"{expr} or 0 * count({BUILD})"
