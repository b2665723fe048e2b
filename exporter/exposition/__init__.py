"""From a snapshot of the tallies to the text of /metrics. Pure."""
