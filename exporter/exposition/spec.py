"""What a metric is: a name, a type, a help text and the names of its labels."""

from typing import NamedTuple


class MetricSpec(NamedTuple):
    """One metric as its users see it."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def sample_names(self) -> tuple[str, ...]:
        """The names of its samples in the text format."""
        if self.type == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))
        return (self.name,)
