"""exporter/kernel/bpf.py, run by an interpreter of its own (Documentation/networking/filter.rst)."""

import struct
from functools import partial

import builders
import pytest

from exporter.kernel import cn_proc
from exporter.kernel.bpf import EventFilter, end_program, event_program, failure_program

KEEP = 0xFFFFFFFF

FORK, EXEC, EXIT = cn_proc.PROC_EVENT_FORK, cn_proc.PROC_EVENT_EXEC, cn_proc.PROC_EVENT_EXIT

EVENTS: dict[str, bytes] = {
    "fork": builders.fork(parent_tgid=1, child_tgid=400),
    "thread fork": builders.fork(parent_tgid=1, child_tgid=400, child_pid=401),
    "exec": builders.exec_(tgid=400),
    "uid": builders.uid(tgid=400, ruid=7),
    "comm": builders.comm(tgid=400, comm=b"x"),
    "exit": builders.exit_(tgid=400, exit_code=0),
    "failure": builders.exit_(tgid=400, exit_code=0x100),
    "thread exit": builders.exit_(tgid=400, pid=401, exit_code=0),
    "thread failure": builders.exit_(tgid=400, pid=401, exit_code=9),
    "ack": builders.ack(ack=5),
}


def run(program: bytes, packet: bytes) -> int:
    """Run a classic BPF program as the kernel does: big-endian loads, jumps forward only, at the end a verdict."""
    code = list(struct.iter_unpack("=HBBI", program))
    a = x = at = 0
    while True:
        opcode, jump_true, jump_false, k = code[at]
        at += 1
        if opcode == 0x20:
            (a,) = struct.unpack_from(">I", packet, k)
        elif opcode == 0x30:
            a = packet[k]
        elif opcode == 0x07:
            x = a
        elif opcode in (0x15, 0x1D, 0x45):
            truth = {0x15: a == k, 0x1D: a == x, 0x45: bool(a & k)}[opcode]
            at += jump_true if truth else jump_false
        elif opcode == 0x06:
            return int(k)
        else:
            raise AssertionError(f"opcode {opcode:#x}")


def kept(wanted: EventFilter) -> set[str]:
    program = event_program(wanted)
    verdicts = {name: run(program, datagram) for name, datagram in EVENTS.items()}
    assert set(verdicts.values()) <= {0, KEEP}
    return {name for name, verdict in verdicts.items() if verdict}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param(EventFilter(frozenset(), frozenset()), set(), id="nothing"),
        pytest.param(EventFilter(frozenset({EXEC}), frozenset()), {"exec"}, id="execs"),
        pytest.param(EventFilter(frozenset({FORK, EXEC}), frozenset()), {"fork", "exec"}, id="forks of processes"),
        pytest.param(
            EventFilter(frozenset({FORK}), frozenset({FORK})), {"fork", "thread fork"}, id="forks of threads too"
        ),
        pytest.param(EventFilter(frozenset({EXIT}), frozenset()), {"exit", "failure"}, id="exits of leaders"),
        pytest.param(
            EventFilter(frozenset({EXIT, EXEC}), frozenset({EXIT})),
            {"exec", "exit", "failure", "thread exit", "thread failure"},
            id="exits of threads too",
        ),
        pytest.param(EventFilter(frozenset({EXIT}), frozenset(), nonzero_exits=True), {"failure"}, id="failures"),
        pytest.param(
            EventFilter(frozenset({EXIT}), frozenset({EXIT}), nonzero_exits=True),
            {"failure", "thread failure"},
            id="failures of threads too",
        ),
        pytest.param(
            EventFilter(
                frozenset({cn_proc.PROC_EVENT_UID, cn_proc.PROC_EVENT_COMM, EXIT, FORK}),
                frozenset({FORK}),
                nonzero_exits=True,
            ),
            {"uid", "comm", "failure", "fork", "thread fork"},
            id="a mix",
        ),
    ],
)
def test_a_filter_keeps_what_is_wanted_and_every_acknowledgement(wanted: EventFilter, expected: set[str]) -> None:
    assert kept(wanted) == expected | {"ack"}


@pytest.mark.parametrize(
    ("wanted", "mask"),
    [
        (EventFilter(frozenset({EXIT}), frozenset()), 0x80000000),
        (EventFilter(frozenset({EXIT}), frozenset({EXIT}), nonzero_exits=True), 0x20000000),
        (EventFilter(frozenset({FORK, EXEC, EXIT}), frozenset()), 0x80000003),
    ],
)
def test_a_filter_is_an_event_mask_too(wanted: EventFilter, mask: int) -> None:
    assert wanted.mask == mask


def exit_record(*, pid: int, tgid: int, exit_code: int, last: bool, version: int, null_pad: bool = False) -> bytes:
    return builders.taskstats_datagram(
        pid=pid,
        comm=b"x",
        uid=0,
        exit_code=exit_code,
        ac_flag=builders.AGROUP if last else 0,
        version=version,
        ac_tgid=tgid,
        null_pad=null_pad,
    )


@pytest.mark.parametrize("null_pad", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("exit_code", [0, 9])
@pytest.mark.parametrize("version", [12, 13, 14, 15, 16])
def test_records_are_kept_of_leaders_and_of_the_last_thread_of_a_process(
    version: int, exit_code: int, null_pad: bool
) -> None:
    program = end_program(version, 40 if null_pad else 36)
    record = partial(exit_record, tgid=400, exit_code=exit_code, version=version, null_pad=null_pad)
    assert run(program, record(pid=400, last=True)) == KEEP
    assert run(program, record(pid=400, last=False)) == KEEP
    assert run(program, record(pid=401, last=True)) == KEEP
    assert run(program, record(pid=401, last=False)) == 0


@pytest.mark.parametrize("null_pad", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("version", [8, 11, 12, 13, 14, 15, 16])
def test_records_are_kept_of_failed_processes_and_of_leaders_that_their_process_outlives(
    version: int, null_pad: bool
) -> None:
    record = partial(exit_record, version=version, null_pad=null_pad)
    verdict = partial(run, failure_program(version, 40 if null_pad else 36))
    marks_last = version >= 12
    assert verdict(record(pid=400, tgid=400, exit_code=0, last=True)) == 0
    assert verdict(record(pid=400, tgid=400, exit_code=0x100, last=True)) == KEEP
    assert verdict(record(pid=401, tgid=400, exit_code=9, last=True)) == KEEP
    assert verdict(record(pid=400, tgid=400, exit_code=9, last=False)) == KEEP
    assert verdict(record(pid=400, tgid=400, exit_code=0, last=False)) == (KEEP if marks_last else 0)
    assert verdict(record(pid=401, tgid=400, exit_code=0, last=False)) == 0
    assert verdict(record(pid=401, tgid=400, exit_code=0, last=True)) == 0
    assert verdict(record(pid=401, tgid=400, exit_code=9, last=False)) == (0 if marks_last else KEEP)
