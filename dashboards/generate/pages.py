"""What all dashboards share: variables, links, annotations, and panels row by row."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import heatmap, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard

from dashboards.generate.looks import DATASOURCE, RED
from dashboards.generate.queries import BUILD_INFO, EXITS, FIRING, NODE
from dashboards.generate.recordings import ENDS_EACH

TITLES = {
    "proc-connector-fleet": "Process life / Fleet",
    "proc-connector-node": "Process life / Node",
    "proc-connector-failures": "Process life / Failures",
    "proc-connector-groups": "Process life / Pods and units",
    "proc-connector-exporter": "Process life / Exporter",
}
"""uid -> title of all dashboards; each links to the others."""

_TAG = "proc-connector"

Panel = timeseries.Panel | stat.Panel | table.Panel | heatmap.Panel


def _query_variable(
    name: str, label: str, query: str, description: str, *, include_all: bool = True, all_value: str = ".+"
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
    return made.all_value(all_value) if all_value else made


def _variables(*, by_program: bool, by_group: bool, all_nodes: bool) -> Iterator[Builder[dashboard.VariableModel]]:
    ended = f"{EXITS}{{{NODE}}}"
    yield builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    # All programs are too many to be named in a query; all jobs are those of this exporter, and no others.
    yield _query_variable(
        "job", "Job", f"label_values({BUILD_INFO}, job)", "Scrape jobs of the exporter", all_value=""
    )
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
    if by_group:
        # A process that is in no pod or unit has no such label.
        maybe = ".*"
        in_namespace = f'{ENDS_EACH}{{{NODE},namespace=~"$namespace"}}'
        in_node = f"{ENDS_EACH}{{{NODE}}}"
        yield _query_variable(
            "namespace", "Namespace", f"label_values({in_node}, namespace)", "Of Kubernetes", all_value=maybe
        )
        yield _query_variable(
            "pod", "Pod", f"label_values({in_namespace}, pod)", "Pods of these namespaces", all_value=maybe
        )
        yield _query_variable(
            "unit", "Unit", f"label_values({in_node}, unit)", "Systemd units of the host", all_value=maybe
        )


class Hidden(NamedTuple):
    """A variable that the reader does not see: all that a query returns.

    Attributes:
        query: What is asked, as Grafana's variables ask.
        regex: What takes a value out of each line of the answer.
    """

    query: str
    regex: str

    def variable(self, name: str) -> builders.QueryVariable:
        """Return it under a name."""
        made = _query_variable(name, name, self.query, "What a panel shows", all_value="")
        return made.regex(self.regex).hide(dashboard.VariableHide.HIDE_VARIABLE)


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
    by_group: bool = False,
    all_nodes: bool = True,
    hidden: Mapping[str, Hidden] | None = None,
    collapsed: Sequence[str] = (),
) -> dashboard.Dashboard:
    """Return a dashboard.

    Args:
        uid: One of TITLES.
        description: What it is for.
        sections: The panels row by row, each section under its heading (the first has none).
        by_program: Programs and users can be chosen.
        by_group: Namespaces, pods and units can be chosen.
        all_nodes: All nodes at once can be chosen and are, at first; else one is.
        hidden: Variables that panels use, by name.
        collapsed: The headings of sections that are closed at first: their panels ask nothing until then.
    """
    variables = _variables(by_program=by_program, by_group=by_group, all_nodes=all_nodes)
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
        .variables([*variables, *(each.variable(name) for name, each in (hidden or {}).items())])
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
        row = builders.Row(heading).id(next(ids)) if heading else None
        if row and heading in collapsed:
            for panel in panels:
                row.with_panel(panel.id(next(ids)))
            made.with_row(row.collapsed(True))
            continue
        if row:
            made.with_row(row)
        for panel in panels:
            made.with_panel(panel.id(next(ids)))
    return made.build()
