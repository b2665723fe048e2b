"""exporter/kubernetes/json_values.py: what may be decoded at once, and where the rest ends."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import ApiFailure
from exporter.kubernetes.json_values import Skipping, as_written, cut, decode, text_of

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def count(value: Any) -> int:
    """Count the values in a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(count, inner))


@given(_VALUES)
def test_no_text_has_more_values_than_are_counted(value: Any) -> None:
    text = json.dumps(value)
    assert count(value) - 1 <= sum(text.count(mark) for mark in "[{,")


def test_a_text_with_too_many_values_is_cut_before_its_end() -> None:
    text = "[" + "0," * 200_000 + "0]"
    assert 10_000 < cut(text, 10_000) < 100_000
    assert cut(text, 300_000) == len(text)
    with pytest.raises(ApiFailure, match="too many values"):
        decode(b"[" + b"0," * 600_000 + b"0]")


@given(st.lists(_VALUES, max_size=3), st.booleans(), st.integers(1, 9))
def test_the_end_of_what_is_skipped_is_found_wherever_it_is_cut(value: Any, is_object: bool, piece: int) -> None:
    text = json.dumps({"a": value} if is_object else value, ensure_ascii=False)
    for rest in ("", ", {}", "]"):
        skipping, position = Skipping(), 0
        whole = text + rest
        while (after := skipping.feed(whole[position : position + piece])) is None:
            position += piece
            assert position < len(text)
        assert position + after == len(text)


def test_a_text_for_people_is_as_it_was_written() -> None:
    for text in ("plain", "für", "\N{GRINNING FACE}"):
        assert as_written(text_of(text.encode())) == text
        assert as_written(decode(json.dumps(text).encode())) == text
