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
    EACH_BAR,
    NEUTRAL,
    NO_WORDS,
    PER_SECOND,
    Query,
    Steps,
    Words,
    mapping,
    thresholds,
)
from dashboards.generate.queries import PROGRAM, STEP, in_step, top, top_rate


def number(
    title: str,
    description: str,
    unit: str,
    expr: str,
    steps: Steps = NEUTRAL,
    *,
    width: int = 4,
    decimals: int = 0,
    at_end: bool = False,
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
        at_end: It is a sum over the shown time, which has no past to be drawn.
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
        .graph_mode(common.BigValueGraphMode.NONE if at_end else common.BigValueGraphMode.AREA)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(query.at_end("A") if at_end else query.over_time("A"))
        .height(4)
        .span(width)
    )


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    steps: Steps = (),
    bars: bool = False,
    stacked: bool = False,
    gaps: bool = False,
    log: bool = False,
    colors: dict[str, str] | None = None,
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
        bars: For counts of what is rare.
        stacked: The sum means something.
        gaps: There is a value only where something ended.
        log: From microseconds to days.
        colors: By the name of the series.
        width: In 24ths of the page.
        height: In rows of Grafana's grid.
    """
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
        .show_points(common.VisibilityMode.ALWAYS if gaps else common.VisibilityMode.NEVER)
        .point_size(4)
        .draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
        .tooltip(
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        # By name: a program keeps its colour when other programs come and go.
        .color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    )
    if log:
        made.scale_distribution(
            common_builders.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10)
        )
    else:
        made.min(0)
    if bars:
        made.axis_soft_max(1)
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


def top_rates(
    title: str,
    description: str,
    metric: str,
    *,
    by: str = "comm",
    legend: str = "{{comm}}",
    colors: dict[str, str] | None = None,
) -> timeseries.Panel:
    """Return the ten highest rates of a counter."""
    return graph(title, description, PER_SECOND, Query(top_rate(by, metric), legend), colors=colors)


def rare(
    title: str,
    description: str,
    metric: str,
    *more: Query,
    by: str,
    legend: str,
    labels: str = PROGRAM,
    colors: dict[str, str] | None = None,
) -> timeseries.Panel:
    """Return how often something rare happened, interval by interval, the first time included."""
    counted = f"sum by ({by}) ({in_step(metric, labels)})"
    most = f"sum_over_time({counted}[$__range:{STEP}] @ end()) > 0"
    return graph(
        title,
        f"{description} {EACH_BAR}",
        COUNT,
        Query(top(counted, most), legend),
        *more,
        bars=True,
        stacked=True,
        colors=colors,
    )


def heat(title: str, description: str, unit: str, expr: str, *, width: int = 12) -> heatmap_builders.Panel:
    """Return a heatmap of a histogram's buckets."""
    return (
        heatmap_builders.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .height(8)
        .span(width)
        .unit(PER_SECOND)
        .calculate(False)
        .y_axis(heatmap_builders.YAxisConfig().unit(unit))
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
