"""Runs on the booted Debian: installs the package, uses it as an administrator would, upgrades and purges it.

Prints `ok STEP`, or `failed STEP: why` and the journal, one a line, and `end` after the last step.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

NAME = "proc-connector-exporter"
UNIT = f"{NAME}.service"
RUN, STATE, ETC = Path(f"/run/{NAME}"), Path(f"/var/lib/{NAME}"), Path(f"/etc/{NAME}")
DEFAULT = Path(f"/etc/default/{NAME}")
ADDITIONS = Path(f"/etc/systemd/system/{UNIT}.d")
NEXT_VERSION = "2"
PATIENCE_SECONDS = 240.0
SERVED = Path(sys.argv[1])

# Where else than on the root file system a trace could be.
OTHERS = ("/run", "/var", "/tmp")  # noqa: S108 - looked through, not written to

STEPS: list[Callable[[], None]] = []


def step(function: Callable[[], None]) -> Callable[[], None]:
    STEPS.append(function)
    return function


def run(*words: str, check: bool = True) -> str:
    result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert not check or result.returncode == 0, f"{words} ended with {result.returncode}: {result.stdout[-2000:]}"
    return result.stdout


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def wait_for(holds: Callable[[], object], what: str) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < give_up, f"never came true: {what}"
        time.sleep(0.2)


# The commands of the documentation that no step has run yet.
not_run: list[str] = json.loads((SERVED / "documented.json").read_text())
HERE = Path("/root")


def run_documented(beginning: str) -> str:
    """Run the commands of the documentation that begin like this, where a reader would have the packages."""
    chosen = [command for command in not_run if command.startswith(beginning)]
    assert chosen, f"the documentation has no command {beginning!r}"
    said = ""
    for command in chosen:
        not_run.remove(command)
        said += run("sh", "-c", f"cd {HERE} && {command.replace('NEW_VERSION', NEXT_VERSION)}")
    return said


def show(key: str) -> str:
    return run("systemctl", "show", "--value", f"--property={key}", UNIT).strip()


def scrape() -> dict[str, float]:
    with urllib.request.urlopen("http://localhost:10061/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def journal(*words: str) -> str:
    return run("journalctl", "--boot", "--no-pager", "--output=cat", f"--unit={UNIT}", *words)


@step
def the_package_installs_and_its_service_is_active_and_enabled() -> None:
    (HERE / "dist").mkdir()
    (HERE / "dist" / f"{NAME}_1_amd64.deb").write_bytes((SERVED / "first.deb").read_bytes())
    (HERE / f"{NAME}_{NEXT_VERSION}_amd64.deb").write_bytes((SERVED / "next.deb").read_bytes())
    run_documented("apt-get install ./dist/")
    assert show("ActiveState") == "active", run("systemctl", "status", UNIT, check=False)
    assert "active (running)" in run_documented("systemctl status")
    assert run("systemctl", "is-enabled", UNIT).strip() == "enabled"


@step
def it_runs_as_its_user_with_three_capabilities() -> None:
    status = Path(f"/proc/{show('MainPID')}/status").read_text()
    uid = run("id", "-u", NAME).strip()
    assert re.search(rf"^Uid:\s+{uid}\s", status, re.MULTILINE), status
    # CAP_NET_ADMIN is 12, CAP_SYSLOG 34, CAP_PERFMON 38.
    assert f"CapEff:\t{1 << 12 | 1 << 34 | 1 << 38:016x}" in status, status
    assert scrape()['proc_connector_oom_source_info{source="syslog"}'] == 1


@step
def a_scrape_has_exact_numbers_of_this_host() -> None:
    series = 'proc_connector_nonzero_exits_total{comm="false",uid="0",exit_code="1",signal=""}'
    before = scrape().get(series, 0)
    for _ in range(5):
        subprocess.run(["/bin/false"], check=False)
    wait_for(lambda: scrape().get(series, 0) == before + 5, "five failures of false")
    assert 'comm="false"' in run_documented("curl")
    info = [name for name in scrape() if name.startswith("proc_connector_attribution_info")]
    assert 'mode="taskstats"' in info[0], info


@step
def settings_of_the_default_file_apply_with_stream_and_capture() -> None:
    assert ETC.stat().st_mode & 0o777 == 0o750, oct(ETC.stat().st_mode)
    (ETC / "rules.yml").write_text("comm:\n  - {match: 'false', replace: untrue}\n")
    settings = {
        "CONFIG_FILE": str(ETC / "rules.yml"),
        "STREAM_SOCKET": str(RUN / "events.sock"),
        "STREAM_MODE": "0666",
        "CAPTURE": str(STATE / "capture"),
        "CANARY_INTERVAL": "5s",
    }
    with DEFAULT.open("a") as file:
        file.writelines(f"PROC_CONNECTOR_EXPORTER_{name}={value}\n" for name, value in settings.items())
    run("systemctl", "restart", UNIT)
    subprocess.run(["/bin/false"], check=False)
    wait_for(lambda: any('exits_total{comm="untrue"' in name for name in scrape()), "the rule applies")
    assert (STATE / "capture").stat().st_mode & 0o777 == 0o600
    assert (STATE / "capture").stat().st_size > 0


@step
def prometheus_scrapes_it_with_the_configuration_of_the_readme_and_an_alert_fires() -> None:
    folder = Path("/etc/prometheus")
    (folder / "prometheus.yml").write_bytes((SERVED / "prometheus.yml").read_bytes())
    written = run(NAME, "dashboards", "--output", str(folder)).splitlines()
    # Five dashboards and two files of rules.
    assert len(written) == 7, written
    # In an archive that the kernel unpacks everything is root's.
    run("chown", "-R", "prometheus:", "/var/lib/prometheus")
    run("systemctl", "start", "prometheus")

    def ask(path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://localhost:9090/api/v1/{path}", timeout=60) as answer:
                return str(answer.read().decode())
        except OSError as error:
            return str(error)

    wait_for(lambda: '"health":"up"' in ask("targets?state=active"), "the exporter is scraped")

    def killed() -> bool:
        subprocess.run(["sh", "-c", "kill -9 $$"], check=False)
        return '"alertname":"ProcessKilled"' in ask("alerts")

    wait_for(killed, "the alert of a killed process")
    run("systemctl", "stop", "prometheus")


_READER = (
    "import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(100); "
    f"s.connect('{RUN}/events.sock'); s.sendall(b'GET /events?comm=true&events=exit HTTP/1.0\\r\\n\\r\\n'); "
    "f = s.makefile(); [None for _ in iter(f.readline, '\\n')]; print('reading', flush=True); "
    "print(f.readline())"
)


def reads_events(*user: str) -> bool:
    """Whether a user reads an event from the stream; False if the kernel does not let it connect."""
    words = ["setpriv", *user, "python3", "-c", _READER]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "reading\n":
            assert "PermissionError" in (why := process.stderr.read()), why
            return False
        subprocess.run(["/bin/true"], check=True)
        event = json.loads(process.stdout.readline())
    assert (event["event"], event["comm"], event["exit_code"]) == ("exit", "true", 0), event
    return True


NOBODY = ("--reuid=65534", "--clear-groups", "--regid=65534")


@step
def a_local_user_reads_events_from_the_stream() -> None:
    assert reads_events(*NOBODY)


@step
def a_reload_applies_new_rules_without_a_restart() -> None:
    pid = show("MainPID")
    (ETC / "rules.yml").write_text("comm:\n  - {match: 'false', replace: wrong}\n")
    run_documented("systemctl reload")
    wait_for(lambda: "rules reloaded" in journal(), "the reload")
    subprocess.run(["/bin/false"], check=False)
    wait_for(lambda: any('exits_total{comm="wrong"' in name for name in scrape()), "the new rule applies")
    assert show("MainPID") == pid


@step
def commands_complete_and_have_a_page_and_a_version() -> None:
    assert run(NAME, "--version").startswith(f"{NAME}, version ")
    run(NAME, "watch", "--count", "1", "--duration", "60s")
    source = f". /usr/share/bash-completion/completions/{NAME}; COMP_WORDS=({NAME} --web.conf); COMP_CWORD=1; "
    completed = run("bash", "-c", source + "_proc_connector_exporter; echo ${COMPREPLY[@]}")
    assert completed.split() == ["--web.config.file"], completed
    assert Path(f"/usr/share/man/man1/{NAME}.1.gz").exists()


def complaints_of_the_exporter() -> list[str]:
    """Return its errors and warnings, without the time."""
    # A machine that is emulated can be so slow that a canary is late or a message lost; it says so.
    of_load = ("canary", "lost", "comparing")
    found = re.findall(r"^time=\S+ (level=(?:error|warn) .*)$", journal(), re.MULTILINE)
    return [line for line in found if line.startswith("level=error") or not any(word in line for word in of_load)]


def errors_of_the_system() -> list[str]:
    said = run("journalctl", "--boot", "--priority=err", "--no-pager", "--output=cat")
    return [line for line in said.splitlines() if NAME in line]


@step
def the_journal_has_no_error_until_here() -> None:
    assert complaints_of_the_exporter() == []
    assert errors_of_the_system() == []


def wait_for_another(pid: str) -> None:
    wait_for(lambda: show("MainPID") not in {"0", pid} and show("ActiveState") == "active", "the service is back")


def add(name: str, text: str) -> None:
    """Add to the unit, as `systemctl edit` does."""
    ADDITIONS.mkdir(exist_ok=True)
    (ADDITIONS / f"{name}.conf").write_text(text)
    run("systemctl", "daemon-reload")


def take_back(name: str) -> None:
    (ADDITIONS / f"{name}.conf").unlink()
    run("systemctl", "daemon-reload")


@step
def a_killed_exporter_comes_back() -> None:
    pid = show("MainPID")
    os.kill(int(pid), signal.SIGKILL)
    wait_for_another(pid)


@step
def a_stopped_exporter_is_ended_by_the_watchdog_and_comes_back() -> None:
    add("watchdog", "[Service]\nWatchdogSec=20\nLimitCORE=0\n")
    run("systemctl", "restart", UNIT)
    pid = show("MainPID")
    os.kill(int(pid), signal.SIGSTOP)
    wait_for_another(pid)
    assert "watchdog" in run("journalctl", "--boot", "--no-pager", f"--unit={UNIT}", "--grep=atchdog")
    # Out of the way of the steps that follow; the folder stays, for the purge to remove.
    add("watchdog", "[Service]\nLimitCORE=0\n")
    run("systemctl", "restart", UNIT)


@step
def a_wrong_setting_is_not_tried_again_and_again() -> None:
    settings = DEFAULT.read_text()
    DEFAULT.write_text(f"{settings}PROC_CONNECTOR_EXPORTER_LIMIT_IDLE=soon\n")
    run("systemctl", "restart", UNIT, check=False)
    wait_for(lambda: show("ActiveState") == "failed", "the service has failed")
    assert show("ExecMainStatus") == "2"
    assert "PROC_CONNECTOR_EXPORTER_LIMIT_IDLE must be 0, or a duration" in journal()
    DEFAULT.write_text(settings)
    run("systemctl", "reset-failed", UNIT)
    run("systemctl", "start", UNIT)


@step
def a_port_that_is_taken_is_not_tried_again_and_again() -> None:
    run("systemctl", "stop", UNIT)
    with socket.create_server(("", 10061)):
        run("systemctl", "start", UNIT, check=False)
        wait_for(lambda: show("ActiveState") == "failed", "the service has failed")
        assert show("ExecMainStatus") == "3"
    run("systemctl", "reset-failed", UNIT)
    run("systemctl", "start", UNIT)


@step
def what_this_host_does_not_allow_is_tried_again_a_few_times_and_given_up() -> None:
    # Before Linux 6.6 the kernel sends no events without CAP_NET_ADMIN; PrivateDevices= has no /dev/kmsg.
    lacks = {
        "5": "AmbientCapabilities=\nCapabilityBoundingSet=\n",
        "1": "Environment=PROC_CONNECTOR_EXPORTER_OOM_KILLS=kmsg\n",
    }
    for code, lack in lacks.items():
        add("lack", f"[Unit]\nStartLimitBurst=3\n[Service]\n{lack}")
        # Forgets the starts of earlier steps.
        run("systemctl", "reset-failed", UNIT)
        before = len(complaints_of_the_exporter())
        run("systemctl", "restart", UNIT, check=False)
        wait_for(lambda: show("ActiveState") == "failed", "the service has failed")
        assert show("ExecMainStatus") == code
        assert len(complaints_of_the_exporter()) == before + 3, complaints_of_the_exporter()[before:]
        take_back("lack")
        run("systemctl", "reset-failed", UNIT)
        run("systemctl", "start", UNIT)


@step
def a_group_reads_events_with_the_documented_addition() -> None:
    settings = DEFAULT.read_text()
    # What stands there goes before what the unit says.
    DEFAULT.write_text("".join(line for line in settings.splitlines(keepends=True) if "_STREAM_" not in line))
    run("groupadd", "dba")
    run("useradd", "--groups", "dba", "oracle")
    add("override", (SERVED / "stream-group.conf").read_text())
    run("systemctl", "restart", UNIT)
    path = RUN / "events.sock"
    assert (path.stat().st_mode & 0o777, path.group()) == (0o660, "dba")
    assert reads_events("--reuid=oracle", "--regid=oracle", "--init-groups")
    assert not reads_events(*NOBODY)
    take_back("override")
    DEFAULT.write_text(settings)
    run("systemctl", "restart", UNIT)


@step
def it_serves_with_the_certificate_and_password_of_files_that_its_group_reads() -> None:
    settings = DEFAULT.read_text()
    for name in ("server.crt", "server.key"):
        (ETC / name).write_bytes((SERVED / name).read_bytes())
        (ETC / name).chmod(0o600 if name == "server.key" else 0o644)
    # Of the password "secret".
    hashed = "$2b$04$Y8wkW5OU3YGJIg/gqhUNcOi5FbuQpoY9EubO4O4sJBu8hKmfx.zf6"
    tls = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n"
    (ETC / "web.yml").write_text(f"{tls}basic_auth_users: {{prometheus: {hashed}}}\n")
    (ETC / "web.yml").chmod(0o600)
    for beginning in ("chgrp", "chmod", "echo", "systemctl restart"):
        run_documented(beginning)
    ask = ("curl", "-s", "--insecure", "https://localhost:10061/-/ready", "--write-out", "%{http_code}")
    wait_for(lambda: run(*ask, "--user", "prometheus:secret", check=False).endswith("200"), "it serves by TLS")
    assert run(*ask).endswith("401")
    DEFAULT.write_text(settings)
    run("systemctl", "restart", UNIT)


@step
def an_upgrade_keeps_settings_and_serves_the_new_version() -> None:
    pid, settings = show("MainPID"), DEFAULT.read_text()
    ETC.chmod(0o755)
    run_documented("apt-get install ./proc")
    wait_for_another(pid)
    assert DEFAULT.read_text() == settings
    assert (ETC / "rules.yml").exists()
    assert ETC.stat().st_mode & 0o777 == 0o755, "an administrator's mode was changed"
    assert run("systemctl", "is-enabled", UNIT).strip() == "enabled"
    subprocess.run(["/bin/false"], check=False)
    wait_for(lambda: any('exits_total{comm="wrong"' in name for name in scrape()), "rules hold after the upgrade")


@step
def a_new_python_gets_compiled_files_and_restarts_the_service() -> None:
    pid = show("MainPID")
    folder = Path(f"/usr/lib/{NAME}")
    for compiled in folder.rglob("*.pyc"):
        compiled.unlink()
    run("dpkg-trigger", "--by-package=python3-minimal", "--no-await", "/usr/bin/python3")
    run("dpkg", "--triggers-only", NAME)
    wait_for_another(pid)
    assert len(list(folder.rglob("*.pyc"))) > 100


@step
def a_service_that_was_stopped_or_disabled_stays_so_in_an_upgrade() -> None:
    run("systemctl", "disable", "--now", UNIT)
    run("dpkg", "-i", str(SERVED / "next.deb"))
    assert show("ActiveState") == "inactive"
    assert run("systemctl", "is-enabled", UNIT, check=False).strip() == "disabled"
    run("systemctl", "enable", "--now", UNIT)


# What the crashes and mistakes of the steps above have the exporter and systemd say.
_VARIABLE = "PROC_CONNECTOR_EXPORTER"
OF_THE_EXPORTER = (
    f'level=error msg="wrong setting" error="{_VARIABLE}_LIMIT_IDLE must be 0, '
    "or a duration from 1h to 365d, such as 15s or 1h, got 'soon'\"\n"
    'level=error msg="cannot start" error="cannot listen on :10061: '
    'Address already in use; choose another --web.listen-address"\n'
    'level=error msg="cannot start" error="not permitted to listen to the process connector: '
    'run as root or with CAP_NET_ADMIN, or on Linux 6.6 or later, which needs neither"\n'
    f'level=error msg="cannot start" error="{_VARIABLE}_OOM_KILLS=kmsg: '
    'cannot open /dev/kmsg (No such file or directory): it needs CAP_SYSLOG"\n'
).splitlines()
OF_SYSTEMD = (
    f"{UNIT}: Watchdog timeout (limit 20s)!",
    f"Failed to start {UNIT} - Prometheus exporter of process life.",
)


@step
def the_journal_has_no_other_error_than_those_that_were_caused() -> None:
    assert set(complaints_of_the_exporter()) == set(OF_THE_EXPORTER), complaints_of_the_exporter()
    assert set(errors_of_the_system()) == set(OF_SYSTEMD), errors_of_the_system()


def left() -> set[str]:
    """Return all paths with the name of the package, but for logs and for the packages themselves."""
    places = ("-not", "-path", "/proc/*", "-not", "-path", "/srv/*", "-not", "-path", f"{HERE}/*")
    found = run("find", "/", "-xdev", "-name", f"*{NAME}*", *places)
    found += run("find", *OTHERS, "-name", f"*{NAME}*")
    return {line for line in found.splitlines() if "No such file" not in line}


@step
def removal_keeps_settings_alone_and_no_failed_service() -> None:
    settings = DEFAULT.read_text()
    DEFAULT.write_text(f"{settings}PROC_CONNECTOR_EXPORTER_LIMIT_IDLE=soon\n")
    run("systemctl", "restart", UNIT, check=False)
    wait_for(lambda: show("ActiveState") == "failed", "the service has failed")
    DEFAULT.write_text(settings)
    run_documented("apt-get remove")
    assert show("ActiveState") == "inactive"
    assert DEFAULT.read_text() == settings
    assert (ETC / "rules.yml").exists()
    assert not Path(f"/usr/lib/{NAME}").exists(), run("find", f"/usr/lib/{NAME}")


@step
def an_installation_after_a_removal_starts_the_service_with_its_settings() -> None:
    run("dpkg", "-i", str(SERVED / "next.deb"))
    assert show("ActiveState") == "active", run("systemctl", "status", UNIT, check=False)
    assert run("systemctl", "is-enabled", UNIT).strip() == "enabled"
    subprocess.run(["/bin/false"], check=False)
    wait_for(lambda: any('exits_total{comm="wrong"' in name for name in scrape()), "the rules are in force")


@step
def a_purge_leaves_nothing() -> None:
    run_documented("apt-get purge")
    assert left() == set(), left()
    assert NAME not in Path("/etc/passwd").read_text() + Path("/etc/group").read_text()
    assert "not-found" in run("systemctl", "show", "--property=LoadState", UNIT)


@step
def every_command_of_the_documentation_was_run() -> None:
    assert not_run == []


def main() -> None:
    for function in STEPS:
        began = time.monotonic()
        name = function.__name__
        try:
            function()
        except (AssertionError, OSError, ValueError) as error:
            tell(f"failed {name}: {error!r}".replace("\n", "\\n"))
            tell(f"journal {run('journalctl', '--boot', '--no-pager', '-n', '40', check=False)!r}")
        else:
            tell(f"ok {name} ({time.monotonic() - began:.1f} s)")
    tell("end")


if __name__ == "__main__":
    main()
