r"""A cgroup path: the pod, the container and the unit that it names.

UID is a pod's uid, or the config hash of a static pod: 8-4-4-4-12 hex digits, joined by `-` or `_`, or 32 of them.
ID is 64 hex digits. A prefix is anything that ends in `-`: `cri-containerd-`, `docker-`, `crio-`, `libpod-`.

    a component of the path                    names                 as seen with
    ---------------------------------------    ------------------    ------------------------------------------
    podUID                                     pod UID               Kubernetes, cgroupfs driver
    kubepods-burstable-podUID.slice            pod UID               Kubernetes, systemd driver (any prefix)
    ID, prefix-ID, prefix-ID.scope             container ID          containerd, Docker, CRI-O, Podman, ECS
    X:docker:ID                                what X does, then     runc without systemd, given a systemd path
                                               container ID
    X-conmon-ID, X-conmon-ID.scope             no container          the monitor beside a container: the pod's
                                                                     own, or else a unit
    libpod_parent/ID                           no container          a Podman pod, cgroupfs driver: its
                                                                     containers are libpod-ID below it
    lxc.payload.N, lxc.payload/N, lxc/N        container N           LXC, LXD, Incus, Proxmox
    machine-N.scope                            container N           systemd-nspawn, libvirt
    systemd-nspawn@N.service                   container N           systemd-nspawn
    either of these two, then supervisor       no container          systemd-nspawn itself: a unit
    ecs/.../32 hex digits-number               container, both       Fargate
    N.service .scope .socket .mount .swap      unit                  systemd
    user@N.service, capsule@N.service          unit, and a place     the manager of a user
                                               for user units
    anything else                              nothing               slices, /docker/buildkit, lxc.monitor.N

The outermost match wins, as what is below a container or a user's manager is named by its owner:

- Below a container nothing is looked at: a nested container, or the units of a systemd inside.
- A pod or a container is in no unit (kubelet and containerd have units of their own), with two exceptions: a
  container of a user's manager, and libpod-payload-ID, which Podman makes inside the unit that started it.
- Below a user's manager there is no pod: any user can make a directory of that name there.

Before this a path loses ` (deleted)` at its end (the cgroup is removed, the process a zombie), each `..`, and one
`_` at the beginning of each name, by which systemd keeps a unit apart from the kernel's files (`_memory.service`).
Each `..` leads out of the exporter's own cgroup, where the exporter has a cgroup namespace of its own:

    /                                      the exporter itself; without such a namespace, the host
    /../prefix-ID.scope                    another container of the exporter's own pod
    /../../container                       the same, where crun makes `container` below each container
    /../../podUID/ID                       another pod of the same QoS class
    /../../../../system.slice/x.service    a unit of the host

Sources: cgroups(7); docs/CGROUP_DELEGATION.md and src/basic/cgroup-util.c of systemd; of Kubernetes
pkg/kubelet/cm/cgroup_manager_linux.go; of Podman libpod/container_internal_linux.go.
"""

import re
from typing import NamedTuple


class Placement(NamedTuple):
    """Where a process belongs.

    Attributes:
        pod_uid: The pod's uid with dashes, or 32 hex digits: the config hash of a static pod. "" in no pod.
        container_id: 64 hex digits, or the name of a machine as the path has it. "" in no container.
        unit: The unit of the host's systemd, folded. "" in none.
        user_unit: The unit inside the user's manager that `unit` is, folded. "" in none.
    """

    pod_uid: str
    container_id: str
    unit: str
    user_unit: str


NOWHERE = Placement("", "", "", "")
"""In no pod, no container and no unit."""

_DELETED = " (deleted)"
# Of a v1 or hybrid host: systemd's own hierarchy has every unit, a container is in all of them.
_FIRST_CONTROLLERS = (b"name=systemd", b"pids", b"memory")
_UNIT_SUFFIXES = (".service", ".scope", ".socket", ".mount", ".swap")
_MANAGERS = ("user@", "capsule@")
_MACHINES = (("machine-", ".scope"), ("systemd-nspawn@", ".service"))
# All of these match a text of one length, as a whole.
_HEX_64 = re.compile(r"[0-9a-f]{64}")
_HEX_32 = re.compile(r"[0-9a-f]{32}")
_UUID = re.compile(r"[0-9a-f]{8}([-_])[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}")
_ESCAPE = re.compile(r"\\x([2-7][0-9a-f])")
_ADDRESS_CHARACTERS = frozenset("0123456789abcdefABCDEF:.")
_SHORT_ID = 12


def parse_cgroup(
    data: bytes, *, own_pod_uid: str = "", root: Placement | None = None, ended: bool = False
) -> Placement | None:
    """Parse a file /proc/PID/cgroup of any host: v1, v2 or hybrid.

    The line `0::` counts where it is the only one. Else the first that names a container counts, in the order
    name=systemd, pids, memory, all others; without a container the first that names a pod, and then a unit.

    Args:
        data: The file's bytes. A line without its newline is cut short, and is not read.
        own_pod_uid: As of parse_path.
        root: As of parse_path.
        ended: Whether the process may be a zombie. The kernel shows `/` then on every line but `0::`, which says
            nothing on a hybrid host unless it names a container.
    Returns:
        The placement; None if the file does not say it: no line is whole, or it is of a zombie on a v1 host.

    Source: cgroups(7); kernel/cgroup/cgroup.c: proc_cgroup_show
    """
    unified: bytes | None = None
    first: dict[bytes, bytes] = {}
    rest: list[bytes] = []
    for line in data.split(b"\n")[:-1]:
        number, _, after = line.partition(b":")
        controllers, colon, path = after.partition(b":")
        if not colon or not path.startswith(b"/"):
            continue
        if number == b"0":
            unified = path
        elif controllers in _FIRST_CONTROLLERS:
            first[controllers] = path
        else:
            rest.append(path)
    paths = [first[name] for name in _FIRST_CONTROLLERS if name in first] + rest
    if unified is not None:
        if ended and paths:
            placement = _parse_bytes(unified, own_pod_uid, root)
            return placement if placement.container_id else None
        paths.append(unified)
    elif ended:
        return None
    return _choose(paths, own_pod_uid, root)


def parse_path(path: str, *, own_pod_uid: str = "", root: Placement | None = None) -> Placement:
    """Parse one path, as a line of /proc/PID/cgroup has it. Any text is a path; the time is linear in its length.

    Args:
        path: The path.
        own_pod_uid: The uid of the exporter's own pod, which a path from its cgroup to the next does not name.
        root: Where a path without `..` is: of an exporter in a cgroup namespace of its own, its own placement.
            None if it sees the whole tree.
    """
    names = [name for name in path.removesuffix(_DELETED).split("/") if name]
    ups = next((i for i, name in enumerate(names) if name != ".."), len(names))
    if root is not None and not ups:
        return root
    names = _split_colons([name.removeprefix("_") for name in names if name != ".."])
    # /../ID, or /../../ID/container.
    beside = ups == 1 or (ups == 2 and names[1:2] == ["container"])
    pod_uid = unit = user_unit = ""
    in_manager = in_ecs = False
    for i, name in enumerate(names):
        parent, child = names[i - 1] if i else "", names[i + 1] if i + 1 < len(names) else ""
        prefix, id_64 = _split_id(name.removesuffix(".scope"))
        is_monitor = prefix.endswith("conmon-")
        if id_64 and beside and not i:
            pod_uid = own_pod_uid
        container = "" if is_monitor else _find_container(name, id_64, prefix, parent, child, in_ecs=in_ecs)
        if container:
            keeps_unit = in_manager or (prefix == "libpod-payload-" and not pod_uid)
            return Placement(pod_uid, container, fold_unit(unit) if keeps_unit else "", "")
        if not pod_uid and not in_manager:
            pod_uid = _find_pod(name)
        if name.endswith(_UNIT_SUFFIXES) and not name.startswith("."):
            if not in_manager:
                unit = unit or name
            elif unit.startswith(_MANAGERS):
                user_unit = user_unit or name
            in_manager = in_manager or (not pod_uid and name.startswith(_MANAGERS))
        if is_monitor:
            break
        in_ecs = in_ecs or name == "ecs"
    if pod_uid:
        return Placement(pod_uid, "", "", "")
    return Placement("", "", fold_unit(unit), fold_unit(user_unit))


def fold_unit(unit: str) -> str:
    """Take out of a unit's name what is another one each time, so that it can be a label.

        session-42.scope, session-c3.scope           session.scope
        run-u12.service, run-r0123abcd.scope         run.service, run.scope
        sshd@0-10.0.0.1:22-10.0.0.2:50000.service    sshd@.service
        systemd-coredump@3-4711-1000.service         systemd-coredump@.service
        libpod-conmon-ID.scope                       libpod-conmon.scope

    Other instances (getty@tty1.service, user@1000.service) stay: they are as many as were set up.
    """
    stem, _, suffix = unit.rpartition(".")
    if suffix == "scope" and _is_session(stem):
        return "session.scope"
    if suffix in {"scope", "service"} and stem.startswith("run-"):
        return f"run.{suffix}"
    prefix, id_64 = _split_id(stem)
    if id_64 and prefix.endswith("conmon-"):
        return f"{prefix[:-1]}.{suffix}"
    template, at, instance = stem.partition("@")
    if at and _is_connection(instance):
        return f"{template}@.{suffix}"
    return unit


def shown_container(container_id: str) -> str:
    """Return what a container is called where no runtime and no API gives its name.

    Of 64 hex digits the first 12. In the name of a machine `\\x2d` and the like become their character.
    """
    if has_long_id(container_id):
        return container_id[:_SHORT_ID]
    return _ESCAPE.sub(_unescape, container_id)


def has_long_id(container_id: str) -> bool:
    """Return whether a container has an id of a runtime's, and is not a machine with a name."""
    return _HEX_64.fullmatch(container_id) is not None


def _parse_bytes(path: bytes, own_pod_uid: str, root: Placement | None) -> Placement:
    # A surrogate in a label would fail a whole scrape.
    return parse_path(path.decode("utf-8", "backslashreplace"), own_pod_uid=own_pod_uid, root=root)


def _choose(paths: list[bytes], own_pod_uid: str, root: Placement | None) -> Placement | None:
    """Return the placement of the first path with a container; None if there is no path."""
    best: Placement | None = None
    for path in paths:
        placement = _parse_bytes(path, own_pod_uid, root)
        if placement.container_id:
            return placement
        if best is None or (placement.pod_uid and not best.pod_uid) or best == NOWHERE:
            best = placement
    return best


def _split_colons(names: list[str]) -> list[str]:
    """Make two names of each `X:docker:ID`: X and docker-ID."""
    split: list[str] = []
    for name in names:
        parts = name.rsplit(":", 2) if name.count(":") >= 2 else []
        if parts and _HEX_64.fullmatch(parts[2]):
            split += [parts[0], f"{parts[1]}-{parts[2]}"]
        else:
            split.append(name)
    return split


def _split_id(name: str) -> tuple[str, str]:
    """Split `prefix-ID` or `ID` before its 64 hex digits; two empty texts if the name is neither."""
    prefix, id_64 = name[:-64], name[-64:]
    if (not prefix or prefix.endswith("-")) and _HEX_64.fullmatch(id_64):
        return prefix, id_64
    return "", ""


def _find_pod(name: str) -> str:
    """Return the uid of a name that is a pod's, with dashes; "" if it is none."""
    name = name.removesuffix(".slice")
    for length, pattern in ((36, _UUID), (32, _HEX_32)):
        uid, before = name[-length:], name[:-length]
        if (before == "pod" or before.endswith("-pod")) and pattern.fullmatch(uid):
            return uid.replace("_", "-")
    return ""


def _find_container(name: str, id_64: str, prefix: str, parent: str, child: str, *, in_ecs: bool) -> str:
    """Return the id of the container that a name is, "" if it is none.

    Args:
        name: The name.
        id_64: The 64 hex digits in which it ends, "" if there are none.
        prefix: What is before them.
        parent: The name above it.
        child: The name below it.
        in_ecs: Whether a name above it is `ecs`.
    """
    if id_64:
        return "" if parent == "libpod_parent" and not prefix else id_64
    if parent in {"lxc", "lxc.payload"}:
        return name
    if name.startswith("lxc.payload."):
        return name.removeprefix("lxc.payload.")
    for before, after in _MACHINES:
        if name.startswith(before) and name.endswith(after):
            return "" if child == "supervisor" else name[len(before) : -len(after)]
    task, _, number = name.partition("-")
    return name if in_ecs and _HEX_32.fullmatch(task) and _is_number(number) else ""


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _is_session(stem: str) -> bool:
    """Whether it is session-42, or session-c3 as where audit has no numbers."""
    number = stem.removeprefix("session-")
    return number != stem and _is_number(number.removeprefix("c"))


def _is_connection(instance: str) -> bool:
    """Whether an instance is one of a socket with Accept=yes: a count, and the addresses of both ends.

    Of a Unix socket there are the peer's pid and uid, each with more behind a `_` in some versions.

    Source: src/core/socket.c of systemd: instance_from_socket
    """
    parts = instance.split("-")
    if any(_is_address(part) for part in parts):
        return True
    counted = len(parts) > 1 and _is_number(parts[0])
    return counted and (parts[-1] == "unknown" or (len(parts) > 2 and all(map(_is_numbers, parts))))


def _is_numbers(text: str) -> bool:
    return all(map(_is_number, text.split("_")))


def _is_address(text: str) -> bool:
    """Whether it is 10.0.0.1, 10.0.0.1:22, 2:1023 (vsock), or has the form of an IPv6 address."""
    numbers = text.replace(":", ".").split(".")
    if text.count(":") < 2:
        port = text.count(":")
        return len(numbers) in {4 + port, 2 * port} and all(map(_is_number, numbers))
    return _ADDRESS_CHARACTERS.issuperset(text.partition("%")[0])


def _unescape(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character.isprintable() else match[0]
