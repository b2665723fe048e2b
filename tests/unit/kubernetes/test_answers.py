"""exporter/kubernetes/answers.py: lists and events, cut anywhere."""

import contextlib
import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes_api import make_pod, pod_of

from exporter.errors import ApiFailure
from exporter.kubernetes.answers import LineReader, ListReader, parse_event, parse_status_message
from exporter.kubernetes.json_values import LONGEST
from exporter.kubernetes.pods import parse_pod


def read_list(data: bytes, piece_bytes: int = 1 << 16) -> tuple[list[Any], ListReader]:
    reader = ListReader()
    items: list[Any] = []
    for at in range(0, len(data), piece_bytes):
        items += reader.feed(data[at : at + piece_bytes])
    return items + list(reader.close()), reader


def read_lines(data: bytes, piece_bytes: int, longest: int = LONGEST) -> tuple[list[bytes], LineReader]:
    reader = LineReader(longest)
    lines = []
    for at in range(0, len(data), piece_bytes):
        lines += list(reader.feed(data[at : at + piece_bytes]))
    return lines, reader


# -- lists -------------------------------------------------------------------------------------------------------

_TEXT = st.text(max_size=6)
_ITEMS = st.lists(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


# On a busy machine the examples take longer to make than hypothesis finds healthy.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(_ITEMS, st.integers(1, 40), st.booleans(), st.sampled_from((None, 1)), st.permutations(range(4)))
def test_a_list_is_read_however_it_is_written_and_cut(
    items: list[Any], piece_bytes: int, ascii_only: bool, indent: int | None, order: list[int]
) -> None:
    fields = [
        ("kind", "PodList"),
        ("metadata", {"resourceVersion": "77", "continue": "next", "remainingItemCount": 9}),
        ("items", items),
        ("extra", [{"items": [1]}, 12, "]}"]),
    ]
    text = json.dumps(dict(fields[i] for i in order), ensure_ascii=ascii_only, indent=indent)
    found, reader = read_list(text.encode("utf-8", "surrogatepass") + b"\n", piece_bytes)
    # A character for each byte: names are ASCII.
    assert found == json.loads(text.encode("utf-8", "surrogatepass").decode("latin-1"))["items"]
    assert (reader.resource_version, reader.continue_token) == ("77", "next")


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 5])
def test_a_number_is_read_whole_wherever_it_is_cut(piece_bytes: int) -> None:
    numbers = [-0.0, 0.5, 12, 1e22, -3.25e-7]
    text = json.dumps({"items": numbers, "metadata": {"resourceVersion": "7", "remainingItemCount": 120}, "x": 12})
    assert read_list(text.encode(), piece_bytes)[0] == numbers


def test_an_empty_list_may_be_null() -> None:
    items, reader = read_list(b'{"metadata": {"resourceVersion": "5"}, "items": null}')
    assert (items, reader.resource_version, reader.continue_token) == ([], "5", "")


def test_a_list_that_is_cut_anywhere_is_not_complete() -> None:
    whole = json.dumps({"metadata": {"resourceVersion": "5"}, "items": [pod_of("cart-0", "cart")[0], 12]}).encode()
    for length in range(len(whole)):
        with pytest.raises(ApiFailure) as caught:
            read_list(whole[:length])
        assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"<html>", b'{"items": [}', b'{"items" []}', b"{7: 8}", b'{"items": [' + b"[" * 200_000],
)
def test_what_is_no_list_is_malformed(data: bytes) -> None:
    with pytest.raises(ApiFailure, match="list"):
        read_list(data)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_are_a_list_or_malformed(data: bytes, piece_bytes: int) -> None:
    with contextlib.suppress(ApiFailure):
        read_list(b'{"items": [' + data, piece_bytes)


# Some take 40 times as much memory when they are decoded.
TOO_LARGE = {
    "long": b'{"name": "' + b"x" * 400_000 + b'"}',
    "objects": b'{"a": [' + b'{"":0},' * 30_000 + b"0]}",
    "lists": b'{"a": [' + b"[]," * 60_000 + b"0]}",
    "texts": b'{"a": ["' + b'a","' * 50_000 + b'"]}',
    "brackets in texts": b'{"a": "' + rb"[\"{\\\\" * 10_000 + b'"}',
    "an emoji": b'{"a": "' + b"x" * 400_000 + '\N{GRINNING FACE}"}'.encode(),
}


@pytest.mark.parametrize("piece_bytes", [4093, 1 << 18])
@pytest.mark.parametrize("item", TOO_LARGE.values(), ids=TOO_LARGE)
def test_an_item_that_would_take_too_much_memory_is_left_out_and_no_other(item: bytes, piece_bytes: int) -> None:
    data = b'{"items": [{"a": 1}, ' + item + b', {"b": 2}], "metadata": {"resourceVersion": "5"}}'
    reader = ListReader(longest=1 << 17, most_values=10_000)
    found: list[Any] = []
    tracemalloc.start()
    try:
        for at in range(0, len(data), piece_bytes):
            found += reader.feed(data[at : at + piece_bytes])
        found += reader.close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found, reader.skipped, reader.resource_version) == ([{"a": 1}, {"b": 2}], 1, "5")
    # What is tried to decode can be twice as long, and is held with its copy.
    assert peak < 6 << 20


@pytest.mark.parametrize("item", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_line_that_would_take_too_much_memory_is_left_out_and_no_other(item: bytes) -> None:
    reader = LineReader(longest=1 << 17, most_values=10_000)
    lines = b"1\n" + item + b"\n2\n"
    found = [line for at in range(0, len(lines), 4093) for line in reader.feed(lines[at : at + 4093])]
    assert found == [b"1", b"2"]
    assert reader.skipped == 1


def test_many_small_items_that_come_at_once_are_read_one_at_a_time() -> None:
    """They have more values than one item may have, and come behind a long one."""
    data = b'{"items": [{"name": "' + b"x" * 500_000 + b'"}' + b', {"":0}' * 50_000 + b'], "metadata": {}}'
    reader = ListReader(longest=1 << 20, most_values=1000)
    assert sum(1 for _ in reader.feed(data)) == 50_001
    assert (list(reader.close()), reader.skipped) == ([], 0)


@pytest.mark.parametrize("start", [b'{"metadata": {"a": "', b'{"kind": "', b'{"items": ["', b'{"items": [', b'{"'])
def test_what_is_too_long_beside_an_item_is_malformed(start: bytes) -> None:
    reader = ListReader(longest=1 << 16)
    with pytest.raises(ApiFailure, match="too long"):  # noqa: PT012 - it is one of them that raises
        for piece in (start, *[b"1" * 4096] * 64):
            list(reader.feed(piece))


def test_a_list_of_a_thousand_pods_is_read_one_at_a_time() -> None:
    """The list is 20 MB; what is held of it is a piece and a pod."""
    pods = [json.dumps(pod_of(f"cart-{i}", "cart", padding="x" * 20_000)[0]).encode() for i in range(1000)]
    data = b'{"metadata": {"resourceVersion": "5"}, "items": [' + b",".join(pods) + b"]}"
    assert len(data) > 20_000_000
    reader = ListReader()
    names = []
    tracemalloc.start()
    try:
        for at in range(0, len(data), 1 << 16):
            for item in reader.feed(data[at : at + (1 << 16)]):
                pod = parse_pod(item)
                assert pod is not None
                names.append(pod.name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    names += [item["metadata"]["name"] for item in reader.close()]
    assert names == [f"cart-{i}" for i in range(1000)]
    assert peak < 2 << 20


def test_the_longest_pod_takes_time_in_proportion_to_its_length() -> None:
    """To try to decode it with each piece would take 256 times as long for 16 times the length."""

    def take_seconds(length: int) -> float:
        data = b'{"items": [' + json.dumps(make_pod("cart-0", padding="<" * length)).encode() + b"]}"
        taken = []
        for _ in range(3):
            start = time.process_time()
            items, _reader = read_list(data, 1 << 12)
            taken.append(time.process_time() - start)
            assert [item["metadata"]["name"] for item in items] == ["cart-0"]
        return min(taken)

    assert take_seconds(8_000_000) <= 80 * take_seconds(500_000)


# -- lines and events --------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line), max_size=8), st.integers(1, 30))
def test_lines_are_the_same_however_they_are_cut(lines: list[bytes], piece_bytes: int) -> None:
    found, _ = read_lines(b"".join(line + b"\n" for line in lines) + b"rest", piece_bytes)
    assert found == [line for line in lines if line]


@pytest.mark.parametrize("piece_bytes", [1, 7, 1000])
def test_a_line_that_is_too_long_is_skipped_and_counted(piece_bytes: int) -> None:
    found, reader = read_lines(b"a\n" + b"b" * 101 + b"\n" + b"c" * 100 + b"\nd\n", piece_bytes, longest=100)
    assert (found, reader.skipped) == ([b"a", b"c" * 100, b"d"], 1)


def test_of_a_line_without_end_nothing_is_held() -> None:
    reader = LineReader(longest=1 << 20)
    tracemalloc.start()
    try:
        for _ in range(1 << 8):
            assert list(reader.feed(bytes(1 << 16))) == []
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED"])
def test_an_event_has_its_pod_and_where_to_go_on(kind: str) -> None:
    pod = make_pod("cart-0")
    pod["metadata"]["resourceVersion"] = "1007"
    event = parse_event(json.dumps({"type": kind, "object": pod}).encode())
    assert event == (kind, "1007", parse_pod(pod))
    assert event.pod is not None


def test_a_bookmark_has_only_where_to_go_on() -> None:
    line = b'{"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": "9"}}}'
    assert parse_event(line) == ("BOOKMARK", "9", None)


@pytest.mark.parametrize(
    ("code", "reason"), [(410, "expired"), (500, "status"), ("410", "status"), (None, "status"), ([[]], "status")]
)
def test_an_error_is_raised(code: Any, reason: str) -> None:
    line = json.dumps({"type": "ERROR", "object": {"code": code, "message": "too old"}}).encode()
    with pytest.raises(ApiFailure, match="too old") as caught:
        parse_event(line)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "line", [b"{", b"7", b"{}", b'{"type": "ADDED"}', b'{"object": []}', b"\xff", b"[" * 200_000, b"[0," * 200_000]
)
def test_what_is_no_event_is_malformed(line: bytes) -> None:
    with pytest.raises(ApiFailure) as caught:
        parse_event(line)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize("key", ["type", "code", "message", "metadata"])
def test_a_deep_value_where_a_text_is_due_is_no_bug(key: str) -> None:
    """To print what could just be decoded can be too deep."""
    for depth in range(300, 1100):
        deep = "[" * depth + "]" * depth
        kind = deep if key == "type" else '"ERROR"'
        of_object = "{}" if key == "type" else f'{{"{key}": {deep}}}'
        with contextlib.suppress(ApiFailure):
            parse_event(f'{{"type": {kind}, "object": {of_object}}}'.encode())


def test_a_version_that_is_too_long_to_ask_for_is_none() -> None:
    metadata = {"resourceVersion": "7" * 10_000, "continue": "x" * 10_000}
    line = json.dumps({"type": "BOOKMARK", "object": {"metadata": metadata}}).encode()
    assert parse_event(line).resource_version == ""
    _, reader = read_list(json.dumps({"items": [], "metadata": metadata}).encode())
    assert (reader.resource_version, reader.continue_token) == ("", "")


@given(st.binary(max_size=60))
def test_any_line_is_an_event_or_malformed(line: bytes) -> None:
    with contextlib.suppress(ApiFailure):
        parse_event(line)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"kind": "Status", "message": "pods is forbidden"}', "pods is forbidden"),
        (b'{"message": 7}', ""),
        ('{"message": "kein Zugang für \N{GRINNING FACE}"}'.encode(), "kein Zugang für \N{GRINNING FACE}"),
        (b'{"message": "\\u00fc\\ud83d\\ude00"}', "\N{LATIN SMALL LETTER U WITH DIAERESIS}\N{GRINNING FACE}"),
        (b"<html>", ""),
        (b'{"message": "' + b"x" * 1000 + b'"}', "x" * 300),
    ],
)
def test_the_api_says_why_it_refuses(body: bytes, message: str) -> None:
    assert parse_status_message(body) == message
