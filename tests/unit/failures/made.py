"""Failures for tests."""

from exporter.processes.bad_ends import Failure
from exporter.stream.wall_clock import WallClock

SECOND = 1_000_000_000
# 2026-11-29 10:00:00 UTC, when the host had been up for 1000 seconds.
NOW_NS = 1000 * SECOND
WALL_NS = 1_795_946_400 * SECOND
CLOCK = WallClock(WALL_NS, NOW_NS)

FAILED = Failure(
    NOW_NS - 90 * SECOND, 400, 100, "sh", 1000, "make", 0x200, False, 1_500_000_000, 3_000_000, 2048, ("sh", "env")
)
KILLED = FAILED._replace(time_ns=NOW_NS - 60 * SECOND, pid=401, uid=0, comm="oracle_1", status=9, execs=())
DUMPED = FAILED._replace(time_ns=NOW_NS - 30 * SECOND, pid=402, status=11, core=True)
BARE = Failure(NOW_NS, 403, None, None, None, "<unknown>", 0x100, False, None, None, None)
IN_POD = FAILED._replace(group=(("namespace", "shop"), ("pod", "cart-1"), ("container", "web"), ("unit", "")))
IN_UNIT = FAILED._replace(
    time_ns=NOW_NS - 20 * SECOND,
    pid=404,
    group=(("namespace", ""), ("pod", ""), ("container", ""), ("unit", "cron.service")),
)
NOWHERE = FAILED._replace(
    time_ns=NOW_NS - 10 * SECOND,
    pid=405,
    group=tuple((name, "<unknown>") for name in ("namespace", "pod", "container", "unit")),
)
LABELS = ("namespace", "pod", "container", "unit")
GROUPED = {"in a pod": IN_POD, "in a unit": IN_UNIT, "not known": NOWHERE}
ALL = {"failed": FAILED, "killed": KILLED, "dumped": DUMPED, "bare": BARE}
