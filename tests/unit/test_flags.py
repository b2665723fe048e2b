"""exporter/flags.py: a row of a dataclass is a flag."""

from dataclasses import dataclass

import pytest

from exporter.errors import ConfigError
from exporter.flag_parsers import CountBetween
from exporter.flags import Flag, flag, flags_of, section, switch, with_sections


@dataclass(frozen=True, slots=True)
class Settings:
    """Some flags, and a field that is none."""

    other: str = "no flag"
    most: int = flag("--limit.most-things", "N", "7", "How many.", CountBetween(1, 9))
    quiet: bool = switch("--quiet", "Say less.")
    name: str | None = flag("--name", "NAME", None, "What it is called.")


FLAGS = flags_of(Settings)


def test_flags_are_the_declared_fields_in_their_order() -> None:
    assert list(FLAGS) == ["most", "quiet", "name"]
    assert FLAGS["name"] == Flag("--name", "NAME", None, "What it is called.", FLAGS["name"].parse)


def test_a_field_has_the_flags_default_as_a_value() -> None:
    assert Settings() == Settings("no flag", 7, False, None)


def test_a_switch_is_on_or_off() -> None:
    assert [name for name, row in FLAGS.items() if row.is_switch] == ["quiet"]
    assert [FLAGS["quiet"].parse("--quiet", text) for text in ("true", "false")] == [True, False]


def test_the_variable_of_a_flag_has_its_name_in_capitals() -> None:
    assert FLAGS["most"].variable == "PROC_CONNECTOR_EXPORTER_LIMIT_MOST_THINGS"


def test_a_default_that_no_user_could_write_is_a_bug_that_shows_at_once() -> None:
    with pytest.raises(ConfigError, match=r"^--limit"):
        flag("--limit", "N", "0", "How many.", CountBetween(1, 9))


@dataclass(frozen=True, slots=True)
class Output:
    """A section, whose flags need the first."""

    file: str | None = flag("--output", "FILE", None, "Where to write.")
    most: int = flag("--output.most", "N", "7", "How many.", CountBetween(1, 9), no_effect_with=("--all",))


@dataclass(frozen=True, slots=True)
class Whole:
    """Flags in sections."""

    settings: Settings = section("settings", Settings)
    output: Output = section("where to", Output, needs="--output", no_effect_with=("--quiet",))


def test_the_flags_of_a_section_have_its_heading_and_what_it_says_of_all_of_them() -> None:
    rows = flags_of(Whole)
    assert list(rows) == ["settings.most", "settings.quiet", "settings.name", "output.file", "output.most"]
    assert [row.group for row in rows.values()] == ["settings"] * 3 + ["where to"] * 2
    assert [row.needs for row in rows.values()] == [None] * 4 + ["--output"]
    assert rows["output.most"].no_effect_with == ("--all", "--quiet")


def test_settings_are_made_of_what_was_set_in_each_section() -> None:
    assert with_sections(Whole, {}) == Whole()
    made = with_sections(Whole, {"settings.most": 2, "output.most": 3})
    assert made == Whole(Settings(most=2), Output(most=3))
