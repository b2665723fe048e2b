"""How a flag is declared: as a field of a dataclass, so that it stands in one row.

The row has the flag's name, its default as a user writes it, its help and its parser; the field has the name and
the type that the program uses. A dataclass of many flags has sections: fields that are dataclasses of flags. What
all flags of a section have in common stands in the section's row.
"""

from collections.abc import Callable, Mapping
from dataclasses import Field, field, fields
from typing import Any, NamedTuple, TypeVar

from exporter.flag_parsers import parse_text

ENVIRONMENT_PREFIX = "PROC_CONNECTOR_EXPORTER_"

_T = TypeVar("_T")

Parse = Callable[[str, str], Any]
"""(the name of the flag or variable, what the user wrote) -> the value; raises ConfigError with that name."""

SWITCH = ("true", "false")


class Flag(NamedTuple):
    """One flag as its users see it."""

    name: str
    metavar: str | None
    default: str | None
    """None if the flag has no value unless it is given; its field is None then."""
    help: str
    parse: Parse
    choices: tuple[str, ...] | None = None
    repeatable: bool = False
    group: str = ""
    """The heading of --help that it stands under."""
    needs: str | None = None
    """The flag without which it has no effect."""
    no_effect_with: tuple[str, ...] = ()
    """The flags with which it has no effect."""

    @property
    def is_switch(self) -> bool:
        """Whether the flag alone turns it on."""
        return self.choices == SWITCH

    @property
    def variable(self) -> str:
        """The environment variable that sets it too."""
        return variable_of(self.name)


def variable_of(name: str) -> str:
    """Return the environment variable that sets a flag too."""
    return ENVIRONMENT_PREFIX + name.removeprefix("--").upper().replace(".", "_").replace("-", "_")


def _parse_switch(_: str, text: str) -> bool:
    return text == "true"


def flag(
    name: str,
    metavar: str | None,
    default: str | None,
    description: str,
    parse: Parse = parse_text,
    *,
    choices: tuple[str, ...] | None = None,
    repeatable: bool = False,
    group: str = "",
    needs: str | None = None,
    no_effect_with: tuple[str, ...] = (),
) -> Any:
    """Declare a flag.

    Args:
        name: With its hyphens.
        metavar: What stands for the value in --help; None to have the choices there.
        default: As a user writes it; None for no value.
        description: Its help.
        parse: Makes the field's value.
        choices: All values that there are.
        repeatable: May be given more than once; commas separate the values then.
        group: The heading of --help that it stands under.
        needs: The flag without which it has no effect.
        no_effect_with: The flags with which it has no effect.
    """
    row = Flag(name, metavar, default, description, parse, choices, repeatable, group, needs, no_effect_with)
    return field(default=None if default is None else parse(name, default), metadata={"flag": row})


def switch(name: str, description: str, *, group: str = "", no_effect_with: tuple[str, ...] = ()) -> Any:
    """Declare a flag that is false unless it is given."""
    return flag(
        name,
        "BOOL",
        "false",
        description,
        _parse_switch,
        choices=SWITCH,
        group=group,
        no_effect_with=no_effect_with,
    )


class _Section(NamedTuple):
    """What the flags of a section have in common."""

    kind: type
    heading: str
    needs: str | None
    no_effect_with: tuple[str, ...]

    def row(self, row: Flag) -> Flag:
        """Return a flag of this section, with what it has in common with the others."""
        return row._replace(
            group=self.heading,
            needs=row.needs or (self.needs if self.needs != row.name else None),
            no_effect_with=(*row.no_effect_with, *self.no_effect_with),
        )


def section(heading: str, kind: type, *, needs: str | None = None, no_effect_with: tuple[str, ...] = ()) -> Any:
    """Declare a section.

    Args:
        heading: Of --help.
        kind: A dataclass of flags that all have a default.
        needs: The flag without which no other flag of the section has an effect.
        no_effect_with: The flags with which none of the section has an effect.
    """
    return field(default_factory=kind, metadata={"section": _Section(kind, heading, needs, no_effect_with)})


def flags_of(config: type) -> dict[str, Flag]:
    """Return the flags that a dataclass declares, by the name of the field; in a section by `section.field`."""
    rows = {row.name: row.metadata["flag"] for row in fields(config) if "flag" in row.metadata}
    for name, part in _sections_of(config):
        rows |= {f"{name}.{field_name}": part.row(row) for field_name, row in flags_of(part.kind).items()}
    return rows


def with_sections(config: type[_T], values: Mapping[str, Any]) -> _T:
    """Make a dataclass that has but sections.

    Args:
        config: The dataclass.
        values: What is not the default, by `section.field`.
    """
    return config(
        **{
            name: part.kind(
                **{
                    key.removeprefix(f"{name}."): value
                    for key, value in values.items()
                    if key.startswith(f"{name}.")
                }
            )
            for name, part in _sections_of(config)
        }
    )


def _sections_of(config: type) -> list[tuple[str, _Section]]:
    rows: tuple[Field[Any], ...] = fields(config)
    return [(row.name, row.metadata["section"]) for row in rows if "section" in row.metadata]
