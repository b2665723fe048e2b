"""How the descriptors that this process may open are shared out."""

import resource
from collections.abc import Sequence

# The exporter's own sockets and files: about a dozen, and one more for each file of /proc while it reads it.
_OWN = 64
_LEAST = 4


def share_descriptors(wanted: Sequence[int]) -> list[int]:
    """Return how many connections each server may have.

    Args:
        wanted: How many each would have if there were enough descriptors.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = max(files - _OWN, files // 4)
    if sum(wanted) <= free:
        return list(wanted)
    return [max(_LEAST, free * one // sum(wanted)) for one in wanted]
