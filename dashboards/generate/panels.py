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
    CRASH_SIGNALS,
    DATASOURCE,
    DOT_PIXELS,
    LOG_TICKS,
    NEUTRAL,
    NO_WORDS,
    PER_SECOND,
    RATE_TICKS,
    RATIO,
    SECONDS,
    UNUSUAL,
    Query,
    Scale,
    Steps,
    Words,
    mapping,
    thresholds,
)
from dashboards.generate.queries import rate, top_rate


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
    by_number: bool = False,
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
        colors: By the name of the series. Where a label names them, all others are shades of grey.
        by_number: The legend is sorted by the names, which are numbers; else the highest value is first.
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
        .legend(_legend(counts=counts, by_number=by_number))
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
        made.interval("1m")
    if unit == COUNT:
        # Else the axis of a line at 0 ends at 100.
        made.decimals(0).axis_soft_max(4)
    if nothing:
        made.no_value(nothing)
    if unit == RATIO:
        # Else the axis of a line at 0 ends at 10,000 %.
        made.axis_soft_max(0.01)
    _scale(made, scale, unit)
    if stacked:
        made.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if steps:
        made.thresholds(thresholds(steps)).thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    else:
        made.thresholds(thresholds(CALM))
    if colors:
        _color(made, colors, named_by_label=any("{{" in query.legend for query in queries))
    for ref, query in zip(ascii_uppercase, queries, strict=False):
        made.with_target(query.over_time(ref))
    return made


def _color(made: timeseries.Panel, colors: dict[str, str], *, named_by_label: bool) -> None:
    for name, color in colors.items():
        fixed = {"mode": "fixed", "fixedColor": color}
        look = [dashboard.DynamicConfigValue("color", fixed)]
        if name in CRASH_SIGNALS:
            look.append(dashboard.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 8]}))
        if name in DOT_PIXELS:
            look.append(dashboard.DynamicConfigValue("custom.pointSize", DOT_PIXELS[name]))
        made.override_by_name(name, look)
    if named_by_label:
        grey = {"mode": "shades", "fixedColor": UNUSUAL}
        made.override_by_regexp(f"/^(?!({'|'.join(colors)})$)/", [dashboard.DynamicConfigValue("color", grey)])


def _legend(*, counts: bool, by_number: bool) -> common_builders.VizLegendOptions:
    """Return a legend with values, the highest first."""
    calcs, first = (["sum"], "Total") if counts else (["lastNotNull", "max"], "Max")
    return (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.RIGHT)
        .calcs(calcs)
        # Grafana compares names as people do: 2 is before 127.
        .sort_by("Name" if by_number else first)
        .sort_desc(not by_number)
        .show_legend(True)
    )


def _scale(made: timeseries.Panel, scale: Scale, unit: str) -> None:
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
    elif unit == PER_SECOND:
        made.mappings(mapping(RATE_TICKS))


def top_rates(title: str, description: str, metric: str) -> timeseries.Panel:
    """Return the six programs with the highest rates of a counter."""
    query = Query(top_rate("comm", metric), "{{comm}}")
    return graph(title, description, PER_SECOND, query, scale=Scale.LOG)


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
