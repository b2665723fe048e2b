"""Datagrams as the kernel sends them, and what becomes of them when bytes are changed, cut, joined or invented."""

import random
from collections.abc import Callable, Iterator

import builders

_DISTINCT = 20_000
_PIDS = (0, 1, 2, 100, 400, 401, 32767, 0x7FFFFFFF)
_NUMBERS = (0, 1, 9, 0x80, 0x86, 0x100, 0xFF00, 0x7FFFFFFF)
_COMMS = (b"", b"sh", b"\xff\xfe", b'a"b\\c\nd', b"fifteen bytes!!", b"<unknown>")


def events(chance: random.Random) -> bytes:
    """One sound datagram of the process connector; few pids, so that they meet."""
    pid, other, number = chance.choice(_PIDS), chance.choice(_PIDS), chance.choice(_NUMBERS)
    time_ns = chance.choice((0, 1_000_000_000, chance.getrandbits(63)))
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: builders.fork(parent_tgid=pid, child_tgid=other, timestamp_ns=time_ns),
        lambda: builders.fork(parent_tgid=1, child_tgid=pid, child_pid=other, timestamp_ns=time_ns),
        lambda: builders.exec_(tgid=pid, timestamp_ns=time_ns),
        lambda: builders.exit_(tgid=pid, exit_code=number, parent_tgid=other, timestamp_ns=time_ns),
        lambda: builders.exit_(tgid=pid, pid=other, exit_code=number, timestamp_ns=time_ns),
        lambda: builders.uid(tgid=pid, ruid=number, timestamp_ns=time_ns),
        lambda: builders.comm(tgid=pid, comm=chance.choice(_COMMS), timestamp_ns=time_ns),
        lambda: builders.coredump(tgid=pid, timestamp_ns=time_ns),
        lambda: builders.ptrace(tgid=pid, tracer_tgid=other, timestamp_ns=time_ns),
        lambda: builders.ack(ack=number),
        lambda: builders.connector_datagram(chance.getrandbits(32), chance.randbytes(24), timestamp_ns=time_ns),
    )
    return chance.choice(kinds)()


def records(chance: random.Random) -> bytes:
    """One sound exit record, of any version."""
    pid = chance.choice(_PIDS)
    return builders.taskstats_datagram(
        pid=pid,
        comm=chance.choice(_COMMS),
        uid=chance.choice(_NUMBERS),
        exit_code=chance.choice(_NUMBERS),
        ac_flag=chance.choice((0, builders.AGROUP, 0xFF)),
        version=chance.choice((8, 11, 12, 15, 16, 16, 16)),
        tgid_stats=builders.TgidStats(pid, 5) if chance.random() < 0.1 else None,
        null_pad=chance.random() < 0.1,
    )


def sideband(chance: random.Random) -> bytes:
    """One sound perf side-band record."""
    pid, other, thread = chance.choice(_PIDS), chance.choice(_PIDS), chance.choice(_PIDS)
    time_ns = chance.choice((0, 1_000_000_000, chance.getrandbits(63)))
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: builders.perf_comm(time_ns=time_ns, tgid=pid, comm=chance.choice(_COMMS)),
        lambda: builders.perf_comm(time_ns=time_ns, tgid=pid, comm=chance.choice(_COMMS), is_exec=False),
        lambda: builders.perf_fork(time_ns=time_ns, tgid=pid, forker_tgid=other),
        lambda: builders.perf_fork(time_ns=time_ns, tgid=pid, forker_tgid=other, pid=thread, forker_pid=thread),
        lambda: builders.perf_exit(time_ns=time_ns, tgid=pid),
        lambda: builders.perf_lost(lost=chance.choice(_NUMBERS)),
        lambda: builders.perf_record(chance.randrange(32), chance.randbytes(chance.choice((0, 8, 32)))),
    )
    return chance.choice(kinds)()


def mutate(chance: random.Random, data: bytes) -> bytes:
    """Damage a datagram, or leave it alone."""
    kind = chance.randrange(8)
    if kind < 3:
        return data
    changed = bytearray(data)
    if kind < 6:
        for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
            changed[chance.randrange(len(changed))] = chance.choice(
                (0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256))
            )
    elif kind == 6:
        del changed[chance.randrange(len(changed)) :]
    else:
        at = chance.randrange(len(changed))
        changed[at:at] = chance.randbytes(chance.choice((1, 4, 40)))
    return bytes(changed)


def stream(seed: int, sound: Callable[[random.Random], bytes], count: int) -> Iterator[bytes]:
    """Yield so many datagrams, the same for the same seed: some thousands of them, in ever other orders."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    pool = [mutate(chance, sound(chance)) for _ in range(min(count, _DISTINCT))]
    while count > 0:
        yield from chance.choices(pool, k=min(count, len(pool)))
        count -= len(pool)
