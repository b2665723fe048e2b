"""exporter/kernel/procfs.py against a tree of files like /proc's."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_proc import AFTER_STARTTIME, add_process, stat_text, status_text

from exporter.errors import ConfigError, MalformedMessage, SetupError, ShortageError
from exporter.kernel.procfs import (
    ProcessInfo,
    Procfs,
    Status,
    TaskTotals,
    parse_starttime,
    parse_status,
    parse_task_totals,
)

COMMS = {
    "plain": b"bash",
    "empty": b"",
    "15 bytes": b"fifteen bytes!!",
    "brackets": b"(sd-pam)",
    "a closing bracket": b"a) R 1 1 1 1 1",
    "an opening bracket": b"a (b",
    "blanks": b" a b ",
    "newline": b"a\nUid:\t0\t0",
    "not UTF-8": b"\xff\xfe",
    "backslash": b"a\\nb",
}
each_comm = pytest.mark.parametrize("comm", COMMS.values(), ids=COMMS)


# -- parsing -------------------------------------------------------------------------------------------------


@each_comm
def test_the_start_time_is_found_whatever_the_comm_holds(comm: bytes) -> None:
    assert parse_starttime(stat_text(comm, state=b"Z", num_threads=12, starttime=987_654)) == 987_654


@each_comm
def test_a_stat_cut_anywhere_before_its_starttime_is_malformed(comm: bytes) -> None:
    text = stat_text(comm)
    for length in range(text.index(b" 123456 ") + 2):
        with pytest.raises(MalformedMessage):
            parse_starttime(text[:length])


def test_a_stat_cut_inside_its_starttime_is_malformed_and_not_of_an_earlier_time() -> None:
    text = stat_text(b"bash", starttime=123_456)
    for length in range(text.index(b"123456 ") + 1, text.index(b"123456 ") + 6):
        with pytest.raises(MalformedMessage):
            parse_starttime(text[:length])


def test_a_stat_cut_later_still_says_the_same() -> None:
    text = stat_text(b"bash")
    enough = text.index(AFTER_STARTTIME) + 1
    assert {parse_starttime(text[:length]) for length in range(enough, len(text) + 1)} == {123_456}


@pytest.mark.parametrize(
    "text",
    [b"", b"10 bash S", stat_text(b"bash").replace(b" 123456 ", b" soon ")],
    ids=["nothing", "no brackets", "a word for a number"],
)
def test_what_does_not_look_like_stat_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_starttime(text)


@each_comm
def test_status_is_parsed_whatever_the_comm_holds(comm: bytes) -> None:
    assert parse_status(status_text(comm, state=b"Z", threads=12)) == Status(comm, "Z", 1000, 12)


def test_a_kernel_threads_long_name_is_cut_as_in_events_and_records() -> None:
    assert parse_status(status_text(b"kworker/R-rcu_gp-events")).comm == b"kworker/R-rcu_g"


def test_the_uid_of_a_status_is_the_real_one() -> None:
    assert parse_status(status_text(b"bash")).uid == 1000


def test_a_name_cannot_forge_a_line() -> None:
    status = parse_status(status_text(b"a\nUid:\t0\t0"))
    assert (status.comm, status.uid) == (b"a\nUid:\t0\t0", 1000)


def test_a_status_cut_anywhere_is_malformed_or_says_the_same() -> None:
    text = status_text(b"bash")
    enough = text.index(b"Threads:\t1\n") + len(b"Threads:\t1\n")
    for length in range(enough):
        with pytest.raises(MalformedMessage):
            parse_status(text[:length])
    assert {parse_status(text[:length]) for length in range(enough, len(text) + 1)} == {parse_status(text)}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"Name:\tUid:\t5\t5\n",
        status_text(b"bash").replace(b"1000\t", b"nobody\t"),
        status_text(b"bash").replace(b"Threads:\t1", b"Threads:\tsome"),
        status_text(b"bash").replace(b"S (sleeping)", b""),
        b"\n" + status_text(b"bash"),
    ],
    ids=["nothing", "a name alone", "a word for a uid", "a word for a number", "no state", "the name not first"],
)
def test_what_does_not_look_like_status_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_status(text)


# -- reading -------------------------------------------------------------------------------------------------


@each_comm
def test_a_live_process_is_read(tmp_path: Path, comm: bytes) -> None:
    add_process(tmp_path, 10, comm, starttime=42)
    procfs = Procfs(str(tmp_path))
    assert procfs.read_comm(10) == comm
    assert procfs.read_process(10) == ProcessInfo(
        comm=comm, uid=1000, starttime=42, zombie=False, threads=frozenset()
    )


def test_threads_are_those_besides_the_leader(tmp_path: Path) -> None:
    add_process(tmp_path, 10, b"java", threads=(11, 15))
    info = Procfs(str(tmp_path)).read_process(10)
    assert info is not None
    assert info.threads == {11, 15}


def test_a_leader_that_exited_before_its_threads_is_a_zombie_with_threads(tmp_path: Path) -> None:
    add_process(tmp_path, 10, b"java", state=b"Z", threads=(11,))
    assert Procfs(str(tmp_path)).read_process(10) == ProcessInfo(
        b"java", 1000, 7, zombie=True, threads=frozenset({11})
    )


@pytest.mark.parametrize("groups", [0, 360, 65_536])
def test_a_process_in_very_many_groups_is_read_whole(tmp_path: Path, groups: int) -> None:
    path = add_process(tmp_path, 10, b"sh", threads=(11,)) / "status"
    line = b"Groups:\t" + b"".join(b"%d " % (4_000_000_000 + n) for n in range(groups))
    # The kernel writes them before the number of threads and the memory.
    path.write_bytes(path.read_bytes().replace(b"Threads:", line + b"\nVmSize:\t    2560 kB\nThreads:"))
    procfs = Procfs(str(tmp_path))
    info = procfs.read_process(10)
    assert info is not None
    assert (info.comm, info.threads) == (b"sh", frozenset({11}))
    assert not procfs.is_exiting(10)


def test_long_names_of_kernel_threads_are_cut_to_15_bytes(tmp_path: Path) -> None:
    add_process(tmp_path, 10, b"kworker/R-rcu_gp-events")
    procfs = Procfs(str(tmp_path))
    info = procfs.read_process(10)
    assert info is not None
    assert procfs.read_comm(10) == info.comm == b"kworker/R-rcu_g"


def test_a_process_that_is_not_there_is_none(tmp_path: Path) -> None:
    procfs = Procfs(str(tmp_path))
    assert (procfs.read_comm(10), procfs.read_process(10), procfs.is_exiting(10)) == (None, None, False)


@pytest.mark.parametrize("gone", ["stat", "status"])
@pytest.mark.parametrize("emptied", [False, True], ids=["removed", "emptied"])
def test_a_process_that_ends_while_it_is_read_is_none(tmp_path: Path, gone: str, emptied: bool) -> None:
    path = add_process(tmp_path, 10, b"sh") / gone
    path.unlink()
    if emptied:
        path.touch()
    assert Procfs(str(tmp_path)).read_process(10) is None


def test_a_file_that_opens_but_cannot_be_read_is_of_a_process_that_is_gone(tmp_path: Path) -> None:
    # A directory stands for a file whose process was reaped after open: read fails.
    comm = add_process(tmp_path, 10, b"sh") / "comm"
    comm.unlink()
    comm.mkdir()
    procfs = Procfs(str(tmp_path))
    assert procfs.read_comm(10) is None


def test_threads_that_are_gone_when_they_are_listed_are_none(tmp_path: Path) -> None:
    directory = add_process(tmp_path, 10, b"java", threads=(11,))
    (directory / "task").rename(tmp_path / "gone")
    info = Procfs(str(tmp_path)).read_process(10)
    assert info is not None
    assert info.threads == frozenset()


def test_a_process_with_a_senseless_stat_is_malformed(tmp_path: Path) -> None:
    (add_process(tmp_path, 10, b"sh") / "stat").write_bytes(b"10 (sh) S 1")
    with pytest.raises(MalformedMessage):
        Procfs(str(tmp_path)).read_process(10)


def test_only_numbers_are_listed_as_processes(tmp_path: Path) -> None:
    for name in ("10", "4194303", "self", "sys", "10a", "irq"):
        (tmp_path / name).mkdir()
    assert sorted(Procfs(str(tmp_path)).iter_processes()) == [10, 4194303]


@pytest.mark.parametrize("has_memory", [True, False])
def test_a_thread_that_is_there_and_has_no_memory_is_exiting(tmp_path: Path, has_memory: bool) -> None:
    status = add_process(tmp_path, 10, b"VmSize:") / "status"
    if has_memory:
        status.write_bytes(status.read_bytes() + b"VmPeak:\t    8 kB\nVmSize:\t    8 kB\n")
    assert Procfs(str(tmp_path)).is_exiting(10) is not has_memory


@pytest.mark.parametrize("slash", ["", "/", "//"])
def test_a_proc_file_system_is_one_that_shows_the_reader_and_others(tmp_path: Path, slash: str) -> None:
    add_process(tmp_path, 1, b"init")
    add_process(tmp_path, 10, b"sh")
    (tmp_path / "self").symlink_to("10")
    procfs = Procfs(str(tmp_path) + slash)
    procfs.check()
    assert procfs.read_comm(10) == b"sh"


@pytest.mark.parametrize(
    ("offsets", "is_refused"),
    [
        ("monotonic           0         0\nboottime            0         0\n", False),
        ("monotonic        1000         0\nboottime            0         0\n", True),
        ("monotonic           0         0\nboottime         -500         0\n", True),
        ("monotonic           0         7\nboottime            0         0\n", True),
        ("1 0 0\n7 5 0\n", True),
        ("", False),
    ],
)
def test_a_time_namespace_with_clocks_of_its_own_is_refused(
    tmp_path: Path, offsets: str, *, is_refused: bool
) -> None:
    add_process(tmp_path, 1, b"init")
    (add_process(tmp_path, 10, b"sh") / "timens_offsets").write_text(offsets)
    (tmp_path / "self").symlink_to("10")
    if is_refused:
        with pytest.raises(SetupError, match="time namespace"):
            Procfs(str(tmp_path)).check()
    else:
        Procfs(str(tmp_path)).check()


def test_a_proc_file_system_that_hides_others_says_what_to_do(tmp_path: Path) -> None:
    add_process(tmp_path, 10, b"sh")
    (tmp_path / "self").symlink_to("10")
    with pytest.raises(SetupError, match=r"hidepid hides the processes of others .* mount it with hidepid=0"):
        Procfs(str(tmp_path)).check()


@pytest.mark.parametrize("root", ["", "missing"])
def test_what_is_no_proc_file_system_names_the_setting(tmp_path: Path, root: str) -> None:
    with pytest.raises(ConfigError, match=r"--path\.procfs: .* is not a proc file system") as error:
        Procfs(str(tmp_path / root)).check()
    assert str(tmp_path / root) in str(error.value)


def test_the_start_is_left_out_where_it_is_not_asked_for(tmp_path: Path) -> None:
    (add_process(tmp_path, 10, b"sh") / "stat").unlink()
    procfs = Procfs(str(tmp_path))
    assert procfs.read_process(10) is None
    assert procfs.read_process(10, with_start=False) == ProcessInfo(
        comm=b"sh", uid=1000, starttime=None, zombie=False, threads=frozenset()
    )


STAT = b"cpu  1 2 3\nintr 5 0 0\nctxt 123\nbtime 1790000000\nprocesses 48211\nprocs_running 2\nprocs_blocked 0\n"
LOADAVG = b"1.43 0.48 0.18 2/127 6203\n"


def test_the_kernels_totals_of_threads_are_read(tmp_path: Path) -> None:
    procfs = Procfs(str(tmp_path))
    assert procfs.read_task_totals() is None
    # On a machine with many CPUs the line comes late in a long file.
    (tmp_path / "stat").write_bytes(b"cpu0 1 2 3\n" * 10000 + STAT)
    (tmp_path / "loadavg").write_bytes(LOADAVG)
    assert procfs.read_task_totals() == TaskTotals(48211, 127)


@pytest.mark.parametrize("cut", range(len(LOADAVG)))
def test_a_loadavg_that_is_cut_short_is_malformed(cut: int) -> None:
    with pytest.raises(MalformedMessage):
        parse_task_totals(STAT, LOADAVG[:cut])


@pytest.mark.parametrize("cut", range(STAT.index(b"procs_running")))
def test_a_stat_that_is_cut_short_is_malformed(cut: int) -> None:
    with pytest.raises(MalformedMessage):
        parse_task_totals(STAT[:cut], LOADAVG)


# -- no descriptor is free ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def no_descriptor_free() -> Iterator[None]:
    """Take every descriptor that this process may open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_processes_can_be_read_when_no_descriptor_is_free() -> None:
    procfs = Procfs("/proc")
    with no_descriptor_free():
        for _ in range(5):
            assert procfs.read_comm(os.getpid())
            assert procfs.read_process(os.getpid()) is not None
            assert os.getpid() in list(procfs.iter_processes())
    procfs.close()


def test_that_no_descriptor_is_free_does_not_mean_that_a_process_is_gone() -> None:
    procfs = Procfs("/proc")
    procfs.close()
    with no_descriptor_free():
        with pytest.raises(ShortageError):
            procfs.read_process(os.getpid())
        with pytest.raises(ShortageError):
            list(procfs.iter_processes())
        with pytest.raises(ShortageError):
            procfs.is_exiting(os.getpid())
        assert procfs.read_comm(os.getpid()) is None
