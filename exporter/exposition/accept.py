"""What a client prefers, by its Accept header: protobuf or text, and which text.

Prometheus asks for protobuf before all others if it is to store native histograms or zeros at births.

Source: RFC 9110, 12.5.1
"""

from itertools import takewhile

_PROTOBUF = "application/vnd.google.protobuf"
PROTOBUF = f"{_PROTOBUF};proto=io.prometheus.client.MetricFamily;encoding=delimited"
"""The Accept header of a client that takes nothing else."""
_OPENMETRICS = "application/openmetrics-text"
_TEXT = frozenset({_OPENMETRICS, "text/plain", "text/*", "*/*"})
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


def by_weight(accept: str) -> str:
    """Return the kinds of text that a client takes, by weight and then by place, up to the plain text format.

    The library takes the first kind that it knows by name, and writes the plain text format if there is none.
    """
    kinds: list[tuple[float, str, bool]] = []
    for item in accept.split(","):
        media, *parameters = (part.strip() for part in item.split(";"))
        options = {name.strip(): value.strip() for name, _, value in (each.partition("=") for each in parameters)}
        weight = _weight(options.get("q", "1"))
        if media.lower() in _TEXT and weight > 0:
            is_plain = media.lower() != _OPENMETRICS and options.get("version", "0").startswith("0")
            kinds.append((weight, item.strip(), is_plain))
    # The sort is stable: of two that weigh the same the first one goes first.
    kinds.sort(key=lambda kind: -kind[0])
    return ",".join(item for _, item, _ in takewhile(lambda kind: not kind[2], kinds))


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
