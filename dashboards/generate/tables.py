"""Tables."""

from collections.abc import Sequence
from string import ascii_uppercase
from typing import NamedTuple

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.generate.looks import DATASOURCE, GREY, NO_WORDS, Query, Steps, Words, mapping, thresholds


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
        numeric: A label that is to be sorted as a number.
        least: Rows with a lower value, or none, are left out.
    """

    title: str
    unit: str = ""
    expr: str = ""
    steps: Steps = ()
    width: int = 0
    link: str = ""
    words: Words = NO_WORDS
    numeric: bool = False
    least: float | None = None

    @property
    def properties(self) -> list[dashboard.DynamicConfigValue]:
        """Return the overrides of the fields of this name."""
        # A label that looks like a number, as a uid does, is none: without a unit it would be shown as 65.5 K.
        made = [dashboard.DynamicConfigValue("unit", self.unit or "string")]
        if self.steps:
            made.append(dashboard.DynamicConfigValue("thresholds", thresholds(self.steps).build()))
        if self.words:
            made.append(dashboard.DynamicConfigValue("mappings", mapping(self.words)))
        if self.steps or self.words:
            made.append(dashboard.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
        # What has no width takes what is left; Grafana would give it 150 pixels at least, and cut others off.
        width = ("custom.width", self.width) if self.width else ("custom.minWidth", 100)
        made.append(dashboard.DynamicConfigValue(*width))
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
    ascending: bool = False,
    nothing: str,
    blank: str = "",
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
        ascending: The lowest first instead.
        nothing: What stands there if there is no row.
        blank: What stands in cells without a value.
        width: In 24ths of the page.
        height: In rows of Grafana's grid.
    """
    made = table.Panel().title(title).description(description).datasource(DATASOURCE).height(height).span(width)
    made.thresholds(thresholds(((None, GREY),)))
    made.color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    made.sort_by([common_builders.TableSortByFieldState().display_name(sort).desc(not ascending)])
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
    # Grafana would have it in empty cells too.
    made.no_value(nothing)
    every = (*labels.values(), *columns)
    for step in _numbers(every), _least(every):
        if step:
            made.with_transformation(step)
    for column in every:
        made.override_by_name(column.title, [*column.properties, dashboard.DynamicConfigValue("noValue", blank)])
    return made


def _numbers(columns: Sequence[Column]) -> dashboard.DataTransformerConfig | None:
    """Make numbers of labels, which are text: else 2 comes after 127."""
    turned = [{"targetField": column.title, "destinationType": "number"} for column in columns if column.numeric]
    return (
        dashboard.DataTransformerConfig(id_val="convertFieldType", options={"conversions": turned})
        if turned
        else None
    )


def _least(columns: Sequence[Column]) -> dashboard.DataTransformerConfig | None:
    """Leave out rows with too low values."""
    kept = [
        {"fieldName": column.title, "config": {"id": "greaterOrEqual", "options": {"value": column.least}}}
        for column in columns
        if column.least is not None
    ]
    options = {"type": "include", "match": "all", "filters": kept}
    return dashboard.DataTransformerConfig(id_val="filterByValue", options=options) if kept else None
