"""What all panels look like: units, colours, thresholds; and how one of them asks."""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")

GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "text"

PER_SECOND = "suffix:/s"
RATIO = "percentunit"
SECONDS = "s"
BYTES = "bytes"
COUNT = "locale"
NUMBER = "short"

SIGNAL_COLORS = {
    "SIGSEGV": RED,
    "SIGABRT": ORANGE,
    "SIGKILL": "purple",
    "SIGTERM": BLUE,
    "SIGPIPE": YELLOW,
    "SIGINT": "super-light-blue",
    "SIGHUP": GREEN,
    "SIGBUS": "dark-red",
    "SIGILL": "#E377C2",
    "SIGFPE": "#8C564B",
    "SIGTRAP": "#17BECF",
    "SIGSYS": "#BCBD22",
    "SIGQUIT": "#FFB3E6",
    "SIGALRM": "dark-green",
    "SIGUSR1": "semi-dark-purple",
    "SIGXCPU": "#7F7F7F",
}
"""No two are alike, and what is not here hardly ever ends a process."""
CRASH_SIGNALS = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS")
"""Those of a bug: their lines are dashed, so that one which lies on that of another signal does not hide it."""
_CODES = {"SIGINT": 2, "SIGABRT": 6, "SIGKILL": 9, "SIGSEGV": 11, "SIGTERM": 15}
EXIT_CODE_COLORS = {
    "1": GREEN,
    "2": YELLOW,
    "255": "#BCBD22",
    "126": "#8C564B",
    "127": "#E377C2",
    "75": "#17BECF",
    **{str(128 + number): SIGNAL_COLORS[name] for name, number in _CODES.items()},
}
"""Of the codes that are seen most: all codes together have more colours than are told apart. The others are shades
of grey, as the next colour of Grafana's is one of these: a second green."""
_DOT_PIXELS = {"SIGABRT": 12, "SIGKILL": 10, "SIGSEGV": 7, "SIGTERM": 4}
DOT_PIXELS = _DOT_PIXELS | {str(128 + _CODES[name]): pixels for name, pixels in _DOT_PIXELS.items()}
DOT_PIXELS |= {"host's count": 6, "out of memory": 3}
"""Smaller ones are drawn later, by the order of names or queries: none hides another one of the same height."""
UNUSUAL = "#8E8E8E"
QUANTILE_COLORS = {"50 %": GREEN, "90 %": YELLOW, "99 %": ORANGE}

EACH_POINT = "Each point counts the minutes since the point before, exactly; add up what you see."

LOG_TICKS = {"100": ("100 s", ""), "1000": ("17 min", ""), "10000": ("2.8 h", ""), "100000": ("1.2 d", "")}
"""The ticks of a logarithmic axis of seconds that Grafana would call 1.67 mins and 16.7 mins."""
_RATES = [digit / 10**place for place in (4, 3, 2, 1) for digit in (1, 2, 3, 5, 7)]
RATE_TICKS = {f"{rate:g}": (f"{rate:g} /s", "") for rate in _RATES}
"""The ticks below 1 of a logarithmic axis per second: up to a few per second Grafana gives all ticks the decimals
of the highest one, so that those of a quiet node are 0.1, 0.1, 0 and 0."""


class Scale(Enum):
    """How an axis grows."""

    LINEAR = auto()
    LOG = auto()
    """One storm does not flatten all others; 0 is not shown."""
    LOG_COUNTS = auto()
    """From 1 on."""
    LOG_SECONDS = auto()
    """From microseconds to days."""


Steps = Sequence[tuple[float | None, str]]
CALM: Steps = ((None, GREEN),)
ANY_IS_BAD: Steps = ((None, GREEN), (0.000001, RED))
ANY_IS_ODD: Steps = ((None, GREEN), (0.000001, ORANGE))
NEUTRAL: Steps = ((None, BLUE),)
FAILURE_STEPS: Steps = ((None, GREEN), (0.25, YELLOW), (0.5, ORANGE))
CANARY_STEPS: Steps = ((None, GREEN), (30, YELLOW), (60, RED))

Words = Mapping[str, tuple[str, str]]
"""Value -> the text that is shown instead, and its colour."""
NO_WORDS: Words = {}
SEVERITIES: Words = {
    "critical": ("critical", RED),
    "warning": ("warning", ORANGE),
    "info": ("info", BLUE),
}


def thresholds(steps: Steps) -> builders.ThresholdsConfig:
    """Return the thresholds of colours."""
    made = [dashboard.Threshold(value, color) for value, color in steps]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(made)


def mapping(words: Words) -> list[dashboard.ValueMapping]:
    """Return it as Grafana wants it."""
    shown = {value: dashboard.ValueMappingResult(text, color or None) for value, (text, color) in words.items()}
    return [dashboard.ValueMap(shown)] if shown else []


class Query(NamedTuple):
    """One query of a panel."""

    expr: str
    legend: str = ""
    heat: bool = False

    def _made(self, ref: str) -> prometheus.Dataquery:
        made = prometheus.Dataquery().datasource(DATASOURCE).expr(self.expr).ref_id(ref)
        return made.legend_format(self.legend or "__auto")

    def over_time(self, ref: str) -> prometheus.Dataquery:
        """Return it as a line, or as the rows of a heatmap."""
        made = self._made(ref).range()
        return made.format(PromQueryFormat.HEATMAP) if self.heat else made

    def at_end(self, ref: str, form: PromQueryFormat = PromQueryFormat.TIME_SERIES) -> prometheus.Dataquery:
        """Return it as what holds at the end of the shown time."""
        return self._made(ref).instant().format(form)
