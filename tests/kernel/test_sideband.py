"""perf side-band records on the real kernel: each exec under its own name, each fork under its true forker."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.harness import (
    DEADLINE_SECONDS,
    PATIENCE,
    Exporter,
    Programs,
    Scrape,
    World,
    running,
    spawn_some,
    wait_until,
)
from kernel.listeners import attack, crowd, put_right
from kernel.test_privileges import NOBODY, assert_powerless, run_to_its_end, with_capabilities

PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
LINUX = tuple(map(int, os.uname().release.split(".")[:2]))
# Of upstream's kernels 2 is the highest level; one in which Debian has 3 asks for more.
debian = pytest.mark.skipif(
    "debian" not in Path("/proc/version").read_text(encoding="utf-8").lower(),
    reason="the level 3 is of Debian's kernels alone",
)
UNATTRIBUTED = "proc_connector_unattributed_total"
FORKS = "proc_connector_forks_total"
LOST = "proc_connector_lost_messages_total"
RESUBSCRIPTIONS = "proc_connector_resubscriptions_total"
MODES = ("taskstats", "procfs")

# What a chain can go through. Each of them execs what follows it, in the same process.
WRAPPERS: dict[str, list[str]] = {
    "env": ["env"],
    "nice": ["nice"],
    "setpriv": ["setpriv", "--no-new-privs"],
    "stdbuf": ["stdbuf", "-o0"],
    "sh": ["sh", "-c", 'exec "$@"', "sh"],
    "bash": ["bash", "-c", 'exec "$@"', "bash"],
}


@pytest.fixture(params=MODES)
def exact(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Exporter]:
    """An exporter with side-band records."""
    with running(str(request.param), tmp_path / "log", "--exec-names", "sideband") as exporter:
        yield exporter


def attribution(exporter: Exporter) -> dict[str, str]:
    [labels] = exporter.scrape().samples["proc_connector_attribution_info"]
    return dict(labels)


def execs_of(exporter: Exporter, uid: int) -> Counter[str]:
    """Return comm -> execs of a uid that no other process of the host has."""
    rows: Counter[str] = Counter()
    for row, count in exporter.scrape().rows("execs").items():
        if row[1] == str(uid):
            rows[row[0]] += count
    return rows


def wait_for_execs(exporter: Exporter, uid: int, truth: Counter[str]) -> None:
    """Wait until as many execs are counted for the uid, and compare their names."""
    found = wait_until(
        lambda: execs_of(exporter, uid), lambda rows: rows.total() >= truth.total(), f"{truth.total()} execs"
    )
    assert found == truth, f"missing {dict(truth - found)}, too much {dict(found - truth)}"


def unattributed(exporter: Exporter) -> float:
    return exporter.scrape().get(UNATTRIBUTED, event="exec")


@contextlib.contextmanager
def storm(programs: Programs) -> Iterator[None]:
    """Execs as fast as they go, until the block ends."""
    path = programs.link("storm")
    script = 'while :; do "$0" exit 0; done'
    stormers = [
        subprocess.Popen(["setsid", "sh", "-c", script, path], stdin=subprocess.DEVNULL)
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for stormer in stormers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(stormer.pid, signal.SIGKILL)
            stormer.wait()


# -- execs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", ["quiet", "storm"])
def test_each_exec_of_a_script_that_is_started_by_env_has_its_name(
    exact: Exporter, programs: Programs, load: str
) -> None:
    """A script for which 587 of 750 execs were `<unknown>` without side-band records."""
    for tool in ("bash", "nice"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here")
    uid, times = programs.new_uid(), int(150 / PATIENCE)
    last = programs.link("last")
    # The script itself, bash, nice, env, last: five execs of one process.
    script = programs.script("chain", f"#!/usr/bin/env bash\nexec nice env {last} exit 0\n")
    # At the start an exec that a scan of /proc overtakes can be unknown.
    spawn_some(exact, programs)
    before = unattributed(exact)
    with storm(programs) if load == "storm" else contextlib.nullcontext():
        for _ in range(times):
            subprocess.run([script], user=uid, group=uid, extra_groups=[], check=True)
        truth = Counter(dict.fromkeys((script.name, "bash", "nice", "env", last.name), times))
        wait_for_execs(exact, uid, truth)
    assert exact.scrape().get(LOST, socket="sideband") == 0
    assert unattributed(exact) == before


def random_chain(chance: random.Random, last: Path) -> tuple[list[str], Counter[str]]:
    """Return a command of 2 to 10 execs in one process, and what they are."""
    names = chance.choices(
        [name for name, words in WRAPPERS.items() if shutil.which(words[0])], k=chance.randint(1, 9)
    )
    # The kernel names an exec after the file that is executed.
    words = [word for name in names for word in WRAPPERS[name]]
    return [*words, str(last), "exit", "0"], Counter([*names, last.name])


def test_chains_of_wrappers_that_run_at_the_same_time_are_exact(exact: Exporter, programs: Programs) -> None:
    chance = random.Random(13)  # noqa: S311 - repeatable, not secret
    uid, truth = programs.new_uid(), Counter[str]()
    last = [programs.link("last") for _ in range(3)]
    waiting = [random_chain(chance, chance.choice(last)) for _ in range(int(256 / PATIENCE))]
    alive: list[subprocess.Popen[bytes]] = []
    for command, names in waiting:
        truth += names
        if len(alive) == 64:
            assert alive.pop(0).wait(DEADLINE_SECONDS) == 0
        alive.append(subprocess.Popen(command, user=uid, group=uid, extra_groups=[], stdin=subprocess.DEVNULL))
    for process in alive:
        assert process.wait(DEADLINE_SECONDS) == 0
    wait_for_execs(exact, uid, truth)


def test_timeout_execs_in_a_child_and_both_are_named(exact: Exporter, programs: Programs) -> None:
    uid, last, times = programs.new_uid(), programs.link("last"), 20
    for _ in range(times):
        command = ["timeout", "60", "nice", "timeout", "60", str(last), "exit", "0"]
        subprocess.run(command, user=uid, group=uid, extra_groups=[], check=True)
    wait_for_execs(exact, uid, Counter({"timeout": 2 * times, "nice": times, last.name: times}))
    forks = {row: n for row, n in exact.scrape().rows("forks").items() if row[1] == str(uid)}
    assert forks == {("timeout", str(uid)): 2 * times}


def test_an_exec_by_a_thread_has_its_name(exact: Exporter, programs: Programs) -> None:
    world = World(exact, programs)
    before, after = world.program("thread-exec"), world.program("after")
    world.spawn(*[[str(before), "thread_exec", str(after), "exit", "5"]] * 20, exit_comm=after.name)
    world.count("execs", after.name, 20)
    scrape = world.check()
    assert scrape.rows("execs")[before.name, str(world.uid)] == 20


def test_a_process_that_renames_itself_at_once_is_counted_under_what_it_executed(
    exact: Exporter, programs: Programs
) -> None:
    world = World(exact, programs)
    program = world.program("rename")
    world.spawn(*[[str(program), "rename", b"other".hex(), "3"]] * 20, exit_comm="other")
    scrape = world.check()
    assert scrape.rows("execs")[program.name, str(world.uid)] == 20


# -- forks ------------------------------------------------------------------------------------------------------


def test_a_sibling_that_is_cloned_counts_for_the_process_that_cloned_it(
    exact: Exporter, programs: Programs
) -> None:
    """The connector's event has its parent, which did not fork (CLONE_PARENT)."""
    world = World(exact, programs)
    program = world.program("sibling")
    world.spawn(*[[str(program), "sibling", "3", "7"]] * 10)
    world.count("forks", program.name, 10)
    world.count("forks", "stage", 30)
    world.count("exits", "stage", 10, status=0)
    world.count("exits", "stage", 30, status=7 << 8)
    scrape = world.check()
    assert scrape.rows("forks")["stage", str(world.uid)] == 30
    assert scrape.rows("forks")[program.name, str(world.uid)] == 10


# -- permission -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def paranoid(level: int) -> Iterator[None]:
    """Set kernel.perf_event_paranoid for the block."""
    before = PARANOID.read_text()
    PARANOID.write_text(str(level))
    try:
        yield
    finally:
        PARANOID.write_text(before)


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    """Upstream's default, whatever this machine has."""
    if not PARANOID.exists():
        pytest.skip("no perf events in this kernel (CONFIG_PERF_EVENTS)")
    with paranoid(2):
        yield


def with_capability(name: str | None) -> tuple[str, ...]:
    """Become uid 65534 with that capability, and with what the process connector asks for before Linux 6.6."""
    listen = [] if LINUX >= (6, 6) else ["+net_admin"]
    return with_capabilities(",".join(["-all", *listen, *([] if name is None else [f"+{name}"])]))


@pytest.mark.parametrize(
    ("level", "capability", "missing"),
    [
        pytest.param(3, None, "CAP_SYS_ADMIN", marks=debian),
        pytest.param(3, "perfmon", "CAP_SYS_ADMIN", marks=debian),
        pytest.param(3, "sys_admin", None, marks=debian),
        (2, None, "CAP_PERFMON"),
        (2, "perfmon", None),
        (2, "sys_admin", None),
        (1, None, "CAP_PERFMON"),
        (0, None, None),
        (-1, None, None),
    ],
)
def test_what_is_permitted_is_taken_and_what_is_not_is_named(
    level: int, capability: str | None, missing: str | None, programs: Programs, tmp_path: Path
) -> None:
    """With the records each exec of a chain has its name, the first one as well."""
    with paranoid(level), running("procfs", tmp_path / "log", prefix=with_capability(capability)) as exporter:
        assert attribution(exporter)["exec_names"] == ("events" if missing else "sideband")
        world = World(exporter, programs)
        first, second = world.program("first"), world.program("second")
        world.spawn(*[[str(first), "exec", str(second), "exit", "5"]] * 20, exit_comm=second.name)
        world.count("execs", second.name, 20)
        if not missing:
            assert world.check().rows("execs")[first.name, str(world.uid)] == 20
    why = [line for line in exporter.log.read_text().splitlines() if "side-band" in line]
    if missing is None:
        assert why == []
    else:
        [line] = why
        assert "level=info" in line
        assert f"kernel.perf_event_paranoid is {level}" in line
        assert f"add {missing}" in line


def test_root_gets_side_band_records_at_any_level(programs: Programs, tmp_path: Path) -> None:
    with paranoid(2), running("procfs", tmp_path / "log") as exporter:
        assert attribution(exporter)["exec_names"] == "sideband"
        spawn_some(exporter, programs)


@pytest.mark.parametrize("prefix", [NOBODY, with_capabilities("-all,+net_admin")], ids=["none", "CAP_NET_ADMIN"])
def test_side_band_records_without_permission_are_one_line_that_names_the_capability(
    prefix: tuple[str, ...],
) -> None:
    line = run_to_its_end("--exec-names=sideband", prefix=prefix)
    assert "--exec-names=sideband" in line
    assert "CAP_PERFMON" in line
    assert "kernel.perf_event_paranoid is 2" in line


def test_too_little_memory_that_may_be_locked_is_named(tmp_path: Path) -> None:
    mlock_kb = Path("/proc/sys/kernel/perf_event_mlock_kb")
    before = mlock_kb.read_text()
    mlock_kb.write_text("64")
    try:
        prefix = ("prlimit", "--memlock=0", *with_capabilities("-all,+perfmon"))
        line = run_to_its_end("--exec-names=sideband", prefix=prefix)
    finally:
        mlock_kb.write_text(before)
    assert "RLIMIT_MEMLOCK" in line


@pytest.mark.parametrize("mode", MODES)
def test_the_rings_go_on_when_all_privileges_were_given_up(mode: str, programs: Programs, tmp_path: Path) -> None:
    flags = ("--exec-names", "sideband", "--user", "65534")
    with running(mode, tmp_path / "log", *flags) as exporter:
        assert_powerless(exporter, 65534, 65534)
        world = World(exporter, programs)
        first, second = world.program("first"), world.program("second")
        world.spawn(*[[str(first), "exec", str(second), "exit", "5"]] * 50, exit_comm=second.name)
        world.count("execs", second.name, 50)
        scrape = world.check()
        assert scrape.rows("execs")[first.name, str(world.uid)] == 50
        assert attribution(exporter) == {"mode": mode, "filter": "kernel", "exec_names": "sideband"}


# -- losses -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_ring_that_overflows_makes_no_wrong_name_and_is_counted(
    mode: str, programs: Programs, tmp_path: Path
) -> None:
    """Its exporter is stopped while there are more records than the smallest rings hold."""
    # Memory for the smallest rings only: 512 KiB hold 13,000 records.
    capabilities = "-all,+perfmon,+net_admin"
    # The memory that needs no limit is counted by user.
    uid = str(programs.new_uid())
    become = ("setpriv", "--reuid", uid, "--regid", uid, "--clear-groups")
    prefix = ("prlimit", "--memlock=0", *become, "--inh-caps", capabilities, "--ambient-caps", capabilities)
    with running(mode, tmp_path / "log", "--exec-names", "sideband", prefix=prefix) as exporter:
        size = exporter.scrape().get("proc_connector_receive_buffer_bytes", socket="sideband")
        if size > 1 << 20:
            pytest.skip("this machine lets any user lock more memory for rings")
        world = World(exporter, programs)
        first, second = world.program("first"), world.program("second")
        exporter.process.send_signal(signal.SIGSTOP)
        try:
            # A process that forks 10,000 times on each CPU fills its ring: two records of 40 bytes for each child.
            for cpu in os.sched_getaffinity(0):
                flood = ["taskset", "-c", str(cpu), str(programs.link("flood")), "fork", "10000", "0"]
                subprocess.run(flood, check=True)
            world.spawn(*[[str(first), "exec", str(second), "exit", "5"]] * 50, exit_comm=second.name)
            world.count("execs", second.name, 50)
        finally:
            exporter.process.send_signal(signal.SIGCONT)
        world.may_be_unknown |= {"execs", "forks", "exits"}
        world.check()
        exporter.wait_for(lambda scrape: scrape.get(LOST, socket="sideband") > 0, "the loss is counted")
        # And afterwards all is exact again.
        again = World(exporter, programs)
        one, two = again.program("one"), again.program("two")
        again.spawn(*[[str(one), "exec", str(two), "exit", "5"]] * 20, exit_comm=two.name)
        again.count("execs", two.name, 20)
        again.check()
        assert exporter.scrape().rows("execs")[one.name, str(again.uid)] == 20


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_silence_is_noticed_by_missing_forks_and_mended(mode: str, programs: Programs, tmp_path: Path) -> None:
    """The canary would notice it too: after ten minutes."""
    flags = ("--exec-names", "sideband", "--canary.interval", "600")
    with running(mode, tmp_path / "log", *flags) as exporter:
        spawn_some(exporter, programs)
        before = exporter.scrape().get(RESUBSCRIPTIONS)
        try:
            began = time.monotonic()
            attack()
            wait_until(
                lambda: _resubscriptions_after_a_fork(exporter), lambda count: count > before, "a new subscription"
            )
            took = time.monotonic() - began
            wait_until(lambda: _hears(exporter, programs), bool, "a silence that was mended")
        finally:
            put_right()
        print(f"{mode}: noticed after {took:.2f} s")  # noqa: T201 - shown with pytest -rP
        assert "processes were forked without an event" in exporter.log.read_text()
        spawn_some(exporter, programs)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_silence_amid_a_storm_shifts_no_end_to_another_process(
    mode: str, programs: Programs, tmp_path: Path
) -> None:
    """Each program of the storm has exit codes of its own, so that an end of another one shows."""
    victims = [programs.link(f"v{n}") for n in range(8)]
    codes = 4

    def ends(scrape: Scrape, uid: int) -> Counter[tuple[str, str]]:
        rows: Counter[tuple[str, str]] = Counter()
        for row, number in scrape.rows("nonzero_exits").items():
            if row[1] == str(uid):
                rows[row[0], row[2]] += number
        return rows

    of_its_own = {(path.name, str(k * codes + i + 1)) for k, path in enumerate(victims) for i in range(codes)}
    flags = ("--exec-names", "sideband", "--canary.interval", "600")
    with running(mode, tmp_path / "log", *flags) as exporter:
        before = exporter.scrape().get(RESUBSCRIPTIONS)
        silenced, after = programs.new_uid(), programs.new_uid()
        spawner = programs.link("spawner")

        def words(processes: int) -> list[str]:
            return [str(spawner), "storm", str(processes), "8", str(codes), *map(str, victims)]

        with subprocess.Popen(words(1_000_000), user=silenced, group=silenced, extra_groups=[]) as storm:
            try:
                wait_until(lambda: ends(exporter.scrape(), silenced).total(), lambda n: n > 100, "the storm")
                attack()
                wait_until(lambda: exporter.scrape().get(RESUBSCRIPTIONS), lambda n: n > before, "a subscription")
                wait_until(lambda: _hears(exporter, programs), bool, "a silence that was mended")
                subprocess.run(
                    words(4000), user=after, group=after, extra_groups=[], check=True, stdout=subprocess.DEVNULL
                )
                assert storm.poll() is None
            finally:
                put_right()
                storm.kill()
        truth = Counter(dict.fromkeys(of_its_own, 4000 // len(of_its_own)))
        found = wait_until(
            lambda: ends(exporter.scrape(), after),
            lambda rows: rows.total() >= 4000,
            "the ends of the second storm",
        )
        assert found == truth
        names = {path.name for path in victims}
        assert {row for row in ends(exporter.scrape(), silenced) if row[0] in names} <= of_its_own


@pytest.mark.parametrize("mode", MODES)
def test_forks_while_it_starts_are_no_silence(mode: str, programs: Programs, tmp_path: Path) -> None:
    """The rings are open before the subscription: of forks in between there are records and no events."""
    storm = subprocess.Popen([programs.link("spawner"), "storm", "1000000", "8", "1", programs.link("forked")])
    try:
        for turn in range(4):
            with running(mode, tmp_path / f"log{turn}", "--exec-names", "sideband") as exporter:
                enough = exporter.scrape().total(FORKS) + 1000
                wait_until(lambda: exporter.scrape().total(FORKS), enough.__lt__, "forks")
                assert exporter.scrape().get(RESUBSCRIPTIONS) == 0, exporter.beginning_of_log()
    finally:
        storm.kill()
        storm.wait()


def _resubscriptions_after_a_fork(exporter: Exporter) -> float:
    subprocess.run(["true"], check=True)
    return exporter.scrape().get(RESUBSCRIPTIONS)


def _hears(exporter: Exporter, programs: Programs) -> bool:
    uid = programs.new_uid()
    subprocess.run([programs.link("heard"), "exit", "0"], user=uid, group=uid, extra_groups=[], check=True)
    time.sleep(0.1)
    return execs_of(exporter, uid).total() == 1


# -- containers -------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(programs: Programs, tmp_path: Path) -> Path:
    """A container whose program exits with 7."""
    if shutil.which("runc") is None:
        pytest.skip("no runc here, which clones its stages with CLONE_PARENT")
    bundle = tmp_path / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    shutil.copy(programs.binary, bundle / "rootfs/app")
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    config["process"] |= {"args": ["/app", "exit", "7"], "terminal": False, "rlimits": []}
    path.write_text(json.dumps(config))
    return bundle


def test_forks_of_a_container_runtimes_stages_count_for_the_stages(exact: Exporter, bundle: Path) -> None:
    """Each start clones two with CLONE_PARENT: they are children of the runtime, which did not fork them."""
    stages = ("runc:[0:PARENT]", "runc:[1:CHILD]")

    def forks_by_stages() -> dict[str, int]:
        rows = exact.scrape().rows("forks")
        return {stage: rows[stage, "0"] for stage in stages}

    before, times = forks_by_stages(), 5
    for i in range(times):
        command = ["runc", "--root", str(bundle / "state"), "run", f"sideband-test-{os.getpid()}-{i}"]
        run = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False)
        if run.returncode != 7 and i == 0:
            pytest.skip(f"runc cannot start a container here: {run.stderr[-200:]}")
        assert run.returncode == 7, run.stderr
    expected = {stage: count + times for stage, count in before.items()}
    found = wait_until(
        forks_by_stages,
        lambda found: all(found[stage] >= expected[stage] for stage in stages),
        f"{times} forks by each stage",
    )
    assert found == expected


@pytest.fixture
def two_cpus() -> Iterator[tuple[int, int]]:
    """This process, and what it starts, runs on one CPU and leaves the other one free."""
    all_of_them = os.sched_getaffinity(0)
    if len(all_of_them) < 2:
        pytest.skip("one CPU: what forks keeps it until the record is written")
    first, second, *_ = sorted(all_of_them)
    os.sched_setaffinity(0, {first})
    try:
        yield first, second
    finally:
        os.sched_setaffinity(0, all_of_them)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_fork_is_counted_with_its_record_though_many_others_have_it_first(
    mode: str, programs: Programs, tmp_path: Path, two_cpus: tuple[int, int]
) -> None:
    """The listener that came last has the FORK first, and the kernel writes the record when all have it."""
    on_its_own = ("taskset", "--cpu-list", str(two_cpus[1]))
    with crowd(2000), running(mode, tmp_path / "log", "--exec-names", "sideband", prefix=on_its_own) as exporter:
        world = World(exporter, programs)
        program = world.program("sibling")
        rounds = 100
        world.spawn(*[[str(program), "sibling", "3", "7"]] * rounds)
        world.count("forks", program.name, rounds)
        world.count("forks", "stage", 3 * rounds)
        world.count("exits", "stage", rounds, status=0)
        world.count("exits", "stage", 3 * rounds, status=7 << 8)
        scrape = world.check()
        assert scrape.rows("forks")["stage", str(world.uid)] == 3 * rounds
        assert scrape.rows("forks")[program.name, str(world.uid)] == rounds
        assert scrape.get("proc_connector_missed_events_total", event="fork") == 0
