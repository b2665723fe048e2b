"""The labels of programs: their names, their values, and how both are written.

A comm is up to 15 bytes that any user can set to anything. It becomes text before it becomes a key, so that two
byte strings that look the same are one series.
"""

from collections.abc import Iterable
from functools import cache

from exporter.kernel.wait_status import exit_labels

PROGRAM_LABELS = ("comm",)
"""Of a metric per program; write_program_labels writes them."""
CELL_LABELS = (*PROGRAM_LABELS, "uid")
"""Of a metric per program and user; write_cell_labels writes them."""
END_LABELS = (*CELL_LABELS, "exit_code", "signal")
"""Of a metric of ends; write_status_labels writes what follows the others."""

UNKNOWN = "<unknown>"
"""Stands for a comm or uid that is not known."""
OTHER = "<other>"
"""Stands for all comms or uids that have no series of their own because there are too many."""
EXCLUDED = "<excluded>"
"""Stands for all comms and uids that the rules leave out; never shown."""
EMPTY = "<empty>"
"""Stands for a comm of no bytes: to Prometheus a label with an empty value is no label. A process that calls
itself so shares the series."""
OTHER_UID = -1
"""Stands for the uids that have no series of their own."""

Key = tuple[str, int | None]
"""(comm, uid): what a cell is found by in its group."""

GroupName = tuple[tuple[str, str], ...]
"""Names and values of the labels of a group; empty where groups are not asked for."""

GROUP_LABELS = {"pod": ("namespace", "pod", "container"), "unit": ("unit",)}
"""The labels of a group, by what --group.by asks for. Empty: in none; UNKNOWN and OTHER as elsewhere."""

# A process that calls itself so is escaped.
_RESERVED = frozenset({UNKNOWN, OTHER, EXCLUDED})
_KWORKER = "kworker/"
# surrogateescape puts a byte there; 0x00 to 0x7F never need it.
_FIRST_BYTE = 0xDC00


def plain(comm: bytes) -> str:
    """Turn a comm into text: a character for each code point, and a surrogate for each byte that is not UTF-8.

    The kernel's workers, whose names change with the work they do (`kworker/u8:1-ext4`), are all `kworker`.
    """
    text = comm.decode("utf-8", "surrogateescape")
    return "kworker" if text.startswith(_KWORKER) else text


def printable(text: str) -> str:
    """Turn a plain text into one line of printable text.

    Bytes that are not UTF-8 become `\\xNN`, code points that do not print (control characters, line separators)
    `\\xNN`, `\\uNNNN` or `\\UNNNNNNNN`. A backslash stays as it is: a comm of the four characters `\\xff`
    shares a series with the byte.
    """
    if not text:
        return EMPTY
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escape(ord(c)) for c in text)
    return f"\\x3c{text[1:]}" if text in _RESERVED else text


def escape_label_value(text: str) -> str:
    """Escape a label value for the text formats: backslash, quote and newline."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def uid_label(uid: int | None) -> str:
    """Return the value of the label `uid`."""
    if uid is None:
        return UNKNOWN
    return OTHER if uid == OTHER_UID else str(uid)


def group_label_names(by: frozenset[str]) -> tuple[str, ...]:
    """Return the names of the labels of groups, for what --group.by asks for."""
    return tuple(name for part, names in GROUP_LABELS.items() if part in by for name in names)


def find_folded(keys: Iterable[Key], groups: Iterable[tuple[str, ...]]) -> list[int]:
    """Return the places of those that stand for several comms, uids or groups, which have no series of their own.

    Args:
        keys: All of them.
        groups: The values of the labels of their groups.
    """
    return [
        i
        for i, ((comm, uid), values) in enumerate(zip(keys, groups, strict=True))
        if comm == OTHER or uid == OTHER_UID or OTHER in values
    ]


def write_program_labels(comm: str) -> str:
    """Return the labels of a program as an exposition has them, without braces."""
    return f'comm="{escape_label_value(comm)}"'


def write_cell_labels(comm: str, uid: int | None) -> str:
    """Return the labels of a program and user as an exposition has them, without braces."""
    return f'{write_program_labels(comm)},uid="{uid_label(uid)}"'


def write_group_labels(names: Iterable[str], values: Iterable[str]) -> str:
    """Return the labels of a group as an exposition has them behind those of a program and user."""
    pairs = zip(names, values, strict=True)
    return "".join([f',{name}="{escape_label_value(value)}"' for name, value in pairs])


def known_group(group: GroupName) -> dict[str, str | None]:
    """Return the labels of a group for a reader of single events; None: it is not known, or has no room."""
    return {name: None if value in {UNKNOWN, OTHER} else value for name, value in group}


def short_group(group: GroupName) -> str:
    """Return where a process ran in a few words: `shop/cart-1/web`, `cron.service`; empty if it is not known."""
    known = known_group(group)
    pod = "/".join(filter(None, (known.get(name) for name in GROUP_LABELS["pod"])))
    return " ".join(filter(None, (pod, known.get("unit"))))


def status_labels(status: int) -> tuple[str, str]:
    """Return the values of the labels that an end has beside those of its program and user."""
    return exit_labels(status)


@cache
def write_status_labels(status: int) -> str:
    """Return the labels that an end has behind those of its program and user, with the comma between them."""
    exit_code, signal = status_labels(status)
    return f',exit_code="{exit_code}",signal="{signal}"'


def _escape(code_point: int) -> str:
    if _FIRST_BYTE <= code_point < _FIRST_BYTE + 0x100:
        code_point -= _FIRST_BYTE
    if code_point < 0x100:
        return f"\\x{code_point:02x}"
    return f"\\u{code_point:04x}" if code_point < 0x10000 else f"\\U{code_point:08x}"
