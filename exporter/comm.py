"""A comm is up to 15 bytes that any user can set to anything: how it becomes a label value.

It becomes text before it becomes a key, so that two byte strings that look the same are one series.
"""

UNKNOWN = "<unknown>"
"""Stands for a comm or uid that nobody could tell. A process that calls itself so is escaped."""

_KWORKER = "kworker/"


def printable(comm: bytes) -> str:
    """Turn a comm into one line of printable text.

    Bytes that are not UTF-8 become `\\xNN`, code points that do not print (control characters, line separators,
    surrogates) `\\xNN`, `\\uNNNN` or `\\UNNNNNNNN`. A backslash stays as it is: somebody who types the four
    characters `\\xff` shares a series with the byte. The kernel's workers, whose names change with the work
    they do (`kworker/u8:1-ext4`), are all `kworker`.
    """
    text = comm.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escape(ord(c)) for c in text)
    if text.startswith(_KWORKER):
        return "kworker"
    if text == UNKNOWN:
        return "\\x3cunknown>"
    return text


def escape_label_value(text: str) -> str:
    """Escape a label value for the text formats: backslash, quote and newline."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _escape(code_point: int) -> str:
    if code_point < 0x100:
        return f"\\x{code_point:02x}"
    return f"\\u{code_point:04x}" if code_point < 0x10000 else f"\\U{code_point:08x}"
