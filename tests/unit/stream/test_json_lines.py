"""The JSON object of an event and of a loss."""

import json

from hypothesis import given
from hypothesis import strategies as st

from exporter.events import EVENTS
from exporter.kernel.wait_status import exit_code, signal_name
from exporter.processes.observer import Happening, Loss
from exporter.stream.json_lines import json_line
from exporter.stream.wall_clock import WallClock

CLOCK = WallClock(1_700_000_000_123_456_789, 1_000)
EXIT = Happening(
    2_000, "exit", 4194304, 4194304, 1, 1000, "fifteen-letters", 0x0B, True, 12_345_678, 999, 2048, oom=False
)
SHORT = Happening(1_000, "fork", 8, 8, 7, None, None)
LOSS = Loss(1_000, "connector", 12)


def test_an_object_has_every_key_and_null_for_a_value_that_is_not_known() -> None:
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
        "oom": False,
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


def test_an_object_says_where_its_process_ran_as_far_as_that_is_asked_for() -> None:
    group = (("namespace", "shop"), ("pod", "cart-1"), ("container", "<unknown>"), ("unit", ""))
    shown = json.loads(json_line(EXIT._replace(group=group), CLOCK))
    assert {name: shown[name] for name, _ in group} == {
        "namespace": "shop", "pod": "cart-1", "container": None, "unit": "",
    }  # fmt: skip
    assert shown.keys() - json.loads(json_line(EXIT, CLOCK)).keys() == {name for name, _ in group}


NS = st.none() | st.integers(0, 2**63)
IDS = st.integers(0, 2**32 - 1)
GROUPS = st.lists(
    st.tuples(st.sampled_from(["namespace", "pod", "container", "unit"]), st.text()), unique_by=lambda g: g[0]
)


@given(
    st.builds(
        Happening,
        st.integers(0, 2**62),
        st.sampled_from(sorted(EVENTS)),
        IDS,
        IDS,
        st.none() | IDS,
        st.none() | IDS,
        st.none() | st.text(),
        st.none() | st.integers(0, 0xFF7F),
        st.none() | st.booleans(),
        NS,
        NS,
        st.none() | st.integers(0, 2**40),
        GROUPS.map(tuple),
        st.none() | st.booleans(),
    )
)
def test_any_happening_is_one_line_of_json_with_its_values(happening: Happening) -> None:
    line = json_line(happening, CLOCK)
    assert "\n" not in line
    shown = json.loads(line)
    status = happening.status
    assert list(shown.values()) == [
        CLOCK.utc(happening.time_ns),
        happening.event,
        happening.pid,
        happening.tgid,
        happening.ppid,
        happening.uid,
        happening.comm,
        *(None if value in {"<unknown>", "<other>"} else value for _, value in happening.group),
        None if status is None else exit_code(status),
        None if status is None else signal_name(status) or None,
        happening.core,
        happening.oom,
        None if happening.lifetime_ns is None else happening.lifetime_ns / 1e9,
        None if happening.cpu_ns is None else happening.cpu_ns / 1e9,
        None if happening.max_rss_kib is None else happening.max_rss_kib * 1024,
    ]
