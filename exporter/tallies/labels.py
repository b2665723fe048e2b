"""A comm is up to 15 bytes that any user can set to anything: how it becomes a label value.

It becomes text before it becomes a key, so that two byte strings that look the same are one series.
"""

UNKNOWN = "<unknown>"
"""Stands for a comm or uid that nobody could tell."""
OTHER = "<other>"
"""Stands for all comms or uids that have no series of their own because there are too many."""
EXCLUDED = "<excluded>"
"""Stands for all comms and uids that nobody wants to know of; never shown."""

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
    `\\xNN`, `\\uNNNN` or `\\UNNNNNNNN`. A backslash stays as it is: somebody who types the four characters
    `\\xff` shares a series with the byte.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escape(ord(c)) for c in text)
    return f"\\x3c{text[1:]}" if text in _RESERVED else text


def escape_label_value(text: str) -> str:
    """Escape a label value for the text formats: backslash, quote and newline."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _escape(code_point: int) -> str:
    if _FIRST_BYTE <= code_point < _FIRST_BYTE + 0x100:
        code_point -= _FIRST_BYTE
    if code_point < 0x100:
        return f"\\x{code_point:02x}"
    return f"\\u{code_point:04x}" if code_point < 0x10000 else f"\\U{code_point:08x}"
