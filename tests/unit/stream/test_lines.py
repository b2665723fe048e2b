"""Lines: JSON for programs, 80 columns for people."""

import json
import time

import pytest

from exporter.processes.observer import Happening, Loss
from exporter.stream.lines import HEAD, Summary, WallClock, fit, json_line, short_duration, text_line
from exporter.watch.top import Table

CLOCK = WallClock(1_700_000_000_123_456_789, 1_000)
EXIT = Happening(2_000, "exit", 4194304, 4194304, 1, 1000, "fifteen-letters", 0x0B, True, 12_345_678, 999, 2048)
SHORT = Happening(1_000, "fork", 8, 8, 7, None, None)
LOSS = Loss(1_000, "connector", 12)


def test_an_object_has_every_key_and_null_for_what_is_not_known() -> None:
    assert json.loads(json_line(EXIT, CLOCK)) == {
        "time": "2023-11-14T22:13:20.123457Z",
        "event": "exit",
        "pid": 4194304,
        "tgid": 4194304,
        "ppid": 1,
        "uid": 1000,
        "comm": "fifteen-letters",
        "exit_code": 139,
        "signal": "SIGSEGV",
        "core": True,
        "lifetime_seconds": 0.012345678,
        "cpu_seconds": 0.000000999,
        "max_rss_bytes": 2097152,
    }
    fork = json.loads(json_line(SHORT, CLOCK))
    assert fork.keys() == json.loads(json_line(EXIT, CLOCK)).keys()
    assert {key for key, value in fork.items() if value is not None} == {"time", "event", "pid", "tgid", "ppid"}
    assert json.loads(json_line(EXIT._replace(status=0x300), CLOCK))["signal"] is None


def test_a_loss_is_an_object_of_its_own() -> None:
    assert json.loads(json_line(LOSS, CLOCK)) == {
        "time": "2023-11-14T22:13:20.123456Z", "event": "lost", "socket": "connector", "messages": 12,
    }  # fmt: skip


@pytest.mark.parametrize("news", [EXIT, SHORT, LOSS], ids=["exit", "fork", "loss"])
def test_a_line_fits_80_columns_below_its_head(news: Happening | Loss) -> None:
    line = text_line(news, CLOCK, color=False)
    assert len(line) <= 80
    assert len(HEAD) <= 80
    if isinstance(news, Happening):
        assert line[HEAD.index("COMM") :].startswith(news.comm or "?")
        assert line[HEAD.index("EVENT") :].startswith(news.event)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "     "), ("sh", "sh   "), ("seven", "seven"), ("sevenf", "seve…"), ("\\xff\\x1b", "\\xff…"),
        ("日本", "日本 "), ("日本語", "日本…"), ("a日本", "a日本"), ("ab日本", "ab日…"), ("日本ab", "日本…"),
        ("e\u0301e\u0301", "e\u0301e\u0301   "),
    ],
)  # fmt: skip
def test_a_text_takes_the_columns_that_it_may(text: str, shown: str) -> None:
    assert fit(text, 5) == shown


@pytest.mark.parametrize("comm", ["\\xff" * 15, "日本語日本", "\\U000e0001" * 3], ids=ascii)
def test_no_name_pushes_the_columns_out_of_place(comm: str) -> None:
    line = text_line(EXIT._replace(comm=comm), CLOCK, color=False)
    _, _, behind = line.partition(fit(comm, 15))
    assert behind == text_line(EXIT, CLOCK, color=False).partition("fifteen-letters")[2]
    table = Table("exits")
    table.add([EXIT._replace(comm=comm)])
    [row] = table.lines(1.0, (80, 24), "title")[3:]
    assert row.startswith(f"{fit(comm, 15)}       0.0")
    assert table.lines(1.0, (9, 24), "title")[3] == fit(comm, 9).rstrip()


def test_a_line_tells_the_local_time_and_how_it_ended() -> None:
    line = text_line(EXIT, CLOCK, color=False)
    assert line.startswith(time.strftime("%H:%M:%S.123", time.localtime(1_700_000_000)))
    assert line.split()[-4:] == ["SEGV+core", "12ms", "1.0us", "2.0M"]


def test_colors_are_for_terminals() -> None:
    assert "\x1b" not in text_line(EXIT, CLOCK, color=False)
    assert text_line(EXIT, CLOCK, color=True).startswith("\x1b[1;31m")
    assert text_line(EXIT, CLOCK, color=True).endswith("\x1b[0m")


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (None, ""), (0, "0"), (999, "1.0us"), (9_949, "9.9us"), (9_951, "10us"), (999_400, "999us"),
        (999_600, "1.0ms"), (59 * 10**9, "59s"), (60 * 10**9, "1m"), (99 * 60 * 10**9, "99m"),
        (6000 * 10**9, "1h"), (10**15, "11d"),
    ],
)  # fmt: skip
def test_a_duration_takes_five_columns(ns: int | None, shown: str) -> None:
    assert short_duration(ns) == shown
    assert len(shown) <= 5


def test_a_summary_counts_what_was_told() -> None:
    summary = Summary()
    summary.add([EXIT, EXIT._replace(status=0), SHORT, LOSS])
    assert json.loads(summary.json_line()) == {
        "event": "summary", "exit": 2, "nonzero_exit": 1, "fork": 1, "lost": 12,
    }  # fmt: skip
    assert summary.text() == "         2 exit\n         1 nonzero_exit\n         1 fork\n        12 lost\n"


# -- top -----------------------------------------------------------------------------------------------------


def rows(table: Table, seconds: float = 2.0, size: tuple[int, int] = (80, 24)) -> list[list[str]]:
    return [line.split() for line in table.lines(seconds, size, "title")[3:]]


def test_the_table_tells_rates_of_the_last_interval_and_sums_of_all() -> None:
    table = Table("exits")
    end = EXIT._replace(comm="make", lifetime_ns=2_000_000, cpu_ns=1_000_000)
    fork = SHORT._replace(comm="make")
    table.add([fork, fork, fork, fork, fork._replace(event="exec"), end, end._replace(status=0), LOSS])
    assert rows(table) == [["make", "2.0", "0.5", "1.0", "1", "2.0ms", "2.0ms"]]
    assert rows(table) == [["make", "0.0", "0.0", "0.0", "1", "2.0ms", "2.0ms"]]
    assert "12 lost" in table.lines(1.0, (80, 24), "title")[0]


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("exits", "often"), ("failed", "bad"), ("lived", "long"), ("cpu", "busy"), ("comm", "bad"),
        ("forks", "parent"), ("execs", "parent"),
    ],
)  # fmt: skip
def test_the_table_is_sorted_by_what_was_asked_for(sort: str, first: str) -> None:
    end = EXIT._replace(status=0, lifetime_ns=1, cpu_ns=1)
    table = Table(sort)
    table.add([end._replace(comm="often")] * 3)
    table.add([end._replace(comm="bad", status=9), end._replace(comm="long", lifetime_ns=10**12)])
    table.add([end._replace(comm="busy", cpu_ns=10**12)])
    table.add([SHORT._replace(comm="parent"), SHORT._replace(comm="parent", event="exec")])
    assert rows(table)[0][0] == first


def test_the_table_fits_the_screen() -> None:
    table = Table("exits")
    table.add([EXIT._replace(comm=f"name{n}") for n in range(100)])
    lines = table.lines(1.0, (80, 24), "12:00:00 taskstats")
    assert len(lines) == 24
    assert max(map(len, lines)) <= 80
    assert max(map(len, table.lines(1.0, (40, 24), "12:00:00 taskstats"))) <= 40


def test_names_without_end_do_not_fill_the_memory() -> None:
    table = Table("exits")
    for n in range(20_000):
        table.add([EXIT._replace(comm=f"name{n}")])
        if n % 100 == 0:
            table.lines(1.0, (80, 24), "title")
    assert int(table.lines(1.0, (80, 24), "title")[0].split()[1]) <= 4096 + 200
