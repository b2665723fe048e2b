"""Too many names, rules, and rules that change while a storm goes on."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from kernel.harness import ROOMY, UNKNOWN, Exporter, Programs, Scrape, World, exit_labels, running, wait_until

OTHER = "<other>"
CROWD = 30_000
# Exit codes that other programs of the host hardly use.
FIRST_CODE, CODES = 131, 100


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["taskstats", "procfs"])
def test_a_crowd_of_names_is_counted_to_the_last_and_stays_at_the_limit(
    mode: str, programs: Programs, tmp_path: Path
) -> None:
    uid = programs.new_uid()
    parent = programs.link("crowd")
    # Other programs of the host must not be in <other>.
    rules = tmp_path / "rules.yml"
    rules.write_text(f"include: {{uid: [{uid}]}}\n")
    flags = ("--limit.series", "1000", "--config.file", str(rules))
    with running(mode, tmp_path / "log", *flags) as exporter:
        command: list[str | Path] = [parent, "when_told", "crowd", str(CROWD), str(FIRST_CODE), str(CODES)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, user=uid, group=uid, extra_groups=[]
        ) as crowd:
            # It has a series before there is no room any more.
            exporter.wait_for(
                lambda scrape: scrape.get("proc_connector_processes", comm=parent.name) == 1, "the parent"
            )
            output, _ = crowd.communicate()
        assert crowd.returncode == 0
        truth = Counter[str]()
        for line in output.splitlines():
            status, count = line.split()
            truth[exit_labels(int(status))[0]] += int(count)
        assert truth.total() == CROWD

        def ends() -> Counter[str]:
            counted = Counter[str]()
            for (_, owner, code, killed_by), n in exporter.scrape().rows("exits").items():
                if owner in (str(uid), OTHER) and code in truth and not killed_by:
                    counted[code] += n
            return counted

        assert wait_until(ends, lambda counted: counted.total() >= CROWD, "the ends of all") == truth
        began = time.monotonic()
        scrape = exporter.scrape()
        assert time.monotonic() - began < 5
        assert scrape.rows("forks")[parent.name, str(uid)] == CROWD
        named = {comm for comm, owner, *_ in scrape.rows("exits") if comm.startswith("crowd-")}
        assert 0 < len(named) < 1000
        for series in scrape.samples["proc_connector_series"].values():
            assert series <= 1000
        assert scrape.get("proc_connector_folded_total", metric="proc_connector_exits_total") >= CROWD - 1000
        assert rss_bytes(exporter.process.pid) < 128 << 20
        warning = wait_until(
            lambda: [line for line in exporter.log.read_text().splitlines() if "at their limit" in line],
            bool,
            "a warning",
        )
        assert len(warning) == 1
        assert "proc_connector_exits_total" in warning[0]
        assert "--limit.series" in warning[0]


@pytest.mark.slow
def test_a_hundred_reloads_amid_a_storm_lose_nothing(programs: Programs, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text("comm:\n- {match: 'no such.*', replace: x}\n")
    with running("taskstats", tmp_path / "log", "--config.file", str(rules)) as exporter:
        before = exporter.scrape()
        world = World(exporter, programs)
        spawner, victim = world.program("spawner"), world.program("victim")
        with world.start(spawner, "storm", "3000", "32", "4", victim, stdout=subprocess.PIPE) as storm:
            # The last one is not broken. The file is read once a second.
            for n in range(101):
                rules.write_text(f"comm:\n- {{match: 'no such.*', replace: x{n}}}\n" if n % 3 else "comm: [")
                exporter.process.send_signal(signal.SIGHUP)
                time.sleep(0.01)
            output, _ = storm.communicate()
        assert storm.returncode == 0
        world.count("exits", spawner.name, status=0)
        world.count("forks", spawner.name, 3000)
        for line in output.splitlines():
            _, status, count = (int(word) for word in line.split())
            world.count("execs", victim.name, count)
            world.count("exits", victim.name, count, status=status)
        scrape = world.check()
        lost = "proc_connector_lost_messages_total"
        assert scrape.total(lost) == before.total(lost)
        assert scrape.get("proc_connector_unattributed_total", event="exit") == 0
        # Reloads have been done, and few lines of them were logged.
        reloaded = "proc_connector_config_last_reload_success_timestamp_seconds"
        exporter.wait_for(lambda now: now.get(reloaded) > before.get(reloaded), "that the rules were read again")
        assert len(exporter.log.read_text().splitlines()) < 50


def test_rules_rename_and_leave_out_and_change_without_a_restart(programs: Programs, tmp_path: Path) -> None:
    first, second = programs.link("first"), programs.link("second")
    uid, hidden = programs.new_uid(), programs.new_uid()
    rules = tmp_path / "rules.yml"
    rules.write_text(f"comm:\n- match: '(first|second)\\.\\w+'\n  replace: 'a $1'\nexclude:\n  uid: [{hidden}]\n")
    exporter = Exporter(
        "taskstats",
        tmp_path / "log",
        *ROOMY,
        "--config.file",
        str(rules),
        "--web.enable-lifecycle",
        "--attribution",
        "taskstats",
    )

    def end(program: Path, user: int, code: int) -> None:
        result = subprocess.run([program, "exit", str(code)], user=user, group=user, extra_groups=[], check=False)
        assert result.returncode == code

    def shown(comm: str, code: int) -> None:
        row = (comm, str(uid), str(code), "")
        wait_until(lambda: exporter.scrape().rows("exits")[row], lambda n: n == 1, f"an end of {row}")

    try:
        before = exporter.scrape()
        end(first, uid, 7)
        end(second, uid, 8)
        for _ in range(3):
            end(first, hidden, 9)
        shown("a first", 7)
        shown("a second", 8)
        after = exporter.wait_for(
            lambda scrape: (
                scrape.get("proc_connector_excluded_total", event="exit")
                - before.get("proc_connector_excluded_total", event="exit")
                == 3
            ),
            "what is excluded",
        )
        assert not [row for row in after.rows("exits") if row[1] == str(hidden)]
        # Sums equal the events, with what is excluded.
        for family, event in (("forks", "fork"), ("execs", "exec")):
            counted = sum(after.rows(family).values())
            counted += int(after.get("proc_connector_excluded_total", event=event))
            counted += int(after.get("proc_connector_pending_events", event=event))
            assert counted == after.get("proc_connector_events_total", event=event)

        rules.write_text("comm:\n- match: '(a*)*'\n  drop: true\n")
        answer = exporter.request("/-/reload", "POST")
        assert answer.status == 500
        assert b"rules.yml:2: " in answer.body
        assert exporter.scrape().get("proc_connector_config_last_reload_successful") == 0
        end(first, uid, 10)
        shown("a first", 10)

        rules.write_text("comm:\n- {match: 'first.*', replace: renamed}\n")
        answer = exporter.request("/-/reload", "POST")
        assert (answer.status, answer.body.partition(b"; ")[2]) == (500, b"to do without, write `exclude: {}`\n")
        assert exporter.scrape().get("proc_connector_config_last_reload_successful") == 0
        rules.write_text("comm:\n- {match: 'first.*', replace: renamed}\nexclude: {}\n")
        assert exporter.request("/-/reload", "POST").status == 200
        scrape = exporter.scrape()
        assert scrape.get("proc_connector_config_last_reload_successful") == 1
        # What was counted stays.
        assert scrape.rows("exits")["a first", str(uid), "7", ""] == 1
        end(first, uid, 11)
        shown("renamed", 11)
        assert UNKNOWN not in {row[0] for row in exporter.scrape().rows("exits")}
    finally:
        exporter.stop()
    assert "Traceback" not in exporter.log.read_text()


# Starts the program that follows with a clock in which an hour passes every second, for series to be idle by: no
# setting makes them idle sooner, and a time namespace lets clocks begin elsewhere, not run faster.
HURRIED = """
import sys, time
from types import SimpleNamespace
from exporter import __main__
from exporter.service import upkeep
upkeep.time = SimpleNamespace(monotonic=lambda: 3600 * time.monotonic(), time=time.time)
upkeep._LOOK_SECONDS = 0.2
sys.argv[1:] = sys.argv[4:]
sys.exit(__main__.main())
"""


def test_idle_series_go_when_no_process_runs_under_them_and_all_sums_stay_exact(
    programs: Programs, tmp_path: Path
) -> None:
    def sums_are_exact(scrape: Scrape) -> bool:
        return all(
            sum(scrape.rows(counter).values())
            + sum(
                scrape.get(f"proc_connector_{elsewhere}", event=event)
                for elsewhere in ("pending_events", "expired_total")
            )
            == scrape.get("proc_connector_events_total", event=event)
            for counter, event in (("forks", "fork"), ("execs", "exec"))
        )

    prefix = (sys.executable, "-c", HURRIED)
    idle, lives = programs.link("idle"), programs.link("lives")
    row = (idle.name, "0", "7", "")
    flags = (*ROOMY, "--limit.idle", "3600")
    with Exporter("taskstats", tmp_path / "log", *flags, prefix=prefix).closing() as exporter:
        with subprocess.Popen([lives, "when_told", "exit", "0"], stdin=subprocess.PIPE) as process:
            for comes_back in (1, 2):
                for _ in range(5):
                    subprocess.run([idle, "exit", "7"], check=False)
                seen = exporter.wait_for(lambda s: s.rows("exits")[row] == 5, "its ends")
                assert sums_are_exact(seen)
                gone = exporter.wait_for(lambda s: not s.rows("exits")[row], "that it is gone")
                assert sums_are_exact(gone)
                assert gone.get("proc_connector_expired_total", event="exit") >= 5 * comes_back
                assert not gone.get("proc_connector_process_lifetime_seconds_count", comm=idle.name)
                # A program that runs keeps what was counted, however long ago.
                assert gone.rows("execs")[lives.name, "0"] == 1
            process.communicate()
        exporter.wait_for(lambda s: lives.name not in {comm for comm, *_ in s.rows("execs")}, "that both are gone")
        exporter.stop()


def test_a_broken_file_of_rules_is_a_wrong_setting(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text("comm:\n- match: a\n  replase: b\n")
    result = subprocess.run(
        [sys.executable, "-m", "exporter", "--config.file", rules, "--log.format", "json"],
        cwd="/", capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert result.returncode == 2
    assert json.loads(result.stderr)["error"].startswith(f"--config.file: {rules}:3: unknown key 'replase'")
