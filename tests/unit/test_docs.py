"""README's tables say what the program does."""

import re
from pathlib import Path

from exporter.config import FLAGS
from exporter.exposition.metrics import METRICS

README = Path(__file__).parents[2] / "README.md"


def table_rows(first_cell: str) -> list[list[str]]:
    """Return the cells of README's table rows whose first cell, in backticks, matches a pattern."""
    rows = []
    for line in README.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            continue
        # A cell may hold \| .
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if re.fullmatch(f"`{first_cell}`", cells[0]):
            rows.append(cells)
    return rows


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def test_readmes_metrics_are_those_of_the_exposition() -> None:
    rows = [
        (name.strip("`"), kind.strip("`"), tuple(code(labels)))
        for name, kind, labels, *_ in table_rows("proc_connector_.*")
    ]
    assert sorted(rows) == sorted((spec.name, spec.type, spec.labels) for spec in METRICS)


def test_readmes_labels_are_backticked_and_separated_by_commas_or_a_dash() -> None:
    for name, _, labels, *_ in table_rows("proc_connector_.*"):
        assert re.fullmatch(r"-|`\w+`(, `\w+`)*", labels), name


def test_readmes_flags_are_those_of_the_program() -> None:
    rows = [tuple(cell.strip("`") for cell in row[:3]) for row in table_rows("--.*")]
    assert sorted(rows) == sorted((flag.name, flag.variable, flag.default or "-") for flag in FLAGS)


def test_every_row_of_readmes_tables_says_something() -> None:
    rows = table_rows("proc_connector_.*") + table_rows("--.*")
    assert len(rows) == len(METRICS) + len(FLAGS)
    assert [row[0] for row in rows if len(row) != 4 or not row[3]] == []
