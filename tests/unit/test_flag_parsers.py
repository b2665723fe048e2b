"""exporter/flag_parsers.py: what each kind of value may be, and that the complaint names its flag."""

import re
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import ConfigError
from exporter.flag_parsers import (
    CountBetween,
    IntervalBetween,
    MayBeEmpty,
    SizeBetween,
    find_group,
    number_up_to,
    parse_mode,
    parse_page_path,
    parse_path,
    parse_speed,
    parse_text,
    parse_uids,
    whole_up_to,
)
from exporter.flags import Parse

GOOD = [
    (parse_text, " as it is", " as it is"),
    (parse_path, "/a/b", Path("/a/b")),
    (MayBeEmpty(parse_path), "", None),
    (MayBeEmpty(parse_path), "c", Path("c")),
    (CountBetween(10, 200), "10", 10),
    (CountBetween(10, 200), "200", 200),
    (IntervalBetween(2, 5), "0", 0.0),
    (IntervalBetween(2, 5), "2.5", 2.5),
    (number_up_to(9), "0.5", 0.5),
    (whole_up_to(2000), "1e3", 1000),
    (parse_speed, "0", 0.0),
    (parse_mode, "0660", 0o660),
    (parse_mode, "666", 0o666),
    (parse_uids, "0, 1000", frozenset({0, 1000})),
    (find_group, "4294967294", 4294967294),
    (find_group, "root", 0),
    (parse_page_path, "/a/b", "/a/b"),
]
BAD = [
    (MayBeEmpty(parse_mode), "9"),
    (CountBetween(10, 200), ""),
    (CountBetween(10, 200), "9"),
    (CountBetween(10, 200), "201"),
    (CountBetween(10, 200), "0011"),
    (IntervalBetween(2, 5), "1"),
    (IntervalBetween(2, 5), "nan"),
    (number_up_to(9), "0"),
    (number_up_to(9), "10"),
    (whole_up_to(9), "1.5"),
    (parse_speed, "-1"),
    (parse_speed, "1e-300"),
    (parse_speed, "fast"),
    (parse_mode, "0999"),
    (parse_uids, "0,root"),
    (parse_uids, "4294967295"),
    (find_group, "no such group"),
    (parse_page_path, "/"),
    (parse_page_path, "/-/reload"),
    (parse_page_path, "/a?b"),
]


@pytest.mark.parametrize(("parse", "text", "value"), GOOD)
def test_a_value_is_what_its_text_says(parse: Parse, text: str, value: Any) -> None:
    parsed = parse("--flag", text)
    assert (type(parsed), parsed) == (type(value), value)


@pytest.mark.parametrize(("parse", "text"), BAD)
def test_a_complaint_names_the_flag_and_the_text(parse: Parse, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^--flag.*{re.escape(repr(text))}$"):
        parse("--flag", text)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("64mb", "; did you mean 64MB?"),
        ("64mib", "; did you mean 64MiB?"),
        ("1g", "; did you mean 1G?"),
        ("4b", ""),
        ("2g", ""),
        ("2G", ""),
        ("64x", ""),
        ("mb", ""),
    ],
)
def test_a_size_in_the_wrong_case_is_asked_about_if_it_would_do_in_the_right_one(text: str, question: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        SizeBetween(4096, 1 << 30)("--flag", text)
    taken = "a size from 4KiB to 1GiB, such as 64MiB or 67108864"
    assert str(refusal.value) == f"--flag must be {taken}, got {text!r}{question}"
