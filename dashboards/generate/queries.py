"""What the dashboards ask Prometheus: selectors, and the forms of PromQL that they share."""

NODE = 'job=~"$job",instance=~"$instance"'
COMM = f'{NODE},comm=~"$comm"'
PROGRAM = f'{COMM},uid=~"$uid"'

CRASH = 'signal=~"SIG(SEGV|ABRT|BUS|ILL|FPE|TRAP|SYS)"'

FORKS = "proc_connector_forks_total"
EXECS = "proc_connector_execs_total"
EXITS = "proc_connector_exits_total"
FAILED = "proc_connector_nonzero_exits_total"
LIFETIME = "proc_connector_process_lifetime_seconds"
BUILD_INFO = "proc_connector_exporter_build_info"
BUILD = f"{BUILD_INFO}{{{NODE}}}"

STEP = "${__interval_ms}ms"
"""From one point of a graph to the next. $__interval is the same but for a remainder that Grafana cuts off."""
SHOWN = "$__range"

FIRING = 'ALERTS{alertname=~"Proc.*",alertstate="firing",job=~"$job|",instance=~"$instance|"}'
"""The firing alerts of the chosen nodes, and the one that has no node: that no exporter is scraped."""


def rate(metric: str, labels: str = NODE) -> str:
    """Return PromQL for the rate of a counter per second."""
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def share(part: str, whole: str, labels: str) -> str:
    """Return PromQL for what part one counter is of another one now."""
    return f"sum({rate(part, labels)}) / sum({rate(whole, labels)})"


def counted(increments: str, labels: str = NODE, *, window: str = SHOWN) -> str:
    """Return PromQL for how often something happened: exactly, in full minutes.

    Args:
        increments: The recording rule that has the increments of a counter; see recordings.py.
        labels: Of which series.
        window: SHOWN for the shown time; STEP for bars that add up to it.
    """
    return f"sum_over_time({increments}{{{labels}}}[{window}])"


def when(chosen: str, by: str, increments: str, labels: str = PROGRAM) -> str:
    """Return PromQL for when, in milliseconds, something was counted in the shown time.

    Args:
        chosen: "min" for the first time, "max" for the latest.
        by: The labels of one row.
        increments: As in `counted`.
        labels: Of which series.
    """
    happened = f"sum by ({by}) ({increments}{{{labels}}})"
    return f"1000 * {chosen}_over_time(timestamp({happened})[{SHOWN}:1m])"


MOST_LINES = 6
"""Grafana has six colours that are told apart at once, by day and by night; the seventh is another green."""


def top(shown: str, ranking: str, n: int = MOST_LINES) -> str:
    """Return PromQL for those of the shown series that are first in a ranking over the whole shown time.

    A bare topk chooses anew at every point, so that far more than n lines come and go.
    """
    return f"{shown} and topk({n}, {ranking})"


def top_now(by: str, gauge: str) -> str:
    """Return PromQL for the highest sums of a gauge at the end of the shown time, over all of it."""
    return top(f"sum by ({by}) ({gauge})", f"sum by ({by}) ({gauge} @ end())")


def total(metric: str, labels: str = NODE) -> str:
    """Return PromQL for the increase of a counter over the whole shown time, at every point: what ranks lines."""
    return f"increase({metric}{{{labels}}}[$__range] @ end())"


def top_rate(by: str, metric: str, labels: str = PROGRAM, n: int = MOST_LINES) -> str:
    """Return PromQL for the highest rates of a counter, without the moments at which it stood still."""
    return top(f"sum by ({by}) ({rate(metric, labels)}) > 0", f"sum by ({by}) ({total(metric, labels)})", n)


def quantile(q: float, histogram: str, labels: str = NODE, by: str = "le") -> str:
    """Return PromQL for a quantile, without the moments at which there was nothing (NaN)."""
    return f"histogram_quantile({q}, sum by ({by}) ({rate(f'{histogram}_bucket', labels)})) >= 0"


def quantile_in_range(q: float, histogram: str, labels: str = COMM) -> str:
    """Return PromQL for a quantile by comm of what was counted in the shown time."""
    return f"histogram_quantile({q}, sum by (comm, le) (increase({histogram}_bucket{{{labels}}}[$__range]))) >= 0"


def or_zero(expr: str) -> str:
    """Return PromQL that says 0 where nothing was counted, provided that an exporter is scraped."""
    return f"{expr} or 0 * count({BUILD})"
