"""Failures as log lines: a line each, within a limit, and never more than a line."""

import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.failures.made import BARE, CLOCK, DUMPED, FAILED, IN_POD, IN_UNIT, NOWHERE

from exporter.failures.log import LOGGER, FailureLog
from exporter.processes.bad_ends import Failure
from exporter.service.logs import JsonFormatter, LogfmtFormatter
from exporter.tallies.labels import plain, printable


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, name: str) -> list[object]:
        return [vars(record).get(name) for record in self.records]


class Logged:
    """A log, and the clock that its limit goes by."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.ended = 0
        self.now = 0.0
        self.log = FailureLog(lambda: self.ended, lambda: CLOCK, lambda: self.now)

    def take(self, failures: list[Failure], sifted: int = 0) -> None:
        """Hand failures to the log, after some were left out before they came to it."""
        self.ended += len(failures) + sifted
        self.log.take(failures)


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger(LOGGER)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def logged(lines: Lines) -> Logged:
    return Logged(lines)


def test_a_line_has_all_that_is_known(logged: Logged) -> None:
    logged.take([DUMPED, BARE])
    texts = [LogfmtFormatter().format(record).split(" ", 1)[1] for record in logged.lines.records]
    assert texts == [
        (
            'level=info msg="process failed" pid=402 ppid=100 parent_comm=sh uid=1000 comm=make exit_code=139 '
            "signal=SIGSEGV core=true lifetime_seconds=1.5 cpu_seconds=0.003 max_rss_bytes=2097152 "
            'execs="sh > env" ended=2026-11-29T09:59:30.000000Z'
        ),
        'level=info msg="process failed" pid=403 exit_code=1 core=false ended=2026-11-29T10:00:00.000000Z',
    ]


def test_a_storm_of_one_program_does_not_keep_the_failure_of_another_out(logged: Logged) -> None:
    logged.take([FAILED] * 100)
    logged.take([BARE])
    assert logged.lines.of("comm") == ["make"] * 10 + [None]
    assert logged.lines.of("left_out") == [None] * 10 + [90]
    assert (logged.log.logged, logged.log.left_out) == (11, 90)


def test_what_was_left_out_before_it_came_to_the_log_is_counted_too(logged: Logged) -> None:
    logged.take([FAILED], sifted=1000)
    logged.take([FAILED])
    assert logged.lines.of("left_out") == [1000, None]


def test_all_programs_together_have_a_limit(logged: Logged) -> None:
    for number in range(1000):
        logged.take([FAILED._replace(comm=f"p{number}")])
    assert len(logged.lines.records) == 600
    assert logged.log.left_out == 400


def test_after_a_minute_there_is_room_again(logged: Logged) -> None:
    logged.take([FAILED] * 100)
    logged.now = 59.9
    logged.take([FAILED])
    logged.now = 60.0
    logged.take([FAILED])
    assert logged.lines.of("left_out") == [None] * 10 + [91]


def test_what_was_left_out_is_reported_even_if_no_failure_follows(logged: Logged) -> None:
    logged.take([FAILED] * 100)
    logged.log.report()
    logged.log.report()
    assert [record.getMessage() for record in logged.lines.records[10:]] == [
        "failed processes were left out of the log"
    ]
    assert logged.lines.of("left_out")[10:] == [90]


@given(comms=st.lists(st.binary(max_size=15), min_size=2, max_size=2))
def test_a_hostile_comm_makes_one_line_with_the_same_fields(comms: list[bytes]) -> None:
    names = [printable(plain(comm)) for comm in comms]
    handler = Lines()
    logger = logging.getLogger(LOGGER)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        Logged(handler).take([FAILED._replace(comm=names[0], parent_comm=names[1], execs=(names[1],))])
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    (record,) = handler.records
    as_json = JsonFormatter().format(record)
    assert (as_json.splitlines(), json.loads(as_json)["parent_comm"]) == ([as_json], names[1])
    line = LogfmtFormatter().format(record)
    assert line.splitlines() == [line]
    fields = parse_logfmt(line)
    assert fields["parent_comm"] == names[1]
    assert fields.get("comm", "<unknown>") == names[0]
    assert list(fields)[-1] == "ended"
    assert len(fields) >= 13


def parse_logfmt(line: str) -> dict[str, str]:
    """Take a line apart as its readers do: a value is a word, or a text in quotes with JSON's escapes."""
    fields = {}
    rest = line
    while rest:
        name, _, rest = rest.partition("=")
        if rest.startswith('"'):
            value, end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end + 1 :]
        else:
            value, _, rest = rest.partition(" ")
        assert name not in fields
        fields[name] = value
    return fields


def test_a_line_says_where_the_process_ran_and_nothing_of_where_it_did_not(logged: Logged) -> None:
    logged.take([IN_POD, IN_UNIT, NOWHERE])
    assert logged.lines.of("pod") == ["cart-1", None, None]
    assert logged.lines.of("unit") == [None, "cron.service", None]


def test_the_limit_of_a_kind_is_one_of_each_group(logged: Logged) -> None:
    logged.take([IN_POD] * 50)
    logged.take([IN_UNIT])
    assert logged.lines.of("unit") == [None] * 10 + ["cron.service"]
