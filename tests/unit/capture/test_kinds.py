"""The kinds of entries: the arguments of a call are read back as they were, and each kind is documented."""

import inspect
import re
import struct
from pathlib import Path
from typing import Any

import builders
import pytest

from exporter.capture.kinds import (
    KINDS,
    READ_COMM,
    CommRead,
    Kind,
    decode_comm_read,
    encode_comm_read,
    encode_pids,
)
from exporter.errors import CaptureError
from exporter.groups.cgroup_path import Placement
from exporter.kernel.netlink import Batch
from exporter.kernel.procfs import ProcessInfo
from exporter.processes.grouping import Found
from exporter.processes.pipeline import Pipeline
from exporter.processes.places import PodContainer, PodName
from exporter.processes.process import KnownProcess

DOCS = Path(__file__).parents[3] / "docs" / "capture.md"
BY_NAME = {kind.name: kind for kind in KINDS}
CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("apply", (1 << 60, None)),
    ("apply", (0, 16)),
    ("take_sideband", (builders.perf_lost(lost=7),)),
    ("adopt", (7, ProcessInfo(b"\xff\n", 1000, None, zombie=True, threads=frozenset({8, 9})), 123, 456)),
    ("recall", (KnownProcess(7, "zürich", 1000, 123, leaderless=True, threads=frozenset({8, 9})),)),
    ("recall", (KnownProcess(7, None, None, 0, leaderless=False, threads=frozenset()),)),
    ("recall_record", ((7, 0x100, 32, 1 << 40, bytes(range(44)), 4096, 1500), True)),
    ("recall_record", ((7, 0x100, 32, 1 << 40, bytes(range(44)), 4096, 1500, 6), True)),
    ("recall_record", ((7, 0x100, 32, 1 << 40, bytes(range(44)), 4096, 1500), False)),
    ("lose", ("taskstats", 3, 99)),
    ("lose_track", ()),
    ("forget", ([1, 2], 99)),
    ("forget_oldest_record", (5,)),
    ("forget_last_thread", (5, 6)),
    ("expect_canary", (5,)),
    ("forget_canary", (5,)),
    ("place", (7, 8, Found(Placement("uid", "id", "zürich.service", ""), 1 << 60, 99, early=True))),
    ("place", (0, 8, Found(None, 1 << 60, 99))),
    ("name_container", (PodContainer("uid", "id"), PodName("shop", "cart-0", "web"))),
    ("name_container", (PodContainer("uid", "id"), None)),
    ("take_oom_lines", ([7, 1 << 22], 1 << 60, True)),
    ("take_oom_lines", ([], 99, False)),
    ("take_oom_total", (1 << 40, 1 << 60)),
    ("oom_victims_ended", (1 << 60,)),
]
BATCHES = [
    builders.batch([]),
    builders.batch([builders.exec_(tgid=1), builders.exec_(tgid=2)]),
    builders.batch([builders.exec_(tgid=1), b"short", b""]),
    builders.batch([builders.taskstats_datagram(pid=7)] * 2, builders.TASKSTATS_STRIDE),
]


@pytest.mark.parametrize("batch", BATCHES, ids=["empty", "full slots", "mixed", "half-full slots"])
@pytest.mark.parametrize("name", ["take_events", "take_records", "take_names"])
def test_a_batch_is_read_back(name: str, batch: Batch) -> None:
    [(read,)] = BY_NAME[name].decode(BY_NAME[name].encode(batch))
    assert (read.stride, read.lengths) == (batch.stride, batch.lengths)
    assert [read.datagram(i) for i in range(len(read.lengths))] == [
        batch.datagram(i) for i in range(len(batch.lengths))
    ]


@pytest.mark.parametrize(("name", "args"), CALLS, ids=[name for name, _ in CALLS])
def test_the_arguments_of_every_other_call_are_read_back(name: str, args: tuple[Any, ...]) -> None:
    assert list(BY_NAME[name].decode(BY_NAME[name].encode(*args))) == [args]


def test_no_kind_is_left_out_of_these_tests() -> None:
    assert {name for name, _ in CALLS} | {"take_events", "take_records", "take_names"} == set(BY_NAME)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_encoder_takes_what_its_method_takes(kind: Kind) -> None:
    [_, *of_method] = inspect.signature(kind.method).parameters.values()
    of_encoder = inspect.signature(kind.encode).parameters.values()
    assert list(of_encoder) == of_method


def test_every_call_that_changes_a_pipeline_has_a_kind() -> None:
    asks = {
        "canaries", "canary_returned", "group_questions", "is_observed", "known", "known_containers",
        "known_places", "lacks_fork_record", "missing", "nameless", "waiting_records", "waits",
    }  # fmt: skip
    # It is a row of calls of forget_oldest_record; observers change nothing of what is counted.
    indirect = {"forget_records", "hand_on_failures", "observe", "take_failures", "wanted_by_names"}
    public = {name for name in vars(Pipeline) if not name.startswith("_")}
    assert public == set(BY_NAME) | asks | indirect


def test_one_entry_can_stand_for_several_calls_with_a_pid() -> None:
    assert list(BY_NAME["expect_canary"].decode(encode_pids([5, 6]))) == [(5,), (6,)]
    assert list(BY_NAME["expect_canary"].decode(encode_pids([]))) == []


@pytest.mark.parametrize("comm", [None, b"", b"sh"])
def test_an_answer_of_proc_is_read_back(comm: bytes | None) -> None:
    read = CommRead(7, comm, 99)
    assert decode_comm_read(encode_comm_read(read)) == read


@pytest.mark.parametrize("body", [struct.pack("<QQ", 1, 2) + b"radio", struct.pack("<QQ", 1, 2)])
def test_a_loss_is_of_a_socket_that_an_exporter_has(body: bytes) -> None:
    with pytest.raises(CaptureError, match="a socket that no exporter has"):
        BY_NAME["lose"].decode(body)


@pytest.mark.parametrize("name", ["place", "name_container"])
def test_a_place_has_as_many_parts_as_an_exporter_writes(name: str) -> None:
    head = struct.pack("<IiQQ??", 0, 8, 1, 1, False, True) if name == "place" else b""
    for text in (b"a/b/c", b"a", b"", b"/".join([b"x" * 10_000] * 4)):
        with pytest.raises(CaptureError, match="a place that no process has"):
            BY_NAME[name].decode(head + text)


def test_the_documentation_has_each_kind_with_its_method() -> None:
    documented = re.findall(r"^\| `([A-Z])` \| `(\w+)`:", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(documented) == sorted((kind.letter, kind.name) for kind in KINDS)
    assert len({letter for letter, _ in documented} | {READ_COMM}) == len(KINDS) + 1
