"""values.yaml, its schema, the README's table and the exporter's flags say the same."""

import json
from typing import Any

import pytest
import yaml
from charts.rendering import CHART
from charts.values_table import read_values, with_table

from exporter.config import FLAGS
from exporter.events import EVENTS

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
        assert set(properties) - {"global"} == set(values), path
        for name, part in properties.items():
            if "properties" in part and isinstance(values.get(name), dict) and f"{path}{name}" not in FREE:
                compare(part, values[name], f"{path}{name}.")

    compare(SCHEMA, VALUES, "")


# Kubernetes' own objects, of which the values show a part.
FREE = {"resources", "updateStrategy"}


def test_what_the_schema_lists_is_what_the_exporter_takes() -> None:
    settings = SCHEMA["properties"]["exporter"]["properties"]
    flags = {flag.name: flag for flag in FLAGS}
    assert sorted(settings["events"]["items"]["enum"]) == sorted(EVENTS)
    for name, flag in (("logLevel", "--log.level"), ("logFormat", "--log.format")):
        assert tuple(settings[name]["enum"]) == flags[flag].choices
        assert VALUES["exporter"][name] == flags[flag].default


def test_a_value_that_is_not_set_leaves_the_default_to_the_exporter() -> None:
    unset = {name for name, value in VALUES["exporter"].items() if value in (None, [], False)}
    assert unset | {"logLevel", "logFormat"} == set(VALUES["exporter"])
