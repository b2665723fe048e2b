"""What groups cost the core, by the recorded storm in one container: PYTHONPATH=tests python -m bench.groups.

Each round runs both, one after the other, and compares their CPU time; tests/work counts calls instead.
"""

import gc
import sys
import time

from bench.stats import Figure, times
from work.test_work import Replay

ROUNDS = 60
POD_AND_UNIT = frozenset({"pod", "unit"})


def cpu_ns_per_event(group_by: frozenset[str]) -> float:
    """Play the storm once."""
    replay = Replay(group_by)
    gc.collect()
    gc.disable()
    begin_ns = time.process_time_ns()
    replay.run()
    spent_ns = time.process_time_ns() - begin_ns
    gc.enable()
    return spent_ns / replay.events


def main() -> None:
    """Run it."""
    rounds = [(cpu_ns_per_event(frozenset()), cpu_ns_per_event(POD_AND_UNIT)) for _ in range(ROUNDS)]
    off, on = zip(*rounds, strict=True)
    sys.stdout.write(f"off {min(off):.0f} ns an event, on {min(on):.0f} ns\n")
    sys.stdout.write(f"on / off {Figure.ratio(on, off).show(times)}\n")


if __name__ == "__main__":
    main()
