"""The table of `watch --top`."""

import pytest

from exporter.processes.observer import Happening, Loss
from exporter.watch.text_lines import fit
from exporter.watch.top_table import TopTable

EXIT = Happening(2_000, "exit", 4194304, 4194304, 1, 1000, "fifteen-letters", 0x0B, True, 12_345_678, 999, 2048)
SHORT = Happening(1_000, "fork", 8, 8, 7, None, None)
LOSS = Loss(1_000, "connector", 12)


def rows(table: TopTable, seconds: float = 2.0, size: tuple[int, int] = (80, 24)) -> list[list[str]]:
    return [line.split() for line in table.lines(seconds, size, "title")[3:]]


def test_the_table_has_rates_of_the_last_interval_and_sums_of_all() -> None:
    table = TopTable("exits")
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
def test_the_table_is_sorted_by_the_column_that_was_asked_for(sort: str, first: str) -> None:
    end = EXIT._replace(status=0, lifetime_ns=1, cpu_ns=1)
    table = TopTable(sort)
    table.add([end._replace(comm="often")] * 3)
    table.add([end._replace(comm="bad", status=9), end._replace(comm="long", lifetime_ns=10**12)])
    table.add([end._replace(comm="busy", cpu_ns=10**12)])
    table.add([SHORT._replace(comm="parent"), SHORT._replace(comm="parent", event="exec")])
    assert rows(table)[0][0] == first


@pytest.mark.parametrize("comm", ["\\xff" * 15, "日本語日本", "\\U000e0001" * 3], ids=ascii)
def test_no_comm_pushes_the_columns_out_of_place(comm: str) -> None:
    table = TopTable("exits")
    table.add([EXIT._replace(comm=comm)])
    [row] = table.lines(1.0, (80, 24), "title")[3:]
    assert row.startswith(f"{fit(comm, 15)}       0.0")
    assert table.lines(1.0, (9, 24), "title")[3] == fit(comm, 9).rstrip()


def test_the_table_fits_the_screen() -> None:
    table = TopTable("exits")
    table.add([EXIT._replace(comm=f"name{n}") for n in range(100)])
    lines = table.lines(1.0, (80, 24), "12:00:00 taskstats")
    assert len(lines) == 24
    assert max(map(len, lines)) <= 80
    assert max(map(len, table.lines(1.0, (40, 24), "12:00:00 taskstats"))) <= 40


def test_any_number_of_names_takes_a_limited_number_of_rows() -> None:
    table = TopTable("exits")
    for n in range(20_000):
        table.add([EXIT._replace(comm=f"name{n}")])
        if n % 100 == 0:
            table.lines(1.0, (80, 24), "title")
    assert int(table.lines(1.0, (80, 24), "title")[0].split()[1]) <= 4096 + 200


def test_with_groups_there_is_a_row_for_each_place_of_a_comm() -> None:
    table = TopTable("exits", grouped=True)
    cart = EXIT._replace(comm="sh", group=(("namespace", "shop"), ("pod", "cart-0"), ("container", "web")))
    cron = EXIT._replace(comm="sh", group=(("unit", "cron.service"),))
    table.add([cart, cart, cron])
    lines = table.lines(1.0, (80, 24), "title")
    assert lines[2].endswith(" WHERE")
    assert [(line.split()[0], line.split()[3], line.split()[-1]) for line in lines[3:]] == [
        ("sh", "2.0", "shop/cart-0/web"),
        ("sh", "1.0", "cron.service"),
    ]
    # The usual names fit beside the counts.
    assert max(map(len, lines)) <= 80
