"""exporter/tallies/rules_file.py: a file becomes rules, or a text that says where it is broken and why."""

import re
from pathlib import Path

import pytest

from exporter.errors import ConfigError
from exporter.tallies.rules import RulesFile
from exporter.tallies.rules_file import RulesReader, parse_rules

EXAMPLE = r"""
# Order matters: the first match decides.
comm:
  - match: 'python3\.\d+'
    replace: python3
  - {match: '(?P<app>[a-z]+)-worker-(\d+)', replace: '${app}:$2 for $$${1}'}
  - match: 'runc.*'
    drop: true
include:
  uid: [0, 1000-1999]
exclude:
  comm: ['systemd-.*']
  uid:
    - 1500-1510
"""


def read_rules(path: Path) -> RulesFile:
    return RulesReader(str(path)).read()


def test_a_file_says_what_becomes_of_comms_and_uids() -> None:
    rules = parse_rules(EXAMPLE.encode(), "rules.yml")
    names = {
        b"python3.11": "python3",
        b"web-worker-7": "web:7 for $web",
        b"runc:[1]": None,
        b"systemd-udevd": None,
    }
    assert {comm: rules.name(comm) for comm in names} == names
    assert [uid for uid in (0, 1, 1000, 1499, 1500, 1510, 1511, 2000) if rules.counts(uid)] == [
        0,
        1000,
        1499,
        1511,
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "comm: []\n", "{}"])
def test_an_empty_file_changes_nothing(text: str) -> None:
    rules = parse_rules(text.encode(), "rules.yml")
    assert rules.name(b"bash") == "bash"
    assert rules.counts(33)


BROKEN = [
    ("comm: [", 1, "not YAML"),
    ("comm:\n- match: a\n   replace: b", 3, "not YAML"),
    ("a: 1\n--- \nb: 2", 2, "not YAML"),
    ("\x00", 1, "not YAML"),
    ('comm: [{match: "\\UFFFFFFFF"}]', 1, "not YAML"),
    ("comm: &a\n- *b", 2, "not YAML"),
    ("- match: a", 1, "a mapping is wanted here, of comm, namespace, pod, container, unit, include, exclude"),
    ("pod:\n- match: a", 2, "either replace or drop"),
    ("unit:\n- match: '(.*.*)(.*.*)'\n  drop: true", 2, "more than 20000000 steps with one label of a group"),
    ("exclude:\n  namespace: []", 2, "namespace is an empty list"),
    ("exclude:\n  node: [a]", 2, "unknown key 'node'"),
    ("comms: []", 1, "unknown key 'comms'"),
    ("comm: []\n\ncomm: []", 3, "comm is here twice"),
    ("? [a]\n: b", 1, "a text is wanted here"),
    ("comm:\n  match: a\n  replace: b", 2, "a list is wanted here"),
    ("comm:\n- a", 2, "a mapping is wanted here"),
    ("comm:\n- match: a\n  replase: b", 3, "unknown key 'replase'"),
    ("comm:\n- replace: b", 2, "wants match"),
    ("comm:\n- match: a", 2, "either replace or drop"),
    ("comm:\n- match: a\n  replace: b\n  drop: true", 2, "either replace or drop"),
    ("comm:\n- match: a\n  drop: no", 3, "drop can only be true"),
    ("comm:\n- match: [a]\n  drop: true", 2, "a text is wanted here"),
    ("comm:\n- match: '('\n  drop: true", 2, "expression '(': missing )"),
    ("comm:\n- match: a\n  drop: true\n- match: '(a*)*'\n  drop: true", 4, "may not be empty"),
    ("comm:\n- match: '((a+)+)+'\n  drop: true", 2, "more than 50000 steps"),
    ("comm:\n- match: a\n  replace: $1", 3, "no group 1"),
    ("comm:\n- match: (a)\n  replace: '${x}'", 3, "no group x"),
    ("comm:\n- match: (a)\n  replace: 5$", 3, "a dollar is written $$"),
    ("exclude:\n  uids: [0]", 2, "unknown key 'uids'"),
    ("exclude:\n  uid: 0", 2, "a list is wanted here"),
    ("exclude:\n  uid: []", 2, "uid is an empty list"),
    ("exclude:\n  uid:\n  - 0\n  - root", 4, "a uid or FIRST-LAST is wanted here, got 'root'"),
    ("exclude:\n  uid: [-1]", 2, "a uid or FIRST-LAST"),
    ("exclude:\n  uid: [2-1]", 2, "the smaller one first"),
    ("exclude:\n  uid: [4294967295]", 2, "uids go up to 4294967294"),
    ("include:\n  comm: ['[']", 2, "expression '['"),
    ("include: &a\n  comm: [*a]", 1, "a text is wanted here"),
]


@pytest.mark.parametrize(
    ("text", "line", "why"), BROKEN, ids=[f"{why:.30} {i}" for i, (*_, why) in enumerate(BROKEN)]
)
def test_a_broken_file_is_refused_with_its_line_and_the_reason(text: str, line: int, why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)) as refusal:
        parse_rules(text.encode(), "rules.yml")
    assert str(refusal.value).startswith(f"rules.yml:{line}: ")
    assert "\n" not in str(refusal.value)


def test_expressions_have_their_limit_all_together_too() -> None:
    rule = "- {match: '[a-z]+-[0-9]+(-.*)?', drop: true}\n"
    parse_rules(("comm:\n" + 10 * rule).encode(), "rules.yml")
    with pytest.raises(ConfigError, match=r"rules.yml:\d+: the expressions up to here"):
        parse_rules(("comm:\n" + 30 * rule).encode(), "rules.yml")


def test_the_example_in_the_docs_does_what_they_say() -> None:
    text = (Path(__file__).parents[3] / "docs" / "config.md").read_text(encoding="utf-8")
    example = text.partition("```yaml\n")[2].partition("```")[0]
    rules = parse_rules(example.encode(), "config.md")
    names = [b"python3.11", b"web-worker-17", b"runc:[2:INIT]", b"node_exporter", b"bash"]
    assert [rules.name(comm) for comm in names] == ["python3", "web-worker", None, None, "bash"]
    assert [uid for uid in (0, 999, 1000, 65534) if rules.counts(uid)] == [0, 1000]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*missing.yml: No such file"):
        read_rules(tmp_path / "missing.yml")
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        read_rules(tmp_path)
    path = tmp_path / "rules.yml"
    path.write_text("#" * 70_000)
    with pytest.raises(ConfigError, match="is longer than 65536 bytes"):
        read_rules(path)
    path.write_text(EXAMPLE)
    assert read_rules(path).rules.name(b"python3.12") == "python3"


@pytest.mark.parametrize("text", ["", "\n", " \n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"is empty; to do without rules, write \{\}"):
        read_rules(path)
    path.write_text("{}\n")
    assert read_rules(path).rules.name(b"bash") == "bash"


def test_a_file_is_parsed_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(EXAMPLE)
    reader = RulesReader(str(path))
    first = reader.read()
    assert reader.read() is first
    path.write_text("comm: [")
    for _ in range(2):
        with pytest.raises(ConfigError, match="not YAML"):
            reader.read()
    path.write_text(EXAMPLE)
    assert reader.read().data == EXAMPLE.encode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# nothing\n", set()),
        ("{}", {"comm", "namespace", "pod", "container", "unit", "include", "exclude"}),
        ("exclude: {}", {"exclude"}),
        ("comm: []\ninclude: {uid: [0]}", {"comm", "include"}),
    ],
)
def test_the_parts_that_stand_in_a_file_are_known(tmp_path: Path, text: str, said: set[str]) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(text)
    assert read_rules(path).said == said


GROUPS = """
pod:
  - {match: '(.+)-[0-9a-f]{8,10}-[a-z0-9]{5}', replace: $1}
  - {match: 'debug.*', drop: true}
unit: [{match: '.*', replace: host}]
include:
  namespace: ['shop.*', '']
exclude:
  container: ['proxy']
"""
NAMES = ("namespace", "pod", "container", "unit")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (("shop", "cart-7d9fd5c8b7-x2x9k", "web", ""), ("shop", "cart", "web", "")),
        (("shop", "cart", "web", "a.service"), ("shop", "cart", "web", "host")),
        (("shop", "debug-1", "web", ""), None),
        (("shop", "cart", "proxy", ""), None),
        (("kube-system", "dns", "dns", ""), None),
        (("", "", "", ""), ("", "", "", "")),
        (("<unknown>", "<unknown>", "proxy", ""), None),
        (("<unknown>", "<unknown>", "<unknown>", "<unknown>"), ("<unknown>",) * 4),
    ],
)
def test_a_file_says_what_becomes_of_groups(values: tuple[str, ...], shown: tuple[str, ...] | None) -> None:
    assert parse_rules(GROUPS.encode(), "rules.yml").group(NAMES, values) == shown


def test_rules_of_groups_are_entries_of_the_file() -> None:
    assert parse_rules(GROUPS.encode(), "rules.yml").entries() == [
        "pod '(.+)-[0-9a-f]{8,10}-[a-z0-9]{5}'", "pod 'debug.*' drop", "unit '.*'", "include.namespace 'shop.*'",
        "include.namespace ''", "exclude.container 'proxy'",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["pod: []", "exclude: {pod: [a]}", "include: {container: [a]}"])
def test_a_rule_of_a_label_that_there_is_not_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(text)
    RulesReader(str(path)).read()
    with pytest.raises(ConfigError, match=r"has no effect without --group\.by pod"):
        RulesReader(str(path), ("unit",)).read()


def test_a_common_expression_of_pods_is_accepted() -> None:
    parse_rules(b"pod: [{match: '(.*)-[0-9a-f]+-[a-z0-9]+', replace: $1}]", "rules.yml")
