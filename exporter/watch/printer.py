"""`watch` without --top: a line for each event."""

import os
from collections.abc import Callable

from exporter.processes.observer import News
from exporter.stream.json_lines import json_line
from exporter.stream.wall_clock import WallClock
from exporter.watch.flags import WatchConfig
from exporter.watch.output import Output, is_screen
from exporter.watch.text_lines import HEAD, WHERE, text_line


class Printer:
    """Prints a line for each event.

    Args:
        config: Its `output` is the format.
        clock: Returns the clock of the host where the events happen.
        output: Where the lines are written.
    """

    def __init__(self, config: WatchConfig, clock: Callable[[], WallClock], output: Output) -> None:
        self._clock = clock
        self._output = output
        self._json = config.output == "json"
        self._grouped = bool(config.groups)
        self._color = is_screen() and not os.environ.get("NO_COLOR")

    def begin(self) -> None:
        """Print the head of the columns."""
        if not self._json:
            self._output.write(f"{HEAD}{WHERE if self._grouped else ''}\n")

    def show(self, news: list[News]) -> None:
        """Print some news."""
        clock = self._clock()
        if self._json:
            lines = [json_line(one, clock) for one in news]
        else:
            lines = [text_line(one, clock, color=self._color) for one in news]
        self._output.write("".join(f"{line}\n" for line in lines))

    def end(self) -> None:
        """Do nothing: every line is printed at once."""
