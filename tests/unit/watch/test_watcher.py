"""Which events `watch` shows, and when it stops."""

import asyncio

from exporter.processes.observer import Happening, Loss, News
from exporter.stream.selection import Selection
from exporter.watch.watcher import Watcher

FORK = Happening(1_000, "fork", 8, 8, 7, 0, "sh")
EXIT = Happening(2_000, "exit", 8, 8, 7, 0, "sh", 0x300, False)
LOSS = Loss(3_000, "connector", 12)


class Shown:
    """A screen that keeps what it is given."""

    def __init__(self) -> None:
        self.batches: list[list[News]] = []

    def begin(self) -> None: ...

    def show(self, news: list[News]) -> None:
        self.batches.append(news)

    def end(self) -> None: ...


def watcher(selection: Selection, count: int | None = None) -> tuple[Watcher, Shown, asyncio.Event]:
    shown, stopped = Shown(), asyncio.Event()
    return Watcher(selection, count, shown, stopped), shown, stopped


def test_the_filters_choose_events_and_every_loss_is_shown() -> None:
    watching, shown, _ = watcher(Selection(events=frozenset({"exit"})))
    watching.take([FORK, EXIT, LOSS])
    watching.take([FORK])
    assert shown.batches == [[EXIT, LOSS]]
    assert dict(watching.summary.rows()) == {"exit": 1, "nonzero_exit": 1, "lost": 12}


def test_after_count_events_it_stops_and_shows_no_more() -> None:
    watching, shown, stopped = watcher(Selection(), count=2)
    watching.take([FORK])
    assert not stopped.is_set()
    watching.take([EXIT, FORK])
    assert stopped.is_set()
    assert watching.has_enough
    watching.take([FORK])
    assert shown.batches == [[FORK], [EXIT]]


def test_events_after_the_end_are_left_out() -> None:
    watching, shown, _ = watcher(Selection())
    watching.until_ns = 1_500
    watching.take([FORK, EXIT])
    assert shown.batches == [[FORK]]
