"""The running exporter's web side under attack: a client that is let in gets the truth, and counting is exact."""

import asyncio
import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kernel.attackers import SCRAPE, Attackers, all_at_once
from kernel.harness import (
    DEADLINE_SECONDS,
    Exporter,
    Programs,
    Response,
    World,
    ask_over,
    free_port,
    running,
    wait_until,
)
from kernel.prometheus import Prometheus
from serving import Authority, basic, hash_password

STORM = 8_000
PASSWORD = "long and secret"  # noqa: S105


LOGIN = basic("prometheus", PASSWORD)


class Secured(Exporter):
    """An exporter that lets only one user in, with a certificate of ours."""

    def __init__(self, log: Path, authority: Authority, file: Path) -> None:
        self.tls = authority.client(authority.issue("prometheus", "prometheus.example"))
        super().__init__("taskstats", log, f"--web.config.file={file}")

    def request(self, path: str, method: str = "GET", **headers: str) -> Response:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=DEADLINE_SECONDS, context=self.tls
        )
        return ask_over(connection, path, method, {"Authorization": LOGIN, **headers})


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    authority.issue("server", "localhost", "127.0.0.1")
    return authority


@pytest.fixture
def secured(authority: Authority, tmp_path: Path) -> Iterator[Secured]:
    file = tmp_path / "web.yml"
    file.write_text(
        "tls_server_config:\n"
        "  cert_file: server.crt\n"
        "  key_file: server.key\n"
        "  client_auth_type: RequireAndVerifyClientCert\n"
        "  client_ca_file: ca.pem\n"
        "  client_allowed_sans: [prometheus.example]\n"
        f"basic_auth_users: {{prometheus: {hash_password(PASSWORD)}}}\n"
    )
    exporter = Secured(tmp_path / "log", authority, file)
    try:
        yield exporter
        exporter.finish()
    finally:
        exporter.kill()


def storm_during(exporter: Exporter, programs: Programs, attack: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run processes of known fate while an attack goes on, again and again; each must be counted, none be lost."""
    before = exporter.scrape()
    world = World(exporter, programs)
    victims = [programs.link(f"victim{k}") for k in range(2)]
    spawner = world.program("spawner")
    storm = world.start(spawner, "storm", str(STORM), "16", "4", *victims, stdout=subprocess.PIPE)
    over = threading.Event()

    async def attack_until_over() -> None:
        while not over.is_set():
            await attack()

    attacking = threading.Thread(target=asyncio.run, args=(attack_until_over(),))
    attacking.start()
    try:
        with storm:
            output, _ = storm.communicate()
        assert storm.returncode == 0
    finally:
        over.set()
        attacking.join()
    world.count("exits", spawner.name, status=0)
    world.count("forks", spawner.name, STORM)
    for line in output.splitlines():
        victim, status, n = (int(word) for word in line.split())
        world.count("execs", victims[victim].name, n)
        world.count("exits", victims[victim].name, n, status=status)
    scrape = world.check()
    lost = "proc_connector_lost_messages_total"
    assert scrape.total(lost) == before.total(lost)


def descriptors(exporter: Exporter) -> int:
    return len(os.listdir(f"/proc/{exporter.process.pid}/fd"))


def peak_rss_mib(exporter: Exporter) -> float:
    status = Path(f"/proc/{exporter.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@pytest.mark.slow
def test_an_attack_costs_no_event_no_memory_and_no_descriptor(programs: Programs, tmp_path: Path) -> None:
    with running("taskstats", tmp_path / "log") as exporter:
        before = descriptors(exporter), peak_rss_mib(exporter)
        attackers = Attackers(exporter.port)
        big = b"A: " + b"a" * 1_000_000 + b"\r\n"
        headers = b"".join(b"A%d: %s\r\n" % (n, b"a" * 4000) for n in range(28))
        largest = b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n"

        async def attack() -> None:
            await all_at_once(
                (300, attackers.hold),
                (200, lambda: attackers.hold(b"GET /metrics HT")),
                (200, attackers.scrape),
                (10, lambda: attackers.scrape(big)),
                (50, attackers.drip),
                (100, lambda: attackers.run_ahead(largest * 50)),
                (20, lambda: attackers.send(os.urandom(5_000) + b"\r\n\r\n")),
                (20, lambda: attackers.send(SCRAPE.replace(b"GET", b"DELETE") % b"")),
                (20, lambda: attackers.send(b"GET /etc/passwd HTTP/1.0\r\n\r\n")),
            )
            # A client that comes amid all that is let in.
            assert await asyncio.to_thread(lambda: exporter.request("/-/healthy").status) == 200
            attackers.let_go()

        storm_during(exporter, programs, attack)
        assert set(attackers.statuses) <= {0, 200, 400, 404, 405, 503}
        assert all(attackers.statuses[status] for status in (200, 400, 404, 405))
        wait_until(lambda: descriptors(exporter), lambda now: now <= before[0] + 3, "descriptors are given back")
        assert peak_rss_mib(exporter) < before[1] + 192
    # Starting, stopping, and nothing that an attacker can add to.
    assert len(exporter.log.read_text().splitlines()) <= 5


@pytest.mark.slow
def test_a_client_without_permission_gets_nothing_and_costs_no_event(
    secured: Secured, authority: Authority, programs: Programs, tmp_path: Path
) -> None:
    (tmp_path / "strange").mkdir()
    stranger = Authority(tmp_path / "strange").issue("client", "prometheus.example")
    anonymous = Attackers(secured.port, authority.client())
    foreign = Attackers(secured.port, authority.client(stranger))
    other = Attackers(secured.port, authority.client(authority.issue("other", "other.example")))
    thief = Attackers(secured.port, secured.tls)
    plain = Attackers(secured.port)
    right, wrong, unknown = (
        f"Authorization: {basic(*login)}\r\n".encode()
        for login in (("prometheus", PASSWORD), ("prometheus", "guess"), ("root", PASSWORD))
    )

    async def attack() -> None:
        await all_at_once(
            (200, plain.hold),
            (100, lambda: plain.hold(b"\x16\x03\x01\x02")),
            (10, plain.scrape),
            (10, lambda: anonymous.scrape(right)),
            (10, lambda: foreign.scrape(right)),
            (10, lambda: other.scrape(right)),
            (10, thief.scrape),
            (10, lambda: thief.scrape(wrong)),
            (10, lambda: thief.scrape(unknown)),
        )
        plain.let_go()

    storm_during(secured, programs, attack)
    for attackers in (plain, anonymous, foreign):
        assert set(attackers.statuses) == {0}
    assert set(other.statuses) == {403}
    assert set(thief.statuses) == {401, 429}
    assert len(secured.log.read_text().splitlines()) <= 5


def test_prometheus_scrapes_on_while_certificates_are_rotated(
    secured: Secured, authority: Authority, programs: Programs, tmp_path: Path
) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus here (Debian: apt-get install prometheus)")
    port = free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        "  - job_name: secured\n"
        "    scheme: https\n"
        f"    tls_config: {{ca_file: {authority.ca_file}, cert_file: {tmp_path}/prometheus.crt,"
        f" key_file: {tmp_path}/prometheus.key, server_name: localhost, min_version: TLS13}}\n"
        f'    basic_auth: {{username: prometheus, password: "{PASSWORD}"}}\n'
        f"    static_configs: [{{targets: ['127.0.0.1:{secured.port}']}}]\n"
    )
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    server = Prometheus(port)
    with (tmp_path / "prometheus.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            wait_until(server.health, lambda health: health == [("up", "")], "prometheus scrapes the exporter")
            for _ in range(3):
                serials = served_serial(secured)
                authority.issue("server", "localhost", "127.0.0.1")
                assert served_serial(secured) != serials
                world = World(secured, programs)
                world.spawn([world.program("rotated"), "exit", "3"])
                world.check()
                [comm] = (row[0] for row in world.truth["nonzero_exits"])
                wait_until(
                    partial(nonzero_exits, server, comm), lambda seen: seen == 1, f"Prometheus knows of {comm}"
                )
            [up] = server.get("query", query="min_over_time(up[5m])")["result"]
            assert up["value"][1] == "1", "no scrape failed"
        finally:
            process.terminate()


def served_serial(secured: Secured) -> str:
    with (
        socket.create_connection(("127.0.0.1", secured.port)) as raw,
        secured.tls.wrap_socket(raw, server_hostname="localhost") as sock,
    ):
        certificate = sock.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


def nonzero_exits(server: Prometheus, comm: str) -> int:
    result = server.get("query", query=f'proc_connector_nonzero_exits_total{{comm="{comm}"}}')["result"]
    return sum(int(series["value"][1]) for series in result)


@pytest.mark.parametrize("reads", [True, False], ids=["clients that read", "clients that do not"])
def test_sigterm_during_scrapes_is_a_clean_stop(tmp_path: Path, *, reads: bool) -> None:
    exporter = Exporter("taskstats", tmp_path / "log")
    with contextlib.ExitStack() as clients:
        scraping = []
        for _ in range(20):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", exporter.port)))
            client.sendall(SCRAPE % b"" if reads else b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
            scraping.append(client)
        assert exporter.stop(signal.SIGTERM) < 5
        if reads:
            assert all(is_whole_or_cut(client) for client in scraping)
    assert "Traceback" not in exporter.log.read_text()


def is_whole_or_cut(client: socket.socket) -> bool:
    """Return whether no client can take what was answered for more than it is."""
    answer = http.client.HTTPResponse(client)
    try:
        answer.begin()
        return answer.status == 200 and answer.read().startswith(b"\x1f\x8b")
    except (http.client.HTTPException, OSError):
        return True
