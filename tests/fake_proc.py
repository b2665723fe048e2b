"""A tree of files like /proc's."""

from pathlib import Path

# Fields 4 to 52 of proc(5)'s /proc/PID/stat; num_threads is field 20, starttime field 22.
BEFORE_THREADS = b"1 10 10 0 -1 4194560 1 2 3 4 5 6 7 8 20 0"
AFTER_STARTTIME = b"2306048 194 18446744073709551615 1 1 0 0 0 0 0 4096 0 1 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0"


def status_text(comm: bytes, *, state: bytes = b"S", threads: int = 1) -> bytes:
    # The kernel escapes newline and backslash in Name.
    name = comm.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    return (
        b"Name:\t%s\nUmask:\t0022\nState:\t%s (sleeping)\nTgid:\t10\nPid:\t10\n"
        b"Uid:\t1000\t0\t1002\t1003\nGid:\t44\t44\t44\t44\nThreads:\t%d\nSigQ:\t0/96365\n"
    ) % (name, state, threads)


def stat_text(comm: bytes, *, state: bytes = b"S", num_threads: int = 1, starttime: int = 123_456) -> bytes:
    return b"10 (%s) %s %s %d 0 %d %s\n" % (
        comm, state, BEFORE_THREADS, num_threads, starttime, AFTER_STARTTIME,
    )  # fmt: skip


def add_process(
    root: Path, tgid: int, comm: bytes, *, state: bytes = b"S", threads: tuple[int, ...] = (), starttime: int = 7
) -> Path:
    directory = root / str(tgid)
    directory.mkdir()
    (directory / "comm").write_bytes(comm + b"\n")
    (directory / "stat").write_bytes(
        stat_text(comm, state=state, num_threads=1 + len(threads), starttime=starttime)
    )
    (directory / "status").write_bytes(status_text(comm, state=state, threads=1 + len(threads)))
    for tid in (tgid, *threads):
        (directory / "task" / str(tid)).mkdir(parents=True)
    return directory
