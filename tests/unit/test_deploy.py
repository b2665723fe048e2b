"""deploy/: what systemd says of the unit files."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from exporter.config import FLAGS
from exporter.flags import ENVIRONMENT_PREFIX

SYSTEMD = Path(__file__).parents[2] / "deploy/systemd"
SERVICE = SYSTEMD / "proc-connector-exporter.service"
# Of 10, in tenths. What is left over is what the exporter is for: the host's network, netlink, all of /proc, the
# kernel log.
MOST_EXPOSURE = 21


def analyze(*words: str | Path) -> str:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here (Debian: apt-get install systemd)")
    result = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stderr


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    # The program of the unit has to exist.
    service = re.sub("^ExecStart=.*", "ExecStart=/bin/true", SERVICE.read_text(), flags=re.MULTILINE)
    (tmp_path / SERVICE.name).write_text(service)
    shutil.copy(SYSTEMD / "proc-connector-exporter.socket", tmp_path)
    for name in ("proc-connector-exporter.service", "proc-connector-exporter.socket"):
        assert analyze("verify", "--man=no", tmp_path / name) == ""


def test_the_service_is_exposed_to_little() -> None:
    analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE}", SERVICE)


def test_the_only_capabilities_are_those_of_the_network_of_perf_events_and_of_the_kernel_log() -> None:
    lines = [line for line in SERVICE.read_text().splitlines() if "Capabilit" in line and line[0] != "#"]
    assert lines == [
        "AmbientCapabilities=CAP_NET_ADMIN CAP_PERFMON CAP_SYSLOG",
        "CapabilityBoundingSet=CAP_NET_ADMIN CAP_PERFMON CAP_SYSLOG",
    ]


def test_rings_can_be_opened_and_locked_and_the_kernel_log_read() -> None:
    lines = SERVICE.read_text().splitlines()
    filters = [line for line in lines if line.startswith("SystemCallFilter=")]
    # What is taken out again later would not be permitted.
    assert filters[-2:] == ["SystemCallFilter=perf_event_open", "SystemCallFilter=syslog"]
    assert "ProtectKernelLogs=no" in lines
    assert "LimitMEMLOCK=infinity" in lines


@pytest.mark.parametrize("path", sorted(SYSTEMD.iterdir()), ids=lambda path: path.name)
def test_variables_that_are_named_exist(path: Path) -> None:
    named = set(re.findall(rf"{ENVIRONMENT_PREFIX}\w+", path.read_text()))
    assert named <= {flag.variable for flag in FLAGS}
