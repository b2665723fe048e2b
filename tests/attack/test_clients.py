"""Clients that take all they can get: what others need is left, and memory and descriptors have a bound."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from attack.captures import many_names
from attack.program import Program, basic, limits_of_memory_mib, running, wait_until
from serving import Authority

SCRAPES = 12
SCRAPE_BUDGET_MIB = 96
PAIR_BUDGET_MIB = 3
KEY_UPDATES_SECONDS = 6.0
KEY_UPDATES_ROUNDS = 5
GZIP = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n"
IDENTITY = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: identity\r\n\r\n"


@pytest.fixture
def sockets() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def others(count: int) -> list[str]:
    """Addresses of the loopback that are not the honest client's."""
    return [f"127.0.{1 + n // 250}.{1 + n % 250}" for n in range(count)]


def length_of_answer(sock: socket.socket) -> int:
    """Read an answer that ends with the connection."""
    length = 0
    while piece := sock.recv(1 << 16):
        length += len(piece)
    return length


@pytest.mark.slow
def test_tls_connections_that_are_closing_count_until_their_descriptor_is_closed(
    tmp_path: Path, sockets: contextlib.ExitStack
) -> None:
    authority = Authority(tmp_path)
    authority.issue("server", "localhost")
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}\n")
    with running(tmp_path / "log", f"--web.config.file={tmp_path}/web.yml", tls=authority.client()) as program:
        before = most = program.descriptors
        for _ in range(700):
            sock = sockets.enter_context(program.shake(program.connect()))
            # The answer is 400, and the farewell of TLS is never returned.
            sock.sendall(b"no HTTP\r\n\r\n")
            most = max(most, program.descriptors)
        assert most <= before + 256 + 1
        assert program.get("/-/healthy")[0] == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "readers", "addresses", "reads_first"),
    [(5, 8, 4, 0), (40, 60, 30, 0), (5, 300, 300, 0), (5, 300, 300, 1)],
    ids=["5", "40", "300 addresses", "300 addresses that have read well"],
)
def test_an_honest_scrape_gets_through_while_clients_of_other_addresses_read_slowly(
    tmp_path: Path, limit: int, readers: int, addresses: int, reads_first: int
) -> None:
    capture = many_names(tmp_path / "capture", 4000)
    with running(tmp_path / "log", f"--web.max-requests={limit}", capture=capture) as program:
        wait_until(lambda: program.get("/metrics")[1], lambda body: body.count(b"_count{") > 1000, "it is played")
        over = threading.Event()
        names = others(addresses)
        for _ in range(2 * reads_first):
            assert program.get("/metrics", headers="Accept-Encoding: gzip\r\n")[0] == 200
        for name in names * reads_first:
            assert program.get("/metrics", name, "Accept-Encoding: gzip\r\n")[0] == 200

        def read_slowly(n: int) -> None:
            while not over.is_set():
                with (
                    contextlib.suppress(OSError),
                    program.connect(names[n % addresses], receive_bytes=4096) as sock,
                ):
                    sock.settimeout(1)
                    sock.sendall(IDENTITY)
                    while not over.is_set() and sock.recv(100):
                        time.sleep(0.2)

        threads = [threading.Thread(target=read_slowly, args=(n,)) for n in range(readers)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(1)
            statuses = [program.get("/metrics", headers="Accept-Encoding: gzip\r\n")[0] for _ in range(SCRAPES)]
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert statuses == [200] * SCRAPES


@pytest.mark.slow
def test_all_clients_together_hold_a_bounded_amount_of_memory(
    tmp_path: Path, sockets: contextlib.ExitStack
) -> None:
    capture = many_names(tmp_path / "capture", 30_000)
    with running(tmp_path / "log", "--web.max-requests=0", "--limit.series=100000", capture=capture) as program:
        wait_until(lambda: b"has ended" in program.log.read_bytes(), bool, "it is played")
        assert program.get("/metrics")[0] == 200
        before = program.rss_mib
        for n in range(60):
            sock = sockets.enter_context(program.connect(others(30)[n % 30], receive_bytes=4096))
            sock.sendall(IDENTITY)
            # Each is given a body that was rendered for it alone.
            if n % 4 == 0:
                assert program.get("/-/healthy")[0] == 200
                time.sleep(0.5)
        assert program.get("/metrics")[0] == 200
        assert program.peak_rss_mib < before + SCRAPE_BUDGET_MIB


@pytest.mark.slow
def test_two_scrapes_at_once_take_a_small_part_of_what_they_show(tmp_path: Path) -> None:
    # Every metric is at its limit of series.
    capture = many_names(tmp_path / "capture", 30_000)
    with running(tmp_path / "log", capture=capture) as program:
        wait_until(lambda: b"has ended" in program.log.read_bytes(), bool, "it is played")
        program.forget_peak_rss()
        before = program.rss_mib
        for _ in range(5):
            with contextlib.ExitStack() as pair:
                both = [pair.enter_context(program.connect()) for _ in range(2)]
                for sock in both:
                    sock.sendall(IDENTITY.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                for sock in both:
                    # The first is not read before the second has its answer, too.
                    assert sock.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"
                read = [length_of_answer(sock) for sock in both]
            assert min(read) > 3 << 20
        assert program.peak_rss_mib < before + PAIR_BUDGET_MIB, (program.peak_rss_mib, before)


@pytest.mark.slow
def test_wrong_passwords_do_not_keep_the_right_one_out(tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(10)).decode()
    (tmp_path / "web.yml").write_text(f"basic_auth_users: {{prometheus: {hashed}}}\n")
    with running(tmp_path / "log", f"--web.config.file={tmp_path}/web.yml") as program:
        over = threading.Event()
        statuses: set[int] = set()
        names = others(20)

        def guess(n: int) -> None:
            number = 0
            while not over.is_set():
                number += 1
                statuses.add(program.get("/", names[n % 20], basic("prometheus", f"{n} {number}"))[0])

        threads = [threading.Thread(target=guess, args=(n,)) for n in range(120)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(1)
            status, _ = program.get("/metrics", headers=basic("prometheus", "right"))
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert status == 200
        assert 429 in statuses


@pytest.mark.slow
def test_the_default_limits_fit_the_memory_of_the_unit_and_of_the_chart(
    tmp_path: Path, sockets: contextlib.ExitStack
) -> None:
    authority = Authority(tmp_path)
    authority.issue("server", "localhost")
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}\n")
    # Every metric is at its limit of series, and every connection is taken.
    capture = many_names(tmp_path / "capture", 30_000)
    limit_mib = min(limits_of_memory_mib())
    with running(
        tmp_path / "log",
        f"--web.config.file={tmp_path}/web.yml",
        tls=authority.client(),
        capture=capture,
        memory_bytes=limit_mib << 20,
    ) as program:
        wait_until(lambda: b"has ended" in program.log.read_bytes(), bool, "it is played")
        sent = (IDENTITY, b"GET /metrics HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 4000, GZIP)
        for n, source in enumerate(others(300)):
            sock = sockets.enter_context(program.shake(program.connect(source, receive_bytes=4096)))
            sock.sendall(sent[n % 3])
            if n % 30 == 29:
                assert program.get("/metrics", headers="Accept-Encoding: gzip\r\n")[0] == 200
        # A half is left for what the exporter holds of a busy host.
        assert program.peak_rss_mib < limit_mib / 2
        # That has the kernel's buffers in it, and what was read of files.
        assert program.cgroup is None or program.cgroup.peak_mib < limit_mib * 0.8


@pytest.mark.slow
def test_clients_without_the_password_do_not_use_up_the_rate_limit(tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
    (tmp_path / "web.yml").write_text(
        f"basic_auth_users: {{prometheus: {hashed}}}\nrate_limit: {{interval: 100ms, burst: 5}}\n"
    )
    with running(
        tmp_path / "log", f"--web.config.file={tmp_path}/web.yml", headers=basic("prometheus", "right")
    ) as program:
        over = threading.Event()

        def ask(name: str) -> None:
            while not over.is_set():
                program.get("/", name, basic("prometheus", "wrong"))

        threads = [threading.Thread(target=ask, args=(name,)) for name in others(8)]
        for thread in threads:
            thread.start()
        try:
            statuses = []
            for _ in range(SCRAPES):
                time.sleep(0.2)
                statuses.append(program.get("/metrics")[0])
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert statuses == [200] * SCRAPES


@pytest.mark.slow
def test_an_honest_client_is_served_behind_a_flood_of_connections(tmp_path: Path) -> None:
    with running(tmp_path / "log") as program:
        over = threading.Event()
        names = others(100)

        def connect(n: int) -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):
                    program.connect(names[n % 100]).close()

        threads = [threading.Thread(target=connect, args=(n,)) for n in range(50)]
        for thread in threads:
            thread.start()
        try:
            statuses = [program.get("/metrics")[0] for _ in range(SCRAPES)]
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert statuses == [200] * SCRAPES


def longest_answer(program: Program, seconds: float) -> float:
    """Ask again and again, and return how long the slowest answer took."""
    longest = 0.0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        began = time.monotonic()
        assert program.get("/-/healthy")[0] == 200
        longest = max(longest, time.monotonic() - began)
    return longest


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")
def test_key_updates_without_end_hold_up_no_other_client(tmp_path: Path, sockets: contextlib.ExitStack) -> None:
    authority = Authority(tmp_path)
    authority.issue("server", "localhost")
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}\n")
    with running(tmp_path / "log", f"--web.config.file={tmp_path}/web.yml", tls=authority.client()) as program:
        # A "k" that is all that has come is a key update, not data.
        flood = f"while :; do yes k | openssl s_client -tls1_3 -connect 127.0.0.1:{program.port}; done"
        for _ in range(2):
            attacker = subprocess.Popen(
                ["sh", "-c", flood],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            sockets.callback(attacker.wait)
            sockets.callback(os.killpg, attacker.pid, signal.SIGKILL)
        # A client that is held up waits for all of a round. A busy machine can hold it up in a round, not in each.
        longest: list[float] = []
        while not longest or longest[-1] >= KEY_UPDATES_SECONDS / 4:
            assert len(longest) < KEY_UPDATES_ROUNDS, longest
            longest.append(longest_answer(program, KEY_UPDATES_SECONDS))
        sockets.close()
