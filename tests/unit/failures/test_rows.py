"""One failure as JSON has it, and in words."""

import pytest
from unit.failures.made import BARE, CLOCK, DUMPED, FAILED, IN_POD, IN_UNIT, KILLED, LABELS, NOWHERE

from exporter.failures.rows import fields_of, shown_duration, shown_end, shown_kib
from exporter.processes.bad_ends import Failure
from exporter.tallies.labels import short_group


def test_a_failure_has_the_names_and_units_of_the_stream() -> None:
    assert fields_of(FAILED, CLOCK) == {
        "time": "2026-11-29T09:58:30.000000Z",
        "pid": 400,
        "ppid": 100,
        "parent_comm": "sh",
        "uid": 1000,
        "comm": "make",
        "exit_code": 2,
        "signal": None,
        "core": False,
        "oom": None,
        "lifetime_seconds": 1.5,
        "cpu_seconds": 0.003,
        "max_rss_bytes": 2 << 20,
        "execs": ["sh", "env"],
    }


def test_what_is_not_known_is_none() -> None:
    fields = fields_of(BARE, CLOCK)
    unknown = {
        "ppid",
        "parent_comm",
        "uid",
        "comm",
        "signal",
        "oom",
        "lifetime_seconds",
        "cpu_seconds",
        "max_rss_bytes",
    }
    assert {name for name, value in fields.items() if value is None} == unknown


@pytest.mark.parametrize(
    ("failure", "end"),
    [
        (FAILED, "exit 2"),
        (KILLED, "SIGKILL"),
        (KILLED._replace(oom=True), "SIGKILL, out of memory"),
        (DUMPED, "SIGSEGV, core"),
    ],
    ids=str,
)
def test_an_end_in_words(failure: Failure, end: str) -> None:
    assert shown_end(failure) == end


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, ""),
        (0, "0 us"),
        (812_400, "812 us"),
        (1_234_567, "1.23 ms"),
        (999_400_000, "999 ms"),
        (999_600_000, "1 s"),
        (1_000_000_000, "1 s"),
        (35_400_000_000, "35.4 s"),
        (60_000_000_000, "1 min"),
        (125_000_000_000, "2 min 5 s"),
        (7_500_000_000_000, "2 h 5 min"),
        (90_061_000_000_000, "1 d 1 h"),
        (400 * 86400 * 1_000_000_000, "400 d"),
    ],
)
def test_a_duration_in_words(ns: int | None, text: str) -> None:
    assert shown_duration(ns) == text


@pytest.mark.parametrize(
    ("kib", "text"),
    [
        (None, ""),
        (0, "0 KiB"),
        (1023, "1023 KiB"),
        (1500, "1.46 MiB"),
        (1022 << 10, "0.998 GiB"),
        (1 << 20, "1 GiB"),
        (5 << 20, "5 GiB"),
    ],
)
def test_memory_in_words(kib: int | None, text: str) -> None:
    assert shown_kib(kib) == text


@pytest.mark.parametrize(
    ("failure", "labels", "shown"),
    [
        (IN_POD, {"namespace": "shop", "pod": "cart-1", "container": "web", "unit": ""}, "shop/cart-1/web"),
        (IN_UNIT, {"namespace": "", "pod": "", "container": "", "unit": "cron.service"}, "cron.service"),
        (NOWHERE, dict.fromkeys(LABELS), ""),
        (FAILED, {}, ""),
    ],
)
def test_where_a_process_ran_is_shown_as_far_as_it_is_known(
    failure: Failure, labels: dict[str, str | None], shown: str
) -> None:
    fields = fields_of(failure, CLOCK)
    assert {name: fields[name] for name in LABELS if name in fields} == labels
    assert short_group(failure.group) == shown
