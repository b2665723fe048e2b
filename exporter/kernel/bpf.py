"""Classic BPF programs that keep unwanted messages out of the receive buffer.

A dropped message uses no buffer, wakes no reader up and counts as no loss. Filters need no privilege and work on
every kernel, so they stand in where the kernel knows no event masks (before Linux 6.6), and everywhere they drop
the events and exit records of threads, which no mask can tell apart.

Source: Documentation/networking/filter.rst, include/uapi/linux/filter.h, include/uapi/linux/bpf_common.h.
"""

import struct
import sys
from typing import NamedTuple

from exporter.kernel import taskstats
from exporter.kernel.cn_proc import (
    PROC_EVENT_EXIT,
    PROC_EVENT_FORK,
    PROC_EVENT_NONE,
    PROC_EVENT_NONZERO_EXIT,
)

# code u16, jt u8, jf u8, k u32: struct sock_filter
_SOCK_FILTER = struct.Struct("=HBBI")
INSTRUCTION_BYTES = _SOCK_FILTER.size
_LD_W_ABS = 0x20
_LD_B_ABS = 0x30
_JEQ_K = 0x15
_JEQ_X = 0x1D
_JSET_K = 0x45
_TAX = 0x07
_RET_K = 0x06

# More than any message is long: a smaller number would cut it.
_KEEP = 0xFFFFFFFF
_DROP = 0

# Offsets into the datagram (cn_proc.py).
_WHAT = 36
_PID, _TGID, _EXIT_CODE = 52, 56, 60
_CHILD_PID, _CHILD_TGID = 60, 64


class EventFilter(NamedTuple):
    """Which messages of the process connector to keep. Acknowledgements always are.

    Attributes:
        events: Kinds (`what`) to keep.
        threads: Kinds among them, PROC_EVENT_FORK or PROC_EVENT_EXIT, that are kept of other threads than
            leaders too.
        nonzero_exits: Of EXIT, keep only those with a wait status other than 0.
    """

    events: frozenset[int]
    threads: frozenset[int]
    nonzero_exits: bool = False

    @property
    def mask(self) -> int:
        """The same as an event mask, which cannot tell threads apart. Never 0, which would mean all events."""
        mask = 0
        for what in self.events:
            mask |= PROC_EVENT_NONZERO_EXIT if what == PROC_EVENT_EXIT and self.nonzero_exits else what
        return mask


class _Instruction(NamedTuple):
    """One instruction. Jumps go to a label further down, or to the next instruction (None)."""

    code: int
    k: int = 0
    true: str | None = None
    false: str | None = None
    label: str | None = None


def _word(value: int) -> int:
    """Return what a load, which is big-endian, sees of a number that the kernel wrote in host byte order."""
    return int.from_bytes(value.to_bytes(4, sys.byteorder), "big")


def event_program(wanted: EventFilter) -> bytes:
    """Compile a filter to an array of struct sock_filter."""
    checks = {
        PROC_EVENT_FORK: _leader_only(_CHILD_PID, _CHILD_TGID) if PROC_EVENT_FORK not in wanted.threads else [],
        PROC_EVENT_EXIT: [
            *([_load(_EXIT_CODE), _Instruction(_JEQ_K, 0, true="drop")] if wanted.nonzero_exits else []),
            *(_leader_only(_PID, _TGID) if PROC_EVENT_EXIT not in wanted.threads else []),
        ],
    }
    program = [_load(_WHAT), _Instruction(_JEQ_K, _word(PROC_EVENT_NONE), true="keep")]
    closer: list[_Instruction] = []
    for what in sorted(wanted.events):
        check = checks.get(what)
        if check:
            label = f"check {what}"
            program.append(_Instruction(_JEQ_K, _word(what), true=label))
            closer += [check[0]._replace(label=label), *check[1:], _Instruction(_RET_K, _KEEP)]
        else:
            program.append(_Instruction(_JEQ_K, _word(what), true="keep"))
    program.append(_Instruction(_RET_K, _DROP))
    program += closer
    program += [_Instruction(_RET_K, _DROP, label="drop"), _Instruction(_RET_K, _KEEP, label="keep")]
    return _assemble(program)


def end_program(version: int, stats_offset: int) -> bytes:
    """Compile the filter that keeps the exit records of leaders and of the last thread of each process.

    The others say nothing of a process: its last record has the sums over all of its threads.

    Args:
        version: Of struct taskstats, AGROUP_SINCE_VERSION or later.
        stats_offset: Where that begins in each datagram, in bytes.

    Returns:
        An array of struct sock_filter.
    """
    pid, tgid = taskstats.pid_offsets(version)
    return _assemble(
        [
            _Instruction(_LD_B_ABS, stats_offset + taskstats.FLAG_OFFSET),
            _Instruction(_JSET_K, taskstats.AGROUP, true="keep"),
            *_leader_only(stats_offset + pid, stats_offset + tgid),
            _Instruction(_RET_K, _KEEP, label="keep"),
            _Instruction(_RET_K, _DROP, label="drop"),
        ]
    )


def failure_program(version: int, stats_offset: int) -> bytes:
    """Compile the filter that keeps the exit records of failed processes only.

    Kept are those with a wait status other than 0 of a process's last thread, and those of leaders that exit
    before their process ends, well or not: they have its name, and a thread can make it fail yet. Versions
    without AGROUP do not mark the last thread: there all records of failed threads are kept.

    Args:
        version: Of struct taskstats.
        stats_offset: As for end_program.

    Returns:
        An array of struct sock_filter.
    """
    program: list[_Instruction] = []
    if version >= taskstats.AGROUP_SINCE_VERSION:
        pid, tgid = taskstats.pid_offsets(version)
        program += [
            _Instruction(_LD_B_ABS, stats_offset + taskstats.FLAG_OFFSET),
            _Instruction(_JSET_K, taskstats.AGROUP, true="check code"),
            *_leader_only(stats_offset + pid, stats_offset + tgid),
            _Instruction(_RET_K, _KEEP),
        ]
    program += [
        _load(stats_offset + taskstats.EXIT_CODE_OFFSET)._replace(label="check code"),
        _Instruction(_JEQ_K, 0, true="drop"),
        _Instruction(_RET_K, _KEEP),
        _Instruction(_RET_K, _DROP, label="drop"),
    ]
    return _assemble(program)


def _load(offset: int) -> _Instruction:
    return _Instruction(_LD_W_ABS, offset)


def _leader_only(pid_offset: int, tgid_offset: int) -> list[_Instruction]:
    return [
        _load(pid_offset),
        _Instruction(_TAX),
        _load(tgid_offset),
        _Instruction(_JEQ_X, false="drop"),
    ]


def _assemble(program: list[_Instruction]) -> bytes:
    labels = {instruction.label: index for index, instruction in enumerate(program) if instruction.label}

    def distance(index: int, label: str | None) -> int:
        return 0 if label is None else labels[label] - index - 1

    return b"".join(
        _SOCK_FILTER.pack(
            instruction.code, distance(index, instruction.true), distance(index, instruction.false), instruction.k
        )
        for index, instruction in enumerate(program)
    )
