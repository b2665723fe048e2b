"""The test's pod tells an exporter that can be trusted, whatever of it a stranger may see."""

import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from charts.rendering import NAMESPACE, render
from serving import Authority, hash_password, serving

from exporter.web.gate import Gate

[CONTAINER] = render().one("Pod")["spec"]["containers"]


async def ask(url: str) -> tuple[int, str]:
    """Ask as the pod does; returns the exit code and what it printed."""
    *python, _ = CONTAINER["command"]
    assert python[:2] == ["python", "-c"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *python[1:], url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await process.communicate()
    return process.returncode or 0, printed.decode()


def answering(status: int) -> Callable[[], web.Application]:
    async def ready(_: web.Request) -> web.Response:
        return web.Response(status=status)

    def make() -> web.Application:
        app = web.Application()
        app.router.add_get("/-/ready", ready)
        return app

    return make


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        ({}, "http"),
        ({"webConfig": {"existingSecret": "web", "tls": True}}, "https"),
        ({"webConfig": {"existingSecret": "web", "tls": True}, "probes": {"type": "tcp"}}, "tcp"),
    ],
)
def test_it_asks_the_service_as_the_probes_ask_the_pods(values: Mapping[str, Any], scheme: str) -> None:
    rendered = render(values)
    [container] = rendered.one("Pod")["spec"]["containers"]
    assert container["command"][-1] == f"{scheme}://test-proc-connector-exporter.{NAMESPACE}.svc:10061"
    probe = rendered.container["readinessProbe"]
    assert ("tcpSocket" in probe) is (scheme == "tcp")
    assert probe.get("httpGet", {"scheme": "TCP"})["scheme"].lower() == scheme


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (500, 1), (401, 0), (403, 0)])
async def test_the_answer_is_the_tests_result(status: int, code: int) -> None:
    async with serving(make_app=answering(status)) as served:
        assert await ask(f"http://127.0.0.1:{served.port}") == (code, f"{status} \n")


@pytest.mark.parametrize(
    ("web_config", "scheme", "code", "printed"),
    [
        ({}, "https", 1, "503"),
        ({"basic_auth_users": {"prometheus": hash_password("secret")}}, "https", 0, "401"),
        ({"client_auth_type": "VerifyClientCertIfGiven"}, "https", 1, "503"),
        ({"client_auth_type": "RequireAndVerifyClientCert"}, "tcp", 0, "It listens"),
        ({"client_auth_type": "RequireAndVerifyClientCert", "max_version": "TLS12"}, "tcp", 0, "It listens"),
    ],
)
async def test_over_tls_it_sees_what_a_stranger_may_see(
    web_config: dict[str, object], scheme: str, code: int, printed: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "exporter")
    users = {name: web_config[name] for name in web_config if name == "basic_auth_users"}
    tls = {name: value for name, value in web_config.items() if name not in users}
    if "client_auth_type" in tls:
        tls["client_ca_file"] = authority.ca_file.name
    tls |= {"cert_file": certificate.name, "key_file": key.name}
    file = tmp_path / "web.yml"
    file.write_text(yaml.safe_dump({"tls_server_config": tls, **users}))
    async with serving(Gate(file), make_app=answering(503)) as served:
        told = await ask(f"{scheme}://127.0.0.1:{served.port}")
    assert told[0] == code, told
    assert printed in told[1]


@pytest.mark.parametrize("scheme", ["http", "https", "tcp"])
async def test_where_nobody_listens_it_fails(scheme: str) -> None:
    async with serving(make_app=answering(200)) as served:
        port = served.port
    code, printed = await ask(f"{scheme}://127.0.0.1:{port}")
    assert code == 1
    assert "ConnectionRefusedError" in printed
