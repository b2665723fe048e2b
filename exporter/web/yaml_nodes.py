"""Reads values from nodes of YAML, so that an error can name the line.

An error of any of these functions is a ConfigError that names the line and the reason.
"""

import re
from collections.abc import Iterable

import yaml

from exporter.errors import ConfigError

_DURATION = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def error_at(node: yaml.Node | None, reason: str) -> ConfigError:
    """Return an error that names the line of a node."""
    return ConfigError(reason if node is None else f"line {node.start_mark.line + 1}: {reason}")


def is_null(node: yaml.Node | None) -> bool:
    """Return whether there is no value."""
    return node is None or node.tag == "tag:yaml.org,2002:null"


def parse_fields(
    node: yaml.Node | None, where: str, known: Iterable[str] | None = None, *, unsupported: Iterable[str] = ()
) -> dict[str, yaml.Node]:
    """Return key -> value of a mapping; each key must be known and be there once.

    Args:
        node: None or null for an empty mapping.
        where: The name of the mapping, for errors.
        known: The keys that may be there; None for any.
        unsupported: Keys of exporter-toolkit that this exporter does not have.
    """
    if node is None or is_null(node):
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise error_at(node, f"{where} must be a mapping")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = parse_text(key)
        if name in unsupported:
            raise error_at(key, f"{where}: {name} is not supported here")
        if known is not None and name not in known:
            raise error_at(key, f"{where}: unknown key {name!r}")
        if name in found:
            raise error_at(key, f"{where}: {name!r} is there twice")
        found[name] = value
    return found


def parse_text(node: yaml.Node | None) -> str:
    """Return a scalar as text; empty for None or null."""
    if node is None or is_null(node):
        return ""
    if not isinstance(node, yaml.ScalarNode):
        raise error_at(node, "a plain value is expected here")
    return str(node.value)


def parse_texts(node: yaml.Node | None, where: str) -> list[str]:
    """Return the scalars of a list."""
    if node is None or is_null(node):
        return []
    if not isinstance(node, yaml.SequenceNode):
        raise error_at(node, f"{where} must be a list")
    return [parse_text(item) for item in node.value]


def parse_choice(node: yaml.Node | None, where: str, choices: tuple[str, ...], default: str) -> str:
    """Return one of some choices."""
    text = parse_text(node) or default
    if text not in choices:
        raise error_at(node, f"{where} must be one of {', '.join(choices)}, got {text!r}")
    return text


def parse_boolean(node: yaml.Node | None, *, default: bool) -> bool:
    """Return true or false, in any case."""
    text = parse_text(node).lower()
    if text not in {"", "true", "false"}:
        raise error_at(node, f"must be true or false, got {text!r}")
    return text == "true" if text else default


def parse_duration(node: yaml.Node | None) -> float:
    """Return the seconds of a duration as Go writes it: 0, 1s, 1m30s, 250ms."""
    text = parse_text(node) or "0"
    if text == "0":
        return 0.0
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        raise error_at(node, f"rate_limit: interval must be a duration like 1s or 250ms, got {text!r}")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
