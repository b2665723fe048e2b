"""Exemplars in OpenMetrics: where they stand, and that nothing else changes."""

import re

import pytest
from expositions import NASTY_COMMS, OPENMETRICS, SNAPSHOTS, Parse, nasty_snapshot, status
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from exporter.exposition.exemplars import MOST_CHARACTERS, Exemplar, Exemplars, write_exemplar
from exporter.exposition.scrape import Exposition
from exporter.exposition.snapshot import TallySnapshot
from exporter.tallies.births import Births
from exporter.tallies.labels import printable, uid_label
from exporter.tallies.tallies import LEAST_LIMIT, Tallies

SPEC = "proc_connector_nonzero_exits_total"
LAST = Exemplar(1184, 977, 1_795_946_310.104512)
ALL: Exemplars = {
    (printable(text), uid, (), status): Exemplar(number, None if number % 3 else number, number + 0.5)
    for number, text in enumerate(NASTY_COMMS.values(), start=1)
    for uid in (0, 0xFFFFFFFE, None)
    for status in (0, 0x100, 0xFF00, 9, 11, 33, 64)
}


def scrape(snapshot: TallySnapshot, exemplars: Exemplars, accept: str = OPENMETRICS) -> str:
    exposition = Exposition(lambda: snapshot, status, own_process=False, exemplars=lambda: exemplars)
    _, pieces = exposition.pieces(accept)
    return b"".join(pieces).decode()


def test_an_exemplar_stands_behind_the_value_of_its_series() -> None:
    tallies = Tallies()
    tallies.count_end(tallies.claim_cell(b"make", 1000), 0x200, 3)
    tallies.count_end(tallies.claim_cell(b"make", 1000), 0x100)
    tallies.count_end(tallies.claim_cell(b"make", 0), 0x200)
    snapshot = SNAPSHOTS["nasty"]._replace(cells=tallies.snapshot_cells())
    lines = scrape(snapshot, {("make", 1000, (), 0x200): LAST}).splitlines()
    assert [line for line in lines if line.startswith(SPEC)] == [
        f'{SPEC}{{comm="make",uid="1000",exit_code="2",signal=""}} 3 # {{pid="1184",ppid="977"}} 1 1795946310.105',
        f'{SPEC}{{comm="make",uid="1000",exit_code="1",signal=""}} 1',
        f'{SPEC}{{comm="make",uid="0",exit_code="2",signal=""}} 1',
    ]
    assert [line for line in lines if " # " in line and not line.startswith(SPEC)] == []


@pytest.mark.parametrize("births", [False, True], ids=["no births", "births"])
def test_a_series_has_the_exemplar_of_its_own_pod(births: bool) -> None:
    tallies = Tallies(
        births=Births(lambda: 7.0) if births else None, group_labels=("namespace", "pod", "container")
    )
    others = ("shop", "cart-1", "web"), ("shop", "cart-2", "web")
    for values in others:
        group = tallies.groups.claim(values)
        tallies.count_end(tallies.claim_cell(b"make", 0, group), 0x100)
    snapshot = nasty_snapshot()._replace(
        cells=tallies.snapshot_cells(), programs=[], live_in_groups={}, group_labels=tallies.groups.names
    )
    lines = scrape(snapshot, {("make", 0, others[1], 0x100): LAST}).splitlines()
    (line,) = [line for line in lines if " # " in line and not line.startswith("#")]
    assert line == (
        f'{SPEC}{{comm="make",uid="0",namespace="shop",pod="cart-2",container="web",exit_code="1",signal=""}} 1'
        ' # {pid="1184",ppid="977"} 1 1795946310.105'
    )


@pytest.mark.parametrize("births", [False, True], ids=["no births", "births"])
def test_prometheus_own_parser_reads_them_on_each_series(births: bool) -> None:
    tallies = Tallies(births=Births(lambda: 7.0) if births else None)
    for text in NASTY_COMMS:
        for uid in (0, 0xFFFFFFFE, None):
            for ended in (0, 0x100, 9):
                tallies.count_end(tallies.claim_cell(text, uid), ended, 2)
    snapshot = nasty_snapshot()._replace(cells=tallies.snapshot_cells(), programs=[])
    if births:
        snapshot = snapshot._replace(began_seconds=7.0)
    parse: Parse = parse_openmetrics
    families = {family.name: family for family in parse(scrape(snapshot, ALL))}
    samples = [s for s in families[SPEC.removesuffix("_total")].samples if s.name == SPEC]
    assert len(samples) == 2 * 3 * len(NASTY_COMMS)
    for sample in samples:
        keys = [
            key
            for key in ALL
            if (key[0], uid_label(key[1]), {0x100: "1", 9: "137"}.get(key[3]))
            == (sample.labels["comm"], sample.labels["uid"], sample.labels["exit_code"])
        ]
        (key,) = keys
        exemplar = sample.exemplar
        assert exemplar is not None
        assert exemplar.labels == {
            "pid": str(ALL[key].pid), **({} if ALL[key].ppid is None else {"ppid": str(ALL[key].ppid)})
        }  # fmt: skip
        assert (exemplar.value, float(str(exemplar.timestamp))) == (1, ALL[key].seconds)
    exits = families["proc_connector_exits"].samples
    assert {sample.exemplar for sample in exits} == {None}


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_without_exemplars_openmetrics_is_the_same(name: str) -> None:
    with_exemplars = scrape(SNAPSHOTS[name], ALL)
    assert re.sub(r" # \{pid=[^}]*\} 1 [0-9.]+$", "", with_exemplars, flags=re.MULTILINE) == scrape(
        SNAPSHOTS[name], {}
    )


@pytest.mark.parametrize("accept", ["text/plain", "*/*", "text/plain;version=1.0.0"])
def test_the_text_format_has_none(accept: str) -> None:
    assert scrape(SNAPSHOTS["nasty"], ALL, accept) == scrape(SNAPSHOTS["nasty"], {}, accept)
    assert 'pid="' not in scrape(SNAPSHOTS["nasty"], ALL, accept)


def test_they_are_not_asked_for_by_other_formats() -> None:
    def refuse() -> Exemplars:
        raise AssertionError("asked for")

    exposition = Exposition(lambda: SNAPSHOTS["nasty"], status, own_process=False, exemplars=refuse)
    for accept in (
        "text/plain",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
    ):
        assert b"".join(exposition.pieces(accept)[1])


def test_what_is_folded_has_no_exemplar_of_another_program() -> None:
    tallies = Tallies(LEAST_LIMIT)
    for number in range(3 * LEAST_LIMIT):
        tallies.count_end(tallies.claim_cell(b"p%d" % number, 0), 0x100)
    snapshot = SNAPSHOTS["nasty"]._replace(cells=tallies.snapshot_cells())
    exemplars: Exemplars = {(f"p{number}", 0, (), 0x100): LAST for number in range(3 * LEAST_LIMIT)}
    lines = [line for line in scrape(snapshot, exemplars).splitlines() if line.startswith(SPEC)]
    assert all(('comm="<other>"' in line) != (" # " in line) for line in lines)


@pytest.mark.parametrize("exemplar", [Exemplar(0x7FFFFFFF, 0x7FFFFFFF, 1e10), Exemplar(1, None, 0.0)])
def test_the_labels_are_shorter_than_the_specification_allows(exemplar: Exemplar) -> None:
    labels = re.findall(r'(\w+)="(\w+)"', write_exemplar(exemplar))
    assert sum(len(name) + len(value) for name, value in labels) <= 34 < MOST_CHARACTERS
