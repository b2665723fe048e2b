"""What all dashboards share: how a query, a panel and a dashboard look."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import (
    dashboard as builders,
)
from grafana_foundation_sdk.builders import (
    heatmap as heatmap_builders,
)
from grafana_foundation_sdk.builders import (
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard, heatmap
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")

NODE = 'job=~"$job", instance=~"$instance"'
COMM = f'{NODE}, comm=~"$comm"'
PROGRAM = f'{COMM}, uid=~"$uid"'

GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "text"

PER_SECOND = "suffix:/s"
RATIO = "percentunit"
SECONDS = "s"
BYTES = "bytes"
COUNT = "short"
CPUS = "suffix: CPUs"

SIGNAL_COLORS = {"SIGSEGV": RED, "SIGABRT": ORANGE, "SIGKILL": "purple", "SIGTERM": BLUE, "SIGPIPE": YELLOW}

TITLES = {
    "proc-connector-fleet": "Process life / Fleet",
    "proc-connector-node": "Process life / Node",
    "proc-connector-failures": "Process life / Failures",
    "proc-connector-exporter": "Process life / Exporter",
}
"""uid -> title of all dashboards; each links to the others."""

_TAG = "proc-connector"


# -- queries ----------------------------------------------------------------------------------------------------


def rate(metric: str, labels: str = NODE) -> str:
    """Return PromQL for the rate of a counter per second."""
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def recent(metric: str, labels: str = NODE) -> str:
    """Return PromQL for how often something rare happened lately, the first time of a series included.

    A counter that is born at 1 has no increase; its value says it all, if somebody looked before it was born.
    """
    selector = f"{metric}{{{labels}}}"
    return (
        f"((({selector} unless {selector} offset $__rate_interval)"
        f" and on (job, instance) up{{{NODE}}} offset $__rate_interval == 1)"
        f" or increase({selector}[$__rate_interval]))"
    )


def in_range(metric: str, labels: str = NODE) -> str:
    """Return PromQL for how often something happened in the shown time, the first time of a series included."""
    selector = f"{metric}{{{labels}}}"
    return f"(({selector} unless {selector} offset $__range) or increase({selector}[$__range]))"


def top(by: str, shown: str, ranking: str, n: int = 10) -> str:
    """Return PromQL for those of the shown series that are first in the ranking over the whole shown time.

    A bare topk chooses anew at every point, so that far more than n lines come and go.
    """
    return f"sum by ({by}) ({shown}) and topk({n}, sum by ({by}) ({ranking}))"


def top_rate(by: str, metric: str, labels: str = PROGRAM, n: int = 10) -> str:
    """Return PromQL for the n highest rates of a counter."""
    return top(by, rate(metric, labels), f"increase({metric}{{{labels}}}[$__range] @ end())", n)


def or_zero(expr: str) -> str:
    """Return PromQL that says 0 where there is nothing."""
    return f"{expr} or vector(0)"


class Query(NamedTuple):
    """One query of a panel."""

    expr: str
    legend: str = ""
    heat: bool = False

    def over_time(self, ref: str) -> prometheus.Dataquery:
        """Return it as a line, or as the rows of a heatmap."""
        made = prometheus.Dataquery().datasource(DATASOURCE).expr(self.expr).ref_id(ref).range()
        if self.heat:
            made.format(PromQueryFormat.HEATMAP)
        return made.legend_format(self.legend or "__auto")

    def now(self, ref: str) -> prometheus.Dataquery:
        """Return it as rows of a table, as of the end of the shown time."""
        made = prometheus.Dataquery().datasource(DATASOURCE).expr(self.expr).ref_id(ref).instant()
        return made.format(PromQueryFormat.TABLE).legend_format(self.legend)


def _refs() -> Callable[[], str]:
    letters = iter("ABCDEFGHIJKLMNOP")
    return lambda: next(letters)


# -- panels -----------------------------------------------------------------------------------------------------


Panel = timeseries.Panel | stat.Panel | table.Panel | heatmap_builders.Panel
Steps = Sequence[tuple[float | None, str]]
CALM: Steps = ((None, GREEN),)
ANY_IS_BAD: Steps = ((None, GREEN), (0.000001, RED))
ANY_IS_ODD: Steps = ((None, GREEN), (0.000001, ORANGE))
NEUTRAL: Steps = ((None, BLUE),)


def _thresholds(steps: Steps) -> builders.ThresholdsConfig:
    made = [dashboard.Threshold(value, color) for value, color in steps]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(made)


def number(
    title: str,
    description: str,
    unit: str,
    expr: str,
    steps: Steps = NEUTRAL,
    *,
    width: int = 3,
    decimals: int | None = None,
) -> stat.Panel:
    """Return a panel with one big number and where it comes from."""
    made = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .thresholds(_thresholds(steps))
        .color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(Query(expr, title).over_time("A"))
        .height(4)
        .span(width)
    )
    return made if decimals is None else made.decimals(decimals)


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
        gaps: There is a value only where something ended; lines go on from one to the next.
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
        .fill_opacity(80 if bars else 30 if stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
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
        .color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
    )
    if log:
        made.scale_distribution(
            common_builders.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10)
        )
    else:
        made.min(0)
    if bars:
        made.axis_soft_max(1)
    if gaps:
        made.span_nulls(True)
    if stacked:
        made.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if steps:
        made.thresholds(_thresholds(steps)).thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    else:
        made.thresholds(_thresholds(CALM))
    for name, color in (colors or {}).items():
        fixed = {"mode": "fixed", "fixedColor": color}
        made.override_by_name(name, [dashboard.DynamicConfigValue("color", fixed)])
    ref = _refs()
    for query in queries:
        made.with_target(query.over_time(ref()))
    return made


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


class Column(NamedTuple):
    """A column of a table: its heading, and how it looks.

    Attributes:
        title: The heading.
        unit: Grafana's name of the unit; none for text.
        expr: The query that fills it; none for a label.
        steps: Thresholds that colour the cell.
        width: In pixels.
        link: Where a click on the cell leads to.
    """

    title: str
    unit: str = ""
    expr: str = ""
    steps: Steps = ()
    width: int = 0
    link: str = ""

    @property
    def properties(self) -> list[dashboard.DynamicConfigValue]:
        """Return the overrides of the fields of this name."""
        # A label that looks like a number, as a uid does, is none: without a unit it would be shown as 65.5 K.
        made = [dashboard.DynamicConfigValue("unit", self.unit or "string")]
        if self.steps:
            made += [
                dashboard.DynamicConfigValue("thresholds", _thresholds(self.steps).build()),
                dashboard.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
            ]
        if self.width:
            made.append(dashboard.DynamicConfigValue("custom.width", self.width))
        if self.link:
            made.append(dashboard.DynamicConfigValue("links", [{"title": "Show", "url": self.link}]))
        return made


def rows(
    title: str,
    description: str,
    labels: dict[str, Column],
    columns: Sequence[Column],
    *,
    sort: str,
    width: int = 24,
    height: int = 9,
) -> table.Panel:
    """Return a table: one row per combination of labels, one column per label and per query.

    Args:
        title: What is shown.
        description: How to read it.
        labels: The columns of labels, in order.
        columns: The columns with numbers, in order.
        sort: The heading of the column with the highest first.
        width: In 24ths of the page.
        height: In rows of Grafana's grid.
    """
    made = table.Panel().title(title).description(description).datasource(DATASOURCE).height(height).span(width)
    made.thresholds(_thresholds(((None, GREY),)))
    made.color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    made.sort_by([common_builders.TableSortByFieldState().display_name(sort).desc(True)])
    ref = _refs()
    names = {label: column.title for label, column in labels.items()}
    for column in columns:
        name = ref()
        made.with_target(Query(column.expr).now(name))
        names[f"Value #{name}" if len(columns) > 1 else "Value"] = column.title
    if len(columns) > 1:
        made.with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
    made.with_transformation(
        dashboard.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True, "job": True},
                "indexByName": {name: index for index, name in enumerate(names)},
                "renameByName": names,
            },
        )
    )
    for column in (*labels.values(), *columns):
        made.override_by_name(column.title, column.properties)
    return made


# -- dashboards -------------------------------------------------------------------------------------------------


def _query_variable(name: str, label: str, query: str, description: str) -> builders.QueryVariable:
    made = (
        builders.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )
    # All programs are too many to be named in a query; all jobs are those of this exporter, and no others.
    return made if name == "job" else made.all_value(".+")


_BUILD = "proc_connector_exporter_build_info"
_BY_NODE: tuple[Builder[dashboard.VariableModel], ...] = (
    builders.DatasourceVariable("datasource").label("Data source").type("prometheus"),
    _query_variable("job", "Job", f"label_values({_BUILD}, job)", "Scrape jobs of the exporter"),
    _query_variable(
        "instance", "Node", f'label_values({_BUILD}{{job=~"$job"}}, instance)', "Exporters, one per node"
    ),
)
_BY_PROGRAM: tuple[Builder[dashboard.VariableModel], ...] = (
    _query_variable(
        "comm", "Program", f"label_values(proc_connector_exits_total{{{NODE}}}, comm)", "The kernel's comm"
    ),
    _query_variable("uid", "uid", f"label_values(proc_connector_exits_total{{{NODE}}}, uid)", "Real uid"),
)


def link_to(uid: str, variable: str, value: str = "${__value.text}") -> str:
    """Return the address of another dashboard that shows one value of a variable, and else what is shown here."""
    others = "&${job:queryparam}&${__url_time_range}&var-datasource=${datasource}"
    return f"/d/{uid}?var-{variable}={value}{others}"


def page(
    uid: str, description: str, sections: dict[str, Sequence[Panel]], *, by_program: bool = False
) -> dashboard.Dashboard:
    """Return a dashboard: the panels row by row, each section under its heading (the first has none)."""
    made = (
        builders.Dashboard(TITLES[uid])
        .uid(uid)
        .description(description)
        .tags([_TAG])
        .readonly()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .variables([*_BY_NODE, *(_BY_PROGRAM if by_program else ())])
        .annotation(
            builders.AnnotationQuery()
            .name("Alerts")
            .datasource(DATASOURCE)
            .enable(True)
            .hide(False)
            .icon_color(RED)
            .expr(f'ALERTS{{alertname=~"Proc.*", alertstate="firing", {NODE}}}')
        )
        .links(
            [
                builders.DashboardLink(title)
                .type(dashboard.DashboardLinkType.LINK)
                .url(f"/d/{other}")
                .icon("dashboard")
                .tooltip(title)
                .include_vars(True)
                .keep_time(True)
                for other, title in TITLES.items()
                if other != uid
            ]
        )
    )
    ids = count(1)
    for heading, panels in sections.items():
        if heading:
            made.with_row(builders.Row(heading).id(next(ids)))
        for panel in panels:
            made.with_panel(panel.id(next(ids)))
    return made.build()
