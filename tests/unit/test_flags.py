"""exporter/flags.py: a row of a dataclass is a flag."""

from dataclasses import dataclass

import pytest

from exporter.errors import ConfigError
from exporter.flag_parsers import count_between
from exporter.flags import Flag, flag, flags_of, switch


@dataclass(frozen=True, slots=True)
class Settings:
    """Some flags, and a field that is none."""

    other: str = "no flag"
    most: int = flag("--limit.most-things", "N", "7", "How many.", count_between(1, 9))
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
        flag("--limit", "N", "0", "How many.", count_between(1, 9))
