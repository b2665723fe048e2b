"""Groups on the real kernel, without a runtime: processes that are moved between cgroups in every way there is."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel.harness import ROOMY, Exporter, Programs, Scrape, wait_until
from kernel.watching import Watching

ROOTS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
LONG_MS, SHORT_MS = "1000", "2"
CODE = "3"
BRIEF = 20
# argv: the directory of a cgroup, then a program with its arguments.
CLONE_INTO = """
import ctypes, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
arguments = struct.pack("=11Q", 0x200000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, fd)
pid = ctypes.CDLL(None).syscall(435, ctypes.c_char_p(arguments), len(arguments))
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
sys.exit(1 if pid < 0 else os.waitpid(pid, 0)[1] >> 8)
"""


class Container:
    """A cgroup with the name of a container's.

    Attributes:
        directory: The cgroup's.
        short_id: What the container is called.
    """

    def __init__(self, root: Path) -> None:
        container = secrets.token_hex(32)
        self.directory = root / "docker" / container
        self.short_id = container[:12]

    def take(self) -> None:
        """Move the process that calls this here."""
        (self.directory / "cgroup.procs").write_text("0")


@pytest.fixture
def container() -> Iterator[Container]:
    root = next((root for root in ROOTS if (root / "cgroup.procs").exists()), None)
    if root is None or not os.access(root, os.W_OK):
        pytest.skip("no v2 hierarchy here in which a cgroup could be made")
    container = Container(root)
    container.directory.mkdir(parents=True)
    yield container
    with contextlib.suppress(OSError):
        container.directory.rmdir()
        container.directory.parent.rmdir()


MODES = {
    "side-band records": ("--exec-names", "auto"),
    "exit records": ("--exec-names", "events"),
    "procfs": ("--exec-names", "events", "--attribution", "procfs"),
    "given up all privileges": ("--user", "65534"),
}


@pytest.fixture(params=MODES)
def exporter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Exporter]:
    flags = ("--group.by", "pod,unit", *MODES[request.param], *ROOMY)
    with Exporter(request.param, tmp_path / "log", *flags).closing() as exporter:
        yield exporter
        assert_sums(exporter.scrape())
        exporter.stop()
        assert "Traceback" not in exporter.log.read_text(), exporter.log.read_text()


def assert_sums(scrape: Scrape) -> None:
    """Assert that each event counts once, in whatever group."""
    for counter, event in (("forks", "fork"), ("execs", "exec")):
        counted = scrape.total(f"proc_connector_{counter}_total") + sum(
            scrape.get(f"proc_connector_{elsewhere}", event=event)
            for elsewhere in ("pending_events", "expired_total")
        )
        assert counted == scrape.get("proc_connector_events_total", event=event), event


def run(*words: str | Path, before: Callable[[], None] | None = None) -> int:
    return subprocess.run(words, preexec_fn=before, check=False).returncode


def by_container(scrape: Scrape, counter: str, comm: str) -> dict[str, int]:
    found: Counter[str] = Counter()
    for key, number in scrape.samples.get(f"proc_connector_{counter}_total", {}).items():
        labels = dict(key)
        if labels["comm"] == comm:
            found[labels["container"]] += int(number)
    return dict(found)


def wait_for_end(exporter: Exporter, comm: str, count: int = 1) -> Scrape:
    """Wait until so many execs and ends of a program were counted: none of them waits for its group any more."""

    def holds(scrape: Scrape) -> bool:
        counted = [sum(by_container(scrape, counter, comm).values()) for counter in ("execs", "exits")]
        return counted[1] == count and (counted[0] == count or exporter.mode == "procfs")

    return exporter.wait_for(holds, f"{count} execs and ends of {comm}")


def test_a_process_that_began_a_session_counts_where_it_was_moved(
    exporter: Exporter, container: Container, programs: Programs
) -> None:
    program = programs.link("session")

    def before() -> None:
        os.setsid()
        container.take()

    assert run(program, "sleep", LONG_MS, CODE, before=before) == int(CODE)
    scrape = wait_for_end(exporter, program.name)
    assert by_container(scrape, "exits", program.name) == {container.short_id: 1}
    assert by_container(scrape, "execs", program.name) == {container.short_id: 1}


def test_one_that_was_moved_without_a_session_counts_there_from_the_drain_after_its_exec(
    exporter: Exporter, container: Container, programs: Programs
) -> None:
    program = programs.link("cgexec")
    assert run(program, "sleep", LONG_MS, CODE, before=container.take) == int(CODE)
    scrape = wait_for_end(exporter, program.name)
    assert by_container(scrape, "exits", program.name) == {container.short_id: 1}
    assert by_container(scrape, "execs", program.name) == {"": 1}


def test_after_one_that_was_moved_without_a_session_those_that_follow_are_found_though_they_live_briefly(
    container: Container, programs: Programs, tmp_path: Path
) -> None:
    """On a host with some thousand events a second, whose drains are half a second apart until then."""
    first, brief = programs.link("first"), programs.link("brief")
    storm = (programs.binary, "storm", "10000000", "1", "3", programs.link("busy"))
    flags = ("--group.by", "pod", *ROOMY)
    with (
        Exporter("auto", tmp_path / "log", *flags).closing() as exporter,
        subprocess.Popen(storm, stdout=subprocess.DEVNULL) as busy,
    ):
        try:
            assert run(first, "sleep", "1500", CODE, before=container.take) == int(CODE)
            for _ in range(BRIEF):
                assert run(brief, "sleep", "250", CODE, before=container.take) == int(CODE)
        finally:
            busy.kill()
        wait_for_end(exporter, first.name)
        scrape = wait_for_end(exporter, brief.name, BRIEF)
        exporter.stop()
    assert by_container(scrape, "exits", first.name) == {container.short_id: 1}
    # Half of them would be, at drains half a second apart. A busy machine can be late for some.
    assert by_container(scrape, "exits", brief.name)[container.short_id] >= 0.85 * BRIEF


def test_one_that_was_cloned_into_a_cgroup_counts_there_from_the_drain_after_its_exec(
    exporter: Exporter, container: Container, programs: Programs
) -> None:
    program = programs.link("clone3")
    words = (sys.executable, "-c", CLONE_INTO, container.directory, program, "sleep", LONG_MS, CODE)
    assert run(*words) == int(CODE)
    scrape = wait_for_end(exporter, program.name)
    assert by_container(scrape, "exits", program.name) == {container.short_id: 1}


def test_what_lived_there_before_the_exporter_began_counts_there_with_all_that_it_forks(
    container: Container, programs: Programs, tmp_path: Path
) -> None:
    program, child = programs.link("before"), programs.link("child")
    script = f"read line; {program} storm 500 8 3 {child} >/dev/null; exit {CODE}"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, preexec_fn=container.take) as shell:  # noqa: PLW1509
        log = tmp_path / "log"
        with Exporter("auto", log, "--group.by", "pod", *ROOMY).closing() as exporter:
            assert shell.stdin is not None
            shell.stdin.write(b"go\n")
            shell.stdin.close()
            assert shell.wait() == int(CODE)
            scrape = wait_for_end(exporter, child.name, 500)
            exporter.stop()
    for counter, comm, count in (("exits", child, 500), ("execs", child, 500), ("forks", program, 500)):
        assert by_container(scrape, counter, comm.name) == {container.short_id: count}


def test_short_lived_sessions_that_are_not_moved_stay_where_they_are(
    exporter: Exporter, container: Container, programs: Programs
) -> None:
    program = programs.link("setsid")
    script = f"for i in 1 2 3 4 5 6 7 8; do setsid {program} sleep {SHORT_MS} {CODE}; done"
    assert run("sh", "-c", script, before=container.take) == int(CODE)
    scrape = wait_for_end(exporter, program.name, 8)
    found = by_container(scrape, "exits", program.name)
    # On a hybrid host a process that is gone is known only if its v2 cgroup is a container's: it is here.
    assert found.get("", 0) == 0, found
    assert set(found) <= {container.short_id, "<unknown>"}


def test_failures_and_events_say_in_which_container_they_were(
    exporter: Exporter, container: Container, programs: Programs, tmp_path: Path
) -> None:
    program = programs.link("failing")
    watching = Watching(
        "auto", tmp_path, "--output", "json", "--events", "exit", "--container", container.short_id
    )

    def before() -> None:
        os.setsid()
        container.take()

    assert run(program, "sleep", LONG_MS, CODE, before=before) == int(CODE)
    query = f"/failures?format=json&container={container.short_id}"
    page = wait_until(lambda: json.loads(exporter.request(query).body), lambda page: page["failures"], "a failure")
    [failure] = page["failures"]
    assert (failure["comm"], failure["container"], failure["exit_code"]) == (
        program.name,
        container.short_id,
        int(CODE),
    )

    def once_more() -> bool:
        # On a busy machine one of them can be unknown to this other listener.
        run(program, "sleep", LONG_MS, CODE, before=before)
        return bool(watching.received().objects)

    wait_until(lambda: bool(watching.received().objects) or once_more(), bool, "an event")
    line = watching.stop().objects[0]
    assert (line["comm"], line["container"], line["pod"], line["exit_code"]) == (
        program.name,
        container.short_id,
        "",
        int(CODE),
    )


def test_the_landing_page_says_what_says_where_processes_run(exporter: Exporter) -> None:
    assert b"namespace, pod, container, unit from " in exporter.request("/").body
