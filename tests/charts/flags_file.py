"""What the chart knows of the exporter's flags: helm/proc-connector-exporter/files/flags.json, made of their rows.

A template cannot call the exporter's parser, so each parser is described to it: a pattern, and bounds where it has
some. A parser that is not described here fails the tests.
"""

import json
import re
from typing import Any

from charts.rendering import CHART

from exporter.config import FLAGS
from exporter.events import EVENTS, parse_events
from exporter.flag_parsers import (
    CountBetween,
    IntervalBetween,
    MayBeEmpty,
    SizeBetween,
    find_group,
    parse_group_by,
    parse_mode,
    parse_page_path,
    parse_path,
    parse_speed,
    parse_text,
    parse_uids,
)
from exporter.flags import Flag, Parse
from exporter.kubernetes.access import parse_api_server, parse_node_name
from exporter.service.privileges import find_user
from exporter.settings.web import parse_listen_addresses

PATH = CHART / "files" / "flags.json"

# Of durations and of sizes; `MiB` and `Mi` are `M`. A plain number is in seconds, or bytes, or counts.
UNITS = {
    "": 1,
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
    "k": 1 << 10,
    "K": 1 << 10,
    "M": 1 << 20,
    "G": 1 << 30,
    "T": 1 << 40,
}
_NUMBER = r"[0-9]{1,12}(\.[0-9]{1,9})?"
_DURATION = "".join(f"({_NUMBER}{unit})?" for unit in ("w", "d", "h", "m", "s", "ms", "us", "ns"))
_ANY = r"(?s).*"


def up_to(most: int) -> str:
    """Return a pattern of the numbers up to a bound, with leading zeros up to its length."""
    digits = str(most)
    shorter = [f"[0-9]{{1,{len(digits) - 1}}}"] if len(digits) > 1 else []
    below = [
        f"{digits[:at]}[0-{int(digit) - 1}][0-9]{{{len(digits) - at - 1}}}"
        for at, digit in enumerate(digits)
        if digit != "0"
    ]
    return f"({'|'.join([*shorter, *below, digits])})"


def _listed(word: str) -> str:
    return rf"\s*{word}\s*(,\s*{word}\s*)*"


_ID = up_to(0xFFFFFFFE)
_PORT = up_to(0xFFFF)
_ADDRESS = rf"(\[[^,\]]*\]|[^:,]*):{_PORT}"
_A_NAME = "[A-Za-z_][^:,\\s]*"
_EVENT = f"({'|'.join(EVENTS)})"
_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"

# The pattern of each parser that has no bounds, and what it takes in words.
_FORMS: dict[Parse, tuple[str, str]] = {
    parse_text: (_ANY, ""),
    parse_path: (_ANY, ""),
    parse_mode: ("0?[0-7]{3}", "permissions in octal such as 0660"),
    parse_uids: (_listed(_ID), "uids such as 0,1000"),
    parse_group_by: (rf"({_listed('(pod|unit)')}|{_listed('none')})", "none, or of pod, unit"),
    parse_events: (rf"[\s,]*{_EVENT}\s*(,\s*{_EVENT}?\s*)*", f"of {', '.join(EVENTS)}"),
    parse_speed: (r"[0-9.]+", "0, or a factor"),
    parse_page_path: (r"/([^/{}?#-][^{}?#]*|-([^/{}?#][^{}?#]*)?)", "the path of a page"),
    parse_listen_addresses: (f"{_ADDRESS}(,{_ADDRESS})*", "HOST:PORT, [IPV6]:PORT or :PORT"),
    # Which names there are is known in the image only.
    find_user: (f"({_ID}|{_A_NAME})", "the name or number of a user other than root"),
    find_group: (f"({_ID}|{_A_NAME})", "the name or number of a group"),
    parse_api_server: (rf"(?i:https?)://{_HOST}(:{_PORT})?(/[!-~]*)?", "https://HOST[:PORT]"),
    parse_node_name: (r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", "the name of a node"),
}


def described(flag: Flag) -> dict[str, Any]:
    """Return what a template has to know of a flag."""
    described: dict[str, Any] = {"variable": flag.variable}
    if flag.is_switch:
        described["isSwitch"] = True
    if flag.needs is not None:
        described["needs"] = flag.needs
    if flag.no_effect_with:
        described["noEffectWith"] = list(dict.fromkeys(flag.no_effect_with))
    return described | _form(flag)


def _form(flag: Flag) -> dict[str, Any]:
    if flag.choices is not None:
        words = "|".join(map(re.escape, flag.choices))
        return {"pattern": f"^({words})$", "what": f"one of {', '.join(flag.choices)}"}
    parse, more = flag.parse, ""
    if isinstance(parse, MayBeEmpty):
        parse, more = parse.parse, "?"
    if isinstance(parse, CountBetween | SizeBetween | IntervalBetween):
        bounded = {"what": parse.what, "least": parse.least, "most": parse.most}
        if isinstance(parse, CountBetween):
            return {"pattern": f"^[0-9]{{1,{len(str(parse.most))}}}$", **bounded}
        if isinstance(parse, SizeBetween):
            return {"pattern": "^[0-9]{1,18}([kKMGT]i?)?B?$", **bounded}
        return {"pattern": f"^({_NUMBER}|{_DURATION})$", **bounded, "orZero": True}
    pattern, what = _FORMS[parse]
    form = {"pattern": f"^({pattern}){more}$", "what": what}
    return form | ({"not": "^(0+|root)$"} if parse is find_user else {})


def flags_file() -> str:
    """Return the text of the file."""
    flags = {flag.name: described(flag) for flag in FLAGS}
    return json.dumps({"units": UNITS, "flags": flags}, indent=2, ensure_ascii=False) + "\n"
