"""Real processes that fail, on /failures and in the log: each with what its parent knows of it."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from documented import documented, shown
from kernel.harness import Exporter, Programs, World, running, wait_until

Row = dict[str, Any]
STORM = 100_000


def failures(exporter: Exporter, **filters: str | int) -> list[Row]:
    answer = exporter.request(f"/failures?{urlencode(filters)}", Accept="application/json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json; charset=utf-8"), answer.body
    rows: list[Row] = json.loads(answer.body)["failures"]
    return rows


def one(exporter: Exporter, comm: str) -> Row:
    """Wait for the one failure of a program."""
    rows = wait_until(lambda: failures(exporter, comm=comm), bool, f"a failure of {comm}")
    assert len(rows) == 1
    return rows[0]


@pytest.mark.parametrize(
    ("words", "exit_code", "signal_name"),
    [
        (["exit 3"], 3, None),
        (["kill -KILL $$"], 137, "SIGKILL"),
        (["kill -34 $$"], 162, "SIGRTMIN"),
    ],
    ids=["exit code", "SIGKILL", "SIGRTMIN"],
)
def test_a_process_that_failed_is_there_with_all_that_its_parent_knows(
    exporter: Exporter, programs: Programs, words: list[str], exit_code: int, signal_name: str | None
) -> None:
    uid = programs.new_uid()
    shell = programs.folder / programs.name("sh")
    shell.write_bytes(Path("/bin/sh").read_bytes())
    shell.chmod(0o755)
    with subprocess.Popen([shell, "-c", *words], user=uid, group=uid, extra_groups=[]) as child:
        child.wait()
    failure = one(exporter, shell.name)
    assert failure["pid"] == child.pid
    assert failure["uid"] == uid
    assert (failure["exit_code"], failure["signal"], failure["core"]) == (exit_code, signal_name, False)
    # None if the parent had reaped it before it sent its EXIT.
    assert failure["ppid"] in {os.getpid(), None}
    assert failure["parent_comm"] in {Path("/proc/self/comm").read_text().removesuffix("\n"), None}
    assert 0 < failure["lifetime_seconds"] < 60
    if exporter.mode == "taskstats":
        assert failure["cpu_seconds"] >= 0
        assert failure["max_rss_bytes"] > 1 << 16
    else:
        assert failure["cpu_seconds"] is None


def test_the_parent_is_the_one_that_waits_for_the_process(exporter: Exporter, programs: Programs) -> None:
    """A shell that lives on: its child is a zombie until the shell reads."""
    victim = programs.link("child")
    with subprocess.Popen(["/bin/sh", "-c", f"{victim} exit 7 & read x; wait $!"], stdin=subprocess.PIPE) as shell:
        failure = one(exporter, victim.name)
        assert (failure["ppid"], failure["parent_comm"]) == (shell.pid, "sh")
        assert failure["exit_code"] == 7
        shell.communicate(b"\n")


def test_a_program_that_was_executed_by_others_says_by_which(programs: Programs, tmp_path: Path) -> None:
    victim = programs.link("last")
    with running("taskstats", tmp_path / "log") as exporter:
        info = exporter.scrape().samples["proc_connector_attribution_info"]
        by_sideband = any(("exec_names", "sideband") in labels for labels in info)
        subprocess.run(["/usr/bin/env", "/usr/bin/env", victim, "exit", "5"], check=False)
        execs = one(exporter, victim.name)["execs"]
    if by_sideband:
        assert execs[-2:] == ["env", "env"]
    assert len(execs) == 3


def test_a_process_that_ends_well_is_not_there(exporter: Exporter, programs: Programs) -> None:
    well, badly = programs.link("well"), programs.link("badly")
    subprocess.run([well, "exit", "0"], check=True)
    subprocess.run([badly, "exit", "1"], check=False)
    one(exporter, badly.name)
    assert failures(exporter, comm=well.name) == []


def test_a_comm_of_any_bytes_is_text(exporter: Exporter, programs: Programs) -> None:
    hostile = programs.folder / f'<b>"&\n{programs.name("x")[-4:]}'
    os.link(programs.binary, hostile)
    subprocess.run([hostile, "exit", "1"], check=False)
    shown = hostile.name.replace("\n", "\\x0a")
    one(exporter, shown)
    page = exporter.request(f"/failures?{urlencode({'comm': shown})}").body.decode()
    assert "<b>&quot;" not in page
    assert "&lt;b&gt;&quot;&amp;\\x0a" in page


@pytest.fixture
def stormed(programs: Programs, tmp_path: Path) -> Iterator[tuple[Exporter, Path, Path]]:
    """An exporter, the rare program that has failed once, and another that has failed a hundred thousand times."""
    rare, victim = programs.link("rare"), programs.link("victim")
    with running("taskstats", tmp_path / "log", "--failures.log") as exporter:
        subprocess.run([rare, "exit", "9"], check=False)
        one(exporter, rare.name)
        yield exporter, rare, victim


@pytest.mark.slow
def test_a_storm_of_failures_pushes_no_other_out_and_takes_no_memory(
    stormed: tuple[Exporter, Path, Path], programs: Programs
) -> None:
    exporter, rare, victim = stormed
    world = World(exporter, programs)
    spawner = world.program("spawner")

    def storm(count: int) -> None:
        """Run the victim so often that it ends with a code other than 0, each time with the same."""
        with world.start(spawner, "storm", str(count), "64", "1", victim, stdout=subprocess.PIPE) as running_storm:
            output, _ = running_storm.communicate()
        lines = [tuple(int(word) for word in line.split()) for line in output.splitlines()]
        assert [(status != 0, n) for _, status, n in lines] == [(True, count)]
        world.count("exits", spawner.name, status=0)
        world.count("forks", spawner.name, count)
        world.count("execs", victim.name, count)
        world.count("exits", victim.name, count, status=lines[0][1])

    # The first storm brings the largest drains, whose memory is kept, without failures too: up to 2 MiB.
    storm(STORM)
    world.check()
    before = rss_kib(exporter)
    storm(STORM)
    world.check()
    assert rss_kib(exporter) < before + 1024
    assert [row["exit_code"] for row in failures(exporter, comm=rare.name)] == [9]
    assert len(failures(exporter, comm=victim.name)) == 20
    left_out = exporter.scrape().get("proc_connector_failures_left_out_total", place="page")
    assert left_out >= 2 * STORM - 20
    lines = exporter.log.read_text().splitlines()
    assert sum(f"comm={rare.name}" in line for line in lines) == 1
    assert 10 <= sum(f"comm={victim.name}" in line for line in lines) < 200


def rss_kib(exporter: Exporter) -> int:
    status = Path(f"/proc/{exporter.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_without_failures_there_is_no_page(tmp_path: Path) -> None:
    with Exporter("taskstats", tmp_path / "log", "--failures.keep", "0").closing() as exporter:
        assert exporter.request("/failures").status == 404
        assert "failures_left_out" not in exporter.scrape_raw()


def test_of_ends_that_are_not_wanted_there_is_no_page(tmp_path: Path) -> None:
    with Exporter("taskstats", tmp_path / "log", "--events", "fork").closing() as exporter:
        assert exporter.request("/failures").status == 404


def test_of_failures_alone_there_is_a_page(programs: Programs, tmp_path: Path) -> None:
    victim = programs.link("alone")
    with Exporter("taskstats", tmp_path / "log", "--events", "nonzero_exit").closing() as exporter:
        with subprocess.Popen([victim, "exit", "4"]) as child:
            child.wait()
        failure = one(exporter, victim.name)
        # Who lives is not known, so parents have no comm.
        assert (failure["pid"], failure["exit_code"], failure["parent_comm"]) == (child.pid, 4, None)


def test_a_bad_filter_is_said(exporter: Exporter) -> None:
    answer = exporter.request("/failures?since=yesterday")
    assert (answer.status, answer.headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
    assert answer.body.startswith(b"since must be a duration such as 90s")


def test_the_command_of_the_documentation_says_what_is_said_there(programs: Programs, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl here (Debian: apt-get install curl)")
    block = ("docs/failures.md", "tests/kernel/test_failures.py")
    [command] = documented(*block)
    program = programs.link("make")
    with running("taskstats", tmp_path / "log") as exporter:
        subprocess.run([program, "exit", "2"], check=False)
        one(exporter, program.name)
        here = command.replace("localhost:10061", f"127.0.0.1:{exporter.port}")
        here = here.replace("=make&", f"={program.name}&")
        said = json.loads(subprocess.run(["sh", "-c", here], capture_output=True, check=True).stdout)
    example = json.loads("".join(shown(*block)))
    assert (said["matching"], [row["comm"] for row in said["failures"]]) == (1, [program.name])
    assert said.keys() == example.keys()
    assert said["failures"][0].keys() == example["failures"][0].keys()
