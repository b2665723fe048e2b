"""deploy/: what systemd says of the unit files."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from documented import documented_addition

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


@pytest.mark.parametrize("page", ["docs/groups.md", "docs/stream.md"])
def test_systemd_understands_the_documented_addition(page: str, tmp_path: Path) -> None:
    addition = documented_addition(page)
    service = re.sub("^ExecStart=.*", "ExecStart=/bin/true", SERVICE.read_text(), flags=re.MULTILINE)
    (tmp_path / SERVICE.name).write_text(service)
    folder = tmp_path / f"{SERVICE.name}.d"
    folder.mkdir()
    # systemd looks the group up; this one exists everywhere.
    in_a_group = re.sub(r"(?m)^SupplementaryGroups=.*", "SupplementaryGroups=daemon", addition)
    assert in_a_group != addition
    (folder / "override.conf").write_text(in_a_group)
    assert analyze("verify", "--man=no", tmp_path / SERVICE.name) == ""
    named = set(re.findall(rf"{ENVIRONMENT_PREFIX}\w+", addition))
    assert named
    assert named <= {flag.variable for flag in FLAGS}


def test_with_the_documented_addition_the_socket_can_get_its_group(tmp_path: Path) -> None:
    addition = documented_addition("docs/stream.md")
    [group] = re.findall(r"(?m)^SupplementaryGroups=(.*)", addition)
    assert f"Environment={ENVIRONMENT_PREFIX}STREAM_GROUP={group}" in addition.splitlines()
    service = tmp_path / SERVICE.name
    shutil.copy(SERVICE, service)
    assert privileged_calls(service).endswith("@privileged is not included")
    folder = tmp_path / f"{SERVICE.name}.d"
    folder.mkdir()
    (folder / "override.conf").write_text(addition)
    assert privileged_calls(service).endswith("(e.g. chown is allowed)")


def privileged_calls(service: Path) -> str:
    """Return what systemd says of the system calls for which a process most often needs privileges."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here (Debian: apt-get install systemd)")
    command = ["systemd-analyze", "security", "--offline=true", "--json=short", str(service)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    [said] = [row for row in json.loads(result.stdout) if row["json_field"] == "SystemCallFilter_privileged"]
    return str(said["description"])


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", SERVICE.read_text(), re.MULTILINE)


def test_what_no_restart_mends_is_not_started_again() -> None:
    page = (SYSTEMD.parents[1] / "docs/install.md").read_text()
    [documented] = re.findall(r"After exit codes (\d), (\d) and (\d) \(", page)
    [prevented] = settings("RestartPreventExitStatus")
    # A wrong setting, an address, a capture.
    assert prevented.split() == list(documented) == ["2", "3", "4"]


def test_what_may_pass_is_started_again_for_minutes_and_not_for_ever() -> None:
    [interval], [burst] = settings("StartLimitIntervalSec"), settings("StartLimitBurst")
    [pause], [watchdog] = settings("RestartSec"), settings("WatchdogSec")
    page = (SYSTEMD.parents[1] / "docs/install.md").read_text()
    assert f"after {pause} seconds. If that makes {burst} starts within ten minutes," in page
    assert int(interval) == 600
    # So slow a host gives up as well: a start that fails takes a second elsewhere.
    slow_start_seconds = 20
    assert int(burst) * int(pause) > 60
    assert int(burst) * (int(pause) + slow_start_seconds) < int(interval)
    # One that the watchdog ends each time always comes back.
    assert int(burst) * int(watchdog) > int(interval)


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
