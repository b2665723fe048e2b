"""exporter/exposition/self_metrics.py: what the exporter reports on itself."""

import pytest
from expositions import (
    EMPTY,
    parsed,
    samples,
    scrape,
    status,
)
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.exposition.self_metrics import SELF_METRICS, Status, StatusCollector


def test_the_exporters_own_state_is_exposed_as_it_is() -> None:
    found = parsed(scrape(EMPTY, "text/plain")[1], parse_text)
    told = {
        (name.removeprefix("proc_connector_"), *(labels[label] for label in sorted(labels))): value
        for family in found
        if family.startswith("proc_connector_")
        for name, labels, value in samples(found, family)
        if "_bucket" not in name and "build_info" not in name and "metric" not in labels
    }
    assert told == {
        ("events_total", "fork"): 1,
        ("events_total", "exec"): 2,
        ("events_total", "thread_exit"): 3,
        ("exit_records_total",): 19,
        ("task_exits_total", "events"): 20,
        ("task_exits_total", "kernel"): 21,
        ("pending_events", "fork"): 4,
        ("unattributed_total", "exec"): 5,
        ("excluded_total", "fork"): 21,
        ("group_unresolved_total", "gone"): 24,
        ("kubernetes_last_sync_timestamp_seconds",): 25.5,
        ("kubernetes_failures_total", "torn"): 26,
        ("containers_connected",): 1,
        ("containers_failures_total", "refused"): 27,
        ("expired_total", "exit"): 22,
        ("config_last_reload_successful",): 1,
        ("config_last_reload_success_timestamp_seconds",): 23.5,
        ("unknown_lifetimes_total",): 6,
        ("lost_ends_total",): 7,
        ("resyncs_total",): 8,
        ("resubscriptions_total",): 17,
        ("failures_left_out_total", "page"): 24,
        ("failures_left_out_total", "log"): 25,
        ("canary_age_seconds",): 18.5,
        ("stream_clients",): 3,
        ("stream_dropped_events_total",): 7,
        ("lost_messages_total", "connector"): 9,
        ("lost_messages_total", "taskstats"): 10,
        ("missed_events_total", "exit"): 2,
        ("missed_events_total", "fork"): 1,
        ("missed_events_total", "exec"): 3,
        ("malformed_messages_total", "connector"): 11,
        ("malformed_messages_total", "taskstats"): 12,
        ("receive_buffer_bytes", "connector"): 13,
        ("receive_buffer_bytes", "taskstats"): 14,
        ("receive_buffer_used_bytes", "connector"): 15,
        ("receive_buffer_used_bytes", "taskstats"): 16,
        ("drain_seconds_count",): 3,
        ("drain_seconds_sum",): pytest.approx(3.00025),
        ("attribution_info", "events", "kernel", "taskstats"): 1,
        ("oom_source_info", "kmsg"): 1,
    }


def test_what_has_no_value_is_absent() -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(lambda: Status(events={}, resyncs=0)))
    assert [family.name for family in registry.collect()] == [
        "proc_connector_resyncs",
        "proc_connector_exporter_build_info",
    ]


def test_the_families_come_in_the_order_of_the_rows() -> None:
    names = [family.name for family in StatusCollector(status).collect()]
    assert names == [spec.name.removesuffix("_total") for spec in SELF_METRICS]
