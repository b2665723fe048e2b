"""Runs pytest with its arguments in the guest and tells the results on stdout, a line each.

test OUTCOME SECONDS NODE-ID
| a line of why
end EXIT-STATUS SECONDS, since the guest began to boot
"""

import os
import sys
import time

import pytest


class Report:
    """A pytest plugin; the terminal's report goes to the console."""

    def __init__(self) -> None:
        self.results = sys.stdout

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._tell(f"test {report.outcome} {report.duration:.1f} {report.nodeid}")
            if report.failed:
                self._why(report.longreprtext)
            elif isinstance(report.longrepr, tuple):
                self._why(report.longrepr[2])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._tell(f"test failed 0.0 {report.nodeid}")
            self._why(report.longreprtext)

    def _why(self, text: str) -> None:
        for line in text.splitlines():
            self._tell(f"| {line}")

    def _tell(self, line: str) -> None:
        print(line, file=self.results, flush=True)


def main() -> None:
    report = Report()
    console = os.open("/dev/console", os.O_WRONLY)
    report.results = os.fdopen(os.dup(1), "w")
    os.dup2(console, 1)
    # An emulated machine takes long to import what these tests do not use.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    words = ["-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider", "--verbose", *sys.argv[1:]]
    status = pytest.main(words, plugins=[report])
    print(f"end {int(status)} {time.monotonic():.0f}", file=report.results, flush=True)


if __name__ == "__main__":
    main()
