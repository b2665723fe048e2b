"""What a request for failures is answered with."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.failures.made import ALL, CLOCK, FAILED, NOW_NS

from exporter.errors import ConfigError
from exporter.failures.answers import Answers, prefers_json
from exporter.failures.store import FailureStore
from exporter.tallies.labels import plain, printable

Query = list[tuple[str, str]]


class Asked:
    """Answers from a store with all failures of `made`, which comes up to date when it is asked."""

    def __init__(self) -> None:
        self.store = FailureStore(100)
        self.refreshed = 0
        self.answers = Answers(self.store, self._refresh, lambda: NOW_NS, lambda: CLOCK, lambda: 7)

    async def _refresh(self) -> None:
        if not self.refreshed:
            self.store.take(ALL.values())
        self.refreshed += 1

    async def get(self, query: Query, accept: str = "*/*") -> tuple[str, str]:
        content_type, pieces = await self.answers.ask(query, accept)("", ())
        return content_type, b"".join(pieces).decode()

    async def pids(self, *query: tuple[str, str]) -> list[int]:
        _, text = await self.get([*query, ("format", "json")])
        return [failure["pid"] for failure in json.loads(text)["failures"]]


async def test_json_has_the_failures_the_newest_first_and_how_many_there_are() -> None:
    content_type, text = await Asked().get([("comm", "make"), ("format", "json")])
    assert content_type == "application/json; charset=utf-8"
    answer = json.loads(text)
    assert {name: answer[name] for name in answer if name != "failures"} == {
        "time": "2026-11-29T10:00:00.000000Z",
        "matching": 2,
        "kept": 4,
        "left_out": 7,
    }
    assert [(f["pid"], f["comm"], f["signal"]) for f in answer["failures"]] == [
        (402, "make", "SIGSEGV"),
        (400, "make", None),
    ]


async def test_a_page_is_html() -> None:
    content_type, text = await Asked().get([])
    assert content_type == "text/html; charset=utf-8"
    assert text.startswith("<!DOCTYPE html>")
    assert text.count("<tr><td>") == len(ALL)


async def test_nothing_matches() -> None:
    assert await Asked().pids(("comm", "nothing")) == []


async def test_since_counts_back_from_the_request() -> None:
    asked = Asked()
    assert await asked.pids(("since", "60s")) == [403, 402, 401]
    assert await asked.pids(("since", "59s")) == [403, 402]
    assert await asked.pids(("since", "2026-11-29T09:59:00Z")) == [403, 402, 401]
    assert await asked.pids(("since", "2026-11-29T09:59:01Z")) == [403, 402]
    assert asked.refreshed == 4


async def test_the_labels_of_an_alert_are_filters() -> None:
    query = [("comm", "oracle_1"), ("uid", "0"), ("exit_code", "137"), ("signal", "SIGKILL")]
    assert await Asked().pids(*query) == [401]


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", True),
        ("application/json;q=0", False),
        ("application/json;q=x", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        ("application/json, text/plain, */*", True),
        ("text/html, application/json", False),
        ("application/json, text/html", True),
        ("text/html;q=0.5, application/json;q=0.9", True),
        ("APPLICATION/JSON", True),
    ],
)
def test_accept_decides_where_the_query_does_not(accept: str, is_json: bool) -> None:
    assert prefers_json(accept) is is_json


async def test_the_query_decides_before_accept() -> None:
    asked = Asked()
    assert (await asked.get([("format", "html")], "application/json"))[0] == "text/html; charset=utf-8"
    assert (await asked.get([("format", "")], "application/json"))[0] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ([("format", "xml")], "format must be html or json, got 'xml'"),
        (
            [("pid", "1")],
            "there is no filter 'pid'; there are comm, uid, exit_code, signal, oom, since, and format",
        ),
    ],
)
def test_what_is_wrong_is_said(query: Query, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Asked().answers.ask(query, "")
    assert str(refused.value) == reason


def test_the_same_question_has_the_same_answer() -> None:
    answers = Asked().answers
    assert answers.ask([("comm", "x")], "") == answers.ask([("comm", "x"), ("format", "html")], "text/html")
    assert len({answers.ask([("comm", "x")], ""), answers.ask([("comm", "x")], "*/*")}) == 1
    assert answers.ask([("comm", "x")], "") != answers.ask([("comm", "y")], "")
    assert answers.ask([("comm", "x")], "") != answers.ask([("comm", "x")], "application/json")


@given(comm=st.binary(max_size=15))
async def test_a_hostile_comm_is_one_value_of_json_on_one_line(comm: bytes) -> None:
    asked = Asked()
    name = printable(plain(comm))
    asked.store.take([FAILED._replace(comm=name, pid=7, parent_comm=name, execs=(name,), time_ns=NOW_NS + 1)])
    _, text = await asked.get([("format", "json")])
    failure = json.loads(text)["failures"][0]
    assert failure["parent_comm"] == name
    assert failure["execs"] == [name]
    assert len(text.splitlines()) == len(ALL) + 3


async def test_many_failures_come_in_pieces_and_whole() -> None:
    asked = Asked()
    asked.store.take([FAILED._replace(comm=f"p{i}", time_ns=i) for i in range(100)])
    _, pieces = await asked.answers.ask([("format", "json")], "")("", ())
    parts = list(pieces)
    assert len(parts) > 2
    assert len(json.loads(b"".join(parts))["failures"]) == 100
