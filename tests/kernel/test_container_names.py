"""Processes in cgroups like Docker's, an engine that knows their containers, and what the exporter calls them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from engine_api import FakeEngine, make_container_id, serving_engine
from kernel.harness import Exporter, Programs, running, wait_until
from kernel.served import Served
from kernel.test_pods import FAILURES, NOBODY, Container, cgroup, copy_shell, failures_of


class Engine(Served[FakeEngine]):
    """An engine's API in a thread of its own, on a socket that only root may open."""

    def __init__(self, path: Path) -> None:
        super().__init__(lambda: serving_engine(path))


@contextmanager
def following(folder: Path, *flags: str) -> Iterator[Exporter]:
    with running(
        "taskstats",
        folder / "log",
        "--group.by=pod",
        f"--containers.socket={folder / 'engine.sock'}",
        f"--user={NOBODY}",
        *flags,
    ) as exporter:
        yield exporter


def is_connected(exporter: Exporter) -> bool:
    return exporter.scrape().get("proc_connector_containers_connected") == 1


def failures_to_ask(exporter: Exporter) -> dict[str, float]:
    samples = exporter.scrape().samples.get("proc_connector_containers_failures_total", {})
    return {dict(key)["reason"]: count for key, count in samples.items()}


@contextmanager
def container_of(container_id: str, shell: Path) -> Iterator[Container]:
    with cgroup(f"docker/{container_id}") as group:
        container = Container(shell, group)
        try:
            yield container
        finally:
            container.end()


def wait_for(exporter: Exporter, comm: str, expected: dict[str, int]) -> None:
    """Wait until the failures of a comm are these, by container."""
    wanted = {("", "", name): count for name, count in expected.items()}
    wait_until(lambda: failures_of(exporter, comm), lambda found: found == wanted, f"the truth: {expected}")


@pytest.mark.slow
def test_containers_have_their_names_where_only_root_may_open_the_socket(programs: Programs, folder: Path) -> None:
    shell = copy_shell(programs)
    web, late, brief, foreign = (make_container_id() for _ in range(4))
    with Engine(folder / "engine.sock") as engine, ExitStack() as stack:
        engine.do(engine.fake.start, web, "web")
        shells = [
            stack.enter_context(container_of(container_id, shell)) for container_id in (web, late, brief, foreign)
        ]
        with following(folder) as exporter:
            wait_until(lambda: is_connected(exporter), bool, "the list")
            for each in shells:
                each.fail()
            # Names come later than what was counted; one is the name that another container had before.
            engine.do(engine.fake.start, late, "late")
            engine.do(engine.fake.start, brief, "before")
            engine.do(engine.fake.rename, brief, "web")
            engine.do(engine.fake.end, brief)
            # What the engine does not know has its short id, when its name is not waited for any longer.
            expected = {"web": 2 * FAILURES, "late": FAILURES, foreign[:12]: FAILURES}
            wait_for(exporter, shell.name, expected)
            assert failures_to_ask(exporter) == {}


@pytest.mark.slow
def test_an_engine_that_is_started_again_cannot_be_asked_by_another_user_than_root(
    programs: Programs, folder: Path
) -> None:
    shell = copy_shell(programs)
    web, new = make_container_id(), make_container_id()
    with ExitStack() as stack:
        in_web, in_new = (stack.enter_context(container_of(container_id, shell)) for container_id in (web, new))
        engine = stack.enter_context(Engine(folder / "engine.sock"))
        engine.do(engine.fake.start, web, "web")
        exporter = stack.enter_context(following(folder))
        in_web.fail()
        wait_for(exporter, shell.name, {"web": FAILURES})
        # Only now the engine knows of the other one.
        engine.do(engine.fake.tear)
        wait_until(lambda: failures_to_ask(exporter).get("refused", 0), bool, "a refusal")
        engine.do(engine.fake.start, new, "new")
        in_web.fail()
        in_new.fail()
        wait_for(exporter, shell.name, {"web": 2 * FAILURES, new[:12]: FAILURES})
        assert not is_connected(exporter)
        assert exporter.request("/-/ready").status == 200
        assert failures_to_ask(exporter)["torn"] == 1
        assert "reason=refused" in exporter.log.read_text()


def test_a_socket_without_the_labels_that_it_is_for_is_refused() -> None:
    command = [sys.executable, "-m", "exporter", "--group.by=unit", "--containers.socket=a"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2, result.stderr
    assert "--containers.socket has no effect unless --group.by has pod" in result.stderr
