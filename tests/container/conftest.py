"""The image, built once, and pods of it; skips what cannot run here."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from container.base_image import BUSYBOX
from container.engine import Engine
from kernel.harness import Programs, compiled_programs

HERE = Path(__file__).parent
TOOLS = {
    "podman": "podman",
    "buildah": "buildah",
    "runc": "runc",
    "catatonit": "catatonit",
    "prometheus": "prometheus",
    "gcc": "gcc",
    "setpriv": "util-linux",
}


def _what_is_missing() -> str | None:
    if os.geteuid() != 0:
        return "not root: podman has to give containers the host's namespaces"
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            return f"no {tool} here (apt-get install {package})"
    if not BUSYBOX.exists():
        return f"no {BUSYBOX} here (apt-get install busybox-static)"
    connectors = Path("/proc/net/connector")
    if not connectors.exists() or "cn_proc" not in connectors.read_text():
        return "no process connector in this network namespace (CONFIG_PROC_EVENTS)"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if HERE in item.path.parents]
    missing = _what_is_missing() if here else None
    for item in here:
        item.add_marker(pytest.mark.container)
        if missing:
            item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Tools with the image built."""
    with tempfile.TemporaryDirectory(prefix="proc-connector-containers-", ignore_cleanup_errors=True) as folder:
        engine = Engine(Path(folder))
        engine.build()
        yield engine


@pytest.fixture(scope="session")
def programs() -> Iterator[Programs]:
    with compiled_programs() as compiled:
        yield compiled
