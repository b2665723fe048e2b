"""Clients take every descriptor that they can get: what is counted, and compared with /proc, stays right."""

import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from kernel.harness import DEADLINE_SECONDS, Programs, running

DESCRIPTORS = 64
PROGRAMS = 500


@pytest.mark.slow
def test_clients_that_take_every_descriptor_make_no_number_wrong(programs: Programs, folder: Path) -> None:
    program = folder / "counted-anyway"
    shutil.copy("/bin/false", program)
    few = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")
    with running("procfs", folder / "log", "--group.by=unit", prefix=few) as exporter:
        held: list[socket.socket] = []
        over = threading.Event()

        def connect() -> None:
            while not over.is_set():
                if len(held) > 2 * DESCRIPTORS:
                    held.pop(0).close()
                sock = socket.socket()
                held.append(sock)
                sock.settimeout(1)
                sock.connect_ex(("127.0.0.1", exporter.port))
                time.sleep(0.005)

        thread = threading.Thread(target=connect)
        thread.start()
        try:
            loop = f'i=0; while [ $i -lt {PROGRAMS} ]; do "{program}"; i=$((i+1)); done; true'
            subprocess.run(["/bin/sh", "-c", loop], check=True, timeout=DEADLINE_SECONDS)
            assert exporter.process.poll() is None
        finally:
            over.set()
            thread.join()
            for sock in held:
                sock.close()
        exporter.wait_for(
            lambda scrape: (
                sum(
                    value
                    for key, value in scrape.samples["proc_connector_exits_total"].items()
                    if dict(key)["comm"] == program.name
                )
                == PROGRAMS
            ),
            f"{PROGRAMS} ends",
        )
