"""values.yaml, its schema, the README's table and the exporter's flags say the same."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from charts.rendering import CHART, render
from charts.values_table import read_values, with_table
from helm_python import HelmValuesError

from exporter.command_line import parse_args
from exporter.config import FLAGS
from exporter.errors import ConfigError
from exporter.events import EVENTS
from exporter.tallies.rules_file import parse_rules

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


def test_every_value_is_commented() -> None:
    assert [value.path for value in read_values() if not value.comment] == []


def test_the_readmes_table_is_the_one_of_the_values(request: pytest.FixtureRequest) -> None:
    readme = CHART / "README.md"
    text = readme.read_text(encoding="utf-8")
    if request.config.getoption("--update-golden"):
        readme.write_text(with_table(text), encoding="utf-8")
    assert readme.read_text(encoding="utf-8") == with_table(text)


def test_the_schema_knows_the_values_and_no_others() -> None:
    def compare(schema: dict[str, Any], values: dict[str, Any], path: str) -> None:
        properties = schema["properties"]
        assert schema["additionalProperties"] is False, path
        assert set(properties) == set(values) | (set() if path else HELMS), path
        for name, part in properties.items():
            while "$ref" in part:
                part = SCHEMA["$defs"][part["$ref"].rpartition("/")[2]]  # noqa: PLW2901 - that is what it stands for
            if "properties" in part and isinstance(values.get(name), dict) and f"{path}{name}" not in FREE:
                compare(part, values[name], f"{path}{name}.")

    compare(SCHEMA, VALUES, "")


# Those of other charts too, Kubernetes' own objects, of which the values show a part, and the exporter's file.
FREE = {"global", "resources", "updateStrategy", "config.inline"}
# What a larger chart has for all of its parts.
HELMS = {"enabled"}


def test_what_the_schema_lists_is_what_the_exporter_takes() -> None:
    settings = SCHEMA["properties"]["exporter"]["properties"]
    flags = {flag.name: flag for flag in FLAGS}
    assert sorted(settings["events"]["items"]["enum"]) == sorted(EVENTS)
    for name, flag in (("logLevel", "--log.level"), ("logFormat", "--log.format")):
        assert tuple(settings[name]["enum"]) == flags[flag].choices
        assert VALUES["exporter"][name] == flags[flag].default


@pytest.mark.parametrize(
    ("name", "flag", "text", "taken"),
    [
        ("seriesIdle", "--limit.idle", "12h", True),
        ("seriesIdle", "--limit.idle", "1h30m", True),
        ("seriesIdle", "--limit.idle", "soon", False),
        ("canaryInterval", "--canary.interval", "30s", True),
        ("canaryInterval", "--canary.interval", "30 s", False),
        ("receiveBufferBytes", "--receive-buffer.bytes", "32MiB", True),
        ("receiveBufferBytes", "--receive-buffer.bytes", "1G", True),
        ("receiveBufferBytes", "--receive-buffer.bytes", "32mb", False),
    ],
)
def test_durations_and_sizes_are_written_as_for_the_exporter(name: str, flag: str, text: str, taken: bool) -> None:
    assert exporter_takes(f"{flag}={text}") == taken
    assert schema_takes({"exporter": {name: text}}) == taken
    if taken:
        assert f"{flag}={text}" in render({"exporter": {name: text}}).container["args"]


def test_further_objects_are_run_as_templates() -> None:
    extra = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "{{ .Release.Name }}-{{ .Values.mode }}"}}
    [made] = render({"extraObjects": [extra]}).of_kind("Secret")
    assert made["metadata"]["name"] == "test-exact"


def test_a_further_object_can_be_a_text_with_instructions_of_templates() -> None:
    text = """
{{- range list "a" "b" }}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ $.Release.Name }}-{{ . }}
{{- end }}
"""
    nothing = "{{ if eq .Values.mode `unprivileged` }}kind: Secret{{ end }}"
    written = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "{{ .Values.mode }}"}}
    made = render({"extraObjects": [text, nothing, written]}).of_kind("Secret")
    assert [secret["metadata"]["name"] for secret in made] == ["test-a", "test-b", "exact"]


@pytest.mark.parametrize("extra", ["", 1, None, [], {}, {"kind": "Secret"}, {"apiVersion": "v1"}], ids=repr)
def test_what_is_no_further_object_is_refused(extra: object) -> None:
    assert not schema_takes({"extraObjects": [extra]})


def test_a_value_that_is_not_set_leaves_the_default_to_the_exporter() -> None:
    unset = {name for name, value in VALUES["exporter"].items() if value in (None, [], False)}
    assert unset | {"logLevel", "logFormat", "maxRequests"} == set(VALUES["exporter"])


def schema_takes(values: Mapping[str, Any]) -> bool:
    try:
        render(values)
    except HelmValuesError:
        return False
    return True


def exporter_takes(argument: str) -> bool:
    try:
        parse_args([argument], {})
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("seriesLimit", "--limit.series"),
        ("seriesIdle", "--limit.idle"),
        ("receiveBufferBytes", "--receive-buffer.bytes"),
        ("canaryInterval", "--canary.interval"),
        ("maxRequests", "--web.max-requests"),
    ],
)
def test_the_schema_takes_the_numbers_that_the_exporter_takes(name: str, flag: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_args([f"{flag}=-1"], {})
    bounds = re.findall(r"\d+", f"0 {refused.value} {SCHEMA['properties']['exporter']['properties'][name]}")
    numbers = sorted({int(bound) + step for bound in bounds for step in (-1, 0, 1)})
    taken = [number for number in numbers if exporter_takes(f"{flag}={number}")]
    assert [number for number in numbers if schema_takes({"exporter": {name: number}})] == taken
    assert 1 < len(taken) < len(numbers)


RULES = [
    "{}",
    "comm: []",
    "comm: [{match: a.*, drop: true}]",
    "comm: [{match: '(a)b', replace: $1}]",
    "include: {comm: [a], uid: [0, 4294967294, 1000-2000]}",
    "exclude: {}",
]
NO_RULES = [
    "[]",
    "com: []",
    "comm: {}",
    "comm: [a]",
    "comm: [{match: a}]",
    "comm: [{drop: true}]",
    "comm: [{match: a, drop: false}]",
    "comm: [{match: a, drop: true, replace: b}]",
    "comm: [{match: a, replase: b}]",
    f"comm: [{{match: {'a' * 201}, drop: true}}]",
    "include: []",
    "include: {comm: []}",
    "include: {pid: [1]}",
    "exclude: {uid: [-1]}",
    "exclude: {uid: [4294967295]}",
    "exclude: {uid: [1-]}",
    "exclude: {uid: [nobody]}",
]


@pytest.mark.parametrize("text", RULES)
def test_rules_that_the_schema_takes_reach_the_exporter_as_rules(text: str) -> None:
    inline = yaml.safe_load(text)
    for config_map in render({"config": {"inline": inline}}).of_kind("ConfigMap"):
        [delivered] = config_map["data"].values()
        parse_rules(delivered.encode(), "config.yml")
        assert yaml.safe_load(delivered) == inline


@pytest.mark.parametrize("text", NO_RULES)
def test_what_the_exporter_takes_for_no_rules_the_schema_does_not_take_either(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_rules(text.encode(), "config.yml")
    assert not schema_takes({"config": {"inline": yaml.safe_load(text)}})


@pytest.mark.parametrize("value", [1, 1.1, True, None])
def test_a_name_that_is_no_text_has_to_be_quoted(value: object) -> None:
    """On its way through Helm 1.10 would become 1.1, and 1e3 1000."""
    assert not schema_takes({"config": {"inline": {"comm": [{"match": "a", "replace": value}]}}})


ODD_NAMES = [
    "yes",
    "1e3",
    "007",
    "1:30",
    " a",
    "a ",
    "# a",
    "a: b",
    "a\tb",
    "{{ .Values }}",
    "é",
    "'",
    '"',
    "|",
    "-",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_come_out_as_they_went_in(name: str) -> None:
    rule = {"match": "x", "replace": name}
    [config_map] = render({"config": {"inline": {"comm": [rule]}}}).of_kind("ConfigMap")
    [delivered] = config_map["data"].values()
    plain = parse_rules(yaml.safe_dump({"comm": [rule]}).encode(), "config.yml")
    assert parse_rules(delivered.encode(), "config.yml").name(b"x") == plain.name(b"x")
