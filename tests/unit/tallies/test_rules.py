"""exporter/tallies/rules.py: what comms become, and that no expression can take long with one."""

import itertools
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import ConfigError
from exporter.tallies.rules import STEPS, Rule, Rules, RulesFile, Selection, most_steps

# -- steps: a matcher of our own that never succeeds and counts ----------------------------------------------

Go = Callable[[int], None]


class Node:
    """A part of an expression: how it is written, and how it is tried."""

    def __init__(self, text: str, run: Callable[["Tries", int, Go], None], *, can_be_empty: bool = False) -> None:
        self.text = text
        self.run = run
        self.can_be_empty = can_be_empty


class Tries:
    """Every way to match a text, tried one after the other, as a matcher has to that fails at last."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        assert self.steps <= STEPS, f"more than {STEPS} steps"

    def all(self, node: Node) -> int:
        node.run(self, 0, lambda at: None)
        return self.steps


def letter(char: str) -> Node:
    def run(tries: Tries, at: int, go: Go) -> None:
        tries.step()
        if at < len(tries.text) and char in {".", tries.text[at]}:
            go(at + 1)

    return Node(char, run)


def sequence(*nodes: Node) -> Node:
    def run(tries: Tries, at: int, go: Go) -> None:
        def after(i: int) -> Go:
            return go if i == len(nodes) else lambda at: nodes[i].run(tries, at, after(i + 1))

        after(0)(at)

    return Node("".join(n.text for n in nodes), run, can_be_empty=all(n.can_be_empty for n in nodes))


def either(*nodes: Node) -> Node:
    def run(tries: Tries, at: int, go: Go) -> None:
        tries.step()
        for node in nodes:
            node.run(tries, at, go)

    # In groups, or Python's own would make one set of single letters, and try what they begin with only once.
    text = "(?:" + "|".join(f"({n.text})" for n in nodes) + ")"
    return Node(text, run, can_be_empty=any(n.can_be_empty for n in nodes))


def repeat(node: Node, least: int, most: int | None, lazy: str = "") -> Node:
    def run(tries: Tries, at: int, go: Go) -> None:
        def times(n: int, at: int) -> None:
            tries.step()
            if n >= least:
                go(at)
            if most is None or n < most:
                node.run(tries, at, lambda to: times(n + 1, to))

        times(0, at)

    counts = f"{{{least},{'' if most is None else most}}}"
    return Node(f"(?:{node.text}){counts}{lazy}", run, can_be_empty=least == 0 or node.can_be_empty)


LETTERS = st.sampled_from("ab.").map(letter)
EXPRESSIONS = st.recursive(
    LETTERS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(lambda nodes: sequence(*nodes)),
        st.lists(inner, min_size=2, max_size=3).map(lambda nodes: either(*nodes)),
        st.builds(
            lambda node, least, more, lazy: repeat(node, least, None if more is None else least + more, lazy),
            inner.filter(lambda node: not node.can_be_empty),
            st.integers(0, 3),
            st.none() | st.integers(0, 3),
            st.sampled_from(["", "?"]),
        ),
    ),
    max_leaves=8,
)
WORST_TEXTS = ["a" * 15, "ab" * 7 + "a", "a" * 14 + "!"]


@settings(max_examples=500)
@given(expression=EXPRESSIONS, text=st.sampled_from(WORST_TEXTS) | st.text("ab", max_size=15))
def test_no_matcher_takes_more_steps_than_was_worked_out(expression: Node, text: str) -> None:
    try:
        most = most_steps(expression.text)
    except ConfigError:
        return
    assert Tries(text).all(expression) <= most


def shapes() -> Iterator[Node]:
    """What expressions are made of that take matchers long, in every order."""
    a, b, dot = letter("a"), letter("b"), letter(".")
    parts = [
        a,
        repeat(a, 0, 1),
        repeat(a, 1, None),
        repeat(dot, 0, None),
        repeat(either(a, b), 0, None),
        repeat(either(a, sequence(a, a)), 1, None),
        repeat(sequence(a, repeat(b, 0, 1)), 0, None),
        repeat(repeat(a, 1, None), 1, None),
        repeat(sequence(repeat(a, 1, None), b), 0, None),
        either(a, sequence(a, b), sequence(a, repeat(b, 0, None))),
    ]
    for length in range(1, 5):
        for chosen in itertools.product(parts, repeat=length):
            yield sequence(*chosen, letter("!"))


def cpu_seconds(expression: str, text: str, times: int = 1) -> float:
    pattern = re.compile(expression, re.DOTALL)
    began = time.process_time()
    for _ in range(times):
        pattern.fullmatch(text)
    return time.process_time() - began


def test_the_worst_expressions_that_are_accepted_are_quick() -> None:
    # What a step takes on this machine: of an expression whose steps are counted.
    known = repeat(either(letter("a"), sequence(letter("a"), letter("a"))), 1, None)
    known = sequence(known, letter("!"))
    steps = Tries("a" * 15).all(known)
    step_seconds = min(cpu_seconds(known.text, "a" * 15, 20) for _ in range(5)) / (20 * steps)
    accepted = refused = 0
    taken = allowed = 0.0
    for shape in shapes():
        try:
            most = most_steps(shape.text)
        except ConfigError:
            refused += 1
            continue
        accepted += 1
        allowed += most * len(WORST_TEXTS) * step_seconds
        taken += sum(cpu_seconds(shape.text, text) for text in WORST_TEXTS)
    assert accepted > 1000
    assert refused > 1000
    assert taken < allowed


@pytest.mark.parametrize(
    "expression",
    [
        r"(a|a)\1", r"(?=a)a", r"(?!a)b", r"(?<=a)b", r"(?P<x>a)(?P=x)", r"(a)?(?(1)b|c)", r"a*+", r"(?>a*)b",
        r"(a*)*", r"(a*)+", r"(a?){2,}", r"(|a)*", r"(^)*", r"(\b)+",
        r"(a+)+b", r"(a|aa|b)+", r"((a|b|ab)(c|d|cd))*", r"(\w+\s?)*", r"(.*)(.*)(.*)(.*)(.*)x", r"((((.+)+)+)+)+",
        "(" * 60 + ".+" + ")+" * 60,
        "a{0,3}" * 20,
        "x" * 201,
        "(", "a**", "[", r"\8", "[[a]]", "(?P<1>a)", "a{2,1}", "(?i", "a{4294967296}",
    ],
    ids=lambda expression: expression[:20],
)  # fmt: skip
def test_an_expression_that_could_take_long_is_refused(expression: str) -> None:
    with pytest.raises(ConfigError):
        most_steps(expression)


@pytest.mark.parametrize(
    ("expression", "most"),
    [
        ("nginx", 10),
        (r"python3\.\d+", 50),
        (r".*foo.*", 400),
        (r"(?i:sh|bash|dash)", 50),
        (r"[a-z]+-[0-9]+(-.*)?", 3000),
        (r"([^:]+):(.*)", 2000),
        (r"(ab)*", 50),
        (r"(a|b)*", 100),
        (r"a{1000}", 50),
    ],
)
def test_what_people_write_is_accepted_and_far_from_the_limit(expression: str, most: int) -> None:
    assert 0 < most_steps(expression) <= most < STEPS


# -- names ---------------------------------------------------------------------------------------------------


def rule(match: str, *replace: str | int) -> Rule:
    return Rule(re.compile(match, re.DOTALL), replace or None)


@pytest.mark.parametrize(
    ("comm", "name"),
    [
        (b"python3.11", "python"),
        (b"python3.11-x", "python3.11-x"),
        (b"job-17-a", "job a"),
        (b"job-17-\n", r"job \x0a"),
        (b"\xffbyte", r"byte \xff"),
        (b"secret", None),
        (b"secret2", "secret2"),
        (b"other", r"\x3cother>"),
        (b"kworker/0:1-ev", "a worker"),
        (b"kworker/\xff", "a worker"),
        (b"optional", "-"),
        (b"plain", "plain"),
    ],
)
def test_the_first_rule_that_matches_a_whole_comm_decides(comm: bytes, name: str | None) -> None:
    rules = Rules(
        [
            rule(r"python3\.\d+", "python"),
            rule(r"job-(\d+)-(.)", "job ", 2),
            rule("job-.*", "never: the rule before has matched"),
            rule(r"([\udc80-\udcff])(.*)", 2, " ", 1),
            rule("secret"),
            rule("other", "<other>"),
            rule("kworker", "a worker"),
            rule("optional(!)?", "-", 1),
        ]
    )
    assert rules.name(comm) == name
    assert rules.name(comm) == name


def test_a_selection_of_comms_looks_at_the_comm_and_not_at_what_rules_make_of_it() -> None:
    rules = Rules(
        [rule("nginx", "www"), rule("ssh.*", "ssh")],
        include=Selection(comms=(re.compile("nginx|ssh.*"),)),
        exclude=Selection(comms=(re.compile("sshd"),)),
    )
    assert [rules.name(comm) for comm in (b"nginx", b"www", b"ssh", b"sshd", b"bash")] == [
        "www", None, "ssh", None, None,
    ]  # fmt: skip


def test_uids_are_counted_that_are_included_and_not_excluded() -> None:
    rules = Rules(
        include=Selection(uids=(range(1001), range(5000, 5001))), exclude=Selection(uids=(range(33, 40),))
    )
    counted = [uid for uid in (0, 32, 33, 39, 40, 1000, 1001, 5000, 5001) if rules.counts(uid)]
    assert counted == [0, 32, 40, 1000, 5000]
    assert rules.counts(None)
    assert Rules().counts(33)


def test_names_are_remembered_up_to_a_bound() -> None:
    rules = Rules([rule("(.*)", 1)])
    for n in range(10_000):
        assert rules.name(b"%d" % n) == str(n)
    assert rules.name.cache_info().currsize < 5000


def test_each_entry_of_a_file_has_its_part_and_what_it_matches() -> None:
    rules = Rules(
        [rule("a.*", "a"), Rule(re.compile("b"), ()), rule("c")],
        include=Selection((re.compile("d"),), (range(3, 4),)),
        exclude=Selection((), (range(10), range(20, 31))),
    )
    assert rules.entries() == [
        "comm 'a.*'", "comm 'b'", "comm 'c' drop", "include.comm 'd'", "include.uid 3-3", "exclude.uid 0-9",
        "exclude.uid 20-30",
    ]  # fmt: skip
    assert Rules().entries() == []


def test_what_a_file_has_no_more_and_does_not_say_is_known() -> None:
    before = Rules([rule("a"), rule("b")], exclude=Selection((re.compile("c"),)))

    def after(*said: str, **parts: Any) -> RulesFile:
        return RulesFile(Rules(**parts), b"", frozenset(said))

    fewer = after("comm", "exclude", rules=[rule("b")], exclude=Selection((), (range(3),)))
    assert fewer.ended(before) == ["comm 'a' drop", "exclude.comm 'c'"]
    assert fewer.ended_without_a_word(before) == []
    assert after("comm").ended_without_a_word(before) == ["exclude"]
    assert after("comm", "exclude").ended_without_a_word(before) == []
    assert after().ended_without_a_word(before) == ["comm", "exclude"]
    assert after().ended_without_a_word(Rules()) == []
