"""A running exporter per attribution mode, and programs of known fate; skips what cannot run here."""

import contextlib
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from kernel.alone import HostLock, lock_folder
from kernel.bystanders import Bystanders
from kernel.harness import Exporter, Programs, World, compiled_programs, running

HERE = Path(__file__).parent

INIT_PID_NAMESPACE = 4026531836  # PROC_PID_INIT_INO, include/linux/proc_ns.h
NETLINK_GENERIC = 16
NLMSG_ERROR = 2
BYSTANDERS = pytest.StashKey[Bystanders]()


def _taskstats_exists() -> bool:
    """Ask generic netlink for the family by name: CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME."""
    name = b"TASKSTATS\0"
    attribute = struct.pack("=HH", 4 + len(name), 2) + name.ljust(12, b"\0")
    message = struct.pack("=BBH", 3, 1, 0) + attribute
    header = struct.pack("=IHHII", 16 + len(message), 16, 1, 1, 0)  # GENL_ID_CTRL, NLM_F_REQUEST
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as genetlink:
        genetlink.settimeout(5)
        genetlink.send(header + message)
        return struct.unpack_from("=H", genetlink.recv(4096), 4) != (NLMSG_ERROR,)


def _what_is_missing() -> str | None:
    if os.geteuid() != 0:
        return "not root: the cases change uids and read taskstats"
    if Path("/proc/self/ns/pid").stat().st_ino != INIT_PID_NAMESPACE:
        return "not in the initial pid namespace: the process connector is deaf here"
    connectors = Path("/proc/net/connector")
    if not connectors.exists() or "cn_proc" not in connectors.read_text():
        return "no process connector in this network namespace (CONFIG_PROC_EVENTS)"
    if not _taskstats_exists():
        return "no taskstats in this kernel (CONFIG_TASKSTATS)"
    for tool in ("gcc", "setpriv"):
        if shutil.which(tool) is None:
            return f"no {tool} here, with which the processes of known fate are made"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if HERE in item.path.parents]
    missing = _what_is_missing() if here else None
    for item in here:
        item.add_marker(pytest.mark.kernel)
        if missing:
            item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def bystanders(request: pytest.FixtureRequest) -> Bystanders:
    """What other programs do on the host during this run."""
    return request.config.stash.setdefault(BYSTANDERS, Bystanders())


@pytest.fixture(scope="module", autouse=True)
def _host_lock(request: pytest.FixtureRequest, bystanders: Bystanders) -> Iterator[None]:
    """Run a module that is marked `alone` while no other run of these tests is at work on this host."""
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    lock = HostLock(lock_folder(), reporter.write_line if reporter else print)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock.held(alone=request.node.get_closest_marker("alone") is not None))
        except TimeoutError as error:
            pytest.skip(str(error))
        bystanders.look()
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print with each failure what other programs did meanwhile."""
    report = yield
    bystanders = item.config.stash.get(BYSTANDERS, None)
    if report.failed and bystanders is not None:
        bystanders.look()
        if lines := bystanders.lines():
            report.sections.append(("the host is not quiet", "\n".join(lines)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    bystanders = config.stash.get(BYSTANDERS, None)
    if bystanders is not None and (lines := bystanders.lines()):
        terminalreporter.section("the host was not quiet while the tests of the kernel ran")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def programs() -> Iterator[Programs]:
    with compiled_programs() as compiled:
        yield compiled


@pytest.fixture(scope="module", params=["taskstats", "procfs"])
def exporter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    mode = str(request.param)
    with running(mode, tmp_path_factory.mktemp("exporter") / "log") as started:
        yield started


@pytest.fixture
def world(exporter: Exporter, programs: Programs) -> World:
    return World(exporter, programs)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can read, unlike that of pytest."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
