"""exporter/groups/cgroup_path.py: data/cgroup_paths.json has paths of real hosts, and what each is."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from exporter.groups import cgroup_path
from exporter.groups.cgroup_path import (
    NOWHERE,
    Placement,
    fold_unit,
    parse_cgroup,
    parse_path,
    shown_container,
)

ROWS = json.loads((Path(__file__).parent / "data" / "cgroup_paths.json").read_text(encoding="utf-8"))
UID = "2d5133c0-65f3-40b2-b375-c04866d418e1"
UID_ = UID.replace("-", "_")
OWN_UID = "99999999-65f3-40b2-b375-c04866d418e1"
ID = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970"
OTHER_ID = "b203a127cd4bfe477ca1a85311fa00113e2edaca3cd12a28cab03b4136c6bfef"
USER = "/user.slice/user-1000.slice/user@1000.service"
CONTAINER = Placement("", ID, "", "")
IN_POD = Placement(UID, ID, "", "")


def rows(having: Callable[[dict[str, str]], bool]) -> pytest.MarkDecorator:
    """Run a test with each row that has something."""
    return pytest.mark.parametrize(
        "row", [row for row in ROWS if having(row)], ids=lambda row: f"{row['what']} {row['path'][:24]}"
    )


each_row = rows(lambda _: True)


def unit(name: str) -> Placement:
    return Placement("", "", name, "")


def expected(row: dict[str, str]) -> Placement:
    """What a row says, with the one unit that is folded there."""

    def folded(name: str) -> str:
        return "libpod-conmon.scope" if name.startswith("libpod-conmon-") else name

    return Placement(row["pod_uid"], row["container_id"], folded(row["unit"]), folded(row["user_unit"]))


# -- the table and its mutations -----------------------------------------------------------------------------


@each_row
def test_a_real_path_names_what_it_is(row: dict[str, str]) -> None:
    assert parse_path(row["path"]) == expected(row)


@each_row
def test_a_removed_cgroup_is_what_it_was(row: dict[str, str]) -> None:
    assert parse_path(row["path"].removesuffix(" (deleted)") + " (deleted)") == expected(row)


@each_row
@pytest.mark.parametrize("ups", [3, 4, 7])
def test_a_cgroup_namespace_changes_nothing(row: dict[str, str], ups: int) -> None:
    assert parse_path("/.." * ups + row["path"], own_pod_uid=OWN_UID) == expected(row)


@rows(lambda row: bool(row["container_id"]))
def test_below_a_container_nothing_counts(row: dict[str, str]) -> None:
    path = row["path"].removesuffix(" (deleted)")
    for below in (f"kubepods/pod{UID}/{OTHER_ID}", "system.slice/nginx.service", f"docker/{OTHER_ID}", "x y"):
        assert parse_path(f"{path}/{below}") == expected(row)


@each_row
def test_below_a_users_manager_there_is_no_pod_and_no_other_unit(row: dict[str, str]) -> None:
    placement = parse_path(USER + row["path"])
    assert placement.pod_uid == ""
    assert placement.unit == "user@1000.service"
    assert placement.container_id == row["container_id"]


@each_row
def test_below_a_foreign_container_all_is_that_container(row: dict[str, str]) -> None:
    assert parse_path(f"/docker/{OTHER_ID}{row['path']}") == Placement("", OTHER_ID, "", "")


@rows(lambda row: len(row["container_id"]) == 64)
def test_an_id_one_digit_short_is_no_container(row: dict[str, str]) -> None:
    path = row["path"].replace(row["container_id"], row["container_id"][1:])
    # Of one container in another: the inner one.
    assert parse_path(path).container_id in {"", ID, OTHER_ID} - {row["container_id"]}


@rows(lambda row: bool(row["pod_uid"]))
@pytest.mark.parametrize("change", [lambda uid: uid[1:], str.upper, lambda uid: uid.replace("c", "g")])
def test_a_uid_that_is_none_is_no_pod(row: dict[str, str], change: Callable[[str], str]) -> None:
    uid = row["pod_uid"]
    path = row["path"].replace(uid, change(uid)).replace(UID_, change(UID_))
    assert parse_path(path) == Placement("", row["container_id"], "", "")


# -- further forms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "placement"),
    [
        pytest.param("", NOWHERE, id="no path"),
        pytest.param("/../..", NOWHERE, id="only out"),
        pytest.param(f"/kubepods/burstable/pod{UID}", Placement(UID, "", "", ""), id="a pod's own cgroup"),
        pytest.param(f"/system.slice/k3s.service/kubepods/pod{UID}/{ID}", IN_POD, id="a kubelet in a unit"),
        pytest.param(f"/my-own-pod{UID_}.slice/{ID}", IN_POD, id="any prefix of a pod"),
        pytest.param(f"/kubepods/tripod{UID}/{ID}", CONTAINER, id="a prefix without its dash"),
        pytest.param(f"/kubepods/pod{UID[:8]}_{UID[9:]}/{ID}", CONTAINER, id="dashes and underscores"),
        pytest.param(f"/kubepods/pod{UID[:23]}_{UID[24:]}/{ID}", CONTAINER, id="the last of them"),
        pytest.param(f"/kubepods/pod{UID}.scope/{ID}", CONTAINER, id="a pod is no scope"),
        pytest.param(f"/kubepods/pod{UID}/pod{OWN_UID}/{ID}", IN_POD, id="the outer pod"),
        pytest.param(f"/kubepods/pod{UID}/user@7.service/{ID}", IN_POD, id="a user below a pod"),
        pytest.param(
            f"/k.slice/kubepods-pod{UID_}.slice/crio-conmon-{ID}.scope",
            Placement(UID, "", "", ""),
            id="CRI-O's monitor, systemd driver",
        ),
        pytest.param(f"/system.slice/crio-conmon-{ID}.scope", unit("crio-conmon.scope"), id="outside its pod"),
        pytest.param(f"/system.slice:docker:{ID}", CONTAINER, id="colons"),
        pytest.param(f"/a/crio-conmon-{ID}/docker/{OTHER_ID}", NOWHERE, id="below a monitor"),
        pytest.param(f"/user.slice:crio-conmon:{ID}", NOWHERE, id="a monitor with colons"),
        pytest.param(f"/kubepods-pod{UID_}.slice:x:y:{ID}", CONTAINER, id="a colon too many"),
        pytest.param(f"/kubepods-pod{UID_}.slice:cri-containerd:{ID[1:]}", NOWHERE, id="colons, no id"),
        pytest.param(f"{USER}/kubepods-pod{UID_}.slice:cri-containerd:{ID}",
                     Placement("", ID, "user@1000.service", ""), id="colons below a user"),
        pytest.param(f"/docker/{ID}.scope.d", NOWHERE, id="an id and more"),
        pytest.param(f"/docker/x{ID}", NOWHERE, id="65 digits"),
        pytest.param(f"/libpod_parent/{OTHER_ID}/libpod-{ID}", CONTAINER, id="a Podman pod, cgroupfs"),
        pytest.param(f"/libpod_parent/{OTHER_ID}", NOWHERE, id="a Podman pod alone"),
        pytest.param(f"/libpod_parent/libpod-{ID}", CONTAINER, id="Podman, cgroupfs"),
        pytest.param(f"/a.service/libpod-payload-{ID}/b.service", Placement("", ID, "a.service", ""), id="split"),
        pytest.param(f"/a.service/docker/{ID}", CONTAINER, id="another container below a unit"),
        pytest.param("/lxc/101/ns/init.scope", Placement("", "101", "", ""), id="Proxmox"),
        pytest.param("/lxc.payload/web01/x", Placement("", "web01", "", ""), id="LXC 3.1"),
        pytest.param("/lxc.monitor/web01", NOWHERE, id="its monitor"),
        pytest.param("/lxc", NOWHERE, id="lxc alone"),
        pytest.param("/lxc.payload.", NOWHERE, id="lxc.payload alone"),
        pytest.param(f"{USER}/lxc.payload.web01", Placement("", "web01", "user@1000.service", ""), id="a user's"),
        pytest.param(
            "/machine.slice/systemd-nspawn@web01.service/payload/system.slice/nginx.service",
            Placement("", "web01", "", ""),
            id="nspawn as a service",
        ),
        pytest.param(
            "/machine.slice/systemd-nspawn@web01.service/supervisor",
            unit("systemd-nspawn@web01.service"),
            id="nspawn itself",
        ),
        pytest.param("/machine.slice/machine-a.scope/supervisor", unit("machine-a.scope"), id="nspawn by hand"),
        pytest.param("/machine.slice/machine-a.scope", Placement("", "a", "", ""), id="a machine"),
        pytest.param("/machine.slice/machine-.scope", unit("machine-.scope"), id="a machine without a name"),
        pytest.param(f"/ecs/cluster/{ID[:32]}/{ID}", CONTAINER, id="ECS with its cluster"),
        pytest.param(f"/ecstasks.slice/ecstasks-{ID[:32]}.slice/docker-{ID}.scope", CONTAINER, id="ECS, systemd"),
        pytest.param(f"/x/{ID[:32]}-12", NOWHERE, id="Fargate's form elsewhere"),
        pytest.param(f"/ecs/{ID[:32]}-x", NOWHERE, id="Fargate's form without a number"),
        pytest.param("/a.service/b.service", unit("a.service"), id="the outer unit"),
        pytest.param("/a.slice/b.mount", unit("b.mount"), id="mount"),
        pytest.param("/dev-sda2.swap", unit("dev-sda2.swap"), id="swap"),
        pytest.param("/a.slice/b.socket", unit("b.socket"), id="socket"),
        pytest.param("/a.slice/b.timer", NOWHERE, id="no cgroup of a timer"),
        pytest.param("/.service/_", NOWHERE, id="only a suffix"),
        pytest.param("/user.slice/user-7.slice/session-42.scope", unit("session.scope"), id="session"),
        pytest.param("/system.slice/run-u12.service", unit("run.service"), id="systemd-run"),
        pytest.param(f"{USER}/init.scope", Placement("", "", "user@1000.service", "init.scope"), id="manager"),
        pytest.param(
            f"{USER}/app.slice/run-r0af1.scope/x.service",
            Placement("", "", "user@1000.service", "run.scope"),
            id="the outer user unit",
        ),
        pytest.param(
            f"/capsule.slice/capsule@a.service/pod{UID}/{ID}",
            Placement("", ID, "capsule@a.service", ""),
            id="capsule",
        ),
        pytest.param("/a.service/user@7.service/b.service", unit("a.service"), id="a user below a unit"),
        pytest.param("/_a.slice/__b.service", unit("_b.service"), id="one underscore"),
        pytest.param("//system.slice///ssh.service/", unit("ssh.service"), id="empty names"),
    ],
)  # fmt: skip
def test_a_form_names_what_it_is(path: str, placement: Placement) -> None:
    assert parse_path(path) == placement


# -- the exporter's own pod and container --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "placement"),
    [
        pytest.param(f"/../cri-containerd-{ID}.scope", Placement(OWN_UID, ID, "", ""), id="beside it"),
        pytest.param(f"/../{ID}", Placement(OWN_UID, ID, "", ""), id="beside it, cgroupfs"),
        pytest.param(f"/../{ID}/docker/{OTHER_ID}", Placement(OWN_UID, ID, "", ""), id="below one beside it"),
        pytest.param(f"/../crio-conmon-{ID}", Placement(OWN_UID, "", "", ""), id="its pod's monitor"),
        pytest.param(f"/../../crio-{ID}.scope/container", Placement(OWN_UID, ID, "", ""), id="crun"),
        pytest.param(f"/../../{ID}", CONTAINER, id="beside the pods is no pod's"),
        pytest.param(f"/../docker/{ID}", CONTAINER, id="below what is beside it"),
        pytest.param(f"/{ID}", CONTAINER, id="at the top of the tree"),
        pytest.param(f"/../../pod{UID}/{ID}", IN_POD, id="another pod of its class"),
        pytest.param(f"/../kubepods-pod{UID_}.slice:cri-containerd:{ID}", IN_POD, id="colons beside it"),
        pytest.param("/../../../../init.scope", unit("init.scope"), id="the host"),
    ],
)
def test_a_path_is_seen_from_the_exporters_own_cgroup(path: str, placement: Placement) -> None:
    assert parse_path(path, own_pod_uid=OWN_UID) == placement
    assert parse_path(path) == placement._replace(pod_uid=placement.pod_uid.replace(OWN_UID, ""))


def test_the_monitor_of_the_exporters_own_pod_is_no_unit() -> None:
    path = f"/../crio-conmon-{ID}.scope"
    assert parse_path(path, own_pod_uid=OWN_UID) == Placement(OWN_UID, "", "", "")


def test_a_path_that_does_not_lead_out_is_the_exporters_own_container() -> None:
    own = Placement(OWN_UID, OTHER_ID, "", "")
    assert parse_path("/", root=own) == own
    assert parse_path("/below/it.service", root=own) == own
    assert parse_path("/../../../../ssh.service", root=own) == unit("ssh.service")
    assert parse_cgroup(b"0::/\n", root=own) == own


# -- which line ----------------------------------------------------------------------------------------------

POD_PATH = f"/kubepods/burstable/pod{UID}/{ID}".encode()


@pytest.mark.parametrize(
    ("data", "placement"),
    [
        pytest.param(b"", None, id="gone"),
        pytest.param(b"0::" + POD_PATH, None, id="cut in its only line"),
        pytest.param(b"0::/a.service\n1:pids:" + POD_PATH, unit("a.service"), id="cut in its second line"),
        pytest.param(b"0::\nx\n1:pids\n:::\n", None, id="no lines of the kernel's"),
        pytest.param(b"0::" + POD_PATH + b"\n", IN_POD, id="v2"),
        pytest.param(b"0::/\n", NOWHERE, id="v2, root"),
        pytest.param(
            b"4:memory:/docker/%b\n1:name=systemd:%b\n" % (OTHER_ID.encode(), POD_PATH), IN_POD, id="v1"
        ),
        pytest.param(
            b"12:memory:/docker/%b\n3:pids:%b\n1:name=systemd:/\n" % (OTHER_ID.encode(), POD_PATH),
            IN_POD,
            id="v1, systemd's own says nothing",
        ),
        pytest.param(b"3:cpu,cpuacct:" + POD_PATH + b"\n2:pids:/\n0::/\n", IN_POD, id="another controller"),
        pytest.param(
            b"1:name=systemd:/system.slice/containerd.service\n0::" + POD_PATH + b"\n", IN_POD, id="hybrid"
        ),
        pytest.param(
            b"1:name=systemd:/system.slice/a.service\n0::/system.slice/b.service\n", unit("a.service"), id="units"
        ),
        pytest.param(b"2:pids:/\n1:name=systemd:/\n0::/a.service\n", unit("a.service"), id="unit in v2 only"),
        pytest.param(
            f"2:pids:/pod{UID}\n1:name=systemd:/a.service\n".encode(),
            Placement(UID, "", "", ""),
            id="a pod, then a unit",
        ),
        pytest.param(b"0::/a:b.service\n", unit("a:b.service"), id="a colon in the path"),
        pytest.param(b"0::/\xff.service\n", unit(r"\xff.service"), id="no UTF-8"),
    ],
)  # fmt: skip
def test_the_line_that_says_most_counts(data: bytes, placement: Placement | None) -> None:
    assert parse_cgroup(data) == placement


@pytest.mark.parametrize(
    ("data", "placement"),
    [
        pytest.param(b"0::" + POD_PATH + b" (deleted)\n", IN_POD, id="v2"),
        pytest.param(b"0::/a.service\n", unit("a.service"), id="v2, a unit"),
        pytest.param(b"0::/\n", NOWHERE, id="v2, the root"),
        pytest.param(b"1:name=systemd:/\n2:pids:/\n", None, id="v1"),
        pytest.param(b"1:name=systemd:/\n0::" + POD_PATH + b"\n", IN_POD, id="hybrid, a container"),
        pytest.param(b"1:name=systemd:/\n0::/a.service\n", None, id="hybrid, else"),
        pytest.param(b"1:name=systemd:" + POD_PATH + b"\n0::/\n", None, id="hybrid, the other lines never count"),
    ],
)
def test_of_a_zombie_only_the_unified_line_counts(data: bytes, placement: Placement | None) -> None:
    assert parse_cgroup(data, ended=True) == placement


# -- labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("session-42.scope", "session.scope"),
        ("session-c3.scope", "session.scope"),
        ("session-manager.scope", "session-manager.scope"),
        ("session-.scope", "session-.scope"),
        ("session-42.service", "session-42.service"),
        ("run-u12.service", "run.service"),
        ("run-p99-i100.scope", "run.scope"),
        ("run-user-1000.mount", "run-user-1000.mount"),
        ("sshd@0-10.0.0.1:22-10.0.0.2:50000.service", "sshd@.service"),
        ("sshd@12-77-10.0.0.1:22-10.0.0.2:50000.service", "sshd@.service"),
        ("sshd@1-fe80::1%eth0:22-fe80::2%eth0:50000.service", "sshd@.service"),
        ("sshd@1-2:22-4294967295:1023.service", "sshd@.service"),
        ("vpn@10.0.0.1.service", "vpn@.service"),
        ("systemd-coredump@3-4711-1000.service", "systemd-coredump@.service"),
        ("systemd-coredump@3-4711_88-1000.service", "systemd-coredump@.service"),
        ("x@7-unknown.service", "x@.service"),
        ("x@unknown.service", "x@unknown.service"),
        ("getty@tty1.service", "getty@tty1.service"),
        ("postgresql@15-main.service", "postgresql@15-main.service"),
        ("postgresql@15.service", "postgresql@15.service"),
        ("user@1000.service", "user@1000.service"),
        (r"systemd-fsck@dev-disk-by\x2duuid-1.service", r"systemd-fsck@dev-disk-by\x2duuid-1.service"),
        ("a@.service", "a@.service"),
        (f"libpod-conmon-{ID}.scope", "libpod-conmon.scope"),
        (f"my-{ID}.scope", f"my-{ID}.scope"),
        ("nginx.service", "nginx.service"),
        ("", ""),
    ],
)
def test_a_unit_loses_what_is_another_one_each_time(name: str, folded: str) -> None:
    assert fold_unit(name) == folded
    assert fold_unit(folded) == folded


@pytest.mark.parametrize(
    ("container_id", "shown"),
    [
        (ID, "4f797c539e6c"),
        ("web01", "web01"),
        (r"qemu\x2d1\x2dvm1", "qemu-1-vm1"),
        (r"a\x7fb\x0ac\xff", r"a\x7fb\x0ac\xff"),
        (f"{ID[:32]}-25", f"{ID[:32]}-25"),
        ("", ""),
    ],
)
def test_a_container_without_a_name_has_a_short_one(container_id: str, shown: str) -> None:
    assert shown_container(container_id) == shown


# -- time ----------------------------------------------------------------------------------------------------

PIECES = [
    "a", "/", "-", ":", "@", ".", "_", "%", "..", "../", "/..", "-pod", "/pod", "pod-", ":x:", "x:", "/_", "ecs/",
    "lxc/", "1", "0-", "1.", "::", ".scope", "/run-", "/a.service", "/user@1.service", "machine-", "conmon-",
    "libpod_parent/", " (deleted)", f"/{ID[1:]}", f"{ID[:32]}-", f"pod{UID}", f"{ID}:",
]  # fmt: skip
HOLES = [
    "{}", "/sshd@{}.service", "/sshd@0-{}.service", f"/{{}}{ID[1:]}", f"/pod{{}}{UID[1:]}", "/ecs/{}",
    "/x@{}:22.service",
]  # fmt: skip


def count_lines(path: str) -> int:
    """Return how many lines of the module parsing a path runs."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != cgroup_path.__file__:
            return None
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        parse_path(path)
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("hole", HOLES)
@pytest.mark.parametrize("piece", PIECES)
def test_a_path_twice_as_long_takes_twice_the_lines(piece: str, hole: str) -> None:
    short, long = (count_lines(hole.format(piece * n)) for n in (50, 100))
    assert long <= 2 * short + 50


@pytest.mark.parametrize("hole", HOLES)
def test_what_a_line_does_is_linear_as_well(hole: str) -> None:
    """A quadratic step would take 256 times as long for 16 times the length."""

    def take_seconds(times: int) -> float:
        paths = [hole.format(piece * times) for piece in PIECES]
        taken = []
        for _ in range(3):
            start = time.process_time()
            for path in paths:
                parse_path(path)
            taken.append(time.process_time() - start)
        return min(taken)

    assert take_seconds(16 * 400) <= 80 * take_seconds(400)
