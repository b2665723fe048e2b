"""Programs that live for two milliseconds in containers of real runtimes: each counts in its own, or in none."""

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from container.oci import Podman, Runtime
from kernel.harness import ROOMY, UNKNOWN, Exporter, Programs, Scrape

EXECS = 200
# podman takes a quarter of a second for each.
PODMAN_EXECS = 50
RUNS = 20
# Of runc and crun, which take less than a twentieth of a second for each.
BARE_RUNS = 100
STORM = 8000
ROUNDS = 3
LEAST_OF_RUNS = 0.99
LEAST_OF_PODMAN = 0.98
LEAST_OF_PODMAN_RUNS = 0.95
MS = "2"
CODE = "3"
# An exporter whose kernel does not say in which cgroup a process is: Linux before 6.13.
WITHOUT_IDS = "import exporter.kernel.pidfd as pidfd\npidfd.read_cgroup_id = lambda fd: None\n"


@contextlib.contextmanager
def grouping_exporter(folder: Path, *more: str, ids: bool, exec_names: str = "auto") -> Iterator[Exporter]:
    """An exporter that counts by pod and unit."""
    prefix: tuple[str, ...] = ()
    if not ids:
        (folder / "sitecustomize.py").write_text(WITHOUT_IDS)
        prefix = ("env", f"PYTHONPATH={folder}")
    flags = ("--group.by", "pod,unit", "--exec-names", exec_names, *more, *ROOMY)
    with Exporter("auto", folder / "log", *flags, prefix=prefix).closing() as exporter:
        yield exporter
        exporter.stop()
        assert "Traceback" not in exporter.log.read_text(), exporter.log.read_text()


@contextlib.contextmanager
def fork_storm(programs: Programs, *, busy: bool) -> Iterator[None]:
    """Keep a CPU busy with forks and execs."""
    if not busy:
        yield
        return
    storm = [str(programs.binary), "storm", "1000000", "2", "3", str(programs.link("busy"))]
    with subprocess.Popen(storm, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGKILL)


def forks_by(scrape: Scrape, comms: tuple[str, ...]) -> Counter[str]:
    """How often programs forked, by their comm, wherever they run."""
    found: Counter[str] = Counter()
    for key, number in scrape.samples.get("proc_connector_forks_total", {}).items():
        if (comm := dict(key)["comm"]) in comms:
            found[comm] += int(number)
    return found


def by_container(scrape: Scrape, counter: str, comm: str) -> Counter[str]:
    """What was counted of a program, by the container; of one in a unit or pod by that too."""
    found: Counter[str] = Counter()
    for key, number in scrape.samples.get(f"proc_connector_{counter}_total", {}).items():
        labels = dict(key)
        if labels["comm"] == comm:
            found["".join(labels[name] for name in ("namespace", "pod", "container", "unit"))] += int(number)
    return found


def wait_for_all(exporter: Exporter, comm: str, number: int) -> Scrape:
    """Wait until so many execs and ends of a program were counted: none of them waits for its group any more."""

    def holds(scrape: Scrape) -> bool:
        return all(by_container(scrape, counter, comm).total() == number for counter in ("execs", "exits"))

    return exporter.wait_for(holds, f"{number} execs and ends of {comm}")


def share_of_right(scrape: Scrape, comm: str, right: set[str], number: int) -> float:
    """Return which part of a program's execs and ends counted in its container; fail if one counted elsewhere."""
    shares = []
    for counter in ("execs", "exits"):
        found = by_container(scrape, counter, comm)
        assert set(found) <= right | {4 * UNKNOWN}, (counter, found)
        assert found.total() == number, (counter, found)
        shares.append(sum(found[container] for container in right) / number)
    return min(shares)


def reach(least: float, least_of_runs: float, measure: Callable[[], tuple[float, float]]) -> None:
    """Measure until enough is right, of the execs in a container and of the containers; fail after some rounds.

    A machine that is busy with something else may not run the exporter for a tenth of a second. Nothing may be
    counted wrong then either.
    """
    shares = []
    for _ in range(ROUNDS):
        of_execs, of_runs = measure()
        shares.append((of_execs, of_runs))
        if of_execs >= least and of_runs >= least_of_runs:
            return
    pytest.fail(f"right, of execs in a container and of containers, in each round: {shares}")


@pytest.mark.parametrize("busy", [False, True], ids=["quiet", "under a storm"])
@pytest.mark.parametrize(
    ("name", "ids", "exec_names", "least"),
    [
        ("runc", True, "auto", 0.99),
        ("crun", True, "auto", 0.95),
        ("runc", False, "events", 0.95),
        ("runc", False, "sideband", 0.995),
        ("crun", False, "sideband", 0.995),
    ],
    ids=[
        "runc",
        "crun",
        "runc before Linux 6.13 without side-band records",
        "runc before Linux 6.13",
        "crun before Linux 6.13",
    ],
)
def test_a_program_of_two_milliseconds_counts_in_its_container(  # noqa: PLR0917 - each is a column of the table
    tmp_path: Path, programs: Programs, name: str, ids: bool, exec_names: str, least: float, busy: bool
) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"no {name} here (apt-get install {name})")
    runtime = Runtime(name, tmp_path)
    main = runtime.add(programs.binary, programs.name("main"))
    with (
        grouping_exporter(tmp_path, ids=ids, exec_names=exec_names) as exporter,
        runtime.running(main, "sleep", "3600000", "0") as id_,
    ):

        def measure() -> tuple[float, float]:
            probe, short = (runtime.add(programs.binary, programs.name(hint)) for hint in ("probe", "short"))
            with fork_storm(programs, busy=busy):
                for _ in range(EXECS):
                    runtime.exec(id_, probe, "sleep", MS, CODE)
                runs = [runtime.run(short, "sleep", MS, CODE) for _ in range(BARE_RUNS)]
            wait_for_all(exporter, probe[1:], EXECS)
            scrape = wait_for_all(exporter, short[1:], BARE_RUNS)
            return (
                share_of_right(scrape, probe[1:], {id_[:12]}, EXECS),
                share_of_right(scrape, short[1:], {run[:12] for run in runs}, BARE_RUNS),
            )

        # What is alone in its container has no other process there whose namespace could be known.
        reach(least, min(least, LEAST_OF_RUNS), measure)


@pytest.fixture
def run_root() -> Iterator[Path]:
    """A folder with a short name: podman wants 50 characters at most."""
    with tempfile.TemporaryDirectory(prefix="pm", dir="/tmp") as folder:
        yield Path(folder)


def test_a_program_of_two_milliseconds_in_a_container_of_podman_counts_there(
    tmp_path: Path, run_root: Path, programs: Programs
) -> None:
    if shutil.which("podman") is None:
        pytest.skip("no podman here (apt-get install podman)")
    podman = Podman(tmp_path, run_root)
    main = podman.add(programs.binary, programs.name("main"))
    with grouping_exporter(tmp_path, ids=True) as exporter, podman.running(main, "sleep", "3600000", "0") as id_:

        def measure() -> tuple[float, float]:
            probe, short = (podman.add(programs.binary, programs.name(hint)) for hint in ("probe", "short"))
            for _ in range(PODMAN_EXECS):
                podman.exec(id_, probe, "sleep", MS, CODE)
            runs = [podman.run(short, "sleep", MS, CODE) for _ in range(RUNS)]
            wait_for_all(exporter, probe[1:], PODMAN_EXECS)
            scrape = wait_for_all(exporter, short[1:], RUNS)
            return (
                share_of_right(scrape, probe[1:], {id_[:12]}, PODMAN_EXECS),
                share_of_right(scrape, short[1:], {run[:12] for run in runs}, RUNS),
            )

        reach(LEAST_OF_PODMAN, LEAST_OF_PODMAN_RUNS, measure)


def test_forks_of_a_start_by_podman_count_for_the_stages_of_its_runtime(
    tmp_path: Path, run_root: Path, programs: Programs
) -> None:
    """Each start clones two with CLONE_PARENT: they are children of runc, which did not fork them."""
    if shutil.which("podman") is None:
        pytest.skip("no podman here (apt-get install podman)")
    podman = Podman(tmp_path, run_root)
    short = podman.add(programs.binary, programs.name("short"))
    stages = ("runc:[0:PARENT]", "runc:[1:CHILD]")
    with grouping_exporter(tmp_path, ids=True, exec_names="sideband") as exporter:
        before = forks_by(exporter.scrape(), stages)
        for _ in range(RUNS):
            podman.run(short, "sleep", MS, CODE)
        wait_for_all(exporter, short[1:], RUNS)
        assert forks_by(exporter.scrape(), stages) - before == Counter(dict.fromkeys(stages, RUNS))


def test_containers_of_podman_have_the_names_that_its_socket_says(
    tmp_path: Path, run_root: Path, programs: Programs
) -> None:
    if shutil.which("podman") is None:
        pytest.skip("no podman here (apt-get install podman)")
    podman = Podman(tmp_path, run_root)
    main = podman.add(programs.binary, programs.name("main"))
    # A user can write labels; the engine's name is not one of them.
    named = [("--name", name, "--label", "name=evil") for name in ("before", "brief")]
    flags = (f"--containers.socket={run_root / 'api.sock'}", "--user=65534")
    with (
        podman.serving(run_root / "api.sock"),
        podman.running(main, "sleep", "3600000", "0", options=named[0]) as id_,
    ):
        podman.rename(id_, "web")
        with grouping_exporter(tmp_path, *flags, ids=True) as exporter:
            exporter.wait_for(
                lambda scrape: scrape.get("proc_connector_containers_connected") == 1, "the list of containers"
            )

            def measure() -> tuple[float, float]:
                probe, short = (podman.add(programs.binary, programs.name(hint)) for hint in ("probe", "short"))
                for _ in range(PODMAN_EXECS):
                    podman.exec(id_, probe, "sleep", MS, CODE)
                # One after the other has the same name, and lives for 2 ms.
                for _ in range(RUNS):
                    podman.run(short, "sleep", MS, CODE, options=named[1])
                wait_for_all(exporter, probe[1:], PODMAN_EXECS)
                scrape = wait_for_all(exporter, short[1:], RUNS)
                assert scrape.total("proc_connector_containers_failures_total") == 0
                return (
                    share_of_right(scrape, probe[1:], {"web"}, PODMAN_EXECS),
                    share_of_right(scrape, short[1:], {"brief"}, RUNS),
                )

            reach(LEAST_OF_PODMAN, LEAST_OF_PODMAN_RUNS, measure)


def test_a_storm_in_a_container_is_exact(tmp_path: Path, programs: Programs) -> None:
    runtime = Runtime("runc", tmp_path)
    main, *others = (runtime.add(programs.binary, programs.name(hint)) for hint in ("main", "one", "two"))
    storm = runtime.add(programs.binary, programs.name("storm"))
    with grouping_exporter(tmp_path, ids=True) as exporter, runtime.running(main, "sleep", "3600000", "0") as id_:
        told = runtime.exec(id_, storm, "storm", str(STORM), "64", "3", *others)
        truth = [Counter[str](), Counter[str]()]
        for line in told.splitlines():
            index, status, number = map(int, line.split())
            truth[index][str(status >> 8)] += number
        for other in others:
            scrape = wait_for_all(exporter, other[1:], STORM // 2)
    assert sum(map(Counter.total, truth)) == STORM
    for other, codes in zip(others, truth, strict=True):
        rows = {
            (labels["container"], labels["exit_code"]): int(number)
            for key, number in scrape.samples["proc_connector_exits_total"].items()
            if (labels := dict(key))["comm"] == other[1:]
        }
        assert rows == {(id_[:12], code): number for code, number in codes.items()}
        assert by_container(scrape, "execs", other[1:]) == {id_[:12]: STORM // 2}
    assert by_container(scrape, "forks", storm[1:]) == {id_[:12]: STORM}
