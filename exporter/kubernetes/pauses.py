"""How long to wait before the API is asked again."""

from collections.abc import Callable


class Pauses:
    """Pauses that grow from failure to failure, with jitter, so that not all exporters come back at once.

    Args:
        first_seconds: After the first failure; twice as long after each further one.
        longest_seconds: But no longer than that.
        jitter: Returns what a pause is multiplied by.
    """

    def __init__(self, first_seconds: float, longest_seconds: float, jitter: Callable[[], float]) -> None:
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._jitter = jitter
        self._next_seconds = first_seconds

    def next_seconds(self) -> float:
        """Return how long to wait after one more failure."""
        seconds = self._next_seconds
        self._next_seconds = min(2 * seconds, self._longest_seconds)
        return seconds * self._jitter()

    def reset(self) -> None:
        """Begin anew: what fails next fails for the first time."""
        self._next_seconds = self._first_seconds
