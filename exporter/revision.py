"""The commit that this program was built from."""

# `git archive` writes the commit in place of the dollar signs (.gitattributes); a checkout has none to write.
_ARCHIVED = "$Format:%H$"

REVISION = "unknown" if _ARCHIVED.startswith("$") else _ARCHIVED
