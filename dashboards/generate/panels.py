"""What all dashboards share: how a panel and a dashboard look."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from string import ascii_uppercase
from typing import NamedTuple

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import heatmap as heatmap_builders
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard, heatmap
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.generate.queries import BUILD_INFO, EXITS, FIRING, NODE, PROGRAM, in_step, top_rate

DATASOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")

GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "text"

PER_SECOND = "suffix:/s"
RATIO = "percentunit"
SECONDS = "s"
BYTES = "bytes"
COUNT = "locale"
CPUS = "suffix: CPUs"

SIGNAL_COLORS = {"SIGSEGV": RED, "SIGABRT": ORANGE, "SIGKILL": "purple", "SIGTERM": BLUE, "SIGPIPE": YELLOW}
EXIT_CODE_COLORS = {"139": RED, "134": ORANGE, "137": "purple", "143": BLUE, "141": YELLOW}
"""What a shell shows of the same signals."""
QUANTILE_COLORS = {"50 %": GREEN, "90 %": YELLOW, "99 %": ORANGE}

EACH_BAR = (
    "Each bar counts what the scrapes since the bar before have brought; what happened while nobody scraped for "
    "more than five minutes is in none."
)

TITLES = {
    "proc-connector-fleet": "Process life / Fleet",
    "proc-connector-node": "Process life / Node",
    "proc-connector-failures": "Process life / Failures",
    "proc-connector-exporter": "Process life / Exporter",
}
"""uid -> title of all dashboards; each links to the others."""

_TAG = "proc-connector"


class Query(NamedTuple):
    """One query of a panel."""

    expr: str
    legend: str = ""
    heat: bool = False

    def _made(self, ref: str) -> prometheus.Dataquery:
        made = prometheus.Dataquery().datasource(DATASOURCE).expr(self.expr).ref_id(ref)
        return made.legend_format(self.legend or "__auto")

    def over_time(self, ref: str) -> prometheus.Dataquery:
        """Return it as a line, or as the rows of a heatmap."""
        made = self._made(ref).range()
        return made.format(PromQueryFormat.HEATMAP) if self.heat else made

    def at_end(self, ref: str, form: PromQueryFormat = PromQueryFormat.TIME_SERIES) -> prometheus.Dataquery:
        """Return it as what holds at the end of the shown time."""
        return self._made(ref).instant().format(form)


# -- panels -----------------------------------------------------------------------------------------------------


Panel = timeseries.Panel | stat.Panel | table.Panel | heatmap_builders.Panel
Steps = Sequence[tuple[float | None, str]]
CALM: Steps = ((None, GREEN),)
ANY_IS_BAD: Steps = ((None, GREEN), (0.000001, RED))
ANY_IS_ODD: Steps = ((None, GREEN), (0.000001, ORANGE))
NEUTRAL: Steps = ((None, BLUE),)
FAILURE_STEPS: Steps = ((None, GREEN), (0.25, YELLOW), (0.5, ORANGE))
CANARY_STEPS: Steps = ((None, GREEN), (30, YELLOW), (60, RED))
Words = Mapping[str, tuple[str, str]]
"""What stands there for certain values, and its colour."""
_NO_WORDS: Words = {}
SEVERITIES: Words = {
    "critical": ("critical", RED),
    "warning": ("warning", ORANGE),
    "info": ("info", BLUE),
}


def _thresholds(steps: Steps) -> builders.ThresholdsConfig:
    made = [dashboard.Threshold(value, color) for value, color in steps]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(made)


def _mapping(words: Words) -> list[dashboard.ValueMapping]:
    shown = {value: dashboard.ValueMappingResult(text, color) for value, (text, color) in words.items()}
    return [dashboard.ValueMap(shown)] if shown else []


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
    words: Words = _NO_WORDS,
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
        .mappings(_mapping(words))
        .thresholds(_thresholds(steps))
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
        .fill_opacity(80 if bars else 30 if stacked else 0)
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
        # By name: a program keeps its colour, whoever else is shown.
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
    return graph(
        title,
        f"{description} {EACH_BAR}",
        COUNT,
        Query(f"sum by ({by}) ({in_step(metric, labels)}) > 0", legend),
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


class Column(NamedTuple):
    """A column of a table: its heading, and how it looks.

    Attributes:
        title: The heading.
        unit: Grafana's name of the unit; none for text.
        expr: The query that fills it; none for a label.
        steps: Thresholds that colour the cell.
        width: In pixels.
        link: Where a click on the cell leads to.
        words: What stands there for certain values.
    """

    title: str
    unit: str = ""
    expr: str = ""
    steps: Steps = ()
    width: int = 0
    link: str = ""
    words: Words = _NO_WORDS

    @property
    def properties(self) -> list[dashboard.DynamicConfigValue]:
        """Return the overrides of the fields of this name."""
        # A label that looks like a number, as a uid does, is none: without a unit it would be shown as 65.5 K.
        made = [dashboard.DynamicConfigValue("unit", self.unit or "string")]
        if self.steps:
            made.append(dashboard.DynamicConfigValue("thresholds", _thresholds(self.steps).build()))
        if self.words:
            made.append(dashboard.DynamicConfigValue("mappings", _mapping(self.words)))
        if self.steps or self.words:
            made.append(dashboard.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
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
    names = {label: column.title for label, column in labels.items()}
    for ref, column in zip(ascii_uppercase, columns, strict=False):
        made.with_target(Query(column.expr).at_end(ref, PromQueryFormat.TABLE))
        names[f"Value #{ref}" if len(columns) > 1 else "Value"] = column.title
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


def _query_variable(
    name: str, label: str, query: str, description: str, *, include_all: bool = True
) -> builders.QueryVariable:
    made = (
        builders.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(include_all)
    )
    if include_all:
        made.current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
    # All programs are too many to be named in a query; all jobs are those of this exporter, and no others.
    return made if name == "job" else made.all_value(".+")


def _variables(*, by_program: bool, all_nodes: bool) -> Iterator[Builder[dashboard.VariableModel]]:
    ended = f"{EXITS}{{{NODE}}}"
    yield builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    yield _query_variable("job", "Job", f"label_values({BUILD_INFO}, job)", "Scrape jobs of the exporter")
    yield _query_variable(
        "instance",
        "Node",
        f'label_values({BUILD_INFO}{{job=~"$job"}}, instance)',
        "Exporters, one per node",
        include_all=all_nodes,
    )
    if by_program:
        yield _query_variable("comm", "Program", f"label_values({ended}, comm)", "The kernel's comm")
        yield _query_variable("uid", "uid", f"label_values({ended}, uid)", "Real uid")


def link_to(uid: str, variable: str, value: str = "${__value.text}") -> str:
    """Return the address of another dashboard that shows one value of a variable, and else what is shown here."""
    others = "&${job:queryparam}&${__url_time_range}&var-datasource=${datasource}"
    return f"/d/{uid}?var-{variable}={value}{others}"


def page(
    uid: str,
    description: str,
    sections: dict[str, Sequence[Panel]],
    *,
    by_program: bool = False,
    all_nodes: bool = True,
) -> dashboard.Dashboard:
    """Return a dashboard.

    Args:
        uid: One of TITLES.
        description: What it is for.
        sections: The panels row by row, each section under its heading (the first has none).
        by_program: Programs and users can be chosen.
        all_nodes: All nodes at once can be chosen and are, at first; else one is.
    """
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
        .variables(list(_variables(by_program=by_program, all_nodes=all_nodes)))
        .annotation(
            builders.AnnotationQuery()
            .name("Alerts")
            .datasource(DATASOURCE)
            .enable(True)
            .hide(False)
            .icon_color(RED)
            .expr(FIRING)
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
