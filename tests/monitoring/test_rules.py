"""The files of rules: promtool has nothing to say, and thresholds, docs and rules tell one story."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from dashboards.generate import recordings, rules
from dashboards.generate.__main__ import CHART, FOLDER, generate
from exporter.failures.selection import parse_selection

ROOT = FOLDER.parent
RUNBOOKS = ROOT / "docs" / "runbooks"
SECTIONS = ["Meaning", "Impact", "First commands", "False alarms"]

each_alert = pytest.mark.parametrize("alert", rules.all_alerts(), ids=lambda alert: alert.name)


@pytest.mark.parametrize("path", generate(), ids=str)
def test_what_is_committed_is_what_make_dashboards_writes(path: Path) -> None:
    assert (FOLDER / path).read_text() == generate()[path], "run: make dashboards"
    assert (CHART / path).read_text() == generate()[path], "run: make dashboards"


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here (Debian: apt-get install prometheus)"
)
def test_promtool_finds_nothing_to_say() -> None:
    # As a configuration has them: `rule_files: [rules/*.yaml]`.
    files = sorted((FOLDER / "rules").glob("*.yaml"))
    assert [file.name for file in files] == ["alerts.yaml", "recording.yaml"]
    result = subprocess.run(
        ["promtool", "check", "rules", "--lint=all", "--lint-fatal", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_threshold_is_used_and_has_its_reason() -> None:
    used = {name for alert in rules.all_alerts() for name in alert.thresholds}
    used.update(re.findall(r"\$(\w+)", rules.NAMING.expr))
    assert used == set(rules.THRESHOLDS)
    assert not [name for name, threshold in rules.THRESHOLDS.items() if len(threshold.why) < 20]


def test_every_number_that_an_alert_compares_with_is_a_threshold() -> None:
    """`== 0` is that nobody is there, and `> 0` that it happened at all."""
    for alert in rules.all_alerts():
        compared = re.findall(r"(?:[<>]=?|[=!]=|=~|!~)\s*(\S+)", f"{alert.suspects}\n{alert.expr}")
        plain = [word for word in compared if not word.startswith(("$", '"')) and word != "0"]
        assert plain == [], alert.name


@pytest.mark.parametrize("name", rules.THRESHOLDS)
def test_a_chart_can_change_a_threshold_without_knowing_promql(name: str) -> None:
    """The way that dashboards/rules/README.md tells to renderers."""
    threshold = rules.THRESHOLDS[name]
    other = "other|jobs" if isinstance(threshold.value, str) else 12345
    changed = re.sub(
        rf"\S+ # {name}\b",
        lambda _: f"{json.dumps(other)} # {name}",
        (FOLDER / "rules" / "alerts.yaml").read_text(),
    )
    assert changed == rules.alerts_yaml("", {**rules.THRESHOLDS, name: rules.Threshold(other, "")})


def test_the_file_of_thresholds_says_what_the_alerts_say() -> None:
    thresholds = yaml.safe_load((FOLDER / "thresholds.yaml").read_text())
    text = (FOLDER / "rules" / "alerts.yaml").read_text()
    for name, threshold in thresholds.items():
        found = {json.loads(value) for value in re.findall(rf"(\S+) # {name}\b", text)}
        assert found == {threshold["value"]}, name


@pytest.mark.parametrize("rule", recordings.INCREMENTS, ids=lambda rule: rule.record)
def test_an_increment_needs_nothing_that_is_recorded_in_the_same_evaluation(rule: recordings.Recording) -> None:
    """Behind vmalert a rule reads what another one recorded a minute ago: a restart would count twice."""
    assert [other.record for other in recordings.all_recordings() if other.record in rule.expr] == []


@each_alert
def test_each_alert_says_who_how_bad_and_where_to_read_on(alert: rules.Alert) -> None:
    rule = alert.rule(rules.THRESHOLDS, "https://example.org/runbooks")
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert rule["annotations"]["runbook_url"] == f"https://example.org/runbooks/{alert.name}.md"
    assert not rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["description"].endswith(".")


@each_alert
def test_alerts_of_programs_lead_to_the_failures_that_they_are_about(alert: rules.Alert) -> None:
    text = rules.alerts_yaml("", failures="http://{{ $labels.instance }}")
    written = {
        rule["alert"]: rule["annotations"].get("failures_url")
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    query = "comm={{ $labels.comm | urlquery }}&signal={{ $labels.signal | urlquery }}"
    url = f"http://{{{{ $labels.instance }}}}/failures?{query}"
    assert written[alert.name] == (url if alert in rules.PROGRAMS else None)
    assert "failures_url" not in rules.alerts_yaml("")


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here (Debian: apt-get install prometheus)"
)
@pytest.mark.parametrize("labels", [{"comm": 'a b&c="%', "signal": "SIGKILL"}, {"comm": "日本語"}, {}], ids=str)
def test_prometheus_makes_a_link_of_the_labels_that_an_alert_has(tmp_path: Path, labels: dict[str, str]) -> None:
    (alert,) = (alert for alert in rules.PROGRAMS if alert.name == "ProcessKilled")
    url = alert.rule(rules.THRESHOLDS, "", "http://{{ $labels.instance }}")["annotations"]["failures_url"]
    rule = {"alert": "A", "expr": "x", "annotations": {"failures_url": url}}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [rule]}]}))
    text = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in labels.items())

    def said(expected: str) -> "subprocess.CompletedProcess[str]":
        exp = {"exp_labels": {"instance": "n:1", **labels}, "exp_annotations": {"failures_url": expected}}
        tests = {
            "rule_files": ["rules.yml"],
            "tests": [
                {
                    "input_series": [{"series": f'x{{instance="n:1",{text}}}', "values": "1 1"}],
                    "alert_rule_test": [{"eval_time": "1m", "alertname": "A", "exp_alerts": [exp]}],
                }
            ],
        }
        (tmp_path / "test.yml").write_text(yaml.safe_dump(tests, allow_unicode=True))
        command = ["promtool", "test", "rules", str(tmp_path / "test.yml")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    wrong = said("wrong")
    assert wrong.returncode != 0
    (got,) = re.findall(r'http://n:1[^"\\]*', wrong.stdout + wrong.stderr)
    assert urlsplit(got).path == "/failures"
    assert dict(parse_qsl(urlsplit(got).query)) == labels
    assert said(got).returncode == 0


COMMANDS = {
    ("it's $(bad)", "", "", "", ""): r"""journalctl _COMM='it'\''s $(bad)' -n 50""",
    ("a", "shop", "cart-0", "cart", ""): "kubectl logs -n shop cart-0 -c cart --tail 50",
    ("a", "shop", "cart-0", "<unknown>", ""): "kubectl logs -n shop cart-0 --tail 50",
    ("a", "<unknown>", "<unknown>", "<unknown>", ""): "journalctl _COMM=a -n 50",
    ("a", "", "", "3f2a90c1b7de", ""): "docker logs --tail 50 3f2a90c1b7de",
    ("a", "monitoring", "", "exporter", ""): "journalctl _COMM=a -n 50",
    ("a", "", "", "", "x@1.service"): "journalctl -u x@1.service -n 50",
    ("a", "", "", "", r"a\x2db.mount"): r"journalctl -u 'a\x2db.mount' -n 50",
    ("a", "", "", "", "sshd@.service"): "journalctl -u sshd@*.service -n 50",
    ("a", "", "", "", "run.service"): "journalctl _COMM=a -n 50",
    ("a", "", "", "", "session.scope"): "journalctl _COMM=a -n 50",
    ("a", "", "", "", "a b'.service"): "journalctl _COMM=a -n 50",
}
"""comm, namespace, pod, container and unit -> the command of an alert, as a shell reads it."""


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here (Debian: apt-get install prometheus)"
)
def test_the_command_of_an_alert_is_that_of_the_pod_or_unit_and_holds_no_more_than_names(tmp_path: Path) -> None:
    (alert,) = (alert for alert in rules.PROGRAMS if alert.name == "ProcessKilled")
    command = alert.rule(rules.THRESHOLDS, "")["annotations"]["command"]
    rule = {"alert": "A", "expr": "x", "annotations": {"command": command}}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [rule]}]}))
    tests = []
    for values in COMMANDS:
        labels = dict(zip(("comm", "namespace", "pod", "container", "unit"), values, strict=True))
        text = ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items() if value)
        wrong = {"exp_labels": {"a": "b"}, "exp_annotations": {"command": "wrong"}}
        tests.append(
            {
                "input_series": [{"series": f"x{{{text}}}", "values": "1 1"}],
                "alert_rule_test": [{"eval_time": "1m", "alertname": "A", "exp_alerts": [wrong]}],
            }
        )
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": tests}))
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, check=False
    )
    quoted = re.findall(
        r'got:.*?Annotations:\{[^"]*command=("(?:[^"\\]|\\.)*")', done.stdout + done.stderr, re.DOTALL
    )
    said = [shlex.split(json.loads(text)) for text in quoted]
    assert said == [shlex.split(command) for command in COMMANDS.values()], done.stdout + done.stderr


@pytest.mark.parametrize("alert", rules.PROGRAMS, ids=lambda alert: alert.name)
def test_runbooks_of_programs_say_where_their_failures_are(alert: rules.Alert) -> None:
    commands = (RUNBOOKS / f"{alert.name}.md").read_text().partition("## First commands")[2]
    assert "`failures_url`" in commands
    for query in re.findall(r"/failures\?([^'`]*)", commands):
        parse_selection(
            {name: [value.replace("SIGNAL", "SEGV")] for name, value in parse_qsl(query) if name != "format"}
        )


@each_alert
def test_each_alert_has_a_runbook_that_answers_four_questions(alert: rules.Alert) -> None:
    text = (RUNBOOKS / f"{alert.name}.md").read_text()
    assert text.startswith(f"# {alert.name}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    commands = text.partition("## First commands")[2].partition("## False alarms")[0]
    assert len(re.findall(r"^\d\. ", commands, re.MULTILINE)) == 3, "the first three commands"
    for name in alert.thresholds:
        assert f"`{name}`" in text, f"says nothing of {name}"


def test_commands_of_runbooks_look_where_the_pods_are() -> None:
    commands = [
        command for path in RUNBOOKS.glob("*.md") for command in re.findall("`(kubectl .*?)`", path.read_text())
    ]
    assert len(commands) > 3
    assert [command for command in commands if not re.search(r" -(A|n NAMESPACE)\b", command)] == []


def test_there_is_no_runbook_of_no_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {alert.name for alert in rules.all_alerts()}


def test_readmes_alerts_are_those_of_the_rules() -> None:
    readme = (ROOT / "README.md").read_text()
    assert re.findall(r"^\| `(Proc\w+)` \|", readme, re.MULTILINE) == [alert.name for alert in rules.all_alerts()]


def test_readmes_pictures_are_there_and_small() -> None:
    pictures = re.findall(r"!\[.+\]\((docs/images/\w+\.png)\)", (ROOT / "README.md").read_text())
    assert len(pictures) == 1
    assert all(picture.stat().st_size < 250_000 for picture in (ROOT / "docs" / "images").glob("*.png"))
    assert all((ROOT / name).exists() for name in pictures)
