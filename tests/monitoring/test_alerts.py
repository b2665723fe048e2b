"""Each alert fires when it should, says whose it is, and is quiet when it should: promtool plays the stories."""

import shutil
from collections import defaultdict
from pathlib import Path

import pytest
from monitoring import promtool
from monitoring.stories import (
    MORE,
    NOBODY_LEFT,
    STORIES,
    Fired,
    Story,
    crashes,
    crashing,
    ended,
    fired,
    shop,
    within,
)

from dashboards.generate import rules

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here (Debian: apt-get install prometheus)"
)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What promtool complains of, by the story."""
    complaints = defaultdict[str, str](str)
    for world in promtool.worlds():
        for node, complaint in promtool.play(world, tmp_path_factory.mktemp("world")).items():
            complaints[world[node].name] += complaint
    return complaints


@needs_promtool
@pytest.mark.parametrize("story", [*STORIES, NOBODY_LEFT], ids=lambda story: story.name)
def test_the_alerts_of_a_node_are_its_own(story: Story, wrong: dict[str, str]) -> None:
    """Beside others to which something else happens at the same time."""
    assert wrong.get(story.name, "") == ""


@needs_promtool
def test_alerts_say_what_is_the_matter(tmp_path: Path) -> None:
    assert promtool.said(tmp_path) == ""


@needs_promtool
@pytest.mark.parametrize(
    ("threshold", "value", "firing"),
    [
        ("named_programs", 1, crashes(5) | MORE),
        ("named_programs", 5, crashes(1, 2, 3, 4, 5)),
        ("silenced_comms", "app-[45]", crashes(1, 2, 3)),
        ("silenced_comms", "app-.*", set()),
        ("silenced_instances", "a-.*", set()),
        ("silenced_instances", "b-.*", crashes(3, 4, 5) | MORE),
    ],
)
def test_one_threshold_silences_programs_in_all_alerts(
    threshold: str, value: str | int, firing: set[Fired], tmp_path: Path
) -> None:
    changed = tmp_path / "alerts.yaml"
    thresholds = {**rules.THRESHOLDS, threshold: rules.Threshold(value, "")}
    changed.write_text(rules.alerts_yaml("docs/runbooks", thresholds))
    story = Story("five programs crash", crashing([1, 2, 3, 4, 5], 30), {40: firing})
    assert promtool.play({"1": story}, tmp_path, (promtool.FILES[0], changed)) == {}


@needs_promtool
@pytest.mark.parametrize(
    ("threshold", "value", "quiet"),
    [
        ("silenced_pods", "cart-.*", {"pod"}),
        ("silenced_namespaces", "shop", {"pod"}),
        ("silenced_units", "x.service", {"unit"}),
        ("silenced_pods", "other", set()),
        ("silenced_comms", "app", {"pod", "unit", ""}),
    ],
)
def test_one_threshold_silences_pods_or_units_and_nothing_else(
    threshold: str, value: str, quiet: set[str], tmp_path: Path
) -> None:
    changed = tmp_path / "alerts.yaml"
    changed.write_text(rules.alerts_yaml("", {**rules.THRESHOLDS, threshold: rules.Threshold(value, "")}))
    crash = ended("app", "_x30 1x60", code="139", signal="SIGSEGV")
    groups = {
        "pod": {"namespace": "shop", "pod": "cart-0", "container": "cart"},
        "unit": {"unit": "x.service"},
        "": {},
    }
    series = within(shop(), crash) | within('unit="x.service"', crash) | within("", crash)
    firing = {
        fired("ProcessCrashed", comm="app", signal="SIGSEGV", **labels)
        for group, labels in groups.items()
        if group not in quiet
    }
    story = Story("crashes", series, {40: firing})
    assert promtool.play({"1": story}, tmp_path, (promtool.FILES[0], changed)) == {}


@needs_promtool
def test_what_dashboards_read_is_a_few_series_for_each_node(tmp_path: Path) -> None:
    assert promtool.recorded(tmp_path) == ""


@pytest.mark.parametrize("alert", rules.all_alerts(), ids=lambda alert: alert.name)
def test_each_alert_is_seen_to_fire_and_to_be_quiet_in_one_story(alert: rules.Alert) -> None:
    def fires(story: Story) -> set[bool]:
        return {any(("alertname", alert.name) in labels for labels in fired) for fired in story.firing.values()}

    assert [story.name for story in (*STORIES, NOBODY_LEFT) if fires(story) == {True, False}]


def test_of_each_alert_the_words_are_told() -> None:
    told = {
        name
        for story in (*STORIES, NOBODY_LEFT)
        if story.name in promtool.SAID
        for labels in story.firing[promtool.SAID[story.name]["minute"]]
        for label, name in labels
        if label == "alertname"
    }
    assert told == {alert.name for alert in rules.all_alerts()}
