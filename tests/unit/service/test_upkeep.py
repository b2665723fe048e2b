"""exporter/service/upkeep.py: the warning that series are at their limit."""

import pytest

from exporter.exposition.budget import Budget
from exporter.service.upkeep import Upkeep
from exporter.tallies.tallies import LEAST_LIMIT, Tallies

HOUR = 3600.0


def test_one_warning_an_hour_names_what_is_folded_and_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    tallies = Tallies(LEAST_LIMIT)
    folded = {"forks": 0, "exits": 1}
    upkeep = Upkeep(tallies, None, lambda: Budget({}, {}, dict(folded)))
    upkeep.warn(0.0)
    assert caplog.records == []  # there is room
    while not tallies.full:
        tallies.claim_cell(b"%d" % tallies.rooms.free[0], 0)
    upkeep.warn(1.0)
    folded["forks"] += 1
    upkeep.warn(HOUR)
    upkeep.warn(HOUR + 1)
    upkeep.warn(3 * HOUR)
    assert [vars(record)["metrics"] for record in caplog.records] == ["exits", "forks"]
    assert {vars(record)["limit"] for record in caplog.records} == {LEAST_LIMIT}
    assert "--limit.series" in vars(caplog.records[0])["remedy"]
