"""The kinds of panels: a number, lines or bars over time, a heatmap."""

from string import ascii_uppercase

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import heatmap as heatmap_builders
from grafana_foundation_sdk.builders import stat, timeseries
from grafana_foundation_sdk.models import common, dashboard, heatmap

from dashboards.generate.looks import (
    CALM,
    COUNT,
    DATASOURCE,
    EACH_POINT,
    LOG_TICKS,
    NEUTRAL,
    NO_WORDS,
    PER_SECOND,
    RATIO,
    SECONDS,
    Query,
    Scale,
    Steps,
    Words,
    mapping,
    thresholds,
)
from dashboards.generate.queries import MOST_LINES, PROGRAM, STEP, counted, rate, top_rate


def number(
    title: str,
    description: str,
    unit: str,
    expr: str,
    steps: Steps = NEUTRAL,
    *,
    width: int = 8,
    decimals: int = 0,
    words: Words = NO_WORDS,
) -> stat.Panel:
    """Return a panel with one big number and where it comes from.

    Args:
        title: What is shown.
        description: How to read it.
        unit: Grafana's name of the unit.
        expr: What is asked.
        steps: Thresholds that colour the number.
        width: In 24ths of the page.
        decimals: How many.
        words: What stands there for certain values.
    """
    query = Query(expr, title)
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .decimals(decimals)
        .mappings(mapping(words))
        .thresholds(thresholds(steps))
        .color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
        .color_mode(common.BigValueColorMode.VALUE)
        # A line of the past would run through the digits.
        .graph_mode(common.BigValueGraphMode.NONE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        # Of the shown time nothing but its end is shown, so nothing else is asked for.
        .with_target(query.at_end("A"))
        .height(3)
        .span(width)
    )


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    steps: Steps = (),
    counts: bool = False,
    stacked: bool = False,
    dots: bool = False,
    scale: Scale = Scale.LINEAR,
    colors: dict[str, str] | None = None,
    nothing: str = "",
    width: int = 12,
    height: int = 8,
) -> timeseries.Panel:
    """Return lines over time.

    Args:
        title: What is shown.
        description: How to read it.
        unit: Grafana's name of the unit.
        queries: What is asked.
        steps: Thresholds that are drawn as lines.
        counts: Increments of what is rare, each counted once: bars if they are stacked, else dots.
        stacked: The sum means something.
        dots: There is a value only where something ended, and a line between two would mean nothing.
        scale: How far apart the values are.
        colors: By the name of the series.
        nothing: What stands there if no series has a value: for what does not happen on a good day.
        width: In 24ths of the page.
        height: In rows of Grafana's grid.
    """
    bars = counts and stacked
    made = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .height(height)
        .span(width)
        .line_width(1)
        .fill_opacity(80 if bars else 30 if stacked else 0)
        .span_nulls(False)
        .point_size(6)
        .tooltip(
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
        .legend(_legend(counts=counts))
        # By place: by name, two of ten programs have the same colour more often than not.
        .color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
    )
    if bars:
        made.draw_style(common.GraphDrawStyle.BARS).show_points(common.VisibilityMode.NEVER)
    elif counts or dots:
        made.draw_style(common.GraphDrawStyle.POINTS).show_points(common.VisibilityMode.ALWAYS)
    else:
        made.draw_style(common.GraphDrawStyle.LINE).show_points(common.VisibilityMode.NEVER)
    if counts:
        # Increments are recorded once a minute.
        made.decimals(0).axis_soft_max(4).interval("1m")
    if unit == COUNT:
        made.decimals(0)
    if nothing:
        made.no_value(nothing)
    if unit == RATIO:
        # Else the axis of a line at 0 ends at 10,000 %.
        made.axis_soft_max(0.01)
    _scale(made, scale)
    if stacked:
        made.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if steps:
        made.thresholds(thresholds(steps)).thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    else:
        made.thresholds(thresholds(CALM))
    for name, color in (colors or {}).items():
        fixed = {"mode": "fixed", "fixedColor": color}
        made.override_by_name(name, [dashboard.DynamicConfigValue("color", fixed)])
    for ref, query in zip(ascii_uppercase, queries, strict=False):
        made.with_target(query.over_time(ref))
    return made


def _legend(*, counts: bool) -> common_builders.VizLegendOptions:
    """Return a legend with values, the highest first."""
    calcs, first = (["sum"], "Total") if counts else (["lastNotNull", "max"], "Max")
    return (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.RIGHT)
        .calcs(calcs)
        .sort_by(first)
        .sort_desc(True)
        .show_legend(True)
    )


def _scale(made: timeseries.Panel, scale: Scale) -> None:
    if scale is Scale.LINEAR:
        made.min(0)
        return
    config = common_builders.ScaleDistributionConfig()
    made.scale_distribution(config.type(common.ScaleDistribution.LOG).log(10))
    if scale is Scale.LOG_COUNTS:
        # So that 1 is not on the edge.
        made.min(0.5)
    elif scale is Scale.LOG_SECONDS:
        made.mappings(mapping(LOG_TICKS))


def top_rates(title: str, description: str, metric: str) -> timeseries.Panel:
    """Return the six programs with the highest rates of a counter."""
    query = Query(top_rate("comm", metric), "{{comm}}")
    return graph(title, description, PER_SECOND, query, scale=Scale.LOG)


def rare(
    title: str,
    description: str,
    increments: str,
    *more: Query,
    by: str,
    legend: str,
    labels: str = PROGRAM,
    colors: dict[str, str] | None = None,
) -> timeseries.Panel:
    """Return how often something rare happened, interval by interval, the first time included."""
    counts = counted(increments, labels, window=STEP)
    return rare_of(title, description, counts, *more, by=by, legend=legend, colors=colors)


def rare_of(
    title: str,
    description: str,
    counts: str,
    *more: Query,
    by: str,
    legend: str,
    colors: dict[str, str] | None = None,
    nothing: str = "None in the shown time",
) -> timeseries.Panel:
    """Return how often something rare happened; `counts` is PromQL for that since the point before."""
    return graph(
        title,
        f"{description} {EACH_POINT}",
        COUNT,
        Query(f"topk({MOST_LINES}, sum by ({by}) ({counts}))", legend),
        *more,
        counts=True,
        scale=Scale.LOG_COUNTS,
        colors=colors,
        nothing=nothing,
    )


def heat(title: str, description: str, histogram: str, labels: str, beyond: str) -> heatmap_builders.Panel:
    """Return a heatmap of a histogram of seconds.

    Args:
        title: What is shown.
        description: How to read it.
        histogram: Its metric.
        labels: Of which series.
        beyond: The name of the row above the last bound.
    """
    rows = f"sum by (le) ({rate(f'{histogram}_bucket', labels)})"
    expr = f'label_replace({rows}, "le", "{beyond}", "le", "[+]Inf")'
    return (
        heatmap_builders.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .height(8)
        .span(12)
        .unit(PER_SECOND)
        .calculate(False)
        .y_axis(heatmap_builders.YAxisConfig().unit(SECONDS))
        .cell_gap(1)
        .color(
            heatmap_builders.HeatmapColorOptions()
            .mode(heatmap.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .scale(heatmap.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .with_target(Query(expr, "{{le}}", heat=True).over_time("A"))
    )
