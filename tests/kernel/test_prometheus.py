"""A real Prometheus server scrapes the exporter and finds every family."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.harness import Exporter, Programs, World, running, wait_until
from kernel.prometheus import Prometheus, scraping


@pytest.fixture(scope="module")
def eventful(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """An exporter that has seen at least one event of every kind."""
    with running("taskstats", tmp_path_factory.mktemp("exporter") / "log") as exporter:
        world = World(exporter, programs)
        dump, attach, setuid = (world.program(hint) for hint in ("dump", "attach", "setuid"))
        new_uid = programs.new_uid()
        world.uids.add(str(new_uid))
        world.spawn([dump, "signal", str(int(signal.SIGSEGV)), "0"], [attach, "attach"])
        world.spawn([setuid, "setuid", str(new_uid), "8"], caps=["setuid"], exit_uid=new_uid)
        world.count("coredumps", dump.name)
        world.count("forks", attach.name)
        world.count("exits", attach.name, status=signal.SIGTERM)
        world.count("ptrace_attaches", attach.name)
        world.count("uid_changes", setuid.name, uid=new_uid)
        world.check()
        yield exporter


@pytest.fixture(scope="module")
def prometheus(eventful: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus here (Debian: apt-get install prometheus)")
    with scraping(eventful.port, tmp_path_factory.mktemp("prometheus")) as server:
        yield server


def test_prometheus_answers_for_every_family(eventful: Exporter, prometheus: Prometheus) -> None:
    scrape = eventful.scrape()
    empty = {name for name in scrape.families if not any(s.startswith(name) for s in scrape.samples)}
    # test_oom.py has its kills: they take a cgroup with a limit.
    assert empty <= {"proc_connector_oom_kills"}, "a family without a sample, although there was such an event"
    wait_until(
        lambda: {name for name in scrape.samples if not prometheus.get("query", query=name)["result"]},
        lambda missing: not missing,
        "prometheus knows the name of every sample",
    )


def test_prometheus_has_the_same_numbers(eventful: Exporter, prometheus: Prometheus) -> None:
    truth = eventful.worlds[0].truth["exits"]
    query = "proc_connector_exits_total"

    def answer() -> dict[tuple[str, ...], int]:
        result = prometheus.get("query", query=query)["result"]
        rows = ((series["metric"], int(series["value"][1])) for series in result)
        return {tuple(m.get(label, "") for label in ("comm", "uid", "exit_code", "signal")): n for m, n in rows}

    wait_until(answer, lambda rows: truth.items() <= rows.items(), f"{query} as their parents saw them: {truth}")


def test_prometheus_knows_type_and_help_of_every_family(eventful: Exporter, prometheus: Prometheus) -> None:
    ours = {name for name in eventful.scrape().families if name.startswith("proc_connector_")}
    for name in ours:
        suffixed = (name, f"{name}_total", f"{name}_info")
        found = [entry for full in suffixed for entry in prometheus.get("metadata", metric=full).get(full, [])]
        assert found, name
        assert found[0]["help"], name
        assert found[0]["type"] in {"counter", "gauge", "histogram"}, name


def test_promtool_finds_nothing_to_say_about_a_live_scrape(eventful: Exporter, tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool here (Debian: apt-get install prometheus)")
    page = tmp_path / "metrics"
    page.write_bytes(eventful.request("/metrics").body)
    with page.open("rb") as stdin:
        result = subprocess.run(
            ["promtool", "check", "metrics"],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"]},
        )
    assert (result.returncode, result.stdout) == (0, "")
