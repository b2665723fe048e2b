"""exporter/kubernetes/access.py: what is set, and what a pod is given."""

import pytest

from exporter.errors import ConfigError
from exporter.kubernetes.access import (
    CA_FILE,
    TOKEN_FILE,
    ApiAccess,
    find_access,
    parse_api_server,
    parse_node_name,
)

IN_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443", "NODE_NAME": "node-17"}
STANDARD = {TOKEN_FILE, CA_FILE}


def test_a_pod_needs_no_setting() -> None:
    access = find_access(IN_POD, is_file=STANDARD.__contains__)
    assert access == ApiAccess("https://10.96.0.1:6443", TOKEN_FILE, CA_FILE, "node-17")


def test_each_setting_is_before_what_the_pod_is_given() -> None:
    access = find_access(
        IN_POD,
        api_server="https://api.example.com/k8s",
        token_file="/t",  # noqa: S106 - a path
        ca_file="/c",
        node_name="node-18",
        is_file=STANDARD.__contains__,
    )
    assert access == ApiAccess("https://api.example.com/k8s", "/t", "/c", "node-18")


def test_outside_a_pod_there_are_no_files_unless_they_are_set() -> None:
    access = find_access({}, api_server="http://127.0.0.1:8001", node_name="a", is_file=lambda _: False)
    assert access == ApiAccess("http://127.0.0.1:8001", "", "", "a")
    assert not access.is_tls


def test_an_ipv6_address_gets_its_brackets() -> None:
    environ = {**IN_POD, "KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": ""}
    assert find_access(environ, is_file=lambda _: False).server == "https://[fd00::1]:443"


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("KUBERNETES_SERVICE_HOST", "--kubernetes.api-server is not set"),
        ("NODE_NAME", "--kubernetes.node-name is not set"),
    ],
)
def test_what_is_missing_is_named(missing: str, said: str) -> None:
    environ = {name: value for name, value in IN_POD.items() if name != missing}
    with pytest.raises(ConfigError, match=said):
        find_access(environ, is_file=lambda _: False)


@pytest.mark.parametrize(("name", "value"), [("KUBERNETES_SERVICE_PORT", "x"), ("NODE_NAME", "a,b=c")])
def test_a_variable_of_another_form_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        find_access({**IN_POD, name: value}, is_file=lambda _: False)


@pytest.mark.parametrize(
    "text", ["https://a", "https://a:6443", "https://[fd00::1]:6443", "https://a/k8s/clusters/c-1", "http://127.0.0.1:8001"]
)  # fmt: skip
def test_an_address_is_taken_as_it_is(text: str) -> None:
    assert parse_api_server("--flag", text) == text
    assert parse_api_server("--flag", f"{text}/") == text


@pytest.mark.parametrize(
    "text",
    ["", "a", "a:6443", "ftp://a", "https://", "https://a:x", "https://a:0", "https://a:99999", "https://a?b", "https://a#b",
     "https://u:p@a", "https://a b", "https://é", "https://[::1"],
)  # fmt: skip
def test_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--flag must be https://HOST"):
        parse_api_server("--flag", text)


@pytest.mark.parametrize("text", ["a", "node-17", "ip-10-0-0-1.eu-west-1.compute.internal", "7"])
def test_a_nodes_name_is_taken_as_it_is(text: str) -> None:
    assert parse_node_name("--flag", text) == text


@pytest.mark.parametrize("text", ["", "A", "a_b", "a,spec.nodeName=b", "-a", "a-", "a b", "é", "a" * 254, "a\n"])
def test_no_nodes_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--flag must be the name of a node"):
        parse_node_name("--flag", text)
