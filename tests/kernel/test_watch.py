"""`watch` as its users see it, against processes whose truth the test knows."""

import json
import os
import pty
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from documented import documented, shown
from kernel.harness import DEADLINE_SECONDS, Programs, wait_until
from kernel.received import EVENTS
from kernel.watching import WATCH, watching, world_of


@pytest.mark.parametrize("mode", ["taskstats", "procfs"])
def test_it_prints_the_events_of_every_process_and_nothing_else(
    mode: str, programs: Programs, tmp_path: Path
) -> None:
    with watching(mode, tmp_path, "--output", "json", "--events", EVENTS) as watch:
        world = world_of(watch, programs)
        plain, killed, threads = world.program("plain"), world.program("killed"), world.program("threads")
        leader, forking, dump = world.program("leader"), world.program("forking"), world.program("dump")
        kinds: list[list[str | Path]] = [
            [plain, "exit", "7"],
            [killed, "signal", "9", "0"],
            [threads, "threads", "3", "15", "0"],
            [leader, "leader_first", "thread", "17", "group", "33"],
            [forking, "fork", "2", "6"],
            [dump, "signal", "11", "0"],
        ]
        world.spawn(*(kinds * 10))
        world.count("forks", forking.name, 20)
        world.count("exits", forking.name, 20, status=6 << 8)
        world.count("coredumps", dump.name, 10)
        watch.check(world)
        received = watch.stop()
    world.compare(received)
    assert received.lost == 0
    ends = [o for o in received.objects if o["event"] == "exit" and o["comm"] in world.comms]
    assert all(0 <= o["lifetime_seconds"] < DEADLINE_SECONDS for o in ends)
    assert all((o["cpu_seconds"] is not None) == (mode == "taskstats") for o in ends)
    pids = {o["pid"] for o in received.objects if o["event"] == "fork" and o["comm"] == forking.name}
    # Without records some may be of an unknown name.
    assert len(pids) == 20 if mode == "taskstats" else len(pids) <= 20


def test_what_happened_until_the_interrupt_is_printed_with_its_name(programs: Programs, tmp_path: Path) -> None:
    with watching("taskstats", tmp_path, "--output", "json") as watch:
        world = world_of(watch, programs)
        program = world.program("lives-on")
        process = world.start(program, "sleep", "60000", "0")
        try:
            # Its comm changes before its EXEC is sent: only when it sleeps is that certain.
            wait_until(
                lambda: Path(f"/proc/{process.pid}/stat").read_text(),
                lambda stat: f"({program.name}) S" in stat,
                "that it sleeps",
            )
            received = watch.stop()
        finally:
            process.kill()
            process.wait()
    # Events are printed as their names become known: that of setpriv may be the later one.
    execs = [o for o in received.objects if o["event"] == "exec" and o["pid"] == process.pid]
    assert max(execs, key=lambda o: o["time"])["comm"] == program.name


def test_only_failures_leave_the_kernel_when_only_failures_are_wanted(programs: Programs, tmp_path: Path) -> None:
    with watching("taskstats", tmp_path, "--output", "json", "--exit-code", "3", "--comm", "want*") as watch:
        assert "events=nonzero_exit" in (tmp_path / "err").read_text()
        world = world_of(watch, programs)
        wanted, other = world.program("wanted"), world.program("other")
        kinds: list[list[str | Path]] = [[wanted, "exit", "3"], [wanted, "exit", "0"], [other, "exit", "3"]]
        world.spawn(*(kinds * 20))
        wait_until(watch.received, lambda received: len(received.objects) >= 20, "twenty failures")
        received = watch.stop()
    assert [(o["event"], o["comm"], o["uid"], o["exit_code"]) for o in received.objects] == [
        ("exit", wanted.name, world.uid, 3)
    ] * 20


def test_without_taskstats_a_failure_has_its_name_too(programs: Programs, tmp_path: Path) -> None:
    with watching("procfs", tmp_path, "--output", "json", "--events", "nonzero_exit") as watch:
        # On a busy machine the look at /proc can come too late for a short life, but not for a long one.
        for lifetime_ms in (150, 1_500, 6_000):
            world = world_of(watch, programs)
            program = world.program("slow")
            slow: list[str | Path] = [program, "sleep", str(lifetime_ms), "7"]
            world.spawn(slow, slow, slow)

            def ends(uid: int = world.uid) -> list[tuple[str | None, int]]:
                return [(o["comm"], o["exit_code"]) for o in watch.received().objects if o["uid"] == uid]

            failures = wait_until(ends, lambda found: len(found) == 3, "three failures")
            assert {comm for comm, _ in failures} <= {program.name, None}
            if failures == [(program.name, 7)] * 3:
                break
        else:
            pytest.fail(f"without their name: {failures}")
        watch.stop()


def test_it_stops_after_so_many_or_so_long_with_a_summary(programs: Programs) -> None:
    program = programs.link("counted")
    flags = ("--output", "json", "--events", "exec", "--comm", program.name, "--summary")
    with subprocess.Popen(
        [*WATCH, *flags, "--count", "5"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as watch:
        assert watch.stderr is not None
        watch.stderr.readline()
        for _ in range(8):
            subprocess.run([program, "exit", "0"], check=True)
        out, _ = watch.communicate(timeout=DEADLINE_SECONDS)
    *lines, summary = map(json.loads, out.splitlines())
    assert [line["comm"] for line in lines] == [program.name] * 5
    assert summary == {"event": "summary", "exec": 5, "lost": 0}
    short = subprocess.run([*WATCH, *flags, "--duration", "0.2"], capture_output=True, check=True, timeout=30)
    assert json.loads(short.stdout) == {"event": "summary", "lost": 0}


def test_the_command_of_the_documentation_prints_lines_like_those_that_it_shows(
    programs: Programs, tmp_path: Path
) -> None:
    block = ("docs/watch.md", "tests/kernel/test_watch.py")
    [command] = documented(*block)
    _, _, *flags = shlex.split(command)
    program = programs.link("crash")
    with watching("taskstats", tmp_path, *flags):
        subprocess.run([program, "signal", "9", "0"], check=False)
        subprocess.run([programs.link("other"), "signal", "9", "0"], check=False)
        end = re.compile(rf"exit +\d+ +0 {re.escape(program.name)} +KILL ")
        text = wait_until((tmp_path / "out").read_text, lambda text: end.search(text) is not None, "its end")
    example = shown(*block)
    assert text.splitlines()[0] == example[0]
    row = re.compile(r"\d\d:\d\d:\d\d\.\d{3} [a-z_]+ +\d+ +\d+ (?:ls|sh|crash\S*)(?: +\w+ +\S+ +\S+ +\S+)?")
    assert [line for line in (*text.splitlines()[1:], *example[1:]) if not row.fullmatch(line)] == []


def test_a_reader_that_goes_away_ends_it_quietly(programs: Programs) -> None:
    program = programs.link("unread")
    with subprocess.Popen([*WATCH, "--output", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        watch.stderr.readline()
        watch.stdout.close()
        subprocess.run([program, "exit", "0"], check=True)
        assert watch.stderr.read() == b""
        assert watch.wait(DEADLINE_SECONDS) == 0


def screen_of(*flags: str, keys: bytes, shows: str) -> tuple[str, int]:
    """Run `watch` in a terminal until it shows something, then press keys; return all that it wrote."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
        os.execv(WATCH[0], [*WATCH[:4], *flags])  # noqa: S606 - the program itself, in the terminal
    seen = b""
    pressed = False
    while True:
        try:
            seen += os.read(terminal, 4096)
        except OSError:
            break
        if not pressed and re.search(shows, seen.decode()):
            pressed = True
            os.write(terminal, keys)
    os.close(terminal)
    return seen.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_table_draws_a_screen_sorts_by_keys_and_gives_the_terminal_back() -> None:
    seen, code = screen_of("--top", keys=b"cq", shows="COMM +FORKS/S")
    assert code == 0
    assert seen.startswith("\x1b[?1049h")
    assert "\x1b[?1049l" in seen
    lines = [re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", line) for line in seen.splitlines()]
    assert max(map(len, lines)) <= 2 * 80  # the last line of a screen is followed by the next one's first


def test_control_c_ends_it_quietly_in_a_terminal() -> None:
    seen, code = screen_of("--events", "exit", keys=b"\x03", shows="TIME +EVENT")
    assert code == 0
    assert "Traceback" not in seen
