"""The page of the failures, as a browser takes it apart."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.failures.made import ALL, BARE, CLOCK, DUMPED, FAILED, GROUPED, LABELS, NOW_NS, SECOND

from exporter.failures.page import Shown, render_page
from exporter.failures.selection import FILTERS
from exporter.processes.bad_ends import Failure
from exporter.tallies.labels import plain, printable


class Page(HTMLParser):
    """What is on a page: its tags, the texts of its cells, links and fields."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self.fields: dict[str, str] = {}
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.attributes |= set(given)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
        elif tag == "a":
            self.links.append(given["href"] or "")
        elif tag == "input":
            self.fields[given["name"] or ""] = given["value"] or ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def page_of(*failures: Failure, left_out: int = 0, query: tuple[tuple[str, str], ...] = ()) -> Page:
    shown = Shown(failures, len(ALL), left_out, NOW_NS, CLOCK, query)
    return Page("".join(render_page(shown)))


def test_each_failure_has_a_row_with_all_that_is_known() -> None:
    page = page_of(DUMPED._replace(execs=()), FAILED)
    assert [[cell.strip() for cell in row] for row in page.rows] == [
        ["time", "program", "end", "uid", "pid", "parent", "lived", "CPU", "memory", "execs"],
        [
            "2026-11-29 09:59:30 30 s ago", "make", "SIGSEGV, core", "1000", "402", "sh (100)", "1.5 s", "3 ms",
            "2 MiB", "",
        ],
        [
            "2026-11-29 09:58:30 1 min 30 s ago", "make", "exit 2", "1000", "400", "sh (100)", "1.5 s", "3 ms",
            "2 MiB", "sh → env → make",
        ],
    ]  # fmt: skip


def test_what_is_not_known_is_an_empty_cell() -> None:
    page = page_of(BARE)
    assert [cell.strip() for cell in page.rows[1]] == [
        "2026-11-29 10:00:00 now", "<unknown>", "exit 1", "<unknown>", "403", "", "", "", "", "",
    ]  # fmt: skip


def test_a_parent_without_a_name_has_its_pid() -> None:
    assert page_of(FAILED._replace(parent_comm=None)).rows[1][5].strip() == "? (100)"


def test_the_form_has_what_the_client_asked_for() -> None:
    page = page_of(FAILED, query=(("comm", 'a"b'), ("comm", "other"), ("since", "15m")))
    assert page.fields == {"comm": 'a"b', "uid": "", "exit_code": "", "signal": "", "oom": "", "since": "15m"}
    assert "?comm=a%22b&comm=other&since=15m&format=json" in page.links


def test_every_filter_has_a_field() -> None:
    assert set(page_of(FAILED).fields) == set(FILTERS)


def test_a_program_links_to_its_failures_with_the_same_end() -> None:
    assert "?comm=make&exit_code=2" in page_of(FAILED).links


def test_the_numbers_say_what_is_not_shown() -> None:
    assert "1 of 4 that are kept" in page_of(FAILED).text
    assert "left out" not in page_of(FAILED).text
    assert "1,234 more were left out" in page_of(FAILED, left_out=1234).text


def test_without_a_failure_there_is_no_table() -> None:
    page = page_of()
    assert "table" not in page.tags
    assert "None." in page.text


def test_nothing_is_loaded_or_run() -> None:
    page = page_of(*ALL.values())
    assert not {"script", "img", "iframe", "object"} & set(page.tags)
    assert not {name for name in page.attributes if name.startswith("on")}
    assert "default-src 'none'" in "".join(render_page(Shown((), 0, 0, 0, CLOCK, ())))


def test_a_clock_that_was_set_back_makes_no_negative_age() -> None:
    assert page_of(FAILED._replace(time_ns=NOW_NS + SECOND)).rows[1][0].endswith("now")


COMMS = st.one_of(
    st.binary(max_size=15),
    st.sampled_from(
        [
            b"<script>alert(1",
            b'"><img src=x on',
            b"'onload=alert(1)",
            b"&lt;b&gt;",
            b"</td></table>",
            b"\n<b>\0",
            b"<!--",
        ]
    ),
)


@given(comms=st.lists(COMMS, min_size=5, max_size=5), asked=st.text(max_size=20))
def test_a_hostile_comm_is_a_text_and_nothing_else(comms: list[bytes], asked: str) -> None:
    names = [printable(plain(comm)) for comm in comms]
    failure = FAILED._replace(comm=names[0], parent_comm=names[1], execs=tuple(names[2:]))
    query = (("comm", asked),)
    page, harmless = page_of(failure, query=query), page_of(FAILED, query=(("comm", "x"),))
    assert page.tags == harmless.tags
    assert page.attributes == harmless.attributes
    assert page.rows[1][1] == names[0]
    assert page.rows[1][5] == f"{names[1]} (100)"
    assert page.rows[1][9].rstrip("\n") == " → ".join([*names[2:], names[0]])
    assert page.fields["comm"].replace("\r\n", "\n") == asked.replace("\r\n", "\n")


@pytest.mark.parametrize("count", [49, 50, 51, 1000])
def test_a_long_page_comes_in_pieces_and_whole(count: int) -> None:
    shown = Shown([FAILED] * count, count, 0, NOW_NS, CLOCK, ())
    pieces = list(render_page(shown))
    assert len(Page("".join(pieces)).rows) == count + 1
    assert max(map(len, pieces)) < 50 * 1000


def test_with_groups_the_page_says_where_and_filters_by_that() -> None:
    shown = Shown(list(GROUPED.values()), 3, 7, NOW_NS, CLOCK, (("pod", "cart-*"),), LABELS)
    page = Page("".join(render_page(shown)))
    assert [row[-1].strip() for row in page.rows] == ["where", "shop/cart-1/web", "cron.service", ""]
    assert {name: page.fields[name] for name in LABELS} == {
        "namespace": "", "pod": "cart-*", "container": "", "unit": "",
    }  # fmt: skip
    assert "?namespace=shop&pod=cart-1&container=web" in page.links
    assert "of one program and end in one place more than 20" in page.text


def test_without_groups_the_page_says_nothing_of_them() -> None:
    page = page_of(FAILED)
    assert page.rows[0][-1].strip() == "execs"
    assert set(page.fields) == {"comm", "uid", "exit_code", "signal", "oom", "since"}
