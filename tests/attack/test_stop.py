"""A stop is clean and quick though nothing that is logged can be written, and though no answer is read."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from attack.captures import many_names
from attack.program import PATIENCE_SECONDS, SAMPLE, running, wait_until
from kernel.harness import free_port

STOP_SECONDS = 5.0


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def a_log_that_is_full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def a_log_without_a_reader() -> int:
    reads, writes = os.pipe()
    os.close(reads)
    return writes


@pytest.mark.parametrize("make_log", [a_log_that_is_full, a_log_without_a_reader], ids=["full", "no reader"])
def test_a_stop_is_clean_though_the_log_cannot_be_written(make_log: object) -> None:
    assert callable(make_log)
    log = make_log()
    port = free_port()
    command = [sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{port}", f"--replay={SAMPLE}"]
    # Not this process's environment: PYTHONUNBUFFERED in it would leave nothing to flush at the end.
    with subprocess.Popen(command, stderr=log, env={"PATH": os.environ["PATH"]}) as process:
        os.close(log)
        wait_until(lambda: answers(port), bool, "the program listens")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.slow
def test_a_stop_does_not_wait_for_clients_that_read_slowly(tmp_path: Path) -> None:
    capture = many_names(tmp_path / "capture", 4000)
    with running(tmp_path / "log", "--web.max-requests=40", capture=capture) as program, ExitStack() as stack:
        wait_until(lambda: program.get("/metrics")[1], lambda body: body.count(b"_count{") > 1000, "it is played")
        for _ in range(20):
            sock = stack.enter_context(program.connect(receive_bytes=4096))
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: identity\r\n\r\n")
            # The answer has begun, and is not read on.
            assert sock.recv(100)
        began = time.monotonic()
        # Exit code 0, and no traceback.
        program.stop()
        assert time.monotonic() - began < STOP_SECONDS


@pytest.mark.slow
def test_a_stop_amid_reloads_is_clean(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text("{}\n")
    with running(tmp_path / "log", f"--config.file={rules}") as program:

        def reload() -> None:
            while program.process.poll() is None:
                program.process.send_signal(signal.SIGHUP)

        threads = [threading.Thread(target=reload) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            # Exit code 0, and not the signal.
            program.stop()
        finally:
            program.process.kill()
            for thread in threads:
                thread.join()
