"""A CPU that goes offline and comes back. Runs alone: all exporters of the host lack its records for a moment."""

import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel.harness import UNKNOWN, Programs, running, wait_until
from kernel.test_sideband import execs_of

pytestmark = pytest.mark.alone


@pytest.fixture
def cpu_that_was_away() -> Iterator[Callable[[], str]]:
    """Take a CPU offline and online again, and return its number."""
    online = Path("/sys/devices/system/cpu/cpu1/online")

    def come_back() -> str:
        try:
            online.write_text("0")
        except OSError as error:
            pytest.skip(f"no CPU can be taken offline here: {error}")
        online.write_text("1")
        return "1"

    yield come_back
    if online.exists():
        online.write_text("1")


@pytest.mark.slow
def test_execs_on_a_cpu_that_was_offline_have_their_names_when_it_is_back(
    cpu_that_was_away: Callable[[], str], programs: Programs, tmp_path: Path
) -> None:
    """The kernel stops the event of a CPU that goes offline, and does not start it again."""
    with running("taskstats", tmp_path / "log", "--exec-names", "sideband", "--user", "65534") as exporter:
        cpu = cpu_that_was_away()

        def unknown_of(chains: int) -> int:
            uid, last = programs.new_uid(), programs.link("last")
            for _ in range(chains):
                command = ["taskset", "-c", cpu, "env", "nice", str(last), "exit", "0"]
                subprocess.run(command, user=uid, group=uid, extra_groups=[], check=True)
            found = wait_until(
                lambda: execs_of(exporter, uid), lambda rows: rows.total() >= 4 * chains, "all execs"
            )
            named = Counter({name: n for name, n in found.items() if name != UNKNOWN})
            assert named <= Counter(dict.fromkeys(("taskset", "env", "nice", last.name), chains))
            return found[UNKNOWN]

        # A few chains on a quiet host can all be read from /proc in time, without any record.
        wait_until(lambda: unknown_of(50), lambda unknown: unknown == 0, "names of execs on the CPU that is back")
