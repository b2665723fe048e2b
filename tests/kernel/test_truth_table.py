"""Each way a process can live and die, against what its parent saw of it.

With taskstats every number is exact to the last unit; without, a name is right or `<unknown>`, never wrong.
"""

import math
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.harness import PATIENCE, Exporter, Programs, Scrape, World, exit_labels, running

# How much later than wait4 the kernel may report an end: the EXIT event follows the waking of the parent.
LATE_SECONDS = 0.5 * PATIENCE


def assert_one_observation(scrape: Scrape, histogram: str, comm: str, low: float, high: float) -> None:
    """Assert that the histogram has one observation, between low and high, in the bucket where it belongs."""
    value = scrape.get(f"proc_connector_{histogram}_sum", comm=comm)
    assert scrape.get(f"proc_connector_{histogram}_count", comm=comm) == 1
    assert low <= value <= high
    buckets = scrape.buckets(histogram, comm)
    assert buckets[math.inf] == 1
    for bound, count in buckets.items():
        assert count == (value <= bound), f"{value} and le={bound}: {count}"


def test_every_exit_code_has_a_series_of_its_own(world: World) -> None:
    program = world.program("code")
    ended = world.spawn(*[(program, "exit", str(code)) for code in range(256)])
    assert [os.waitstatus_to_exitcode(child.status) for child in ended] == list(range(256))
    world.check()


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize(
    ("number", "core_bytes", "labels", "dumps"),
    [
        pytest.param(signal.SIGTERM, 0, ("143", "SIGTERM"), False, id="SIGTERM"),
        pytest.param(signal.SIGKILL, 0, ("137", "SIGKILL"), False, id="SIGKILL"),
        pytest.param(signal.SIGPIPE, 0, ("141", "SIGPIPE"), False, id="SIGPIPE"),
        pytest.param(signal.SIGSEGV, 0, ("139", "SIGSEGV"), True, id="SIGSEGV"),
        pytest.param(signal.SIGABRT, 0, ("134", "SIGABRT"), True, id="SIGABRT"),
        pytest.param(signal.SIGRTMIN, 0, ("162", "SIGRTMIN"), False, id="SIGRTMIN"),
        pytest.param(signal.SIGRTMIN + 3, 0, ("165", "SIGRTMIN+3"), False, id="SIGRTMIN+3"),
        pytest.param(signal.SIGRTMAX, 0, ("192", "SIGRTMIN+30"), False, id="SIGRTMAX"),
        pytest.param(signal.SIGABRT, -1, ("134", "SIGABRT"), True, id="SIGABRT with a core file"),
    ],
)
def test_death_by_a_signal_names_the_signal(
    world: World, number: int, core_bytes: int, labels: tuple[str, str], *, dumps: bool, threads: int
) -> None:
    program = world.program("signal")
    command = ["signal"] if threads == 1 else ["threads", str(threads)]
    folder = world.programs.directory(world.uid)
    [child] = world.spawn([program, *command, str(number), str(core_bytes)], cwd=folder)
    assert exit_labels(child.status) == labels
    if core_bytes and resource.getrlimit(resource.RLIMIT_CORE)[1] == resource.RLIM_INFINITY:
        assert os.WCOREDUMP(child.status)
    if dumps:  # the kernel reports the attempt, even where RLIMIT_CORE forbids the file
        world.count("coredumps", program.name)
    world.check()


@pytest.mark.parametrize("leader", ["pthread 0", "thread 17"])
@pytest.mark.parametrize(
    ("last", "exit_code"),
    [("pthread 0", "0"), ("thread 33", "33"), ("group 33", "33")],
    ids=["0", "thread", "group"],
)
def test_a_leader_that_ends_before_its_threads_does_not_end_the_process(
    world: World, leader: str, last: str, exit_code: str
) -> None:
    program = world.program("leader")
    [child] = world.spawn([program, "leader_first", *leader.split(), *last.split()])
    assert exit_labels(child.status) == (exit_code, "")
    world.check()


def test_an_exec_from_a_thread_is_one_process_with_two_names(world: World) -> None:
    before, after = world.program("thread-exec"), world.program("after")
    [child] = world.spawn([before, "thread_exec", after, "exit", "5"], exit_comm=after.name)
    assert exit_labels(child.status) == ("5", "")
    world.count("execs", after.name)
    world.may_be_unknown.add("execs")  # the first exec's
    world.check()


def test_a_child_forked_by_a_thread_has_the_name_of_the_thread(world: World) -> None:
    program = world.program("thread-fork")
    thread = world.programs.name("thread")
    # Many at a time, so that parent, thread and child are met in one drain.
    world.spawn(*[(program, "thread_fork", thread, "5")] * 50)
    world.count("forks", program.name, 50)
    world.count("exits", thread, 50, status=5 << 8)
    world.check()


@pytest.mark.parametrize("how", ["fork", "vfork", "ignore_sigchld"])
def test_a_child_that_never_execs_counts_under_its_parents_comm(world: World, how: str) -> None:
    program = world.program("parent")
    world.spawn([program, how, "5", "6"])
    world.count("forks", program.name, 5)
    world.count("exits", program.name, 5, status=6 << 8)
    world.check()


def test_a_failed_exec_is_a_fork_and_an_exit_but_no_exec(world: World) -> None:
    program = world.program("failing")
    world.spawn([program, "failed_exec"])
    world.count("forks", program.name)
    world.count("exits", program.name, status=127 << 8)
    world.check()


def test_an_orphan_is_counted_after_its_parent_is_gone(world: World) -> None:
    program = world.program("orphan")
    world.spawn([program, "orphan", "3", "4"])
    world.count("forks", program.name, 2)
    world.count("exits", program.name, status=3 << 8)
    world.count("exits", program.name, status=4 << 8)
    world.check()


def test_a_process_that_changes_its_uid_ends_under_the_new_one(world: World) -> None:
    program, new_uid = world.program("setuid"), world.programs.new_uid()
    world.uids.add(str(new_uid))
    world.spawn([program, "setuid", str(new_uid), "8"], caps=["setuid"], exit_uid=new_uid)
    world.count("uid_changes", program.name, uid=new_uid)
    scrape = world.check()
    if world.mode == "taskstats":
        assert scrape.rows("uid_changes")[program.name, str(new_uid)] == 1


def test_a_setuid_program_counts_under_the_uid_of_the_user_that_runs_it(world: World) -> None:
    program = world.programs.setuid_copy("setuid-root")
    world.comms.add(program.name)
    [child] = world.spawn([program, "euid", "0", "8"])
    if exit_labels(child.status) == ("99", ""):
        pytest.skip("the temporary folder is mounted nosuid")
    world.count("uid_changes", program.name)
    world.check()


@pytest.mark.parametrize(
    ("comm", "label"),
    [
        pytest.param(b"q\"u'o", "q\"u'o", id="quotes"),
        pytest.param(b"b\\s", "b\\s", id="backslash"),
        pytest.param(b"n\nl", "n\\x0al", id="newline"),
        pytest.param(b"\xff\xc3i", "\\xff\\xc3i", id="invalid UTF-8"),
        pytest.param("l\u2028s".encode(), "l\\u2028s", id="line separator"),
        pytest.param("é".encode(), "é", id="UTF-8"),
        pytest.param(b"\x1b[31mred", "\\x1b[31mred", id="terminal escape"),
        pytest.param(b"fifteen-bytes15", "fifteen-bytes15", id="15 bytes"),
        pytest.param(b"fourteen-bytes\xc3", "fourteen-bytes\\xc3", id="UTF-8 cut in two"),
        pytest.param(b'{comm="x"} 1', '{comm="x"} 1', id="looks like a sample"),
        pytest.param(b"", "<empty>", id="empty"),
        pytest.param(b"<unknown>", "\\x3cunknown>", id="looks like unknown"),
        pytest.param(b"kworker/9:9-evil", "kworker", id="looks like a kernel worker"),
    ],
)
def test_a_process_may_call_itself_anything(world: World, comm: bytes, label: str) -> None:
    program = world.program("rename")
    [child] = world.spawn([program, "rename", comm.hex(), "3"], exit_comm=label)
    assert exit_labels(child.status) == ("3", "")
    world.may_be_unknown.add("execs")  # renamed before the exporter could look
    world.check()


def test_a_long_name_is_cut_to_the_15_bytes_that_the_kernel_keeps(world: World) -> None:
    program = world.programs.link("cut")
    long_name = program.rename(program.with_name(f"{program.name}-and-quite-a-few-bytes-more"))
    world.spawn([long_name, "exit", "7"])
    world.check()


def test_a_script_counts_under_its_own_name_not_its_interpreters(world: World) -> None:
    script = world.programs.script("script.sh", "#!/bin/sh\nexit 9\n")
    world.comms.add(script.name)
    [child] = world.spawn([script])
    assert exit_labels(child.status) == ("9", "")
    world.check()


@pytest.mark.parametrize("length", [2, 3, 6])
def test_a_chain_of_execs_ends_under_the_last_name(world: World, length: int) -> None:
    stages = [world.program("stage") for _ in range(length)]
    words = [word for stage in stages[:-1] for word in (stage, "exec")]
    world.spawn([*words, stages[-1], "exit", "44"], exit_comm=stages[-1].name)
    for stage in stages[1:]:
        world.count("execs", stage.name)
    world.may_be_unknown.add("execs")  # but not the last, below
    scrape = world.check()
    if world.mode == "taskstats":
        assert scrape.rows("execs")[stages[-1].name, str(world.uid)] == 1


def test_a_shells_exec_counts_under_the_program_it_became(world: World) -> None:
    program = world.program("from-shell")
    shell = world.programs.script("shell", f"#!/bin/sh\nexec {program} sleep 800 4\n")
    world.comms.add(shell.name)
    world.spawn([shell], exit_comm=program.name)
    world.count("execs", program.name)
    world.may_be_unknown.add("execs")
    scrape = world.check()
    # It lives long enough for a look at /proc, too.
    assert scrape.rows("execs")[program.name, str(world.uid)] == 1


def test_a_large_process_is_exact_although_its_exit_comes_long_after_its_record(world: World) -> None:
    if os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 3 << 30:
        pytest.skip("less than 3 GiB of free memory")
    program = world.program("large")
    [child] = world.spawn([program, "rss", "1024", "2"])
    assert child.max_rss_bytes >= 1 << 30
    scrape = world.check()
    comm = program.name
    if world.mode == "taskstats":
        rss = child.max_rss_bytes
        assert_one_observation(scrape, "process_max_rss_bytes", comm, 0.99 * rss, 1.01 * rss)
        assert_one_observation(scrape, "process_lifetime_seconds", comm, 0, child.seconds + LATE_SECONDS)


def test_a_ptrace_attach_counts_once_for_the_traced_process(world: World) -> None:
    program = world.program("attach")
    world.spawn([program, "attach"])
    world.count("forks", program.name)
    world.count("exits", program.name, status=signal.SIGTERM)
    world.count("ptrace_attaches", program.name)
    world.check()


def test_a_process_that_asks_to_be_traced_causes_no_event(world: World) -> None:
    """PTRACE_TRACEME, as gdb's run and strace's: docs/numbers.md says so."""
    program = world.program("traced")
    world.spawn([program, "traced"])
    world.count("forks", program.name)
    world.count("exits", program.name, status=5 << 8)
    world.check()


@pytest.mark.parametrize(
    ("how", "status", "dumps"),
    [
        pytest.param(["exit", "15"], 15 << 8, False, id="exit_group"),
        pytest.param(["signal", "9"], signal.SIGKILL, False, id="SIGKILL"),
        pytest.param(["signal", "11"], signal.SIGSEGV, True, id="SIGSEGV"),
        pytest.param(["signal", "6"], signal.SIGABRT, True, id="SIGABRT"),
    ],
)
def test_a_kernel_worker_that_ends_last_does_not_decide_how_its_process_ended(
    world: World, how: list[str], status: int, *, dumps: bool
) -> None:
    """The thread that polls for io_uring is killed with the process, exits with 0, and often last."""
    program = world.program("sqpoll")
    ended = world.spawn(*[[str(program), "sqpoll", *how]] * 10)
    if exit_labels(ended[0].status) == ("98", ""):
        pytest.skip("no io_uring here")
    assert {child.status & ~0x80 for child in ended} == {status}
    if dumps:
        world.count("coredumps", program.name, 10)
    world.check()


def test_a_medley_of_all_kinds_at_full_speed_is_exact(world: World) -> None:
    """What is right for one process at a time is right when a drain holds dozens of them."""
    after, thread = world.program("after"), world.programs.name("thread")
    kinds: dict[str, tuple[list[str | Path], dict[str, int], list[int]]] = {
        # kind: command, events besides the parent's fork and the first exec, statuses of children
        "exit": (["exit", "7"], {}, []),
        "killed": (["signal", "9", "0"], {}, []),
        "dumped": (["threads", "3", "11", "0"], {"coredumps": 1}, []),
        "leaderless": (["leader_first", "thread", "17", "group", "33"], {}, []),
        "forking": (["fork", "2", "6"], {"forks": 2}, [6 << 8] * 2),
        "vforking": (["vfork", "2", "6"], {"forks": 2}, [6 << 8] * 2),
        "careless": (["ignore_sigchld", "2", "6"], {"forks": 2}, [6 << 8] * 2),
        "failing": (["failed_exec"], {"forks": 1}, [127 << 8]),
        "orphaning": (["orphan", "3", "4"], {"forks": 2}, [3 << 8, 4 << 8]),
        "attaching": (["attach"], {"forks": 1, "ptrace_attaches": 1}, [signal.SIGTERM]),
        "thread-forking": (["thread_fork", thread, "5"], {"forks": 1}, []),
        "execing": (["exec", after, "exit", "44"], {}, []),
        "thread-execing": (["thread_exec", after, "exit", "5"], {}, []),
    }
    order = list(kinds) * 8
    programs = {kind: world.program(kind[:10]) for kind in kinds}
    ended = world.spawn(*[[programs[kind], *kinds[kind][0]] for kind in order], count_exits=False)
    for kind, child in zip(order, ended, strict=True):
        _, events, children = kinds[kind]
        name = programs[kind].name
        world.count("exits", after.name if "execing" in kind else name, status=child.status)
        for counter, n in events.items():
            world.count(counter, name, n)
        for status in children:
            world.count("exits", name, status=status)
        if "execing" in kind:
            world.count("execs", after.name)
        if kind == "thread-forking":
            world.count("exits", thread, status=5 << 8)
    world.may_be_unknown.add("execs")  # the first of two
    world.check()


def test_a_lifetime_lies_in_the_right_bucket(world: World) -> None:
    program = world.program("sleep")
    [child] = world.spawn([program, "sleep", "800", "0"])  # long enough for a look at /proc
    scrape = world.check()
    assert scrape.rows("exits")[program.name, str(world.uid), "0", ""] == 1
    assert_one_observation(scrape, "process_lifetime_seconds", program.name, 0.8, child.seconds + LATE_SECONDS)


@pytest.mark.parametrize("threads", [1, 4])
def test_cpu_seconds_are_those_of_all_threads(world: World, threads: int) -> None:
    program = world.program("burn")
    [child] = world.spawn([program, "burn", "300", str(threads)])
    assert child.cpu_seconds >= 0.3
    scrape = world.check()
    if world.mode == "taskstats":
        cpu = child.cpu_seconds
        assert_one_observation(scrape, "process_cpu_seconds", program.name, 0.9 * cpu, 1.1 * cpu)


def test_a_living_process_is_in_the_table_until_it_ends(world: World, exporter: Exporter) -> None:
    program = world.program("alive")
    with world.start(program, "sleep", "3600000", "0") as process:
        exporter.wait_for(
            lambda scrape: scrape.get("proc_connector_processes", comm=program.name) == 1,
            f"{program.name} among the processes",
        )
        process.kill()
    world.count("exits", program.name, status=signal.SIGKILL)
    assert world.check().get("proc_connector_processes", comm=program.name) == 0


@pytest.mark.parametrize("mode", ["taskstats", "procfs"])
@pytest.mark.parametrize(
    ("words", "labels", "children"),
    [
        pytest.param(["when_told", "exit", "7"], ("7", ""), 0, id="exits"),
        pytest.param(["when_told", "signal", "9", "0"], ("137", "SIGKILL"), 0, id="is killed"),
        pytest.param(["when_told", "rename", b"older".hex(), "7"], ("7", ""), 0, id="renames itself"),
        pytest.param(["when_told", "fork", "3", "6"], ("0", ""), 3, id="forks"),
        pytest.param(["when_told", "vfork", "3", "6"], ("0", ""), 3, id="vforks"),
        pytest.param(["leader_first", "thread", "17", "group", "33"], ("33", ""), 0, id="loses its leader first"),
    ],
)
def test_a_process_older_than_the_exporter_has_its_name_uid_and_age(
    programs: Programs, tmp_path: Path, mode: str, words: list[str], *, labels: tuple[str, str], children: int
) -> None:
    program, uid = programs.link("older"), programs.new_uid()
    before = time.monotonic()
    with subprocess.Popen(
        [program, *words], user=uid, group=uid, extra_groups=[], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        born = time.monotonic()
        with running(mode, tmp_path / "log") as exporter:
            world = World(exporter, programs)
            world.uids.add(str(uid))
            scraped = time.monotonic()
            process.communicate()
            ended = time.monotonic()
            comm = "older" if "rename" in words else program.name
            code = process.returncode  # negative: a signal
            status = code << 8 if code >= 0 else -code
            assert exit_labels(status) == labels
            world.count("exits", comm, status=status, uid=uid)
            if children:
                world.count("forks", comm, children, uid=uid)
                world.count("exits", comm, children, status=6 << 8, uid=uid)
            scrape = world.check()
            if not children:
                # The start time in /proc has ticks of 10 ms.
                low, high = scraped - born - 0.02, ended - before + LATE_SECONDS
                assert_one_observation(scrape, "process_lifetime_seconds", comm, low, high)


def test_kernel_threads_are_processes_of_root_and_workers_are_folded(exporter: Exporter) -> None:
    scrape = exporter.scrape()
    assert scrape.get("proc_connector_processes", comm="kthreadd") == 1
    assert scrape.get("proc_connector_processes", comm="kworker") >= 1
    names = {dict(key)["comm"] for key in scrape.samples["proc_connector_processes"]}
    assert not {name for name in names if name.startswith("kworker/")}


@pytest.fixture
def loop_mount(tmp_path: Path) -> Iterator[Path]:
    image, folder = tmp_path / "image", tmp_path / "mounted"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    folder.mkdir()
    try:
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no ext4 on a loop device, whose journal would be a kernel thread: {error}")
    yield folder
    if folder.is_mount():
        subprocess.run(["umount", folder], check=True)


def test_a_kernel_thread_that_ends_counts_under_its_own_name(exporter: Exporter, loop_mount: Path) -> None:
    device = next(
        line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if str(loop_mount) in line
    )
    comm = f"jbd2/{Path(device).name}-8"
    series = {"comm": comm, "uid": "0", "exit_code": "0", "signal": ""}
    before = exporter.wait_for(
        lambda scrape: scrape.get("proc_connector_processes", comm=comm) == 1, f"{comm} among the processes"
    )
    subprocess.run(["umount", loop_mount], check=True)
    exporter.wait_for(
        lambda scrape: (
            scrape.get("proc_connector_exits_total", **series)
            == before.get("proc_connector_exits_total", **series) + 1
        ),
        f"the end of {comm}",
    )


def test_a_pid_that_is_used_again_at_once_is_a_new_process_each_time(world: World) -> None:
    """The last one of all: it leaves hundreds of names, and from then on a scrape takes many times as long."""
    first, *others = [world.program("reuse") for _ in range(4)]
    lines = world.run(first, "reuse", "750", *others, caps=["checkpoint_restore"])
    assert len(lines) == 750
    world.count("forks", first.name, 751)
    world.count("exits", first.name, status=9 << 8)  # whose pid it was
    for comm, status in (line.split() for line in lines):
        world.count("exits", comm, status=int(status))
        if not comm.startswith("own-"):
            world.count("execs", comm)
    world.check()
