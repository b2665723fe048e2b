"""exporter/tallies/labels.py: bytes of strangers become label values."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.tallies.labels import (
    CELL_LABELS,
    END_LABELS,
    EXCLUDED,
    OTHER,
    OTHER_UID,
    PROGRAM_LABELS,
    UNKNOWN,
    escape_label_value,
    find_folded,
    plain,
    printable,
    uid_label,
    write_cell_labels,
    write_program_labels,
    write_status_labels,
)


@pytest.mark.parametrize(
    ("comm", "text"),
    [
        pytest.param(b"bash", "bash", id="plain"),
        pytest.param(b"", "<empty>", id="empty"),
        pytest.param(b"fifteen bytes!!", "fifteen bytes!!", id="15 bytes"),
        pytest.param(b" a  b ", " a  b ", id="blanks"),
        pytest.param("café".encode(), "café", id="UTF-8"),
        pytest.param("日本語".encode(), "日本語", id="UTF-8 of three bytes"),
        pytest.param("🐍".encode(), "🐍", id="UTF-8 of four bytes"),
        pytest.param(b"\xff", r"\xff", id="no UTF-8"),
        pytest.param(b"fourteen_byte\xc3", r"fourteen_byte\xc3", id="UTF-8 cut at the end"),
        pytest.param(b"\xed\xa0\x80", r"\xed\xa0\x80", id="a surrogate in UTF-8"),
        pytest.param(b"\xc0\xaf", r"\xc0\xaf", id="UTF-8 longer than need be"),
        pytest.param(b"a\nb", r"a\x0ab", id="newline"),
        pytest.param(b"a\r\tb", r"a\x0d\x09b", id="carriage return and tab"),
        pytest.param(b"\x1b[31m", r"\x1b[31m", id="ESC"),
        pytest.param(b"\x7f", r"\x7f", id="DEL"),
        pytest.param("\u0085".encode(), r"\x85", id="next line"),
        pytest.param("a\u2028b".encode(), r"a\u2028b", id="line separator"),
        pytest.param("a\u202eb".encode(), r"a\u202eb", id="right to left"),
        pytest.param("\U000e0041".encode(), r"\U000e0041", id="tag"),
        pytest.param(b'a"b', 'a"b', id="quote"),
        pytest.param(b"a\\b", "a\\b", id="backslash"),
        pytest.param(rb"\xff", r"\xff", id="an escape, typed"),
        pytest.param(b"kworker/u8:1-ext", "kworker", id="kworker"),
        pytest.param(b"kworker/0:1H", "kworker", id="kworker of a CPU"),
        pytest.param(b"kworker/\xff", "kworker", id="kworker with an odd rest"),
        pytest.param(b"kworker", "kworker", id="kworker alone"),
        pytest.param(b"kworkers/1", "kworkers/1", id="not quite kworker"),
        pytest.param(b"my-kworker/1", "my-kworker/1", id="kworker later"),
        pytest.param(b"<unknown>", r"\x3cunknown>", id="calls itself unknown"),
        pytest.param(b"<other>", r"\x3cother>", id="calls itself other"),
        pytest.param(b"<excluded>", r"\x3cexcluded>", id="calls itself excluded"),
        pytest.param(b"<unknown", "<unknown", id="nearly unknown"),
    ],
)
def test_a_comm_becomes_one_line_of_printable_text(comm: bytes, text: str) -> None:
    assert printable(plain(comm)) == text


def test_plain_text_has_no_more_characters_than_the_comm_has_bytes() -> None:
    assert plain(b"\xff\x1b\n<other>") == "\udcff\x1b\n<other>"
    assert [len(plain(comm)) for comm in (b"\xff" * 15, "é".encode() * 7, b"x" * 15)] == [15, 7, 15]


_CODE_POINTS = st.lists(st.integers(0, 0x10FFFF).map(chr), max_size=5)


@given(st.binary(max_size=15) | _CODE_POINTS.map(lambda text: "".join(text).encode("utf-8", "surrogatepass")))
def test_any_comm_becomes_a_label_value_that_cannot_break_a_line(comm: bytes) -> None:
    text = printable(plain(comm))
    assert text.isprintable()
    assert len(text.splitlines()) <= 1
    assert text not in {UNKNOWN, OTHER, EXCLUDED}
    # What is text already stays as it is: encodes, and gives itself again.
    assert printable(plain(text.encode())) == text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain", "plain"),
        ('"', r"\""),
        ("\\", r"\\"),
        ("\n", r"\n"),
        (r"\n", r"\\n"),
        (r"\"", r"\\\""),
        ("é", "é"),
    ],
    ids=["plain", "quote", "backslash", "newline", "a typed \\n", "backslash and quote", "UTF-8"],
)
def test_a_label_value_is_escaped_as_the_text_formats_say(text: str, escaped: str) -> None:
    assert escape_label_value(text) == escaped


def test_the_labels_that_are_written_are_those_that_have_a_name() -> None:
    program = write_program_labels('say "hi"')
    cell = write_cell_labels('say "hi"', 1000)
    end = cell + write_status_labels(11)
    assert end == r'comm="say \"hi\"",uid="1000",exit_code="139",signal="SIGSEGV"'
    for names, text in ((PROGRAM_LABELS, program), (CELL_LABELS, cell), (END_LABELS, end)):
        assert tuple(re.findall(r'(?:^|,)(\w+)="', text)) == names


@pytest.mark.parametrize(
    ("uid", "text"), [(0, "0"), (0xFFFFFFFE, "4294967294"), (None, UNKNOWN), (OTHER_UID, OTHER)]
)
def test_a_uid_is_written_as_its_number_or_as_what_it_stands_for(uid: int | None, text: str) -> None:
    assert uid_label(uid) == text


def test_a_key_is_folded_if_its_comm_or_its_uid_is() -> None:
    keys = [("sh", 0), (UNKNOWN, None), (OTHER, 0), ("sh", OTHER_UID), ("sh", 1), (UNKNOWN, OTHER_UID)]
    assert find_folded(keys, [()] * len(keys)) == [2, 3, 5]
