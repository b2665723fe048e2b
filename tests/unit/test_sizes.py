"""Nothing has two jobs: how long a class and a function may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "exporter"
MOST_CLASS_LINES = 250
MOST_FUNCTION_LINES = 60

# It is written out, so that it makes no call for an event, and is no part of the length of its class.
THE_LOOP = "processes.table.ProcessTable.apply"


def defined(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.stmt]]:
    """Iterate over the classes and functions of a module, and those in them, by their full names."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}.{node.name}"
            yield name, node
            yield from defined(node.body, name)


def lines_of(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_class_and_no_function_is_too_long_but_the_loop() -> None:
    lines: dict[str, int] = {}
    most: dict[str, int] = {}
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for name, node in defined(ast.parse(path.read_text(encoding="utf-8")).body, module):
            lines[name] = lines_of(node)
            most[name] = MOST_CLASS_LINES if isinstance(node, ast.ClassDef) else MOST_FUNCTION_LINES
    lines[THE_LOOP.rpartition(".")[0]] -= lines.pop(THE_LOOP)
    assert {name: count for name, count in lines.items() if count > most[name]} == {}
