"""The program as a service: start, stop, HTTP, logs, and life without privilege."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.harness import Exporter, Programs, Scrape, World, free_port, running
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

SAMPLE = Path(__file__).parents[2] / "examples/busy-minute.capture"
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
LOGFMT = re.compile(r'[a-z_]+=(?:[^\s="]+|"(?:[^"\\]|\\.)*")(?: [a-z_]+=(?:[^\s="]*|"(?:[^"\\]|\\.)*"))*')


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    with running("taskstats", tmp_path_factory.mktemp("service") / "log") as started:
        yield started


@pytest.fixture
def unprivileged() -> tuple[str, ...]:
    probe = [*NOBODY, sys.executable, "-c", "import exporter.__main__"]
    result = subprocess.run(probe, cwd="/", capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"uid 65534 cannot read {sys.executable} or this checkout: {result.stderr[-200:]}")
    return NOBODY


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("mode", ["taskstats", "procfs"])
def test_a_signal_stops_it_with_exit_code_0(mode: str, number: int, tmp_path: Path) -> None:
    taken: list[float] = []
    # A second is the promise; a machine that has something else to do may take longer, but not each time.
    while not taken or (min(taken) >= 1 and len(taken) < 3):
        exporter = Exporter(mode, tmp_path / "log", "--attribution", mode)
        taken.append(exporter.stop(number))
        assert "Traceback" not in exporter.log.read_text()
    assert min(taken) < 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/metrics", 200),
        ("HEAD", "/metrics", 200),
        ("GET", "/-/healthy", 200),
        ("GET", "/-/ready", 200),
        ("GET", "/nothing/here", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/-/healthy", 405),
    ],
)
def test_http_answers(service: Exporter, method: str, path: str, status: int) -> None:
    answer = service.request(path, method)
    assert answer.status == status
    assert bool(answer.body) == (method != "HEAD")


def test_the_landing_page_links_to_the_metrics(service: Exporter) -> None:
    page = service.request("/")
    assert page.headers["Content-Type"].startswith("text/html")
    assert b'href="/metrics"' in page.body


def test_the_landing_page_says_what_is_counted_of_this_host(service: Exporter, tmp_path: Path) -> None:
    page = service.request("/").body.decode()
    assert "<p>Every fork, exec, exit, non-zero exit, " in page
    assert " of this host.</p>" in page
    assert "<th>processes</th>" in page
    with Exporter("taskstats", tmp_path / "log", "--events=nonzero_exit").closing() as exporter:
        page = exporter.request("/").body.decode()
    assert "<p>Every non-zero exit of this host.</p>" in page
    assert " processes=" not in (tmp_path / "log").read_text()
    # They are not known: 0 would be wrong.
    assert "<th>processes</th>" not in page


def test_the_landing_page_of_a_replay_is_not_about_this_host(tmp_path: Path) -> None:
    with Exporter("taskstats", tmp_path / "log", "--replay", str(SAMPLE)).closing() as exporter:
        page = exporter.request("/").body.decode()
    assert "<p>A recording (--replay), not this host: every fork, exec, exit, " in page
    assert "of this host" not in page


def test_the_metrics_move_with_the_flag(tmp_path: Path) -> None:
    exporter = Exporter(
        "procfs", tmp_path / "log", "--attribution", "procfs", "--web.telemetry-path", "/elsewhere"
    )
    try:
        assert exporter.request("/elsewhere").status == 200
        assert exporter.request("/metrics").status == 404
        assert b'href="/elsewhere"' in exporter.request("/").body
    finally:
        exporter.stop()


def test_text_and_openmetrics_have_the_same_samples(service: Exporter) -> None:
    text = service.request("/metrics")
    openmetrics = service.request("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert text.headers["Content-Type"].startswith("text/plain; version=")
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    families = list(parse_openmetrics(openmetrics.body.decode()))  # type: ignore[no-untyped-call]
    assert {sample.name for family in families for sample in family.samples} == set(
        Scrape(text.body.decode()).samples
    )


def test_the_answer_is_packed_for_a_client_that_accepts_gzip(service: Exporter) -> None:
    packed = service.request("/metrics", Accept_Encoding="gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "proc_connector_events_total" in Scrape(gzip.decompress(packed.body).decode()).samples
    assert service.request("/metrics").headers["Content-Encoding"] is None


def run_to_its_end(*words: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-m", "exporter", *words]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, timeout=30)


def test_taskstats_without_the_capability_fails_with_one_line_that_names_it(unprivileged: tuple[str, ...]) -> None:
    result = run_to_its_end("--attribution", "taskstats", prefix=unprivileged)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert "level=error" in line
    assert "CAP_NET_ADMIN" in line


def test_an_unknown_flag_is_a_usage_error() -> None:
    result = run_to_its_end("--no.such-flag")
    assert result.returncode == 2
    assert "--no.such-flag" in result.stderr


def test_a_port_that_is_taken_fails_with_one_line_that_names_it(service: Exporter) -> None:
    result = run_to_its_end("--web.listen-address", f"127.0.0.1:{service.port}")
    assert result.returncode == 3
    assert str(service.port) in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_that_it_may_not_have_fails_with_one_line_that_names_it(unprivileged: tuple[str, ...]) -> None:
    # In a network namespace of its own the low ports are root's, whatever the settings of this host.
    prefix = ("unshare", "--net", *unprivileged)
    result = run_to_its_end("--replay", str(SAMPLE), "--web.listen-address", ":80", prefix=prefix)
    assert result.returncode == 3
    [line] = result.stderr.splitlines()
    assert "cannot listen on :80: Permission denied; choose another --web.listen-address" in line


def test_without_privilege_it_counts_all_the_same(
    unprivileged: tuple[str, ...], programs: Programs, tmp_path: Path
) -> None:
    with running("procfs", tmp_path / "log", attribution="auto", prefix=unprivileged) as exporter:
        info = exporter.scrape().samples["proc_connector_attribution_info"]
        assert [dict(labels)["mode"] for labels in info] == ["procfs"]
        world = World(exporter, programs)
        program = world.program("watched")
        world.spawn(*[(program, "exit", str(code)) for code in range(32)], (program, "sleep", "800", "7"))
        scrape = world.check()
        assert scrape.rows("exits")[program.name, str(world.uid), "7", ""] >= 1


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_every_log_line_parses_whatever_the_processes_call_themselves(
    form: str, programs: Programs, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with running("taskstats", log, "--log.level", "debug", "--log.format", form) as exporter:
        world = World(exporter, programs)
        for comm in (b"line\nbreak", b'"quoted"', b"\xff\xfe", b"\xe2\x80\xa8", b"\x1b[2J", b"a=b c=d"):
            text = comm.decode("utf-8", "backslashreplace")
            shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text).replace("\\n", "\\x0a")
            world.spawn([world.program("strange"), "rename", comm.hex(), "1"], exit_comm=shown)
        world.may_be_unknown.add("execs")
        world.check()
    lines = log.read_text().split("\n")
    assert lines.pop() == "", "the last line is whole"
    assert lines
    for line in lines:
        assert line.isprintable(), line
        if form == "json":
            assert {"time", "level", "msg"} <= json.loads(line).keys()
        else:
            assert LOGFMT.fullmatch(line), line


def test_the_first_log_line_says_what_the_exporter_found(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running("taskstats", log, "--log.format", "json"):
        pass
    first = json.loads(log.read_text().splitlines()[0])
    assert first["kernel"] == os.uname().release
    assert first["mode"] == "taskstats"
    assert "filter" in first
    assert int(first["connector_buffer_bytes"]) > 0
    assert int(first["taskstats_buffer_bytes"]) > 0


FAULTS = {
    "a step of the loop": "exporter.processes.table.ProcessTable.apply",
    "a scan of /proc": "exporter.live.compare.Comparison.compare",
    "the canary": "exporter.live.canary.Canary._send",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bug_ends_the_program_with_a_traceback_and_an_exit_code(fault: str) -> None:
    module, owner, name = re.fullmatch(r"(.*)\.(\w+)\.(\w+)", FAULTS[fault]).groups()  # type: ignore[union-attr]
    script = f"""
import sys
from exporter.__main__ import main
from {module} import {owner}
calls = 0
right = {owner}.{name}
def wrong(*args, **kwargs):
    global calls
    calls += 1
    if calls > 1 or {fault != "a step of the loop"}:
        raise RuntimeError("this is a bug")
    return right(*args, **kwargs)
{owner}.{name} = wrong
sys.exit(main())
"""
    command = [sys.executable, "-c", script, "--web.listen-address", f"127.0.0.1:{free_port()}"]
    with subprocess.Popen(command, cwd="/", stderr=subprocess.PIPE, text=True) as process:
        try:
            give_up = time.monotonic() + 20
            while process.poll() is None:
                assert time.monotonic() < give_up, "it goes on as if nothing had happened"
                os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
                time.sleep(0.05)
            assert process.stderr is not None
            said = process.stderr.read()
        finally:
            process.kill()
    assert process.returncode not in (0, -signal.SIGKILL)
    assert "Traceback" in said
    assert "this is a bug" in said
