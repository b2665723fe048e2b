"""A stop is clean though nothing of what the program logs can be written."""

import os
import signal
import socket
import subprocess
import sys

import pytest
from attack.program import PATIENCE_SECONDS, SAMPLE, wait_until


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{port}", f"--replay={SAMPLE}"]
    # Not this process's environment: PYTHONUNBUFFERED in it would leave nothing to flush at the end.
    with subprocess.Popen(command, stderr=log, env={"PATH": os.environ["PATH"]}) as process:
        os.close(log)
        wait_until(lambda: answers(port), bool, "the program listens")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0
