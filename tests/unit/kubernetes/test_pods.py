"""exporter/kubernetes/pods.py: what is kept of a pod, whatever the API describes."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes_api import make_id, make_pod, status_of

from exporter.kubernetes.pods import Credence, Pod, parse_pod, pod_key

UID = "2d5133c0-65f3-40b2-b375-c04866d418e1"
KEY = "2d5133c065f340b2b375c04866d418e1"
HASH = "9aac5b5c8815def09a2ef9e37b89da55"
CONFIG_HASH, MIRROR = "kubernetes.io/config.hash", "kubernetes.io/config.mirror"


def parse(described: Any) -> Pod:
    pod = parse_pod(described)
    assert pod is not None
    return pod


def test_a_pod_has_its_names_and_its_uid_without_dashes() -> None:
    assert parse(make_pod("cart-0", "shop", uid=UID)) == Pod(KEY, "shop", "cart-0", {}, "", Credence.NONE)
    assert pod_key(UID) == KEY == pod_key(KEY)


def test_all_kinds_of_containers_are_found_with_their_last_attempt() -> None:
    ids = [make_id() for _ in range(6)]
    described = make_pod(
        "cart-0",
        initContainerStatuses=[status_of("setup", ids[0], ended=True), status_of("sidecar", ids[1])],
        containerStatuses=[status_of("cart", ids[2], last=ids[3]), status_of("job", ids[4], ended=True)],
        ephemeralContainerStatuses=[status_of("debugger", ids[5])],
    )
    names = ["setup", "sidecar", "cart", "cart", "job", "debugger"]
    assert parse(described).containers == dict(zip(ids, names, strict=True))


def test_of_a_container_that_waits_to_be_restarted_the_ended_attempt_is_found() -> None:
    ended = make_id()
    status = {"name": "cart", "state": {"terminated": {"containerID": f"cri-o://{ended}"}}, "restartCount": 3}
    waiting = {"name": "new", "containerID": "", "state": {"waiting": {"reason": "ContainerCreating"}}}
    assert parse(make_pod("cart-0", containerStatuses=[status, waiting])).containers == {ended: "cart"}


@pytest.mark.parametrize("runtime", ["containerd", "docker", "cri-o"])
def test_an_id_has_no_runtime(runtime: str) -> None:
    status = {"name": "cart", "containerID": f"{runtime}://0123"}
    assert parse(make_pod("cart-0", containerStatuses=[status])).containers == {"0123": "cart"}


@pytest.mark.parametrize(
    ("annotations", "owners", "mirrored"),
    [
        pytest.param({}, [], ("", Credence.NONE), id="no annotation"),
        pytest.param({CONFIG_HASH: HASH}, [], (HASH, Credence.HASH), id="hash"),
        pytest.param({MIRROR: HASH}, [], (HASH, Credence.MIRROR), id="mirror of an old kubelet"),
        pytest.param({CONFIG_HASH: HASH, MIRROR: HASH}, [], (HASH, Credence.MIRROR), id="mirror"),
        pytest.param({CONFIG_HASH: HASH, MIRROR: HASH}, ["Node"], (HASH, Credence.OWNED), id="of a node"),
        pytest.param({CONFIG_HASH: HASH, MIRROR: HASH}, ["Job"], (HASH, Credence.MIRROR), id="of a job"),
        pytest.param({CONFIG_HASH: HASH, MIRROR: KEY}, ["Node"], (HASH, Credence.HASH), id="two hashes"),
        pytest.param({CONFIG_HASH: UID}, [], (KEY, Credence.HASH), id="with dashes"),
        pytest.param({CONFIG_HASH: "x"}, ["Node"], ("", Credence.NONE), id="no hash"),
    ],
)
def test_a_mirror_has_the_hash_of_its_static_pod(
    annotations: dict[str, str], owners: list[str], mirrored: tuple[str, Credence]
) -> None:
    described = make_pod("kube-apiserver-a", annotations=annotations)
    described["metadata"]["ownerReferences"] = [{"kind": kind, "name": "a"} for kind in owners]
    assert parse(described)[-2:] == mirrored


@pytest.mark.parametrize("field", ["uid", "name", "namespace"])
@pytest.mark.parametrize("value", [None, "", 7, [], "a\nb", "é", "\ud800", "a" * 254])
def test_what_has_no_names_such_as_the_api_gives_is_no_pod(field: str, value: Any) -> None:
    described = make_pod("cart-0")
    described["metadata"][field] = value
    assert parse_pod(described) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ("metadata", "status", "name", "namespace", "uid", "annotations", "ownerReferences",
             "containerStatuses", "containerID", "state", "lastState", "terminated", CONFIG_HASH)
        ),
        inner,
        max_size=5,
    ),
)  # fmt: skip


# On a busy machine the examples take longer to make than hypothesis finds healthy.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(_JSON, _JSON)
def test_any_json_is_a_pod_or_none(described: Any, part: Any) -> None:
    parse_pod(described)
    whole = make_pod("cart-0", "shop", uid=UID)
    whole["status"] = part
    assert parse(whole).name == "cart-0"
    whole["metadata"]["annotations"] = whole["metadata"]["ownerReferences"] = part
    assert parse(whole).name == "cart-0"
