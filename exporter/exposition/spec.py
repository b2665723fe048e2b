"""What a metric is: a name, a type, a help text and the names of its labels."""

from typing import NamedTuple


class MetricSpec(NamedTuple):
    """One metric as its users see it."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...] = ()
