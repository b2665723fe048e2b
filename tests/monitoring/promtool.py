"""Plays stories to promtool: many at a time in one world, each on a node of its own."""

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

import yaml
from monitoring.stories import MEASURED, MEASURED_AT, NOBODY_LEFT, RECORDED, STORIES, Fired, Story

from deploy.fleet.remote_write import STALE

RULES = Path(__file__).parents[2] / "dashboards" / "rules"
SAID = yaml.safe_load(Path(__file__).with_name("said.yaml").read_text())
FILES = (RULES / "recording.yaml", RULES / "alerts.yaml")

_STEP = re.compile(r"(-?[\d.]+)([+-][\d.]+)?(?:x(\d+))?")

World = Mapping[str, Story]
"""Stories by the node that they happen on."""
SHORT_MINUTES = 400

Test = dict[str, object]
"""What a list of a test file has."""


def expanded(values: str) -> Iterator[float | None]:
    """Return what promtool's notation of values stands for, None where there is no sample."""
    for word in values.split():
        if word.startswith("_"):
            yield from [None] * int(word[2:] or 1)
        elif word == "stale":
            yield STALE
        else:
            step = _STEP.fullmatch(word)
            assert step, word
            first, by, times = float(step[1]), float(step[2] or 0), int(step[3] or 0)
            yield from (first + by * n for n in range(times + 1))


def labels_of(series: str) -> dict[str, str]:
    """Return the labels of a series that is written as Prometheus does, its name among them."""
    name, _, rest = series.partition("{")
    pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', rest)
    return {"__name__": name, **{label: re.sub(r"\\(.)", r"\1", value) for label, value in pairs}}


def worlds() -> Iterator[World]:
    """Share the stories out. A world is limited by the 10,000 samples that a query of promtool's may look at."""
    nodes = {str(number): story for number, story in enumerate(STORIES)}
    for size, is_long in ((24, False), (5, True)):
        left = ((node, story) for node, story in nodes.items() if is_long == (max(story.firing) > SHORT_MINUTES))
        while world := dict(islice(left, size)):
            yield world
    yield {"nobody": NOBODY_LEFT}


def on_node(node: str, labels: Fired) -> dict[str, str]:
    """Return the labels of an alert that fires on a node."""
    return {label: f"{value}-{node}" if label == "instance" else value for label, value in labels}


def series_of(node: str, story: Story) -> list[dict[str, str]]:
    """Return the series of a story that happens on a node, as promtool reads them."""
    return [
        {"series": re.sub(r'(instance="\w)', rf"\1-{node}", name), "values": values}
        for name, values in {**story.host, **story.series}.items()
    ]


def _questions(node: str, story: Story) -> list[dict[str, object]]:
    return [
        {
            "expr": f"ALERTS{{alertstate='firing',instance=~'|.-{node}'}}",
            "eval_time": f"{minute}m",
            "exp_samples": [
                {
                    "labels": "ALERTS{alertstate='firing',"
                    f"{','.join(f'{label}={value!r}' for label, value in on_node(node, alert).items())}}}",
                    "value": 1,
                }
                for alert in alerts
            ],
        }
        for minute, alerts in story.firing.items()
    ]


def _written(tests: Sequence[Test], files: Sequence[Path]) -> Test:
    groups = chain.from_iterable(yaml.safe_load(path.read_text())["groups"] for path in files)
    return {
        "rule_files": [str(path) for path in files],
        "evaluation_interval": "1m",
        # Else it is any: an alert may then be told of its recording a minute late.
        "group_eval_order": [group["name"] for group in groups],
        "tests": list(tests),
    }


def _run(tests: Sequence[Test], folder: Path, files: Sequence[Path]) -> str:
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump(_written(tests, files)))
    result = subprocess.run(
        ["promtool", "test", "rules", file],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return "" if result.returncode == 0 else result.stdout


def play(world: World, folder: Path, files: Sequence[Path] = FILES) -> dict[str, str]:
    """Let promtool play a world.

    Args:
        world: What happens.
        folder: Where the test can be written.
        files: Recording rules and alerts.

    Returns:
        What was not as told, by the node that it happened on.
    """
    test: Test = {
        "interval": "1m",
        "input_series": [row for node, story in world.items() for row in series_of(node, story)],
        "promql_expr_test": [row for node, story in world.items() for row in _questions(node, story)],
    }
    output = _run([test], folder, files)
    wrong = defaultdict[str, str](str)
    for complaint in re.split(r"\n(?= +expr:)", output)[1:]:
        [node] = re.findall(r"instance=~'\|\.-(\w+)'", complaint)
        wrong[node] += complaint
    # A broken rule is everybody's.
    return wrong or (dict.fromkeys(world, output) if output else {})


def questions(story: Story, expected: Mapping[str, float], minute: int, folder: Path) -> str:
    """Let promtool ask for numbers at a minute of a story; returns what is otherwise than expected."""
    asked = [
        {"expr": expr, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": value}]}
        for expr, value in expected.items()
    ]
    test: Test = {"interval": "1m", "input_series": series_of("1", story), "promql_expr_test": asked}
    return _run([test], folder, FILES)


def recorded(folder: Path, files: Sequence[Path] = FILES) -> str:
    """Let promtool compare what is recorded; returns what is otherwise than in RECORDED."""
    expected: dict[str, list[Test]] = {}
    for series, value in RECORDED.items():
        expected.setdefault(series.partition("{")[0], []).append({"labels": series, "value": value})
    test: Test = {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in MEASURED.items()],
        "promql_expr_test": [
            {"expr": name, "eval_time": f"{MEASURED_AT}m", "exp_samples": samples}
            for name, samples in expected.items()
        ],
    }
    return _run([test], folder, files)


def said(folder: Path, files: Sequence[Path] = FILES) -> str:
    """Let promtool play the stories of said.yaml; returns what alerts say otherwise than told there."""
    stories = {story.name: story for story in (*STORIES, NOBODY_LEFT)}
    tests: list[Test] = []
    for name, words in SAID.items():
        [alert] = stories[name].firing[words["minute"]]
        labels = on_node("1", alert)
        alertname = labels.pop("alertname")
        annotations = {name: text for name, text in words.items() if name != "minute"}
        tests.append(
            {
                "name": name,
                "interval": "1m",
                "input_series": series_of("1", stories[name]),
                "alert_rule_test": [
                    {
                        "eval_time": f"{words['minute']}m",
                        "alertname": alertname,
                        "exp_alerts": [{"exp_labels": labels, "exp_annotations": annotations}],
                    }
                ],
            }
        )
    return _run(tests, folder, files)
