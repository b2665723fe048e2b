"""exporter/kubernetes/pod_names.py: who is called how, and until when."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_api import make_id, make_pod, make_uid, pod_of, status_of

from exporter.kubernetes.pod_names import KEEP_SECONDS, MOST_CONTAINERS, MOST_OF_ALL_PODS, PodName, PodNames
from exporter.kubernetes.pods import Pod, parse_pod

HASH = "9aac5b5c8815def09a2ef9e37b89da55"
DASHED_HASH = "9aac5b5c-8815-def0-9a2e-f9e37b89da55"
STATIC = {"kubernetes.io/config.hash": HASH, "kubernetes.io/config.mirror": HASH}


def parsed(described: dict[str, Any]) -> Pod:
    pod = parse_pod(described)
    assert pod is not None
    return pod


def uid_of(described: dict[str, Any]) -> str:
    uid: str = described["metadata"]["uid"]
    return uid


def mirror(name: str, *, annotations: dict[str, str] = STATIC, owner: str = "Node", **more: Any) -> dict[str, Any]:
    described = make_pod(name, "kube-system", annotations=annotations, **more)
    described["metadata"]["ownerReferences"] = [{"kind": owner}]
    return described


# -- names -------------------------------------------------------------------------------------------------------


def test_a_container_is_found_by_its_pods_uid_and_its_id() -> None:
    names = PodNames()
    cart, ids = pod_of("cart-0", "cart", "proxy")
    names.put(parsed(cart), 0)
    assert names.lookup(uid_of(cart), ids["cart"]) == PodName("shop", "cart-0", "cart")
    assert names.lookup(uid_of(cart).replace("-", ""), ids["proxy"]) == PodName("shop", "cart-0", "proxy")
    assert names.lookup(uid_of(cart), "") == PodName("shop", "cart-0", "")


def test_a_container_that_its_pod_does_not_list_has_no_name() -> None:
    names = PodNames()
    (cart, _), (other, other_ids) = pod_of("cart-0", "cart"), pod_of("cart-1", "cart")
    names.replace_all([parsed(cart), parsed(other)], 0)
    for container_id in (make_id(), other_ids["cart"]):
        assert names.lookup(uid_of(cart), container_id) is None
    assert names.lookup(uid_of(cart), "") == PodName("shop", "cart-0", "")


def test_a_pod_that_is_not_known_has_no_names() -> None:
    names = PodNames()
    cart, ids = pod_of("cart-0", "cart")
    names.put(parsed(cart), 0)
    assert names.lookup(make_uid(), ids["cart"]) is None
    assert names.lookup("", ids["cart"]) is None


# -- static pods -------------------------------------------------------------------------------------------------


def test_a_static_pod_is_found_by_the_hash_that_its_cgroup_has() -> None:
    names = PodNames()
    container = make_id()
    names.put(parsed(mirror("etcd-a", containerStatuses=[status_of("etcd", container)])), 0)
    for uid in (HASH, DASHED_HASH):
        assert names.lookup(uid, container) == PodName("kube-system", "etcd-a", "etcd")


def test_a_pod_that_only_claims_a_hash_does_not_take_the_mirrors_name() -> None:
    names = PodNames()
    names.put(parsed(make_pod("thief", "evil", annotations={"kubernetes.io/config.hash": HASH})), 0)
    assert names.lookup(HASH, "") == PodName("evil", "thief", "")
    names.put(parsed(mirror("etcd-a")), 0)
    names.put(parsed(make_pod("second", "evil", annotations=STATIC)), 0)
    assert names.lookup(HASH, "") == PodName("kube-system", "etcd-a", "")


def test_two_pods_with_an_equal_claim_are_neither() -> None:
    names = PodNames()
    for name in ("etcd-a", "thief"):
        names.put(parsed(mirror(name)), 0)
    assert names.lookup(HASH, "") is None


def test_a_pods_own_uid_is_before_any_claim_to_it() -> None:
    names = PodNames()
    cart, _ = pod_of("cart-0", "cart")
    uid = uid_of(cart)
    claims = {"kubernetes.io/config.hash": uid, "kubernetes.io/config.mirror": uid}
    names.put(parsed(mirror("thief", annotations=claims)), 0)
    names.put(parsed(cart), 0)
    assert names.lookup(uid, "") == PodName("shop", "cart-0", "")


def test_a_mirror_that_was_made_anew_is_the_same_pod() -> None:
    names = PodNames()
    containers = make_id(), make_id()
    first, second = (
        mirror("etcd-a", containerStatuses=[status_of("etcd", container)]) for container in containers
    )
    names.put(parsed(first), 0)
    names.remove(parsed(first), 1)
    names.put(parsed(second), 2)
    assert names.lookup(HASH, containers[1]) == PodName("kube-system", "etcd-a", "etcd")


def test_a_mirror_that_is_there_is_before_one_that_is_gone() -> None:
    names = PodNames()
    for name in ("etcd-a", "etcd-b"):
        names.put(parsed(mirror(name)), 0)
    assert names.lookup(HASH, "") is None
    names.replace_all([parsed(mirror("etcd-c"))], 1)
    assert names.lookup(HASH, "") == PodName("kube-system", "etcd-c", "")


def test_a_claim_ends_with_its_annotation_and_with_its_pod() -> None:
    names = PodNames()
    uid = make_uid()
    names.put(parsed(mirror("etcd-a", uid=uid)), 0)
    names.put(parsed(make_pod("etcd-a", "kube-system", uid=uid)), 0)
    assert names.lookup(HASH, "") is None
    names.put(parsed(mirror("etcd-a", uid=uid)), 0)
    names.remove(parsed(mirror("etcd-a", uid=uid)), 1)
    assert names.lookup(HASH, "") == PodName("kube-system", "etcd-a", "")
    names.expire(1 + KEEP_SECONDS)
    assert names.lookup(HASH, "") is None


# -- time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_list", [False, True], ids=["deleted", "no longer listed"])
def test_a_pod_that_is_gone_keeps_its_names_for_five_minutes(by_list: bool) -> None:
    names = PodNames()
    cart, ids = pod_of("cart-0", "cart")
    names.put(parsed(cart), 0)
    if by_list:
        names.replace_all([], 1000)
    else:
        names.remove(parsed(cart), 1000)
    assert len(names) == 0
    names.expire(1299)
    assert names.lookup(uid_of(cart), ids["cart"]) == PodName("shop", "cart-0", "cart")
    names.expire(1300)
    assert names.lookup(uid_of(cart), ids["cart"]) is None


def test_a_pod_that_is_listed_again_is_not_gone() -> None:
    names = PodNames()
    cart, ids = pod_of("cart-0", "cart")
    names.put(parsed(cart), 0)
    names.replace_all([], 1)
    names.replace_all([parsed(cart)], 2)
    names.expire(1e6)
    assert names.lookup(uid_of(cart), ids["cart"]) == PodName("shop", "cart-0", "cart")


def test_the_last_state_of_a_deleted_pod_counts() -> None:
    names = PodNames()
    cart, ids = pod_of("cart-0", "cart")
    names.remove(parsed(cart), 0)
    assert names.lookup(uid_of(cart), ids["cart"]) == PodName("shop", "cart-0", "cart")


def test_an_attempt_that_its_pod_no_longer_lists_keeps_its_name_for_five_minutes() -> None:
    names = PodNames()
    first, second, third = make_id(), make_id(), make_id()
    uid = make_uid()
    for now, status in (
        (0, status_of("cart", first)),
        (100, status_of("cart", second, last=first)),
        (200, status_of("cart", third, last=second)),
        (400, status_of("cart", third, last=second)),
    ):
        names.put(parsed(make_pod("cart-0", uid=uid, containerStatuses=[status])), now)
    names.expire(499)
    assert [names.lookup(uid, i) for i in (first, second, third)] == [PodName("shop", "cart-0", "cart")] * 3
    names.expire(500)
    assert names.lookup(uid, first) is None
    names.expire(1e6)
    assert [names.lookup(uid, i) for i in (second, third)] == [PodName("shop", "cart-0", "cart")] * 2


def test_each_change_changes_the_version() -> None:
    names = PodNames()
    cart, _ = pod_of("cart-0", "cart")
    seen = {names.version}
    names.put(parsed(cart), 0)
    seen.add(names.version)
    names.remove(parsed(cart), 1)
    seen.add(names.version)
    names.expire(1 + KEEP_SECONDS)
    seen.add(names.version)
    assert len(seen) == 4
    names.expire(1e6)
    assert names.version in seen


# -- limits ------------------------------------------------------------------------------------------------------


def test_of_too_many_pods_those_that_are_gone_the_longest_give_way() -> None:
    names = PodNames(most_pods=3)
    pods = [pod_of(f"cart-{i}", "cart")[0] for i in range(5)]
    for i, pod in enumerate(pods[:3]):
        names.put(parsed(pod), i)
    names.remove(parsed(pods[1]), 10)
    names.remove(parsed(pods[0]), 11)
    names.put(parsed(pods[3]), 12)
    assert [names.lookup(uid_of(pod), "") is not None for pod in pods] == [True, False, True, True, False]
    names.put(parsed(pods[4]), 13)
    assert [names.lookup(uid_of(pod), "") is not None for pod in pods] == [False, False, True, True, True]
    assert names.refused == 0


def test_a_pod_more_than_there_can_be_is_refused_and_counted() -> None:
    names = PodNames(most_pods=2)
    pods = [pod_of(f"cart-{i}", "cart")[0] for i in range(3)]
    names.replace_all(map(parsed, pods), 0)
    assert names.refused == 1
    names.remove(parsed(pods[2]), 0)
    assert [names.lookup(uid_of(pod), "") is not None for pod in pods] == [True, True, False]


def test_of_too_many_attempts_the_oldest_give_way() -> None:
    names = PodNames()
    uid = make_uid()
    ids = [make_id() for _ in range(MOST_CONTAINERS + 10)]
    for now, container in enumerate(ids):
        names.put(
            parsed(make_pod("cart-0", uid=uid, containerStatuses=[status_of("cart", container)])), now / 1000
        )
    found = [names.lookup(uid, container) for container in ids]
    assert found == [None] * 10 + [PodName("shop", "cart-0", "cart")] * MOST_CONTAINERS


def test_containers_of_all_pods_together_are_bounded_and_those_of_large_pods_give_way() -> None:
    small, ids = pod_of("small-0", "cart")
    names = PodNames()
    names.put(parsed(small), 0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i in range(120):
            statuses = [status_of("c" * 253, f"{i:04}-{n:0240}") for n in range(MOST_CONTAINERS)]
            names.put(parsed(make_pod(f"large-{i}", containerStatuses=statuses)), i)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(names) == 121
    assert names.containers <= MOST_OF_ALL_PODS
    assert names.lookup(uid_of(small), ids["cart"]) == PodName("shop", "small-0", "cart")
    # 24 MiB without the bound, 800 with all pods that there may be.
    assert taken < 17 << 20


def test_what_is_counted_of_containers_is_what_is_known() -> None:
    names = PodNames(most_pods=2)
    pods = [pod_of(f"cart-{i}", "cart", "proxy")[0] for i in range(3)]
    for i, pod in enumerate(pods[:2]):
        names.put(parsed(pod), i)
    names.put(parsed({**pods[0], "status": {}}), 2)
    names.remove(parsed(pods[1]), 3)
    names.put(parsed(pods[2]), 4)
    assert names.containers == 4
    names.expire(4 + KEEP_SECONDS)
    assert names.containers == 2


def test_a_thousand_pods_take_few_megabytes() -> None:
    tracemalloc.start()
    try:
        names = PodNames()
        before = tracemalloc.get_traced_memory()[0]
        for i in range(1000):
            names.put(parsed(pod_of(f"cart-{i}", "cart", "proxy", padding="x" * 10_000)[0]), 0)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(names) == 1000
    assert taken < 4 << 20


_STEP = st.tuples(st.sampled_from(("put", "remove", "list", "wait")), st.integers(0, 4), st.integers(0, 2))


@given(st.lists(_STEP, max_size=30))
def test_any_history_leaves_what_the_last_states_say(steps: list[tuple[str, int, int]]) -> None:
    names = PodNames(most_pods=5)
    uids = [f"2d5133c0-65f3-40b2-b375-00000000000{i}" for i in range(5)]
    live: set[int] = set()
    gone_at: dict[int, float] = {}
    now = 0.0
    for kind, i, container in steps:
        described = make_pod(
            f"pod-{i}",
            uid=uids[i],
            containerStatuses=[status_of(f"c{container}", f"id-{container}")],
            annotations=STATIC if container else {},
        )
        if kind == "wait":
            now += 100
        elif kind == "list":
            listed = set(range(i))
            names.replace_all([parsed(make_pod(f"pod-{j}", uid=uids[j])) for j in listed], now)
            gone_at |= dict.fromkeys(live - listed, now)
            live = listed
        else:
            (names.put if kind == "put" else names.remove)(parsed(described), now)
            live = live | {i} if kind == "put" else live - {i}
            if kind == "remove":
                gone_at[i] = now
        names.expire(now)
    for i, uid in enumerate(uids):
        is_known = i in live or (i in gone_at and gone_at[i] > now - KEEP_SECONDS)
        found = names.lookup(uid, "")
        assert found == (PodName("shop", f"pod-{i}", "") if is_known else None)
    assert len(names) == len(live)
