"""exporter/quantities.py: durations and sizes as people write them."""

import pytest

from exporter.quantities import parse_bytes, parse_duration_ns

SECOND_NS = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("15", 15 * SECOND_NS),
        ("2.5", 2_500_000_000),
        ("250us", 250_000),
        ("200ms", 200_000_000),
        ("15s", 15 * SECOND_NS),
        ("2m", 120 * SECOND_NS),
        ("1h", 3600 * SECOND_NS),
        ("1h30m", 5400 * SECOND_NS),
        ("1.5h", 5400 * SECOND_NS),
        ("1d", 86_400 * SECOND_NS),
        ("1d2h3m4s5ms", 93_784_005_000_000),
        ("2w", 14 * 86_400 * SECOND_NS),
    ],
)
def test_a_duration_has_units_or_is_in_seconds(text: str, ns: int) -> None:
    assert parse_duration_ns(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "-1",
        "1 s",
        "1S",
        "1y",
        "15sec",
        "1h30",
        "30m1",
        "1m1h",
        "1h1h",
        "1ms1s",
        "1e3",
        "nan",
        "٣",
        "1_0s",
    ],
)
def test_other_texts_are_no_duration(text: str) -> None:
    assert parse_duration_ns(text) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("64MiB", 64 << 20),
        ("64M", 64 << 20),
        ("64MB", 64 << 20),
        ("64Mi", 64 << 20),
        ("8k", 8 << 10),
        ("8K", 8 << 10),
        ("1G", 1 << 30),
        ("2TiB", 2 << 40),
    ],
)
def test_a_size_has_a_power_of_1024_or_is_in_bytes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5G", "64 MiB", "64mib", "1e9", "64MiBs", "٣", "9" * 5000])
def test_other_texts_are_no_size(text: str) -> None:
    assert parse_bytes(text) is None
