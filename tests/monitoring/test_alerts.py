"""Each alert fires when it should, says whose it is, and is quiet when it should: promtool plays the stories."""

import shutil
from pathlib import Path

import pytest
from monitoring import promtool
from monitoring.stories import (
    BAD_AT,
    BAD_HOUR,
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


WORLDS = list(promtool.worlds())


@needs_promtool
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: f"{len(world)} from {next(iter(world.values())).name}")
def test_the_alerts_of_a_node_are_its_own(world: promtool.World, tmp_path: Path) -> None:
    """Beside others to which something else happens at the same time."""
    wrong = promtool.play(world, tmp_path)
    assert not wrong, "\n".join(f"{world[node].name}: {complaint}" for node, complaint in wrong.items())


@needs_promtool
def test_a_few_new_names_each_minute_are_a_few_alerts_an_hour(tmp_path: Path) -> None:
    """A program that is named has the place for a quarter of an hour, even if the reason was about to end."""
    churn = {
        series: values
        for minute in range(20, 60)
        for number in range(5)
        for series, values in ended(
            f"m{minute}-{number}", f"_x{minute} 1x80", code="139", signal="SIGSEGV"
        ).items()
    }
    named = 'max_over_time(ALERTS{alertname="ProcessCrashed",alertstate="firing"}[1h])'
    # Three places, from minutes 21, 36 and 51 on.
    wrong = promtool.questions(Story("churn", churn, {}), {f"count(count by (comm) ({named}))": 9}, 60, tmp_path)
    assert wrong == ""


def test_each_story_is_played() -> None:
    played = [story.name for world in WORLDS for story in world.values()]
    assert sorted(played) == sorted(story.name for story in [*STORIES, NOBODY_LEFT])


@needs_promtool
def test_alerts_say_what_is_the_matter(tmp_path: Path) -> None:
    assert promtool.said(tmp_path) == ""


@needs_promtool
@pytest.mark.parametrize(
    ("threshold", "value", "firing"),
    [
        ("named_programs", 1, crashes(5) | MORE),
        # Each of them is a suspect of two alerts.
        ("named_in_all", 2, crashes(5) | MORE),
        ("named_in_all", 4, crashes(4, 5) | MORE),
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
        ("silenced_pods", "", set()),
        ("silenced_namespaces", "", set()),
        ("silenced_units", "", set()),
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
def test_all_kinds_at_once_are_twenty_alerts_of_a_node(tmp_path: Path) -> None:
    firing = 'ALERTS{alertstate="firing"}'
    of_programs = {alert.name for alert in rules.PROGRAMS if alert.suspects}
    expected = {
        f"max_over_time(count({firing})[{BAD_AT}m:1m])": 20,
        f"count({firing})": 20,
        # One that does not answer has no other alerts of its exporter.
        f"count(count by (alertname) ({firing}))": len(rules.all_alerts()) - len({"Down", "Absent"}),
        f"min(count by (alertname) ({firing}))": 1,
        **{f'count({firing[:-1]},alertname="{name}"}}) > bool 0': 1 for name in of_programs},
        # The worst are named.
        f'count({firing[:-1]},comm=~".*-[123]"}}) or vector(0)': 0,
    }
    assert promtool.questions(BAD_HOUR, expected, BAD_AT, tmp_path) == ""


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
