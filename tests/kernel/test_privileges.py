"""What each privilege and each namespace gives: the promised mode, or one line that says what is missing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kernel.harness import Exporter, Programs, free_port, running, spawn_some

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
ID_FIELDS = ("Uid", "Gid")
CAP_NET_ADMIN = 12
CAPABILITY_FIELDS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def with_capabilities(which: str) -> tuple[str, ...]:
    """Become uid 65534 with these capabilities, as setpriv writes them."""
    return (*NOBODY, "--inh-caps", which, "--ambient-caps", which)


def status_of_threads(pid: int) -> dict[str, dict[str, str]]:
    """Return the fields of /proc/PID/task/TID/status by thread id."""
    return {
        task.name: {
            name: value.strip()
            for name, _, value in (line.partition(":") for line in (task / "status").read_text().splitlines())
        }
        for task in Path(f"/proc/{pid}/task").iterdir()
    }


def _all_but_net_admin() -> tuple[str, ...]:
    """Return this process's own capabilities without that one; even root need not have all that there are."""
    mask = int(status_of_threads(os.getpid())[str(os.getpid())]["CapPrm"], 16)
    numbers = [number for number in range(mask.bit_length()) if mask >> number & 1 and number != CAP_NET_ADMIN]
    return with_capabilities(",".join(["-all", *(f"+cap_{number}" for number in numbers)]))


ALL_BUT_NET_ADMIN = _all_but_net_admin()


@pytest.fixture(autouse=True, scope="module")
def _others_can_read_it() -> None:
    probe = [*NOBODY, sys.executable, "-c", "import exporter.__main__"]
    result = subprocess.run(probe, cwd="/", capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"uid 65534 cannot read {sys.executable} or this checkout: {result.stderr[-200:]}")


def run_to_its_end(*words: str, prefix: tuple[str, ...] = (), code: int = 1) -> str:
    """Start an exporter that cannot run; return the one line in which it says why."""
    address = f"127.0.0.1:{free_port()}"
    command = [*prefix, sys.executable, "-m", "exporter", "--web.listen-address", address, *words]
    result = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, timeout=20)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    [line] = [line for line in result.stderr.splitlines() if "level=info" not in line]
    assert "level=error" in line
    return line


def assert_powerless(exporter: Exporter, uid: int, gid: int, bounding: str = "0" * 16) -> None:
    """Assert that no thread has any privilege, nor a way to get one back."""
    for tid, status in status_of_threads(exporter.process.pid).items():
        what = f"thread {tid} of {exporter.process.pid}"
        assert status["Uid"].split() == [str(uid)] * 4, what
        assert status["Gid"].split() == [str(gid)] * 4, what
        assert status["Groups"] == "", what
        for field in CAPABILITY_FIELDS:
            assert status[field] == (bounding if field == "CapBnd" else "0" * 16), f"{what}: {field}"
        assert status["NoNewPrivs"] == "1", what


@pytest.mark.parametrize(
    ("prefix", "mode"),
    [
        pytest.param((), "taskstats", id="root"),
        pytest.param(NOBODY, "procfs", id="uid 65534 without capabilities"),
        pytest.param(with_capabilities("-all,+net_admin"), "taskstats", id="uid 65534 with only CAP_NET_ADMIN"),
        pytest.param(ALL_BUT_NET_ADMIN, "procfs", id="uid 65534 with all but CAP_NET_ADMIN"),
        pytest.param(
            ("unshare", "--uts", "--ipc", "--mount", "--cgroup"), "taskstats", id="namespaces that do not matter"
        ),
    ],
)
def test_the_best_mode_that_is_allowed_is_taken_and_named(
    prefix: tuple[str, ...], mode: str, programs: Programs, tmp_path: Path
) -> None:
    with running(mode, tmp_path / "log", attribution="auto", prefix=prefix) as exporter:
        spawn_some(exporter, programs)
        info = exporter.scrape().samples["proc_connector_attribution_info"]
        [labels] = info
        # Where execs get their names has rules of its own: test_sideband.py.
        assert {("mode", mode), ("filter", "kernel")} < labels
    [line] = [line for line in exporter.log.read_text().splitlines() if "msg=listening" in line]
    assert f"mode={mode} filter=kernel" in line
    assert ("CAP_NET_ADMIN" in exporter.log.read_text()) == (mode == "procfs"), "it says why"


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        pytest.param(("unshare", "--net"), "in the host's network namespace", id="net"),
        pytest.param(("unshare", "--pid", "--fork"), "in the host's pid namespace", id="pid"),
        pytest.param(("unshare", "--user", "--map-root-user"), "in the host's user namespace", id="user, root"),
    ],
)
def test_a_namespace_of_its_own_is_named_with_the_remedy(prefix: tuple[str, ...], words: str) -> None:
    assert words in run_to_its_end(prefix=prefix, code=5)


@pytest.mark.parametrize("prefix", [NOBODY, ALL_BUT_NET_ADMIN], ids=["none", "all but CAP_NET_ADMIN"])
def test_exact_mode_without_permission_names_the_capability(prefix: tuple[str, ...]) -> None:
    assert "CAP_NET_ADMIN" in run_to_its_end("--attribution", "taskstats", prefix=prefix)


def test_exact_mode_in_a_pid_namespace_names_the_namespace() -> None:
    prefix = ("unshare", "--pid", "--fork")
    assert "in the host's pid namespace" in run_to_its_end("--attribution", "taskstats", prefix=prefix)


@pytest.mark.parametrize(
    ("user", "host"),
    [
        pytest.param("65534", "127.0.0.1", id="serving an address"),
        # Looking a name up is done by a thread, and what a thread may do is its own affair.
        pytest.param("70000", "localhost", id="serving a name"),
        pytest.param("nobody", "", id="serving all addresses"),
    ],
)
def test_after_it_became_a_user_nothing_of_it_has_a_privilege_left(
    user: str, host: str, programs: Programs, tmp_path: Path
) -> None:
    uid = 65534 if user == "nobody" else int(user)
    with running("taskstats", tmp_path / "log", "--user", user, attribution="auto", host=host) as exporter:
        assert_powerless(exporter, uid, uid)
        spawn_some(exporter, programs)  # it reads /proc and sockets all the same
        assert_powerless(exporter, uid, uid)


def test_a_user_with_just_the_capabilities_for_it_can_give_them_up_too(programs: Programs, tmp_path: Path) -> None:
    prefix = with_capabilities("-all,+net_admin,+setuid,+setgid,+setpcap")
    with running("taskstats", tmp_path / "log", "--user", "70001", prefix=prefix) as exporter:
        assert_powerless(exporter, 70001, 70001)
        spawn_some(exporter, programs)


def test_an_exporter_of_that_user_gives_up_capabilities_and_groups(programs: Programs, tmp_path: Path) -> None:
    become = ("setpriv", "--reuid", "65534", "--regid", "65534", "--groups", "4,6")
    capabilities = "-all,+net_admin,+setgid,+setpcap"
    prefix = (*become, "--inh-caps", capabilities, "--ambient-caps", capabilities)
    with running("taskstats", tmp_path / "log", "--user", "65534", prefix=prefix) as exporter:
        assert_powerless(exporter, 65534, 65534)
        spawn_some(exporter, programs)


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("root", "another user than root"),
        ("0", "another user than root"),
        ("no-such-user", "no-such-user"),
        # (uid_t)-1 is no user: setresuid(2) takes it for "leave it as it is", which is root.
        (str(0xFFFFFFFF), str(0xFFFFFFFF)),
        (str(1 << 32), str(1 << 32)),
        ("-1", "-1"),
    ],
)
def test_a_user_that_it_cannot_become_is_a_wrong_setting(user: str, words: str) -> None:
    line = run_to_its_end(f"--user={user}", code=2)
    assert words in line
    assert "--user" in line


@pytest.mark.parametrize("prefix", [NOBODY, with_capabilities("-all,+net_admin")], ids=["none", "CAP_NET_ADMIN"])
def test_becoming_a_user_without_permission_names_what_it_takes(prefix: tuple[str, ...]) -> None:
    line = run_to_its_end("--user", "70000", prefix=prefix)
    assert "CAP_SETUID" in line


def mounted_proc(tmp_path: Path, options: str) -> tuple[Path, tuple[str, ...]]:
    """Return a folder, and the command before which a proc file system is mounted there for it alone."""
    folder = tmp_path / "proc"
    folder.mkdir()
    script = 'mount -t proc -o "$1" proc "$2" && shift 2 && exec "$@"'
    return folder, ("unshare", "--mount", "sh", "-c", script, "sh", options, str(folder))


@pytest.fixture
def folder(programs: Programs) -> Path:
    """A folder that all users can enter, as pytest's are not."""
    return programs.directory(65534)


@pytest.mark.parametrize("hidepid", ["1", "2", "4"])
def test_a_proc_that_hides_the_processes_of_others_is_named(hidepid: str, folder: Path) -> None:
    root, mounted = mounted_proc(folder, f"hidepid={hidepid}")
    line = run_to_its_end("--path.procfs", str(root), prefix=(*mounted, *NOBODY))
    assert "hidepid" in line
    assert str(root) in line


def test_a_proc_that_hides_processes_from_the_user_it_becomes_is_named(folder: Path) -> None:
    root, mounted = mounted_proc(folder, "hidepid=2")
    assert "hidepid" in run_to_its_end("--path.procfs", str(root), "--user", "nobody", prefix=mounted)


def test_root_sees_through_hidepid(folder: Path, programs: Programs, tmp_path: Path) -> None:
    root, mounted = mounted_proc(folder, "hidepid=2")
    with running("taskstats", tmp_path / "log", "--path.procfs", str(root), prefix=mounted) as exporter:
        spawn_some(exporter, programs)


def test_a_proc_that_has_processes_only_costs_one_metric_and_is_named(
    folder: Path, programs: Programs, tmp_path: Path
) -> None:
    root, mounted = mounted_proc(folder, "subset=pid")
    with running("taskstats", tmp_path / "log", "--path.procfs", str(root), prefix=mounted) as exporter:
        spawn_some(exporter, programs)
        assert "proc_connector_task_exits_total" not in exporter.scrape().samples
    [line] = [line for line in exporter.log.read_text().splitlines() if "subset=pid" in line]
    assert "level=warn " in line


@pytest.mark.parametrize("clock", ["--monotonic", "--boottime"])
def test_a_time_namespace_with_clocks_of_its_own_is_named(clock: str) -> None:
    if not Path("/proc/self/ns/time").exists():
        pytest.skip("this kernel has no time namespaces")
    line = run_to_its_end(prefix=("unshare", "--time", clock, "1000"))
    assert "time namespace" in line


def test_a_time_namespace_with_the_hosts_clocks_is_as_good(programs: Programs, tmp_path: Path) -> None:
    if not Path("/proc/self/ns/time").exists():
        pytest.skip("this kernel has no time namespaces")
    with running("procfs", tmp_path / "log", prefix=("unshare", "--time")) as exporter:
        spawn_some(exporter, programs)


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_folder_that_is_not_a_proc_file_system_is_named(name: str, tmp_path: Path) -> None:
    line = run_to_its_end("--path.procfs", str(tmp_path / name), code=2)
    assert "is not a proc file system" in line
    assert str(tmp_path) in line


SECCOMP = r"""
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* PROGRAM ERRNO COMMAND...: run the command where socket(AF_NETLINK, ...) fails */
int main(int argc, char **argv)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | atoi(argv[1])),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return 99;
	execvp(argv[2], argv + 2);
	return 99;
}
"""


@pytest.mark.parametrize(
    ("number", "words"),
    [
        pytest.param(1, "seccomp profile or security module .* AF_NETLINK", id="seccomp: EPERM"),
        pytest.param(13, "seccomp profile or security module .* AF_NETLINK", id="security module: EACCES"),
        pytest.param(93, "no netlink connector .* CONFIG_CONNECTOR=y", id="no connector: EPROTONOSUPPORT"),
    ],
)
def test_why_a_netlink_socket_cannot_be_opened_is_named(number: int, words: str, tmp_path: Path) -> None:
    source, binary = tmp_path / "seccomp.c", tmp_path / "seccomp"
    source.write_text(SECCOMP)
    subprocess.run(["gcc", "-o", binary, source], check=True)
    line = run_to_its_end(prefix=(str(binary), str(number)), code=5)
    assert re.search(words, line)
