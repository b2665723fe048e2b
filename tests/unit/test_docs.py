"""README's tables equal the code, and the files that CONTRIBUTING and SECURITY name exist."""

import re
from pathlib import Path

import pytest

from exporter.config import FLAGS
from exporter.exposition.metrics import METRICS

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


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


def named_paths(name: str) -> set[Path]:
    """Return the files that a document names: in backticks, from the repository's root, and as links."""
    document = ROOT / name
    text = document.read_text(encoding="utf-8")
    in_code = {word for cell in code(re.sub(r"(?s)```.*?```", "", text)) for word in cell.split()}
    top = {path.name for path in ROOT.iterdir()}
    named = {ROOT / word for word in in_code if word.partition("/")[0] in top and "ROOM" not in word}
    return named | {document.parent / target for target in re.findall(r"\]\(([^):#]+)", text)}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md", "docs/reliability.md"])
def test_every_path_that_a_document_names_exists(name: str) -> None:
    paths = named_paths(name)
    assert len(paths) > 1
    assert [path for path in sorted(paths) if not path.exists()] == []


def test_every_make_target_that_contributing_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"`make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert "test-quick" in targets
    assert [target for target in targets if f"\n{target}:" not in makefile] == []
