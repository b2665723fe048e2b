"""The web configuration file is written again and again while clients without a password ask."""

import threading
import time
from collections import Counter
from pathlib import Path

import bcrypt
import pytest
from attack.program import basic, running

SECONDS = 4.0


@pytest.mark.slow
def test_a_file_that_is_emptied_before_it_is_written_lets_nobody_in(tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
    text = f"basic_auth_users:\n  prometheus: {hashed}\n"
    file = tmp_path / "web.yml"
    file.write_text(text)
    right = basic("prometheus", "right")
    with running(tmp_path / "log", f"--web.config.file={file}", headers=right) as program:
        over = threading.Event()
        statuses: Counter[int] = Counter()

        def ask() -> None:
            while not over.is_set():
                statuses[program.get("/metrics", headers="X: y\r\n")[0]] += 1

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            ends = time.monotonic() + SECONDS
            while time.monotonic() < ends:
                # As editors and `cp` do; what is there for a moment lasts long enough to be read.
                for there in ("", "# only a comment\n", text[:18], text):
                    file.write_text(there)
                    time.sleep(0.02)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert statuses[200] == 0
        assert statuses[401]
        assert statuses[500]
        assert program.get("/metrics")[0] == 200
