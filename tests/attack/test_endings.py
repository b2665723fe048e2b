"""A connection leaves nothing behind, in whatever way it ends."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator

import pytest
from attack.program import Program, limits_of_memory_mib, reset, running, wait_until
from serving import Authority

# What is measured is what is left; more connections, as ENDINGS=20000 makes them, only take more time.
TIMES = int(os.environ.get("ENDINGS", "1500"))
GROWN_MIB = 8
# Nearly as many as there may be, whose ten seconds pass together, so many times.
LATE, LATE_TIMES = 240, 2


def bad_line(program: Program, sock: socket.socket) -> None:
    ask(program, sock, b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


def bad_header(program: Program, sock: socket.socket) -> None:
    ask(program, sock, b"GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n")


def too_long(program: Program, sock: socket.socket) -> None:
    ask(program, sock, b"GET /" + b"a" * 15_000 + b" HTTP/1.1\r\n\r\n")


def too_many_bytes(program: Program, sock: socket.socket) -> None:
    ask(program, sock, b"GET / HTTP/1.1\r\n" + b"A: %s\r\n" % (b"a" * 2000) * 20)


def unknown_page(program: Program, sock: socket.socket) -> None:
    ask(program, sock, b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


def aborted_body(program: Program, sock: socket.socket) -> None:
    ask(program, sock, b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"a" * 1000)


def half_a_request(program: Program, sock: socket.socket) -> None:
    with program.shake(sock) as shaken:
        shaken.sendall(b"GET / HT")


def reset_amid_an_answer(program: Program, sock: socket.socket) -> None:
    shaken = program.shake(sock)
    shaken.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    reset(shaken)


HALF_A_HANDSHAKE = bytes.fromhex("1603010200010001fc0303") + bytes(100)


def half_a_handshake(_: Program, sock: socket.socket) -> None:
    sock.sendall(HALF_A_HANDSHAKE)
    sock.close()


def no_handshake(_: Program, sock: socket.socket) -> None:
    ask_raw(sock, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


ENDINGS = [
    bad_line, bad_header, too_long, too_many_bytes, unknown_page, aborted_body, half_a_request,
    reset_amid_an_answer, half_a_handshake, no_handshake,
]  # fmt: skip


def ask(program: Program, sock: socket.socket, request: bytes) -> None:
    ask_raw(program.shake(sock), request)


def ask_raw(sock: socket.socket, request: bytes) -> None:
    with sock, contextlib.suppress(OSError):
        sock.sendall(request)
        while sock.recv(1 << 16):
            pass


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "TLS"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("endings")
    authority = Authority(folder)
    authority.issue("server", "localhost")
    (folder / "web.yml").write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}\n")
    flags = [f"--web.config.file={folder}/web.yml"] if request.param else []
    tls = authority.client() if request.param else None
    # Under the limit of the chart: a kill by the kernel ends the test.
    with running(folder / "log", *flags, tls=tls, memory_bytes=min(limits_of_memory_mib()) << 20) as program:
        come_together(program)
        yield program


def come_together(program: Program) -> None:
    """Have the program hold what it needs for as many connections as there may be: that is not what is left."""
    for _ in range(3):
        with contextlib.ExitStack() as stack:
            for sock in [stack.enter_context(program.connect()) for _ in range(LATE)]:
                sock.sendall(HALF_A_HANDSHAKE)


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDINGS, ids=lambda end: end.__name__)
def test_a_connection_leaves_nothing_behind(
    program: Program, end: Callable[[Program, socket.socket], None]
) -> None:
    def some(times: int) -> None:
        for _ in range(times):
            with contextlib.suppress(ConnectionError):
                end(program, program.connect())

    some(200)
    open_before, before = program.descriptors, program.rss_mib
    some(TIMES)
    assert program.get("/-/healthy")[0] == 200
    wait_until(lambda: program.descriptors, lambda now: now <= open_before + 2, "descriptors are given back")
    assert program.rss_mib < before + GROWN_MIB


@pytest.mark.slow
def test_connections_whose_time_is_up_leave_nothing_behind(program: Program) -> None:
    def let_time_pass() -> None:
        """A half of them is amid a request, the others have not begun: a handshake, if there is TLS."""
        with contextlib.ExitStack() as stack:
            held = []
            for n in range(LATE):
                sock = program.connect()
                held.append(stack.enter_context(program.shake(sock) if n % 2 else sock))
                if n % 2:
                    held[-1].sendall(b"GET / HT")
            for sock in held:
                with contextlib.suppress(OSError):
                    assert not sock.recv(1)

    let_time_pass()
    open_before, before = program.descriptors, program.rss_mib
    for _ in range(LATE_TIMES):
        let_time_pass()
    wait_until(lambda: program.descriptors, lambda now: now <= open_before + 2, "descriptors are given back")
    assert program.rss_mib < before + GROWN_MIB
