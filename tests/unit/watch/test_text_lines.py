"""Lines of text: 80 columns, whatever a process calls itself."""

import time

import pytest

from exporter.processes.observer import Happening, Loss
from exporter.stream.wall_clock import WallClock
from exporter.watch.text_lines import HEAD, WHERE, fit, short_duration, text_line

CLOCK = WallClock(1_700_000_000_123_456_789, 1_000)
EXIT = Happening(2_000, "exit", 4194304, 4194304, 1, 1000, "fifteen-letters", 0x0B, True, 12_345_678, 999, 2048)
SHORT = Happening(1_000, "fork", 8, 8, 7, None, None)
LOSS = Loss(1_000, "connector", 12)


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
def test_no_comm_pushes_the_columns_out_of_place(comm: str) -> None:
    line = text_line(EXIT._replace(comm=comm), CLOCK, color=False)
    _, _, behind = line.partition(fit(comm, 15))
    assert behind == text_line(EXIT, CLOCK, color=False).partition("fifteen-letters")[2]


def test_a_line_has_the_local_time_and_how_the_process_ended() -> None:
    line = text_line(EXIT, CLOCK, color=False)
    assert line.startswith(time.strftime("%H:%M:%S.123", time.localtime(1_700_000_000)))
    assert line.split()[-4:] == ["SEGV+core", "12ms", "1.0us", "2.0M"]


@pytest.mark.parametrize(("oom", "shown"), [(True, "KILL oom"), (False, "KILL"), (None, "KILL")])
def test_a_line_says_that_the_oom_killer_was_it(oom: bool | None, shown: str) -> None:
    killed = EXIT._replace(status=9, core=False, oom=oom)
    line = text_line(killed, CLOCK, color=False)
    assert line[HEAD.index("END") :][:10] == f"{shown:9} "
    assert len(line) <= 80


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


@pytest.mark.parametrize(
    ("values", "where"),
    [
        (("shop", "cart-1", "web", ""), "shop/cart-1/web"),
        (("", "", "3f2a90c1b7de", "docker.service"), "3f2a90c1b7de docker.service"),
        (("", "", "", "cron.service"), "cron.service"),
        (("<unknown>",) * 4, ""),
        (("",) * 4, ""),
    ],
)
def test_a_line_ends_with_where_its_process_ran(values: tuple[str, ...], where: str) -> None:
    names = ("namespace", "pod", "container", "unit")
    for news in (EXIT, SHORT):
        line = text_line(news._replace(group=tuple(zip(names, values, strict=True))), CLOCK, color=False)
        assert line[len(HEAD) + 1 :] == where
        assert line[: len(HEAD)].rstrip() == text_line(news, CLOCK, color=False)
    assert WHERE.strip() == "WHERE"
