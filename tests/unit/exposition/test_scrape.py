"""exporter/exposition/scrape.py: the whole of a scrape."""

import re

import pytest
from expositions import (
    BY_NAME,
    OPENMETRICS,
    SHOWN,
    SNAPSHOTS,
    each_snapshot,
    nasty_snapshot,
    parsed,
    samples,
    scrape,
    status,
)
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.exposition.scrape import Exposition
from exporter.exposition.snapshot import TallySnapshot
from exporter.tallies.births import Births
from exporter.tallies.histograms import (
    LIFETIME_NS,
    observe,
)
from exporter.tallies.tallies import Tallies


@each_snapshot
def test_a_scrape_in_the_text_format_can_be_parsed(snapshot: TallySnapshot) -> None:
    content_type, text = scrape(snapshot, "text/plain;version=0.0.4")
    assert content_type.startswith("text/plain; version=")
    assert "# EOF" not in text.splitlines()
    assert "proc_connector_forks" in parsed(text, parse_text)


@each_snapshot
def test_a_scrape_in_openmetrics_can_be_parsed_and_ends_once(snapshot: TallySnapshot) -> None:
    content_type, text = scrape(snapshot, OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith("\n# EOF\n")
    assert text.splitlines().count("# EOF") == 1
    assert "proc_connector_forks" in parsed(text, parse_openmetrics)


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS], ids=["text", "OpenMetrics"])
def test_a_scrape_has_the_metrics_of_the_table_and_the_librarys_own(accept: str) -> None:
    _, text = scrape(nasty_snapshot(), accept)
    found = parsed(text, parse_openmetrics if accept == OPENMETRICS else parse_text)
    ours = {name: family for name, family in found.items() if name.startswith("proc_connector_")}
    # Both parsers call a counter's family by its name without _total.
    assert set(ours) == {name.removesuffix("_total") for name in BY_NAME}
    for name, spec in BY_NAME.items():
        family_type, documentation, rows = ours[name.removesuffix("_total")]
        assert (family_type, documentation) == (spec.type, spec.help)
        assert rows
        assert {frozenset(labels) - {"le"} for _, labels, _ in rows} == {frozenset(spec.labels)}
    assert {"python_info", "process_resident_memory_bytes"} <= set(found)


def test_a_scrape_is_of_one_moment_however_late_its_pieces_are_written() -> None:
    tallies = Tallies()
    cell = tallies.claim_cell(b"sh", 0)
    cell.forks = 1
    tallies.count_end(cell, 0)
    observe(cell.lifetime_ns, LIFETIME_NS, 5)
    exposition = Exposition(
        lambda: TallySnapshot(tallies.snapshot_cells(), tallies.snapshot_programs(), {"sh": 1}, SHOWN[True]),
        status,
    )
    _, pieces = exposition.pieces("text/plain")
    cell.forks += 1
    cell.exits[0] += 1
    cell.exits[9] = 1
    observe(cell.lifetime_ns, LIFETIME_NS, 5)
    tallies.claim_cell(b"later", 0).forks = 1
    found = parsed(b"".join(pieces).decode(), parse_text)
    assert [value for _, _, value in samples(found, "proc_connector_forks")] == [1]
    assert [value for _, _, value in samples(found, "proc_connector_exits")] == [1]
    assert samples(found, "proc_connector_process_lifetime_seconds")[-2][1:] == ({"comm": "sh"}, 1)


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=foo",
        "application/openmetrics-text; version=1.0.0; escaping=dots",
        "text/plain; version=1.0.0; escaping=values",
        "text/plain; version=; q=x, */*",
    ],
)
def test_whatever_is_accepted_all_names_are_written_in_the_same_way(accept: str) -> None:
    content_type, text = scrape(SNAPSHOTS["nasty"], accept)
    assert "text" in content_type
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert {name for name in names if "proc" in name and "__" in name} == set()
    assert {"proc_connector_processes", "proc_connector_drain_seconds"} <= names


_KIND = "application/openmetrics-text"


@pytest.mark.parametrize(
    ("accept", "kind"),
    {
        f"{_KIND};version=1.0.0,text/plain;q=0.5": _KIND,
        f"text/plain;q=0.5,{_KIND};version=1.0.0": _KIND,
        f"{_KIND};version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.6": "text/plain",
        f"{_KIND};q=0.3,text/plain;version=1.0.0;q=0.6": "text/plain; version=1.0.0",
        f"{_KIND};q=0.3,*/*": "text/plain",
        f"{_KIND};q=0.3,text/*;q=0.4": "text/plain",
        f"{_KIND};q=0.3,*/*;q=0.2": _KIND,
        f"{_KIND};q=0": "text/plain",
        f"{_KIND} ; q = 0.2, text/plain ; q = 0.1": _KIND,
        f"text/plain,{_KIND}": "text/plain",
        f"{_KIND};version=0.0.1,text/plain;q=0.1": "text/plain",
        "text/html,application/xml;q=0.9,*/*;q=0.8": "text/plain",
    }.items(),
)
def test_of_the_text_formats_the_one_that_weighs_most_is_written(accept: str, kind: str) -> None:
    content_type, _ = scrape(SNAPSHOTS["nasty"], accept)
    assert content_type.startswith(kind)


def born_snapshot() -> TallySnapshot:
    clock = [1000.25]
    births = Births(lambda: clock[0])
    tallies = Tallies(births=births)
    clock[0] = 2000.5
    cell = tallies.claim_cell(b'say "hi"', 0)
    cell.forks += 1
    clock[0] = 3000.75
    tallies.count_end(cell, 0x100)
    observe(cell.lifetime_ns, LIFETIME_NS, 5)
    return TallySnapshot(
        tallies.snapshot_cells(), tallies.snapshot_programs(), {}, SHOWN[True], began_seconds=births.began_seconds
    )


def test_openmetrics_says_when_each_series_was_born() -> None:
    _, text = scrape(born_snapshot(), OPENMETRICS)
    found = parsed(text, parse_openmetrics)

    def born(name: str) -> dict[str, float]:
        return {
            labels.get("comm", ""): value for n, labels, value in samples(found, name) if n == f"{name}_created"
        }

    assert born("proc_connector_forks") == {'say "hi"': 2000.5}
    assert born("proc_connector_exits") == {'say "hi"': 3000.75}
    assert born("proc_connector_process_lifetime_seconds") == {'say "hi"': 3000.75}
    assert set(born("proc_connector_folded").values()) == {1000.25}
    assert set(born("proc_connector_events").values()) == {1000.25}
    assert set(born("proc_connector_drain_seconds").values()) == {1000.25}
    assert born("proc_connector_processes") == {}


def test_the_text_format_says_nothing_of_births() -> None:
    _, text = scrape(born_snapshot(), "text/plain")
    assert "_created" not in text


# -- name[] --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS], ids=["text", "OpenMetrics"])
@pytest.mark.parametrize(
    "names",
    [
        {"proc_connector_forks_total"},
        {"proc_connector_exits_total", "proc_connector_nonzero_exits_total"},
        {"proc_connector_process_lifetime_seconds_sum", "proc_connector_process_lifetime_seconds_count"},
        {"proc_connector_processes"},
        {"proc_connector_series", "proc_connector_folded_total"},
        {"proc_connector_exporter_build_info", "python_info", "proc_connector_execs_total"},
        {"proc_connector_drain_seconds_bucket"},
        {"no_such_metric"},
    ],
    ids=sorted,
)
def test_a_scrape_of_some_names_has_their_samples_as_a_whole_scrape_has_them(names: set[str], accept: str) -> None:
    exposition = Exposition(nasty_snapshot, status)
    whole, some = (b"".join(exposition.pieces(accept, asked)[1]).decode().splitlines() for asked in ((), names))
    sampled = [line for line in whole if re.match(r"\w+", line) and re.split("[{ ]", line)[0] in names]
    assert [line for line in some if not line.startswith("#")] == sampled
    assert bool(sampled) == (names != {"no_such_metric"})


def test_the_metrics_of_the_exporters_own_process_can_be_left_out() -> None:
    _, pieces = Exposition(nasty_snapshot, status, own_process=False).pieces("text/plain")
    found = parsed(b"".join(pieces).decode(), parse_text)
    assert {name for name in found if not name.startswith("proc_connector_")} == set()
    assert "proc_connector_exporter_build_info" in found
