"""A program that was installed, by whichever way."""

import re
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

SAMPLE = Path(__file__).parents[1] / "examples" / "busy-minute.capture"
_PATIENCE_SECONDS = 120


def serves_the_sample(program: Path, folder: Path, environment: Mapping[str, str] | None = None) -> None:
    """Check that a program serves metrics until it is stopped.

    Args:
        program: The path of the command.
        folder: Where it runs, and where its log goes.
        environment: All variables that it has; None for those of the test.
    """
    log = folder / "log"
    flags = ("--replay", SAMPLE, "--speed=0", "--web.listen-address=127.0.0.1:0")
    with (
        log.open("w") as errors,
        subprocess.Popen([program, *flags], cwd=folder, stderr=errors, env=environment) as served,
    ):
        try:
            give_up, metrics = time.monotonic() + _PATIENCE_SECONDS, ""
            while "proc_connector_exits_total{" not in metrics:
                assert served.poll() is None, log.read_text()
                assert time.monotonic() < give_up, f"no exits in time: {metrics or log.read_text()}"
                time.sleep(0.1)
                if address := re.search(r" address=(127\.0\.0\.1:\d+) ", log.read_text()):
                    with urllib.request.urlopen(f"http://{address[1]}/metrics", timeout=60) as answer:
                        metrics = answer.read().decode()
            served.terminate()
            assert served.wait(_PATIENCE_SECONDS) == 0
        finally:
            served.kill()
    assert "level=error" not in log.read_text()
