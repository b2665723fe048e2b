"""exporter/exposition/accept.py: protobuf or text."""

import pytest

from exporter.exposition.accept import prefers_protobuf

MESSAGE = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
TEXT = "text/plain;version=0.0.4"

HEADERS = {
    "Prometheus 2.42": (
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            f"{TEXT};q=0.5,*/*;q=0.1"
        ),
        False,
    ),
    "Prometheus 2.42 with native histograms": (
        (
            f"{MESSAGE},application/openmetrics-text;version=1.0.0;q=0.8,"
            f"application/openmetrics-text;version=0.0.1;q=0.75,{TEXT};q=0.5,*/*;q=0.1"
        ),
        True,
    ),
    "Prometheus 3": (
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
            f"{TEXT};q=0.3,*/*;q=0.2"
        ),
        False,
    ),
    "Prometheus 3 with native histograms": (
        (
            f"{MESSAGE};escaping=allow-utf-8;q=0.6,"
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            f"application/openmetrics-text;version=0.0.1;q=0.4,{TEXT};q=0.3,*/*;q=0.2"
        ),
        True,
    ),
    "none": ("", False),
    "anything": ("*/*", False),
    "curl": ("*/*", False),
    "protobuf only": (MESSAGE, True),
    "the first of two that are alike": (f"{TEXT},{MESSAGE}", False),
    "forbidden": (f"{MESSAGE};q=0", False),
    "without delimiters": (MESSAGE.replace("delimited", "text"), False),
    "another message": (MESSAGE.replace("MetricFamily", "Other"), False),
    "a weight that is none": (f"{MESSAGE};q=x,{TEXT}", False),
    "no parameters": ("application/vnd.google.protobuf", False),
    "spaces and capitals": (f"{MESSAGE.replace(';', ' ; ').upper()}, {TEXT} ; q = 0.1", True),
}


@pytest.mark.parametrize(("accept", "protobuf"), HEADERS.values(), ids=HEADERS)
def test_what_a_client_prefers(accept: str, protobuf: bool) -> None:
    assert prefers_protobuf(accept) == protobuf
