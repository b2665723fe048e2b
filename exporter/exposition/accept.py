"""Whether a client prefers protobuf to text, by its Accept header.

Prometheus asks for protobuf before all others if it is to store native histograms or zeros at births.

Source: RFC 9110, 12.5.1
"""

_PROTOBUF = "application/vnd.google.protobuf"
PROTOBUF = f"{_PROTOBUF};proto=io.prometheus.client.MetricFamily;encoding=delimited"
"""The Accept header of a client that takes nothing else."""
_TEXT = frozenset({"application/openmetrics-text", "text/plain", "text/*", "*/*"})
_MESSAGE = "io.prometheus.client.metricfamily"


def prefers_protobuf(accept: str) -> bool:
    """Return whether length-delimited protobuf comes before all kinds of text, by weight and then by place."""
    best_text = best_protobuf = 0.0
    first = None
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        options = dict(parameter.partition("=")[::2] for parameter in parameters)
        weight = _weight(options.get("q", "1"))
        if media == _PROTOBUF and options.get("proto") == _MESSAGE and options.get("encoding") == "delimited":
            best_protobuf = max(best_protobuf, weight)
            first = first or _PROTOBUF
        elif media in _TEXT:
            best_text = max(best_text, weight)
            first = first or media
    return best_protobuf > best_text or (best_protobuf == best_text > 0 and first == _PROTOBUF)


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
