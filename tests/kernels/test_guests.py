"""The exporter on the distribution's kernels, older and newer ones, and on another architecture.

Linux 6.1 knows no event masks and lets no program listen without CAP_NET_ADMIN. In the guest of OOM kills no
process is killed but for memory. On arm64 loads and stores are ordered by barriers alone.
"""

from collections.abc import Iterator

import pytest
from kernels import image
from kernels.guests import Fleet, Plan, booted
from kernels.hearing import RUN, assert_passed
from kernels.machines import LINUX_6_1, LINUX_6_12, LINUX_6_12_ARM64

# What takes long under emulation, for what it says of a kernel (how names are printed is the same on all of them);
# of the processes that are older than the exporter, each mode with the hardest remains.
LEFT_OUT = "large or kernel_thread_that_ends or living or cpu_seconds or call_itself or (older_than and not loses)"
TRUTH = f"test_truth_table and not ({LEFT_OUT})"

# Cgroups of v2 alone, and no kernel that says in which one a process is that is gone (Linux 6.13 does).
GROUPS = "test_groups and (side-band or privileges or lived_there)"

STORM = "test_storm and two_uids"

# Scripts and chains of wrappers. No siblings: if the host takes the guest's CPU away between a FORK and its
# record, that is not there when the FORK is counted, and the parent that the child got is taken for the forker.
CHAINS = "started_by_env and ((taskstats and storm) or (procfs and quiet)) or (chains_of_wrappers and taskstats)"
SIDEBAND = f"test_sideband and (({CHAINS}) or an_exec_by_a_thread or given_up)"

# With each of the distribution's levels of kernel.perf_event_paranoid.
PERMITTED = "test_sideband and (what_is_permitted or gets_side_band_records)"

# On a slower machine: what differs there is how the exporter reads the kernel's memory and messages, not what it
# makes of them.
TRUTH_ON_ARM64 = f"{TRUTH} and (taskstats or medley)"

TESTS = tuple(f"tests/kernel/test_{name}.py" for name in ("truth_table", "groups", "storm", "sideband"))


def that_runs(*which: str) -> tuple[str, ...]:
    """Return the command of a guest that runs the tests of the kernel that an expression describes."""
    return (*RUN, "-k", " or ".join(f"({words})" for words in which), *TESTS)


# The longest first.
GUESTS = {
    "truth_6_1": Plan(LINUX_6_1, that_runs(TRUTH, GROUPS, PERMITTED)),
    "truth_6_12": Plan(LINUX_6_12, that_runs(TRUTH, STORM, SIDEBAND)),
    "arm64": Plan(LINUX_6_12_ARM64, ("env", "TEST_PATIENCE=4", *that_runs(TRUTH_ON_ARM64, STORM, SIDEBAND))),
    "without_masks": Plan(LINUX_6_1, (*RUN, "tests/kernel/test_without_masks.py")),
    # It starts five exporters at once, so a start takes long.
    "oom_kills": Plan(LINUX_6_1, ("env", "TEST_PATIENCE=6", *RUN, "tests/kernel/test_oom_kills.py")),
}

pytestmark = pytest.mark.kernels


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The guests that this run asks for, and that can be made here."""
    names = [str(item.callspec.params["name"]) for item in request.session.items if hasattr(item, "callspec")]
    plans = {
        name: plan for name, plan in GUESTS.items() if name in names and not image.what_is_missing(plan.kernel)
    }
    with booted(plans, tmp_path_factory.mktemp("guests")) as fleet:
        yield fleet


@pytest.mark.parametrize("name", GUESTS)
def test_the_tests_of_the_guest_pass(name: str, fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    if missing := image.what_is_missing(GUESTS[name].kernel):
        pytest.skip(missing)
    assert_passed(fleet.guest(name), capsys)
