"""Everything that goes into the pure part, written to a file and played again."""
