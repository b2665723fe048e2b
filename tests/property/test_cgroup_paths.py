"""No cgroup path makes the parser raise, and none puts a process where its owner is not."""

import random
import re

from hypothesis import given
from hypothesis import strategies as st

from exporter.groups.cgroup_path import NOWHERE, Placement, fold_unit, parse_cgroup, parse_path, shown_container

HOSTILE_PATHS = 100_000
_UID = "2d5133c0-65f3-40b2-b375-c04866d418e1"
_OWN_UID = "99999999-65f3-40b2-b375-c04866d418e1"
_ID = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970"
_FRAGMENTS = (
    _ID, _ID, _ID[1:], _ID[:32], _ID.upper(), _UID, _UID, _UID.replace("-", "_"), _UID.replace("-", ""),
    "pod", "pod", "-pod", "kubepods", "kubepods-burstable-", ".slice", ".slice", ".scope", ".scope",
    ".service", ".service", ".mount", "docker-", "cri-containerd-", "crio-conmon-", "conmon-",
    ":cri-containerd:", ":", "libpod-payload-", "libpod_parent", "user@1000.service", "user@", "capsule@a.service",
    "session-7", "run-", "sshd@0-10.0.0.1:22-10.0.0.2:9", "@", "-", "_", "__", "..", "...", " (deleted)", " ", "",
    "lxc", "lxc.payload.", "machine-", "systemd-nspawn@", "supervisor", "ecs", "container", "a", "nginx", r"\x2d",
    "\\", "\n", "\t", "\0", '"', "{}", "é", "\u202e", "\U000e0041", "%", "fe80::1", "\ud800", "<unknown>",
    "9" * 40, "٣",
)  # fmt: skip
_POD = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}")


def hostile_paths(count: int, seed: int) -> list[str]:
    """Return paths of pieces that the grammar knows, joined as they never are."""
    chance = random.Random(seed)  # noqa: S311 - the same paths each time
    paths = []
    for _ in range(count):
        names = ["".join(chance.choices(_FRAGMENTS, k=chance.randint(1, 4))) for _ in range(chance.randint(0, 7))]
        paths.append(
            chance.choice(("/", "/../", "/../../", "")) + "/".join(names) + chance.choice(("", "", " (deleted)"))
        )
    return paths  # fmt: skip


def check(path: str, placement: Placement) -> None:
    """Assert what holds for the placement of any path."""
    pod_uid, container_id, unit, user_unit = placement
    assert not pod_uid or _POD.fullmatch(pod_uid)
    assert not pod_uid or not unit
    assert container_id in path
    assert not user_unit or unit.startswith(("user@", "capsule@"))
    assert not user_unit or not container_id
    assert fold_unit(unit) == unit
    for name in (unit, user_unit):
        assert "/" not in name
        assert not name or name.endswith((".service", ".scope", ".socket", ".mount", ".swap"))


def test_a_hundred_thousand_hostile_paths_are_each_somewhere_or_nowhere() -> None:
    found = 0
    for path in hostile_paths(HOSTILE_PATHS, seed=15):
        placement = parse_path(path, own_pod_uid=_OWN_UID)
        check(path, placement)
        shown_container(placement.container_id)
        found += placement != NOWHERE
    # Else they would not have been hostile enough.
    assert found > HOSTILE_PATHS / 4


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_a_placement_or_none(data: bytes, ended: bool) -> None:
    placement = parse_cgroup(data + b"\n", ended=ended)
    assert placement is None or all(text.encode() is not None for text in placement)


@given(st.lists(st.text(max_size=30) | st.sampled_from(_FRAGMENTS), max_size=12))
def test_any_text_is_a_placement(names: list[str]) -> None:
    check("/".join(names), parse_path("/".join(names), own_pod_uid=_OWN_UID))


_HEX = "0123456789abcdef"
_IDS = st.text(_HEX, min_size=64, max_size=64)
_UIDS = st.uuids().map(str)
_SLICES = st.lists(
    st.sampled_from(("kubelet.slice", "kubepods", "burstable", "a.slice", "k3s.service")), max_size=3
)
_PREFIXES = st.sampled_from(("", "docker-", "cri-containerd-", "crio-", "nerdctl-", "a-b-"))
_TAILS = st.lists(st.sampled_from(_FRAGMENTS), max_size=8).map("/".join)


@st.composite
def _placed_paths(draw: st.DrawFn) -> tuple[str, Placement]:
    """A path of a container in a pod, however it is written, and where it is."""
    uid, container = draw(_UIDS), draw(_IDS)
    pod = f"kubepods-burstable-pod{uid.replace('-', draw(st.sampled_from('-_')))}.slice"
    inner = draw(
        st.sampled_from((f"{pod}:cri-containerd:{container}", f"{pod}/{draw(_PREFIXES)}{container}.scope"))
    )
    names = [*[".."] * draw(st.integers(0, 6)), *draw(_SLICES), inner, draw(_TAILS)]
    path = "/" + "/".join(names) + draw(st.sampled_from(("", " (deleted)")))
    return path, Placement(uid, container, "", "")


@given(_placed_paths())
def test_whatever_a_container_makes_below_itself_it_stays_in_its_pod(placed: tuple[str, Placement]) -> None:
    path, placement = placed
    assert parse_path(path, own_pod_uid=_OWN_UID) == placement


@given(_TAILS, st.integers(0, 65535))
def test_whatever_a_user_makes_below_his_manager_it_is_in_no_pod_and_no_other_unit(tail: str, uid: int) -> None:
    path = f"/user.slice/user-{uid}.slice/user@{uid}.service/{tail}"
    placement = parse_path(path, own_pod_uid=_OWN_UID)
    assert (placement.pod_uid, placement.unit) == ("", f"user@{uid}.service")
