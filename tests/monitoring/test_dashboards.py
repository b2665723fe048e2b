"""The rules of grafana/dashboard-linter, and that what the dashboards ask for exists.

Source: https://github.com/grafana/dashboard-linter/blob/main/docs/index.md
"""

import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
from monitoring.panels import FILES, FOLDER, Asked, interpolate, panels, queries, read, windows

from dashboards.generate import recordings, rules
from dashboards.generate.queries import STEP
from exporter.events import EVENTS
from exporter.exposition.metrics import METRICS
from exporter.exposition.spec import MetricSpec
from exporter.tallies.labels import PROGRAM_LABELS

VALUES = windows(shown_seconds=3600, step_seconds=60)

# What other exporters and Prometheus itself add, with the labels that are used.
FOREIGN = {
    "up": set[str](),
    "ALERTS_FOR_STATE": set(),
    "ALERTS": {"alertname", "alertstate", "severity", "comm", "signal"},
    "scrape_samples_scraped": set(),
    "node_vmstat_oom_kill": set(),
    "process_start_time_seconds": set(),
    "process_cpu_seconds_total": set(),
    "process_resident_memory_bytes": set(),
}
TARGET = {"job", "instance"}


def has_group(spec: MetricSpec) -> bool:
    """Return whether the metric has the labels of groups with --group.by: counters of programs, and what lives."""
    return set(PROGRAM_LABELS) <= set(spec.labels) and spec.type != "histogram"


SAMPLES = {
    name: {*spec.labels, *extra, *(recordings.GROUP_LABELS if has_group(spec) else ())}
    for spec in METRICS
    for name, extra in (
        [(spec.name, ())]
        if spec.type != "histogram"
        else [(f"{spec.name}_bucket", ("le",)), (f"{spec.name}_sum", ()), (f"{spec.name}_count", ())]
    )
}
RECORDED = {recording.record for recording in recordings.all_recordings()} | {rules.SUSPECTS, rules.NAMED}
LABELS = {label for spec in METRICS for label in spec.labels} | set(recordings.GROUP_LABELS)
MOST_CHARACTERS = 300
"""Of a query that a person can read and change."""

each_file = pytest.mark.parametrize("name", FILES)
each_query = pytest.mark.parametrize("asked", list(queries()), ids=str)


def each_panel() -> Iterator[Any]:
    for name in FILES:
        for panel in panels(name):
            yield pytest.param(panel, id=f"{name}: {panel['title']}")


def selectors(expr: str) -> list[Any]:
    """Return all vector selectors of an expression."""
    found: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expr), pre_visit=visit)
    return found


def matchers(selector: Any) -> dict[str, str]:
    return {matcher.name: matcher.value for matcher in selector.matchers.matchers}


@each_file
def test_a_dashboard_has_a_fixed_uid_and_cannot_be_edited_away_from_its_source(name: str) -> None:
    dashboard = read(name)
    assert dashboard["uid"] == f"proc-connector-{name}"
    assert dashboard["editable"] is False
    assert dashboard["title"].startswith("Process life / ")
    assert dashboard["description"]
    assert "id" not in dashboard


@each_file
def test_a_dashboard_lets_one_choose_data_source_jobs_and_nodes(name: str) -> None:
    variables = {variable["name"]: variable for variable in read(name)["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    for variable in set(variables) - {"datasource"}:
        assert variables[variable]["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert variables[variable]["multi"]
        assert variables[variable]["refresh"] == 2, "the shown time may have others"
        # All jobs are those that the variable lists: `up` has others.
        may_be_absent = variable in {"namespace", "pod", "unit"}
        listed = variable in {"job", "worst_pods"}
        all_values = None if listed else ".*" if may_be_absent else ".+"
        assert variables[variable].get("allValue") == all_values
        assert variables[variable]["label"]
    assert {"datasource", "job", "instance"} <= set(variables)
    if name in {"node", "failures"}:
        assert {"comm", "uid"} <= set(variables)
    assert {"namespace", "pod", "unit"} <= set(variables) or name != "groups"
    # Grafana begins with the first of those that are not to be all.
    chosen = {variable: (all_["includeAll"], "current" in all_) for variable, all_ in variables.items()}
    assert chosen.pop("instance") == ((False, False) if name == "node" else (True, True))


@each_file
def test_a_dashboard_shows_alerts_and_leads_to_all_others(name: str) -> None:
    dashboard = read(name)
    (annotation,) = dashboard["annotations"]["list"]
    assert {selector.name for selector in selectors(interpolate(annotation["expr"], {}))} == {"ALERTS"}
    [labels] = [matchers(selector) for selector in selectors(interpolate(annotation["expr"], {}))]
    for label in ("job", "instance"):
        assert re.fullmatch(labels[label], ""), "ProcConnectorExporterAbsent has neither"
    others = {f"/d/proc-connector-{other}" for other in FILES if other != name}
    assert {link["url"] for link in dashboard["links"]} == others
    assert all(link["includeVars"] and link["keepTime"] for link in dashboard["links"])


@each_file
def test_panels_have_ids_of_their_own_and_do_not_overlap(name: str) -> None:
    every = [each for panel in read(name)["panels"] for each in (panel, *panel.get("panels", ()))]
    assert len({panel["id"] for panel in every}) == len(every)
    cells = [
        (x, y)
        for panel in every
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23


@pytest.mark.parametrize("panel", list(each_panel()))
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert len(panel["description"]) > 25
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["targets"]
    if panel["type"] == "table":
        overrides = panel["fieldConfig"]["overrides"]
        assert all("unit" in {p["id"] for p in override["properties"]} for override in overrides)
        (renamed,) = (t["options"]["renameByName"] for t in panel["transformations"] if t["id"] == "organize")
        assert {o["matcher"]["options"] for o in overrides} == set(renamed.values())
    else:
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["type"] == "heatmap" or panel["fieldConfig"]["defaults"]["thresholds"]["steps"]


@each_query
def test_a_person_can_read_a_query(asked: Asked) -> None:
    assert len(asked.expr) <= MOST_CHARACTERS


@each_query
def test_a_count_is_a_sum_of_increments(asked: Asked) -> None:
    """What increase() gives is an estimate and lacks the first event: it may only rank, or make a quantile."""
    rest = re.sub(r"topk\(.*|histogram_quantile\(.*", "", asked.expr)
    assert "increase(" not in rest
    for window in re.findall(r":increase1m\{[^}]*\}(\S*)", asked.expr):
        # A ranking is of the whole shown time.
        assert window.startswith(("[$__range]", f"[{STEP}])", "))[$__range:1m])"))


def test_no_line_is_hidden_and_no_two_have_one_colour() -> None:
    for name in FILES:
        for panel in panels(name):
            if panel["type"] == "timeseries":
                defaults = panel["fieldConfig"]["defaults"]
                look = defaults["custom"]
                assert defaults["color"]["mode"] == "palette-classic", "by name, two of ten mostly share one"
                fixed = [
                    p["value"]["fixedColor"]
                    for override in panel["fieldConfig"]["overrides"]
                    for p in override["properties"]
                    if p["id"] == "color" and p["value"]["mode"] == "fixed"
                ]
                assert len(set(fixed)) == len(fixed)
                assert look["fillOpacity"] == 0 or look["stacking"]["mode"] == "normal"


PALETTE = ["green", "yellow", "super-light-blue", "orange", "red", "blue"]
"""What Grafana gives to lines by their place, by its names of these colours."""


@pytest.mark.parametrize("panel", list(each_panel()))
def test_no_line_has_the_colour_that_another_one_is_given(panel: dict[str, Any]) -> None:
    """A name that has no colour of its own is given one by its place: it must be none that a name has."""
    overrides = panel.get("fieldConfig", {}).get("overrides", ()) if panel["type"] == "timeseries" else ()
    fixed, rest = {}, []
    for override in overrides:
        [color] = [p["value"] for p in override["properties"] if p["id"] == "color"]
        if color["mode"] == "fixed":
            fixed[override["matcher"]["options"]] = color["fixedColor"]
        else:
            rest.append((override["matcher"]["options"].strip("/"), color))
    legends = [target.get("legendFormat", "") for target in panel["targets"]]
    if any("{{" in legend for legend in legends) and not rest:
        given = set(PALETTE)
    else:
        by_place = [place for place, legend in enumerate(legends) if fixed and legend not in fixed and not rest]
        given = {PALETTE[place] for place in by_place}
    assert not given & set(fixed.values())
    for pattern, color in rest:
        assert color["mode"] == "shades"
        assert color["fixedColor"] not in fixed.values()
        assert not [name for name in fixed if re.search(pattern, name)]
        assert re.search(pattern, "3")
        assert re.search(pattern, "12")


@pytest.mark.parametrize(
    ("dashboard", "title", "names"),
    [
        ("failures", "Deaths by signal, per point", ["SIGABRT", "SIGKILL", "SIGSEGV", "SIGTERM"]),
        ("failures", "Failures by exit code, per point", ["134", "137", "139", "143"]),
        ("failures", "SIGKILL and out of memory, per point", ["SIGKILL", "host's count", "out of memory"]),
    ],
)
def test_a_dot_does_not_hide_another_one(dashboard: str, title: str, names: list[str]) -> None:
    """Prometheus sorts series by name, Grafana queries by letter, and it draws the last one on top."""
    [panel] = [panel for panel in panels(dashboard) if panel["title"] == title]
    sizes = {
        override["matcher"]["options"]: p["value"]
        for override in panel["fieldConfig"]["overrides"]
        for p in override["properties"]
        if p["id"] == "custom.pointSize"
    }
    assert sorted(sizes) == names
    pixels = [sizes[name] for name in names]
    assert pixels == sorted(set(pixels), reverse=True)
    if len(panel["targets"]) > 1:
        assert [target["legendFormat"] for target in panel["targets"]] == names


def said_of_window(asked: Asked) -> str:
    """Return what the title of a query's panel is to say of its window, as a regular expression."""
    shown = re.split(r" and topk\(", asked.expr)[0]
    kind, unit = asked.panel["type"], asked.panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
    if "histogram_quantile(" in shown:
        return ""
    if ":increase1m{" in shown:
        over_all = re.search(r":increase1m\{[^}]*\}\)*\[\$__range", shown)
        return "in the shown time$" if over_all else ", per point$"
    if ":increase15m{" in shown:
        # A table has other columns too; its description says it.
        return "" if kind == "table" else "last 15 min$"
    if unit == "suffix:/s" or (unit == "locale" and re.search(r"\brate\(|:rate5m\{", shown)):
        return "per second"
    if kind != "table" and re.search(r":(ratio_)?rate5m\{", shown):
        return "(last|over) 5 min$"
    return "(last minutes|booked at their end)$" if "[$__rate_interval]" in shown else ""


@each_query
def test_a_title_says_over_which_time_its_numbers_are(asked: Asked) -> None:
    assert re.search(said_of_window(asked), asked.panel["title"])
    if ":increase15m{" in asked.expr:
        assert re.search("15 min", asked.panel["title"] + asked.panel["description"])


def test_titles_of_all_kinds_of_windows_are_looked_at() -> None:
    assert len({said_of_window(asked) for asked in queries()}) == 7


@each_query
def test_no_more_lines_are_asked_for_than_there_are_colours_that_differ(asked: Asked) -> None:
    """Grafana's seventh colour is another green, its eighth another yellow."""
    every = [str(target["expr"]) for target in asked.panel["targets"]]
    assert sum(int(n) for expr in every for n in re.findall(r"topk\((\d+)", expr)) <= 6


_BY_WHAT_IS_MANY = {"comm", "uid", "pod", "unit", "instance", "container"}
RANKED = 'pod=~"$worst_pods"'


@each_query
def test_lines_are_of_the_same_six_at_every_point(asked: Asked) -> None:
    """A topk at each point has more than six over the shown time, and the seventh has the colour of the first."""
    if asked.panel["type"] != "timeseries":
        return
    by = {label for labels in re.findall(r"\bby ?\(([^)]*)\)", asked.expr) for label in labels.split(", ")}
    if by & _BY_WHAT_IS_MANY:
        ranking = re.findall(r" and topk\(\d, (.*)\)$", asked.expr)
        assert RANKED in asked.expr or ranking
        assert all("@ end()" in expr for expr in ranking)


def test_the_worst_pods_are_those_of_the_whole_shown_time_and_none_of_an_exporter() -> None:
    [variable] = [each for each in read("groups")["templating"]["list"] if each["name"] == "worst_pods"]
    assert variable["hide"] == 2
    assert variable["includeAll"]
    query = re.fullmatch(r"query_result\((.*)\)", variable["query"])
    assert query is not None
    [asked] = [asked for asked in queries() if RANKED in asked.expr]
    # The panel's own query over all of the shown time, but for what the ranking chooses.
    chosen = asked.expr.replace(RANKED, 'pod=~"$pod"').replace(STEP, "$__range")
    exporters = " unless on (pod) last_over_time(proc_connector_exporter_build_info[$__range])"
    assert query[1].replace(exporters, "") == chosen
    assert exporters in query[1]
    found = re.search(variable["regex"].strip("/"), '{namespace="shop", pod="web-7d9f"} 12 1700000000000')
    assert found is not None
    assert found[1] == "web-7d9f"


def test_what_is_rare_says_that_it_did_not_happen() -> None:
    """A panel that says that it has no data makes a person look for what is broken."""
    for name in FILES:
        for panel in panels(name):
            if panel["type"] == "table":
                assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
                # Grafana has the same text in cells without a value.
                for override in panel["fieldConfig"]["overrides"]:
                    assert {"id": "noValue", "value": ""} in override["properties"] or {
                        "id": "noValue",
                        "value": "-",
                    } in override["properties"]
            rare = panel["type"] == "timeseries" and ":increase1m{" in panel["targets"][0]["expr"]
            if rare and " or 0 * count(" not in panel["targets"][0]["expr"]:
                assert panel["fieldConfig"]["defaults"].get("noValue"), panel["title"]


@pytest.mark.parametrize("panel", list(each_panel()))
def test_lines_have_a_legend_with_values_the_highest_first(panel: dict[str, Any]) -> None:
    if panel["type"] == "timeseries":
        legend = panel["options"]["legend"]
        assert legend["displayMode"] == "table"
        assert legend["calcs"] in (["sum"], ["lastNotNull", "max"])
        is_code = panel["targets"][0]["legendFormat"] == "{{exit_code}}"
        assert legend["sortBy"] in ({"Name"} if is_code else {"Total", "Max"}), "codes are sorted as numbers"
        assert legend["sortDesc"] is not is_code


@each_query
def test_a_program_that_is_there_for_a_moment_does_not_rank_high(asked: Asked) -> None:
    """An average is one of the samples that there are. A node always has one."""
    assert not re.search(r"avg_over_time\((?!instance:)", asked.expr)


@pytest.mark.parametrize("panel", list(each_panel()))
def test_a_big_number_has_separators_of_thousands(panel: dict[str, Any]) -> None:
    """Of Grafana's units only this one has them: 12886 is 12,886, and what it is of is in the title."""
    if panel["type"] == "stat":
        assert panel["fieldConfig"]["defaults"]["unit"] in {"locale", "percentunit", "s", "bytes", "short"}


@pytest.mark.parametrize("title", ["Events by kind, per second", "Events waiting for a name"])
def test_each_kind_of_event_has_a_colour_of_its_own(title: str) -> None:
    [panel] = [panel for panel in panels("exporter") if panel["title"] == title]
    colors = {
        override["matcher"]["options"]: p["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
        for p in override["properties"]
        if p["id"] == "color" and p["value"]["mode"] == "fixed"
    }
    # The kernel sends no kind of its own for those.
    assert set(colors) == set(EVENTS) - {"nonzero_exit"}
    assert len(set(colors.values())) == len(colors)


def test_the_legend_of_series_says_of_which_metric_they_are() -> None:
    """Beside the name of a node there is room for a word."""
    [expr] = [asked.expr for asked in queries() if asked.panel["title"] == "Series against their limit"]
    [(kept, pattern)] = re.findall(r'"metric", "\$(\d)", "metric", "(.*)"\)$', expr)
    limited = [spec.name for spec in METRICS if "comm" in spec.labels]
    shown = [found[int(kept)] for name in limited if (found := re.fullmatch(pattern, name))]
    assert len(shown) == len(limited) > 9
    assert len({name[:8] for name in shown}) == len(shown)


@pytest.mark.parametrize("panel", list(each_panel()))
def test_the_ticks_of_a_quiet_node_differ(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    scale = defaults.get("custom", {}).get("scaleDistribution", {})
    if defaults.get("unit") == "suffix:/s" and scale.get("type") == "log":
        # Grafana rounds what has no text to a tenth, if the highest tick is below 10.
        [named] = [mapping["options"] for mapping in defaults["mappings"]]
        decades = [named[tick]["text"] for tick in ("0.001", "0.01", "0.1", "0.2", "0.5")]
        assert decades == ["0.001 /s", "0.01 /s", "0.1 /s", "0.2 /s", "0.5 /s"]


@pytest.mark.parametrize("panel", list(each_panel()))
def test_counts_have_no_decimals_and_nothing_is_drawn_where_nothing_is_known(panel: dict[str, Any]) -> None:
    if panel["type"] == "timeseries":
        defaults = panel["fieldConfig"]["defaults"]
        assert (defaults["unit"] == "locale") == (defaults.get("decimals") == 0)
        assert (defaults["unit"] == "locale") == (defaults["custom"].get("axisSoftMax") == 4), "0 to 100 for a 0"
        assert defaults["custom"]["spanNulls"] is False


def test_there_is_no_dashboard_that_nobody_generates() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(FILES)


def test_no_two_dashboards_have_one_panel_twice() -> None:
    for name in FILES:
        titles = [panel["title"] for panel in panels(name) if panel["type"] != "stat"]
        assert len(set(titles)) == len(titles)


@each_query
def test_a_query_asks_the_chosen_data_source_for_the_chosen_nodes(asked: Asked) -> None:
    assert asked.target["datasource"]["uid"] == "${datasource}"
    for selector in selectors(interpolate(asked.expr, VALUES | {"job": "J", "instance": "I"})):
        joined = selector.name in {"node_vmstat_oom_kill", "ALERTS_FOR_STATE"} or (
            "unless on (" in asked.expr and selector.name == "proc_connector_exporter_build_info"
        )
        # An alert may be of no node.
        chosen = {"job": "J|", "instance": "I|"} if selector.name == "ALERTS" else {"job": "J", "instance": "I"}
        if not joined:
            assert chosen.items() <= matchers(selector).items(), selector


@each_query
def test_a_query_has_windows_that_fit_the_shown_time(asked: Asked) -> None:
    found = set(re.findall(r"(?<=})\[([^\]]+)\]", asked.expr)) | set(re.findall(r"\)\[([^\]]+)\]", asked.expr))
    assert found <= {"$__rate_interval", "$__range", STEP, "$__range:1m"}
    assert set(re.findall(r"\brate\([^\[]*\[([^\]]*)\]", asked.expr)) <= {"$__rate_interval"}


@each_query
def test_a_counter_is_only_looked_at_as_a_rate_or_for_its_growth(asked: Asked) -> None:
    rest = re.sub(r"topk\(.*|(?:rate|increase)\(\w+(?:\{[^}]*\})?\[[^\]]*\]\)", "", asked.expr)
    assert not re.findall(r"(?<![\w:])\w+_(?:total|bucket|sum|count)\b", rest)


@each_query
def test_the_metrics_and_labels_of_a_query_exist(asked: Asked) -> None:
    for selector in selectors(interpolate(asked.expr, VALUES)):
        labels = set(matchers(selector)) - TARGET
        if selector.name in RECORDED:
            assert not labels - LABELS - {"alert"}
        else:
            known = SAMPLES | FOREIGN
            assert selector.name in known
            assert labels <= known[selector.name]


@pytest.mark.parametrize("rule", recordings.all_recordings(), ids=lambda rule: rule.record)
def test_the_metrics_and_labels_of_a_recording_rule_exist(rule: recordings.Recording) -> None:
    for selector in selectors(rule.expr):
        known = SAMPLES | FOREIGN | {record: LABELS | {"alert"} for record in RECORDED}
        assert selector.name in known
        assert set(matchers(selector)) <= known[selector.name]


@pytest.mark.parametrize("alert", rules.all_alerts(), ids=lambda alert: alert.name)
def test_the_metrics_of_an_alert_exist(alert: rules.Alert) -> None:
    for selector in selectors(alert.rule(rules.THRESHOLDS, "")["expr"]):
        known = SAMPLES | FOREIGN | {record: LABELS | {"alert"} for record in RECORDED}
        assert selector.name in known
        assert set(matchers(selector)) - TARGET <= known[selector.name]
