"""What an exporter shows of its canaries: their age, readiness, log lines."""

from kernel.harness import Exporter, Programs, Scrape, Watcher, World

CANARY_EXIT_CODE = "42"
AGE = "proc_connector_canary_age_seconds"
RESUBSCRIPTIONS = "proc_connector_resubscriptions_total"


def spawn_some(exporter: Watcher, programs: Programs) -> World:
    """Run processes of a new world to their ends, and wait until the exporter shows the truth about them."""
    world = World(exporter, programs)
    program = world.program("some")
    world.spawn(*[(program, "exit", str(code)) for code in (0, 1, 42, 255)], (program, "signal", "9", "0"))
    world.check()
    return world


def readiness(exporter: Exporter) -> tuple[int, str]:
    answer = exporter.request("/-/ready")
    return answer.status, answer.body.decode()


def lines_of(exporter: Exporter, level: str) -> list[str]:
    return [line for line in exporter.log.read_text().splitlines() if f"level={level}" in line]


def canaries_go_on(exporter: Exporter, times: int = 2) -> None:
    """Wait until the canary's age has gone down so many times."""
    last = exporter.scrape().get(AGE)
    for _ in range(times):

        def goes_down(scrape: Scrape) -> bool:
            nonlocal last
            before, last = last, scrape.get(AGE)
            return last < before

        exporter.wait_for(goes_down, "another canary")
