"""Bytes go one way, from the kernel to HTTP; what is between the sockets and the exposition is pure."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "exporter"

# Which of our own modules each may import; a module stands below those it may import.
LAYERS: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "comm": set(),
    "kernel.__init__": set(),
    "kernel.netlink": {"errors"},
    "kernel.cn_proc": {"errors", "kernel.netlink"},
    "kernel.taskstats": {"errors", "kernel.netlink"},
    "kernel.procfs": {"errors"},
    "kernel.bpf": {"kernel.cn_proc", "kernel.taskstats"},
    "kernel.receiver": {"kernel.netlink"},
    "kernel.sockets": {
        "errors", "kernel.netlink", "kernel.cn_proc", "kernel.taskstats", "kernel.bpf", "kernel.receiver",
    },
    "events": {"errors", "kernel.bpf", "kernel.cn_proc"},
    "privileges": {"errors"},
    "rules": {"comm", "errors"},
    "rules_file": {"errors", "rules"},
    "tally": {"comm", "kernel.taskstats", "rules"},
    "expiry": {"tally"},
    "names": {"comm", "tally"},
    "journal": {"comm", "kernel.cn_proc", "kernel.taskstats", "names", "tally"},
    "records": {"kernel.taskstats"},
    "table": {
        "comm", "journal", "kernel.cn_proc", "kernel.taskstats", "kernel.procfs", "tally", "names", "records",
    },
    "readings": {"kernel.bpf", "kernel.cn_proc", "kernel.netlink", "table"},
    "pipeline": {"errors", "kernel.cn_proc", "kernel.netlink", "kernel.taskstats", "table"},
    "capture": {"errors", "events", "kernel.netlink", "kernel.procfs", "kernel.taskstats", "table"},
    "recorder": {
        "capture", "errors", "kernel.netlink", "kernel.procfs", "kernel.taskstats", "pipeline", "readings",
        "table", "tally",
    },
    "capturefile": {"capture", "errors"},
    "replay": {"capture", "errors", "kernel.receiver", "pipeline", "readings", "tally"},
    "moderation": set(),
    "crosscheck": {"kernel.procfs"},
    "exposition": {"__init__", "comm", "tally"},
    "selection": {"errors", "events", "exposition", "journal"},
    "lines": {"exposition", "journal"},
    "top": {"journal", "lines"},
    "config": {"__init__", "errors", "events", "privileges", "tally"},
    "watchflags": {"config", "errors", "selection", "top"},
    "web": {"__init__"},
    "webconfig": {"errors"},
    "logs": set(),
    "gate": {"errors", "webconfig"},
    "server": {"config", "errors", "gate"},
    "sdnotify": set(),
    "sources": {"errors", "events", "kernel.bpf", "kernel.sockets", "kernel.taskstats", "readings"},
    "listener": {
        "errors", "kernel.procfs", "kernel.receiver", "moderation", "names", "pipeline", "readings", "sources",
        "tally",
    },
    "canary": {"listener", "table"},
    "counting": {
        "__init__", "capture", "errors", "events", "kernel.procfs", "kernel.receiver", "kernel.taskstats",
        "listener", "pipeline", "readings", "recorder", "replay", "sources", "table", "tally",
    },
    "stream": {"errors", "journal", "lines", "selection", "server", "table"},
    "upkeep": {"errors", "expiry", "exposition", "rules", "tally"},
    "app": {
        "__init__", "canary", "capturefile", "comm", "config", "counting", "crosscheck", "errors", "expiry",
        "exposition", "gate", "kernel.procfs", "lines", "listener", "privileges", "rules", "rules_file",
        "sdnotify", "server", "sources", "stream", "tally", "upkeep", "web",
    },
    "watch": {
        "canary", "capturefile", "counting", "errors", "journal", "kernel.procfs", "kernel.sockets", "lines",
        "listener", "names", "replay", "selection", "sources", "tally", "top", "watchflags",
    },
    "__main__": {"app", "config", "errors", "logs", "watch", "watchflags"},
}  # fmt: skip

PURE = (
    "errors", "comm", "rules", "expiry", "names", "tally", "records", "table", "readings", "pipeline",
    "moderation",
    "exposition", "crosscheck", "capture", "recorder", "journal", "selection",
    "kernel.netlink", "kernel.cn_proc", "kernel.taskstats", "kernel.bpf", "events",
    "webconfig",
)  # fmt: skip
IMPURE_LIBRARIES = {
    "socket", "asyncio", "aiohttp", "time", "datetime", "threading", "os", "subprocess", "pathlib", "io", "ctypes",
    "select", "selectors", "multiprocessing", "random", "secrets", "logging",
}  # fmt: skip

# procfs reads all of /proc; sources asks once which CPUs there can be, privileges what it has left; gate and
# rules_file read what the user wrote.
OPENS_FILES = {"capturefile", "gate", "kernel.procfs", "privileges", "rules_file", "sources"}
OPENING = {
    "open",
    "fdopen",
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "listdir",
    "scandir",
    "readlink",
}


def sources() -> dict[str, ast.Module]:
    """Parse every module of the package, by its name without the package's."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in PACKAGE.rglob("*.py")
    }


SOURCES = sources()


def imports(module: str) -> set[str]:
    """Return the full names that a module imports, at its top or anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(SOURCES[module]):
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
        own.add(next((candidate for candidate in candidates if candidate in SOURCES), "__init__"))
    return own


def libraries(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(module)} - {"exporter"}


def calls(module: str) -> set[str]:
    """Return the last names of everything a module calls: `open` for open() and os.open()."""
    called = [node.func for node in ast.walk(SOURCES[module]) if isinstance(node, ast.Call)]
    return {func.attr for func in called if isinstance(func, ast.Attribute)} | {
        func.id for func in called if isinstance(func, ast.Name)
    }


def test_every_module_has_its_place() -> None:
    assert set(LAYERS) == set(SOURCES)


def test_the_layers_go_one_way() -> None:
    below: set[str] = set()
    for module, allowed in LAYERS.items():
        assert allowed <= below, module
        below.add(module)


@pytest.mark.parametrize("module", LAYERS)
def test_a_module_imports_only_what_its_place_allows(module: str) -> None:
    assert own_imports(module) <= LAYERS[module]


@pytest.mark.parametrize("module", PURE)
def test_from_bytes_to_exposition_nothing_has_a_socket_a_clock_or_a_file_of_its_own(module: str) -> None:
    assert libraries(module) & IMPURE_LIBRARIES == set()
    assert calls(module) & OPENING == set()


def test_few_read_files() -> None:
    assert {module for module in SOURCES if calls(module) & OPENING} == OPENS_FILES


def test_one_module_opens_each_kind_of_socket() -> None:
    users = {module for module in SOURCES if "socket" in libraries(module)}
    assert users == {"kernel.receiver", "kernel.sockets", "sdnotify", "server", "stream"}
    assert {module for module in SOURCES if "socket" in calls(module)} == users - {"kernel.receiver"}


def test_only_the_edges_know_of_http() -> None:
    assert {module for module in SOURCES if "aiohttp" in libraries(module)} == {"gate", "server", "stream", "web"}
