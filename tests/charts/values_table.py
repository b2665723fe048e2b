"""The table of values in the chart's README, made from the comments in values.yaml."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml
from charts.rendering import CHART

BEGIN, END = "<!-- values: written by `make test-charts ARGS=--update-golden` -->", "<!-- /values -->"


class Value(NamedTuple):
    """One value as its users see it.

    Attributes:
        path: Keys with dots between.
        default: As in the file.
        comment: What stands above it, on one line; empty where nothing does.
    """

    path: str
    default: object
    comment: str


def read_values(path: Path = CHART / "values.yaml") -> list[Value]:
    """Return the values that have a comment of their own, and those that should have one, in the file's order."""
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return list(_walk(root, text.splitlines(), ""))


def _walk(mapping: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[Value]:
    for key, node in mapping.value:
        comment = _comment_above(lines, key.start_mark.line)
        path = f"{prefix}{key.value}"
        if comment or not isinstance(node, yaml.MappingNode) or not node.value:
            yield Value(path, yaml.SafeLoader("").construct_document(node), comment)
        else:
            yield from _walk(node, lines, f"{path}.")


def _comment_above(lines: list[str], line: int) -> str:
    """Join the lines of comment above a line, from the one that begins with `# --`."""
    words: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        text = lines[line].lstrip().removeprefix("#").strip()
        words.insert(0, text.removeprefix("--").strip())
        if text.startswith("--"):
            return " ".join(words)
    return ""


def table(values: list[Value]) -> str:
    """Write the table."""
    rows = ["| value | default | what it does |", "| --- | --- | --- |"]
    for value in values:
        comment = value.comment.replace("|", r"\|")
        rows.append(f"| `{value.path}` | `{json.dumps(value.default)}` | {comment} |")
    return "\n".join(rows)


def with_table(readme: str) -> str:
    """Return the README with the table as it has to be."""
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table(read_values())}\n{END}{tail}"
