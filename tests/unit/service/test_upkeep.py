"""exporter/service/upkeep.py: reloading, and the warning that series are at their limit."""

import asyncio
import logging
import re

import pytest

from exporter.errors import ConfigError
from exporter.exposition.budget import Budget
from exporter.service.upkeep import Upkeep
from exporter.tallies.rules import Rule, Rules
from exporter.tallies.tallies import LEAST_LIMIT, Tallies

HOUR = 3600.0


class RulesFile:
    """A file that is what a test says."""

    def __init__(self) -> None:
        self.holds: Rules | ConfigError = Rules()

    def read(self) -> Rules:
        if isinstance(self.holds, ConfigError):
            raise self.holds
        return self.holds


def no_budget() -> Budget:
    return Budget({}, {}, {})


def test_a_broken_file_leaves_the_old_rules_in_force_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tallies, file = Tallies(), RulesFile()
    upkeep = Upkeep(tallies, file.read, None, no_budget)
    first = upkeep.reload_timestamp_seconds
    assert first is not None
    file.holds = Rules([Rule(re.compile("a"), ("b",))])
    assert upkeep.reload() is None
    assert tallies.claim_cell(b"a", 0) is tallies.claim_cell(b"b", 0)
    second = upkeep.reload_timestamp_seconds
    assert second is not None
    assert second >= first
    file.holds = ConfigError("rules.yml:3: no good")
    assert upkeep.reload() == "rules.yml:3: no good"
    assert (upkeep.reload_successful, upkeep.reload_timestamp_seconds) == (False, second)
    assert tallies.claim_cell(b"a", 0) is tallies.claim_cell(b"b", 0)
    file.holds = Rules()
    assert upkeep.reload() is None
    assert upkeep.reload_successful
    assert tallies.claim_cell(b"a", 0) is not tallies.claim_cell(b"b", 0)
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR", "INFO"]


async def test_requests_to_reload_that_come_together_read_the_file_once() -> None:
    reads = 0

    def read() -> Rules:
        nonlocal reads
        reads += 1
        return Rules()

    upkeep = Upkeep(Tallies(), read, None, no_budget)
    for asked in (1, 2):
        for _ in range(100):
            upkeep.reload_soon()
        await asyncio.sleep(0)
        assert reads == asked


def test_without_a_file_there_is_nothing_to_reload() -> None:
    upkeep = Upkeep(Tallies(), None, None, no_budget)
    assert upkeep.reload() == "there is no --config.file"
    assert (upkeep.reload_successful, upkeep.reload_timestamp_seconds) == (None, None)


def test_one_warning_an_hour_names_what_is_folded_and_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    tallies = Tallies(LEAST_LIMIT)
    folded = {"forks": 0, "exits": 1}
    upkeep = Upkeep(tallies, None, None, lambda: Budget({}, {}, dict(folded)))
    upkeep.warn(0.0)
    assert caplog.records == []  # there is room
    while not tallies.full:
        tallies.claim_cell(b"%d" % tallies._cells_left, 0)
    upkeep.warn(1.0)
    folded["forks"] += 1
    upkeep.warn(HOUR)
    upkeep.warn(HOUR + 1)
    upkeep.warn(3 * HOUR)
    assert [vars(record)["metrics"] for record in caplog.records] == ["exits", "forks"]
    assert {vars(record)["limit"] for record in caplog.records} == {LEAST_LIMIT}
    assert "--limit.series" in vars(caplog.records[0])["remedy"]
