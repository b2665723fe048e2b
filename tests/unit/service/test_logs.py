"""exporter/service/logs.py: one line whatever happens."""

import json
import logging
import re
import sys
import time
from collections.abc import Iterator

import pytest
from freezegun import freeze_time

from exporter.service.logs import JsonFormatter, LogfmtFormatter, RateLimit, configure_logging, log_all_of

PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"=\\]+)(?: |$)', re.ASCII)


def parse_logfmt(line: str) -> dict[str, str]:
    """Take a line apart; every character of it must belong to a pair."""
    pairs = PAIR.findall(line)
    assert "".join(match.group() for match in PAIR.finditer(line)) == line
    return {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}


def record(message: str, *args: object, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    with freeze_time("2025-01-02 03:04:05.0625"):
        return logging.getLogger("exporter").makeRecord(
            "exporter", level, __file__, 1, message, args, None, extra=extra
        )


VALUES = {
    "plain": "word",
    "path": "/proc/1/comm:2",
    "empty": "",
    "blanks": " a  b ",
    "equals": "a=b",
    "quotes": 'say "x"',
    "backslash": "a\\b",
    "newlines": "a\nb\r\nc",
    "control characters": "\0\x1b[31m\x7f",
    "line separators": "\x85\u2028\u2029",
    "UTF-8": "é日🐍",
    "lone surrogates": "\udcff\ud800",
}
each_value = pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)


@each_value
def test_a_logfmt_line_is_one_line_that_gives_every_value_back(value: str) -> None:
    line = LogfmtFormatter().format(record("%s", value, comm=value))
    assert line.isascii()
    assert line.isprintable()
    assert parse_logfmt(line) == {
        "time": "2025-01-02T03:04:05.062Z", "level": "info", "msg": value, "comm": value,
    }  # fmt: skip


@each_value
def test_a_json_line_is_one_object_that_gives_every_value_back(value: str) -> None:
    line = JsonFormatter().format(record("%s", value, comm=value))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {
        "time": "2025-01-02T03:04:05.062Z", "level": "info", "msg": value, "comm": value,
    }  # fmt: skip


def test_a_plain_line_reads_as_it_is_written() -> None:
    line = LogfmtFormatter().format(record("messages lost, comparing", lost=3, socket="connector"))
    assert (
        line == 'time=2025-01-02T03:04:05.062Z level=info msg="messages lost, comparing" lost=3 socket=connector'
    )


def test_the_time_is_utc_wherever_the_machine_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        line = LogfmtFormatter().format(record("x"))
    time.tzset()
    assert parse_logfmt(line)["time"] == "2025-01-02T03:04:05.062Z"


def test_numbers_stay_numbers_in_json_and_objects_become_text() -> None:
    fields = json.loads(JsonFormatter().format(record("x", lost=3, error=ValueError("a\nb"))))
    assert (fields["lost"], fields["error"]) == (3, "a\nb")


@pytest.mark.parametrize(
    ("number", "name"),
    [(10, "debug"), (20, "info"), (30, "warn"), (40, "error"), (50, "error")],
    ids=["debug", "info", "warning", "error", "critical"],
)
def test_levels_are_called_as_prometheus_calls_them(number: int, name: str) -> None:
    line = record("x", level=number)
    assert parse_logfmt(LogfmtFormatter().format(line))["level"] == name
    assert json.loads(JsonFormatter().format(line))["level"] == name


@pytest.mark.parametrize("formatter", [LogfmtFormatter(), JsonFormatter()], ids=["logfmt", "json"])
def test_an_exception_is_one_line_too(formatter: logging.Formatter) -> None:
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        failed = logging.LogRecord("exporter", logging.ERROR, __file__, 1, "crashed", (), sys.exc_info())
    line = formatter.format(failed)
    assert line.isprintable()
    error = (json.loads(line) if line.startswith("{") else parse_logfmt(line))["error"]
    assert error.startswith("Traceback")
    assert error.endswith("RuntimeError: two\nlines")


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """A root logger of this test's own, and the level of the one other logger that is set put back."""
    access = logging.getLogger("aiohttp.access")
    level = access.level
    root = logging.RootLogger(logging.WARNING)
    monkeypatch.setattr(logging, "root", root)
    yield root
    access.setLevel(level)


@pytest.mark.parametrize(
    ("level", "logged"),
    [
        ("debug", ["debug", "info", "warn", "error"]),
        ("info", ["info", "warn", "error"]),
        ("warn", ["warn", "error"]),
        ("error", ["error"]),
    ],
)
@pytest.mark.parametrize("log_format", ["logfmt", "json"])
def test_what_is_severe_enough_goes_to_stderr_in_the_format_that_was_set(
    root: logging.Logger, capsys: pytest.CaptureFixture[str], level: str, logged: list[str], log_format: str
) -> None:
    configure_logging("error" if level == "debug" else "debug", "json")
    configure_logging(level, log_format)
    for number in (10, 20, 30, 40):
        root.log(number, "a line")
    out, err = capsys.readouterr()
    parse = json.loads if log_format == "json" else parse_logfmt
    assert (out, [parse(line)["level"] for line in err.splitlines()]) == ("", logged)


def test_scrapes_are_not_logged(root: logging.Logger) -> None:
    configure_logging("debug", "logfmt")
    assert not logging.getLogger("aiohttp.access").isEnabledFor(logging.INFO)


def line_of(text: str, seconds: float) -> logging.LogRecord:
    record = logging.LogRecord("exporter", logging.WARNING, "", 0, text, None, None)
    record.created = seconds
    return record


def test_a_few_lines_of_a_kind_are_let_through_in_a_minute_and_the_next_says_how_many_were_not() -> None:
    limit = RateLimit(per_minute=2)
    lines = [line_of("malformed", at) for at in (1000, 1000, 1001, 1059.9, 1060, 1061, 1119.9, 1300, 1301)]
    assert [limit.filter(line) for line in lines] == [True, True, False, False, True, True, False, True, True]
    assert [vars(line).get("left_out") for line in lines] == [None] * 4 + [2, None, None, 1, None]


def test_one_kind_of_line_does_not_use_up_anothers() -> None:
    limit = RateLimit(per_minute=1)
    assert [limit.filter(line_of(text, 0)) for text in ("a", "b", "a", "b")] == [True, True, False, False]


def test_a_flood_of_lines_lasting_for_hours_is_let_through_at_the_same_low_rate() -> None:
    limit = RateLimit(per_minute=5)
    assert sum(limit.filter(line_of("malformed", tenths / 10)) for tenths in range(3600 * 10)) == 5 * 60


def test_a_clock_that_is_set_back_stops_no_line_for_long() -> None:
    limit = RateLimit(per_minute=1)
    assert [limit.filter(line_of("a", at)) for at in (1000.0, 1001.0, 10.0)] == [True, False, True]


def test_kinds_without_end_do_not_fill_the_memory() -> None:
    limit = RateLimit(per_minute=1)
    for number in range(5000):
        limit.filter(line_of(f"kind {number}", 0))
    assert len(limit._windows) <= 1000


def test_a_logger_with_a_limit_of_its_own_logs_all_lines_whatever_the_level_is(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("error", "logfmt")
    own, other = logging.getLogger("test_logs.own"), logging.getLogger("test_logs.other")
    own.parent = other.parent = root
    log_all_of(own.name)
    for number in range(50):
        own.info("a line", extra={"number": number})
        other.error("another")
    lines = capsys.readouterr().err.splitlines()
    assert sum("number=" in line for line in lines) == 50
    assert 1 <= sum("another" in line for line in lines) <= 10


def test_a_flood_reaches_stderr_as_a_few_lines(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "logfmt")
    for number in range(1000):
        root.warning("malformed message dropped", extra={"error": number})
    assert 1 <= len(capsys.readouterr().err.splitlines()) <= 20
