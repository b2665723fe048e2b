"""What an exporter shows of its canaries: their age, readiness, log lines."""

from kernel.harness import Exporter, Scrape

CANARY_EXIT_CODE = "42"
AGE = "proc_connector_canary_age_seconds"
RESUBSCRIPTIONS = "proc_connector_resubscriptions_total"


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
