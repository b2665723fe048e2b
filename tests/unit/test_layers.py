"""Bytes go one way, from the kernel to HTTP: which room may import which, and what each may touch.

docs/architecture.md says in words what this test holds.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "exporter"

# Rooms and the modules beside them, each below those that it may import. A room may always import itself, but its
# modules must not import each other in a circle.
ROOMS: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "revision": set(),
    "quantities": set(),
    "files": set(),
    "flag_parsers": {"errors", "quantities"},
    "flags": {"flag_parsers"},
    "arguments": {"errors", "flags"},
    "bundle": {"arguments", "errors"},
    "groups": set(),
    "kubernetes": {"__init__", "errors", "files"},
    "runtimes": {"__init__", "errors", "kubernetes"},
    "kernel": {"errors"},
    "events": {"errors"},
    "tallies": {"errors", "events", "files", "kernel"},
    "plan": {"kernel", "tallies"},
    "processes": {"errors", "groups", "kernel", "tallies"},
    "exposition": {"__init__", "revision", "tallies"},
    "capture": {"errors", "events", "groups", "kernel", "processes", "tallies"},
    "live": {"errors", "groups", "kernel", "plan", "processes", "tallies"},
    "feeds": {"__init__", "capture", "errors", "kernel", "live", "plan", "processes", "tallies"},
    "service": {"errors", "exposition", "tallies"},
    "settings": {"errors", "events", "flag_parsers", "flags", "kubernetes", "service", "tallies"},
    "config": {"errors", "flags", "settings"},
    "command_line": {"__init__", "arguments", "config", "errors", "flags", "revision", "settings"},
    "web": {"errors", "files", "settings"},
    "stream": {"errors", "events", "kernel", "processes", "quantities", "tallies", "web"},
    "failures": {
        "errors", "exposition", "kernel", "processes", "quantities", "settings", "stream", "tallies", "web",
    },
    "watch": {
        "arguments", "capture", "errors", "feeds", "flag_parsers", "flags", "kernel", "kubernetes", "live",
        "plan", "processes", "runtimes", "settings", "stream", "tallies",
    },
    "report": {
        "__init__", "events", "exposition", "failures", "feeds", "kubernetes", "live", "revision", "runtimes",
        "service", "stream", "tallies",
    },
    "running": {
        "__init__", "config", "exposition", "feeds", "kernel", "live", "report", "service", "tallies", "web",
    },
    "app": {
        "capture", "config", "errors", "failures", "feeds", "kernel", "kubernetes", "live", "plan", "report",
        "running", "runtimes", "service", "stream", "tallies", "web",
    },
    "__main__": {"app", "arguments", "bundle", "command_line", "config", "errors", "service", "watch"},
}  # fmt: skip

# No socket, clock or file of their own: what they need is passed in.
PURE = {"errors", "quantities", "events", "groups", "plan", "tallies", "processes", "exposition"}
PURE_MODULES = {
    "capture.format", "capture.kinds", "capture.recorder", "failures.page", "failures.rows", "failures.store",
    "kernel.bpf", "kernel.cn_proc", "kernel.kernel_log", "kernel.netlink",
    "kernel.perf_event", "kernel.taskstats", "kernel.wait_status", "kubernetes.answers",
    "kubernetes.json_values", "kubernetes.pauses",
    "kubernetes.pod_names", "kubernetes.pods", "runtimes.container_names", "runtimes.containers",
    "live.crosscheck", "live.drain", "live.losses",
    "live.moderation", "live.sources", "stream.json_lines", "stream.selection", "watch.summary",
    "watch.text_lines", "watch.top_table", "web.config_file", "web.deadline", "web.outgoing", "web.protection",
    "web.tls_records", "web.token_bucket", "web.web_settings", "web.yaml_nodes",
}  # fmt: skip
IMPURE_LIBRARIES = {
    "socket", "asyncio", "aiohttp", "time", "datetime", "threading", "os", "subprocess", "pathlib", "io", "ctypes",
    "select", "selectors", "multiprocessing", "random", "secrets", "logging",
}  # fmt: skip
# It reads what the user wrote.
IMPURE_IN_PURE = {"tallies.rules_file"}

# procfs reads all of /proc, kernel_log_readers the kernel log, cgroup_tree which cgroups there are; open_sources
# asks once which CPUs there can be, privileges what it has left; files what the user or the kubelet wrote; bundle
# what came with the program; unix_socket opens the directory of its socket, logs /dev/null.
OPENS_FILES = {
    "bundle", "capture.file", "files", "kernel.cgroup_tree", "kernel.kernel_log_readers", "kernel.perf_rings",
    "kernel.procfs", "live.open_sources", "revision", "service.logs", "service.privileges", "stream.unix_socket",
}  # fmt: skip
OPENING = {
    "open", "fdopen", "read_text", "read_bytes", "write_text", "write_bytes", "listdir", "scandir", "readlink",
}  # fmt: skip
# Whose sockets are of the kernel's events, of systemd, of HTTP and of the stream.
OPEN_SOCKETS = {"kernel.netlink_socket", "service.sd_notify", "stream.unix_socket", "web.listening_sockets"}
# They are handed one that is open.
GET_SOCKETS = {
    "kernel.connector_socket", "kernel.recvmmsg", "kernel.taskstats_socket", "kubernetes.api_client",
    "stream.endpoint", "web.channel", "web.connection", "web.peers", "web.server",
}  # fmt: skip
KNOW_HTTP = {
    "kubernetes.api_client", "kubernetes.response_body", "runtimes.socket_client", "stream.endpoint", "web.gate",
    "web.pages", "web.passwords", "web.rendered", "web.server", "web.tls",
}  # fmt: skip


def parse_modules() -> dict[str, ast.Module]:
    """Parse every module of the package, by its name without the package's."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for path in PACKAGE.rglob("*.py")
    }


MODULES = parse_modules()


def room_of(module: str) -> str:
    return module.partition(".")[0]


def imports(module: str) -> set[str]:
    """Return the full names that a module imports, at its top or anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(module: str) -> set[str]:
    """Return which of our own modules a module imports."""
    own: set[str] = set()
    for name in imports(module):
        package, _, rest = name.partition(".")
        if package != "exporter":
            continue
        # exporter.kernel.cn_proc.decode_comm is something of kernel.cn_proc's, exporter.__version__ of __init__'s.
        parts = rest.split(".")
        candidates = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        own.add(next((candidate for candidate in candidates if candidate in MODULES), "__init__"))
    return own


def libraries(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(module)} - {"exporter"}


def calls(module: str) -> set[str]:
    """Return the last names of everything a module calls: `open` for open() and os.open()."""
    called = [node.func for node in ast.walk(MODULES[module]) if isinstance(node, ast.Call)]
    return {func.attr for func in called if isinstance(func, ast.Attribute)} | {
        func.id for func in called if isinstance(func, ast.Name)
    }


def test_every_module_is_in_a_room() -> None:
    assert set(ROOMS) == {room_of(module) for module in MODULES}


def test_the_rooms_go_one_way() -> None:
    below: set[str] = set()
    for room, allowed in ROOMS.items():
        assert allowed <= below, room
        below.add(room)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_rooms_that_its_own_allows(module: str) -> None:
    room = room_of(module)
    assert {room_of(name) for name in own_imports(module)} <= ROOMS[room] | {room}


@pytest.mark.parametrize("room", ROOMS)
def test_every_permission_is_used(room: str) -> None:
    used = {
        room_of(name) for module in MODULES if room_of(module) == room for name in own_imports(module)
    }  # fmt: skip
    assert ROOMS[room] <= used


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = {module: own_imports(module) - {module} for module in MODULES}
    while free := {module for module, needs in left.items() if not needs & left.keys()}:
        left = {module: needs for module, needs in left.items() if module not in free}
    assert left == {}


@pytest.mark.parametrize(
    "module",
    sorted({m for m in MODULES if room_of(m) in PURE} - IMPURE_IN_PURE | PURE_MODULES),
)
def test_from_bytes_to_exposition_nothing_has_a_socket_a_clock_or_a_file_of_its_own(module: str) -> None:
    assert libraries(module) & IMPURE_LIBRARIES == set()
    assert calls(module) & OPENING == set()


def test_few_read_files() -> None:
    assert {module for module in MODULES if calls(module) & OPENING} == OPENS_FILES


def test_one_module_opens_each_kind_of_socket() -> None:
    assert {module for module in MODULES if "socket" in libraries(module)} == OPEN_SOCKETS | GET_SOCKETS
    assert {module for module in MODULES if "socket" in calls(module)} == OPEN_SOCKETS


def test_only_the_edges_know_of_http() -> None:
    assert {module for module in MODULES if "aiohttp" in libraries(module)} == KNOW_HTTP


def test_what_most_do_without_is_not_loaded() -> None:
    code = "import sys, exporter.__main__, exporter.app; print(*{'yaml', 'bcrypt', 'brotli'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    assert not done.stdout.split()
