"""Messages of io.prometheus.client.MetricFamily, read by Google's library from a description of their own.

Source: https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf import (  # type: ignore[import-untyped]  # it has no types of its own
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    unknown_fields,
)

_TYPES = {
    "double": 1, "uint64": 4, "int64": 3, "int32": 5, "string": 9, "message": 11, "uint32": 13, "enum": 14,
    "sint32": 17, "sint64": 18,
}  # fmt: skip
_MESSAGES = {
    "LabelPair": "1 name string|2 value string",
    "Timestamp": "1 seconds int64|2 nanos int32",
    "Gauge": "1 value double",
    "Counter": "1 value double|3 created_timestamp Timestamp",
    "Untyped": "1 value double",
    "Bucket": "1 cumulative_count uint64|2 upper_bound double",
    "BucketSpan": "1 offset sint32|2 length uint32",
    "Histogram": "1 sample_count uint64|2 sample_sum double|3 bucket Bucket*|15 created_timestamp Timestamp"
    "|5 schema sint32|6 zero_threshold double|7 zero_count uint64|12 positive_span BucketSpan*"
    "|13 positive_delta sint64*",
    "Metric": "1 label LabelPair*|2 gauge Gauge|3 counter Counter|5 untyped Untyped|7 histogram Histogram",
    "MetricFamily": "1 name string|2 help string|3 type int32|4 metric Metric*",
}


def _describe() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="metrics.proto", package="p", syntax="proto2")
    for name, text in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for row in text.split("|"):
            number, field, kind = row.split()
            made = message.field.add(name=field, number=int(number), label=3 if kind.endswith("*") else 1)
            kind = kind.rstrip("*")
            if kind in _MESSAGES:
                made.type, made.type_name = 11, f".p.{kind}"
            else:
                made.type = _TYPES[kind]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("p.MetricFamily"))


_FAMILY = _describe()


def read_families(data: bytes) -> Iterator[Any]:
    """Return the messages of a body; each has its length before it."""
    at = 0
    while at < len(data):
        length = shift = 0
        while True:
            byte = data[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        family = _FAMILY()
        assert family.ParseFromString(data[at : at + length]) == length
        assert not len(unknown_fields.UnknownFieldSet(family))
        at += length
        yield family
    assert at == len(data)


def by_name(data: bytes) -> dict[str, Any]:
    """Return the messages of a body by their names."""
    return {family.name: family for family in read_families(data)}
