"""Tables equal the code, links lead somewhere, and every command is run by a test or says what it needs."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from exporter.config import FLAGS
from exporter.exposition.metrics import METRICS
from exporter.tallies.rules_file import parse_rules

ROOT = Path(__file__).parents[2]
METRICS_PAGE = ROOT / "docs" / "metrics.md"
FLAGS_PAGE = ROOT / "docs" / "flags.md"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("dashboards/**/*.md"),
        *ROOT.glob("deploy/**/*.md"),
        *ROOT.glob("helm/**/*.md"),
    ]
)
# A mark on the line before a block: the test that runs it, or what it takes that no test has.
MARK = re.compile(r"<!-- (?:test: (?P<test>\S+)|(?P<run>run)|needs a (?:cluster|registry)) -->")


# Not tests, but what tests read pages by.
HELPERS = ("debian.py",)


def table_rows(page: Path, first_cell: str) -> list[list[str]]:
    """Return the cells of a page's table rows whose first cell, in backticks, matches a pattern."""
    rows = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            continue
        # A cell may hold \| .
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if re.fullmatch(f"`{first_cell}`", cells[0]):
            rows.append(cells)
    return rows


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def test_the_pages_metrics_are_those_of_the_exposition() -> None:
    rows = [
        (name.strip("`"), kind.strip("`"), tuple(code(labels)))
        for name, kind, labels, *_ in table_rows(METRICS_PAGE, "proc_connector_.*")
    ]
    assert sorted(rows) == sorted((spec.name, spec.type, spec.labels) for spec in METRICS)


def test_the_pages_labels_are_backticked_and_separated_by_commas_or_a_dash() -> None:
    for name, _, labels, *_ in table_rows(METRICS_PAGE, "proc_connector_.*"):
        assert re.fullmatch(r"-|`\w+`(, `\w+`)*", labels), name


def test_the_pages_flags_are_those_of_the_program() -> None:
    rows = [tuple(cell.strip("`") for cell in row[:3]) for row in table_rows(FLAGS_PAGE, "--.*")]
    assert sorted(rows) == sorted((flag.name, flag.variable, flag.default or "-") for flag in FLAGS)


def test_every_row_of_the_tables_says_something() -> None:
    rows = table_rows(METRICS_PAGE, "proc_connector_.*") + table_rows(FLAGS_PAGE, "--.*")
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


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are made on the web."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


PAGES_OF_DOCS = sorted((ROOT / "docs").glob("*.md"))
# A page that is one answer, or a table.
WITHOUT_PARTS = {"README.md", "requirements.md", "reliability.md"}


@pytest.mark.parametrize("page", PAGES_OF_DOCS, ids=lambda page: page.name)
def test_every_page_begins_with_a_table_of_its_contents(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    before, *_ = text.partition("\n## ")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert (len(headings) < 2) is (page.name in WITHOUT_PARTS)
    if page.name not in WITHOUT_PARTS:
        assert re.findall(r"^- \[(.*)\]\(#.*\)$", before, re.MULTILINE) == headings


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = page if not path else (page.parent / path).resolve()
        if not found.exists() or (anchor and anchor not in anchors(found)):
            dead.append(target)
    assert dead == []


def test_every_page_can_be_found_from_the_readme_and_from_the_table_of_contents() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    for index, prefix in ((ROOT / "README.md", "docs/"), (ROOT / "docs" / "README.md", "")):
        linked = re.findall(rf"\]\({prefix}([\w-]+\.md)\)", index.read_text(encoding="utf-8"))
        assert pages - set(linked) == set(), index


def blocks(page: Path) -> list[tuple[re.Match[str] | None, str, str]]:
    """Return the blocks of a page that a reader would take: the mark before it, its language, its text."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"(?ms)^ *([^\n]*)\n *```([a-z]+)\n(.*?)^ *```", text)
    return [(MARK.fullmatch(before), language, block) for before, language, block in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_commands_is_run_by_a_test_or_says_what_it_needs(page: Path) -> None:
    for mark, _, block in blocks(page):
        assert mark is not None, f"no mark before: {block}"
        if mark["test"]:
            test = ROOT / mark["test"]
            # It reads the block, itself or by what is beside it: a mark alone would promise anything.
            readers = {
                path.name for path in test.parent.glob("*.py") if page.name in path.read_text(encoding="utf-8")
            }
            assert readers & {test.name, *HELPERS}, f"{mark['test']} does not read {page.name}"


def test_commands_that_need_nothing_do_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "proc-connector-exporter").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m exporter "$@"\n')
    (tmp_path / "proc-connector-exporter").chmod(0o755)
    commands = [
        line.removeprefix("$ ")
        for page in (ROOT / "README.md", *ROOT.glob("docs/*.md"))
        for mark, _, block in blocks(page)
        if mark is not None and mark["run"]
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    assert commands
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    for command in commands:
        result = subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (result.returncode, result.stderr) == (0, ""), command
        assert result.stdout


def test_the_rules_of_the_docs_are_rules() -> None:
    of_comms, of_groups = [
        parse_rules(block.encode(), "config.yml")
        for _, language, block in blocks(ROOT / "docs" / "config.md")
        if language == "yaml"
    ]
    assert of_comms.name(b"python3.11") == "python3"
    names = ("namespace", "pod", "container", "unit")
    groups = {
        ("shop-a", "cart-7d9fd5c8b7-x2x9k", "web", ""): ("shop-a", "cart", "web", ""),
        ("shop-a", "cart-7d9fd5c8b7-x2x9k", "istio-proxy", ""): None,
        ("kube-system", "coredns-5d78c9869d-abcde", "coredns", ""): None,
        ("", "", "", "cronie.service"): ("", "", "", "cron.service"),
        ("", "", "", "snap.lxd.daemon.service"): None,
    }
    assert {values: of_groups.group(names, values) for values in groups} == groups


def test_the_readme_has_one_picture_and_begins_with_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(r"!\[", text)) == 1
    first = re.search(r"(?ms)^```console\n(.*?)^```", text)
    assert first is not None
    assert len(first[1].splitlines()) == 2


def test_no_paragraph_of_the_readme_is_longer_than_six_lines() -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", (ROOT / "README.md").read_text(encoding="utf-8"))
    paragraphs = [line for line in text.splitlines() if line and not line.startswith(("|", "<!--"))]
    assert [line[:60] for line in paragraphs if len(textwrap.wrap(line, 115)) > 6] == []
