"""Nothing has two jobs: how long a class and a function may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "exporter"
MOST_CLASS_LINES = 250
MOST_FUNCTION_LINES = 60

# The loop is written out, so that it makes no call for an event.
THE_LOOP = {"processes.table.ProcessTable.apply"}
# They are being split.
STILL_LONG = {"processes.changes.Changes", "processes.ends.Ends", "processes.table.ProcessTable"}


def defined(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.stmt]]:
    """Iterate over the classes and functions of a module, and those in them, by their full names."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}.{node.name}"
            yield name, node
            yield from defined(node.body, name)


def lines_of(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def too_long() -> set[str]:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for name, node in defined(ast.parse(path.read_text(encoding="utf-8")).body, module):
            most = MOST_CLASS_LINES if isinstance(node, ast.ClassDef) else MOST_FUNCTION_LINES
            if lines_of(node) > most:
                found.add(name)
    return found


def test_no_class_and_no_function_is_too_long_but_the_loop() -> None:
    assert too_long() == THE_LOOP | STILL_LONG
