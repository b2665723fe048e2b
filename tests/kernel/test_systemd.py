"""The program as systemd would run it, as far as that can be had without systemd as the first process."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from kernel.harness import Exporter, Programs, World, free_port, running, wait_until
from kernel.test_privileges import NOBODY

UNIT = Path(__file__).parents[2] / "deploy/systemd/proc-connector-exporter.service"


def test_systemd_is_notified_of_readiness_of_life_and_of_the_stop(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        prefix = ("env", f"NOTIFY_SOCKET={tmp_path}/notify", "WATCHDOG_USEC=200000")
        with running("taskstats", tmp_path / "log", prefix=prefix) as exporter:
            states: list[str] = []
            while states.count("WATCHDOG=1") < 3:
                states += systemd.recv(1000).decode().splitlines()
            assert states.index("READY=1") < states.index("WATCHDOG=1")
            assert "STATUS=Ready" in states
            os.kill(exporter.process.pid, signal.SIGSTOP)
            try:
                systemd.settimeout(1)
                for _ in range(100):  # what was sent before
                    if not heard(systemd):
                        break
                else:
                    pytest.fail("a stopped exporter went on to say that it lives")
            finally:
                os.kill(exporter.process.pid, signal.SIGCONT)
        systemd.settimeout(10)
        while "STOPPING=1" not in states:
            states += systemd.recv(1000).decode().splitlines()
    assert states.count("READY=1") == 1


def heard(systemd: socket.socket) -> bytes:
    """Return what arrives within a moment."""
    try:
        return systemd.recv(1000)
    except TimeoutError:
        return b""


def test_it_serves_on_the_sockets_that_systemd_passes(programs: Programs, tmp_path: Path) -> None:
    if shutil.which("systemd-socket-activate") is None:
        pytest.skip("no systemd-socket-activate here (Debian: apt-get install systemd)")
    port = free_port()
    prefix = ("systemd-socket-activate", f"--listen=127.0.0.1:{port}", f"--listen=[::1]:{port}")
    exporter = Exporter("taskstats", tmp_path / "log", "--web.systemd-socket", prefix=prefix, port=port)
    try:
        assert f"address=127.0.0.1:{port},[::1]:{port}" in exporter.log.read_text()
        world = World(exporter, programs)
        world.spawn([world.program("passed"), "exit", "5"])
        world.check()
        exporter.finish()
    finally:
        exporter.kill()


# prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN), prctl(2): MemoryDenyWriteExecute= as the kernel has it.
DENY_WRITE_EXECUTE = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0:
    sys.exit(75)
os.execvp(sys.argv[1], sys.argv[1:])
"""

# DynamicUser=, AmbientCapabilities=, CapabilityBoundingSet= and NoNewPrivileges=.
CONFINED = (
    *NOBODY, "--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin",
    "--no-new-privs",
)  # fmt: skip


def spawn_some(exporter: Exporter, programs: Programs) -> None:
    world = World(exporter, programs)
    world.spawn([world.program("confined"), "exit", "4"])
    world.check()


def test_it_counts_with_just_the_capability_and_memory_of_its_unit(programs: Programs, tmp_path: Path) -> None:
    deny = (sys.executable, "-c", DENY_WRITE_EXECUTE)
    if subprocess.run([*deny, "true"], check=False).returncode == 75:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
    with running("taskstats", tmp_path / "log", prefix=(*deny, *CONFINED)) as exporter:
        spawn_some(exporter, programs)


def system_calls(name: str) -> set[str]:
    """Return the system calls of one of systemd's groups, and of those in it; of a call, itself."""
    if not name.startswith("@"):
        return {name}
    result = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    ).stdout
    words = {line.strip() for line in result.splitlines()[1:] if line.strip() and not line.strip().startswith("#")}
    return {word for word in words if word[0] != "@"}.union(
        *(system_calls(word) for word in words if word[0] == "@")
    )


def allowed_system_calls() -> set[str]:
    """Return what the unit's SystemCallFilter= lets through; systemd always lets @default through."""
    allowed: set[str] = set()
    for line in UNIT.read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "SystemCallFilter":
            groups = set().union(*(system_calls(group) for group in value.lstrip("~").split()))
            allowed = allowed - groups if value.startswith("~") else allowed | groups
    return allowed | system_calls("@default")


def test_it_needs_no_system_call_that_its_unit_forbids(programs: Programs) -> None:
    for tool in ("strace", "systemd-analyze"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here (Debian: apt-get install strace systemd)")
    folder = programs.directory(65534)
    file = folder / "web.yml"
    file.write_text("http_server_config: {headers: {X-Frame-Options: deny}}\n")
    trace = folder / "trace"
    # The tracer is the child: signals are for the exporter.
    strace = ("strace", "--daemonize", "--follow-forks", f"--output={trace}")
    flag = f"--web.config.file={file}"
    with running("taskstats", folder / "log", flag, prefix=(*CONFINED, *strace)) as exporter:
        spawn_some(exporter, programs)
    ended = re.compile(rf"^{exporter.process.pid} +\+\+\+ exited with 0 \+\+\+$", re.MULTILINE)
    wait_until(lambda: bool(ended.search(trace.read_text())), bool, "the trace is complete")
    words = (line.split(maxsplit=1)[1] for line in trace.read_text().splitlines())
    called = {word.partition("(")[0] for word in words if word[0].isalpha()}
    assert {"recvmmsg", "epoll_wait"} <= called
    assert called - allowed_system_calls() == set()
