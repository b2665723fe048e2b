"""`proc-connector-exporter watch`: prints what happens, as it happens."""

import asyncio
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from exporter.capture.file import open_capture
from exporter.capture.replay import Replay
from exporter.errors import ConfigError, SetupError
from exporter.feeds import Core, make_live_core, make_replay_core
from exporter.kernel.netlink_socket import RECEIVE_BUFFER_BYTES
from exporter.kernel.procfs import Procfs
from exporter.live.canary import Canary
from exporter.live.listener import Listener
from exporter.live.open_sources import open_sources
from exporter.processes.observer import Happening, Loss, News
from exporter.processes.open_names import READING_SETTLES_NS
from exporter.stream.lines import HEAD, Summary, WallClock, json_line, text_line
from exporter.stream.selection import Selection, unavailable
from exporter.tallies.tallies import Tallies
from exporter.watch.flags import WatchConfig
from exporter.watch.top import Top, is_screen

_LOG = logging.getLogger(__name__)

# What is told where nobody says otherwise; of a failure, if that is all there is of ends.
_DEFAULT_EVENTS = frozenset({"fork", "exec", "exit", "coredump"})
_DEFAULT_OF_CAPTURES = _DEFAULT_EVENTS | {"nonzero_exit"}

_CANARY_SECONDS = 15.0
# So long a reader may pause when the end has come.
_PATIENCE_SECONDS = 0.5
# What was read in /proc at the end is certain after a settling time and a drain, twice if a child has the name.
_LAST_LOOKS = 4
_LOOK_SECONDS = 1.1 * READING_SETTLES_NS / 1e9


class Output:
    """Standard output. A reader that has gone away is no error.

    Args:
        gone: Called when it has, or when nothing can be written any more.

    Attributes:
        problem: Why nothing can be written, if that is an error.

    Raises:
        SetupError: There is none.
    """

    def __init__(self, gone: Callable[[], None]) -> None:
        # None is what Python makes of a descriptor that is closed, and that the next socket gets.
        if sys.stdout is None:
            raise SetupError("there is no standard output")
        self._fd = sys.stdout.fileno()
        self._gone = gone
        self._ends = False
        self._hurries = False
        self.problem: str | None = None

    def hurry(self) -> None:
        """From now on do not wait for a reader that does not read."""
        self._hurries = True

    def write(self, text: str) -> None:
        """Write all of it, however long that takes: events wait in the kernel, which counts what it drops."""
        data = memoryview(text.encode())
        try:
            while data and not self._ends:
                # So much can be written to a pipe that has room without waiting.
                if select.select((), (self._fd,), (), _PATIENCE_SECONDS)[1]:
                    data = data[os.write(self._fd, data[: select.PIPE_BUF]) :]
                elif self._hurries:
                    self._end()
        except BrokenPipeError:
            self._end()
        except OSError as error:
            self.problem = error.strerror
            self._end()

    def _end(self) -> None:
        self._ends = True
        self._gone()


class Screen(Protocol):
    """Shows news."""

    def begin(self) -> None:
        """Everything is ready."""

    def show(self, news: list[News]) -> None:
        """Take some."""

    def end(self) -> None:
        """No more will come."""


class Printer:
    """Prints a line for each.

    Args:
        config: How.
        clock: Returns the clock of the host where it happens.
        output: Where to.
    """

    def __init__(self, config: WatchConfig, clock: Callable[[], WallClock], output: Output) -> None:
        self._clock = clock
        self._output = output
        self._json = config.output == "json"
        self._color = is_screen() and not os.environ.get("NO_COLOR")

    def begin(self) -> None:
        """Print what the columns are."""
        if not self._json:
            self._output.write(f"{HEAD}\n")

    def show(self, news: list[News]) -> None:
        """Print some."""
        clock = self._clock()
        if self._json:
            lines = [json_line(one, clock) for one in news]
        else:
            lines = [text_line(one, clock, color=self._color) for one in news]
        self._output.write("".join(f"{line}\n" for line in lines))

    def end(self) -> None:
        """Nothing is left to print."""


class Watcher:
    """Selects, counts and stops when it is enough.

    Args:
        selection: What is wanted.
        count: How many; None for all.
        screen: Shows them.
        stopped: Set when it is enough.

    Attributes:
        has_enough: All that were wanted have come.
        until_ns: What happened later is not wanted any more.
    """

    def __init__(self, selection: Selection, count: int | None, screen: Screen, stopped: asyncio.Event) -> None:
        self._matches = selection.matches
        self._left = count
        self.has_enough = False
        self._screen = screen
        self._stopped = stopped
        self.summary = Summary()
        self.until_ns: int | None = None

    def take(self, news: list[News]) -> None:
        """Get some news."""
        wanted = [one for one in news if isinstance(one, Loss) or self._is_wanted(one)]
        if wanted:
            self.summary.add(wanted)
            self._screen.show(wanted)

    def _is_wanted(self, happening: Happening) -> bool:
        if self.has_enough or not self._matches(happening):
            return False
        if self.until_ns is not None and happening.time_ns > self.until_ns:
            return False
        if self._left is not None:
            self._left -= 1
            if not self._left:
                self.has_enough = True
                self._stopped.set()
        return True


@contextmanager
def _counting(config: WatchConfig) -> Iterator[tuple[Core, Selection, Callable[[], WallClock]]]:
    if config.replay is not None:
        with open_capture(config.replay) as (header, file):
            selection = config.selection.with_default(header.events & _DEFAULT_OF_CAPTURES or header.events)
            if missing := unavailable(selection, header.events):
                raise ConfigError(f"--events: the capture has none of {', '.join(missing)}")
            clock = WallClock(header.wall_ns, header.monotonic_ns)
            yield make_replay_core(header, file, Tallies(), speed=config.speed), selection, lambda: clock
        return
    procfs = Procfs(config.procfs_path)
    procfs.check()
    selection = config.selection.with_default(_DEFAULT_EVENTS)
    wanted = selection.wanted(_DEFAULT_EVENTS)
    with open_sources(config.attribution, wanted, "auto", RECEIVE_BUFFER_BYTES, named=True) as sources:
        yield make_live_core(sources, procfs, Tallies()), selection, WallClock.now


async def watch(config: WatchConfig) -> bool:
    """Watch until told to stop, or until it is enough.

    Returns:
        False if a capture was damaged, or what was to be printed could not be.

    Raises:
        ConfigError: The capture does not have what is wanted.
        CaptureError: It is none.
        SetupError: It cannot run here.
        KeyboardInterrupt: It was told to stop twice.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    output = Output(stopped.set)

    def stop(number: int, _: object) -> None:
        # On a host that is too busy the rest can take long: who cannot wait for it says so once more.
        signal.signal(number, signal.default_int_handler)
        output.hurry()
        loop.call_soon_threadsafe(stopped.set)

    # Not by the loop: it does not turn while a write waits.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with _counting(config) as (counting, selection, clock):
        screen: Screen
        if config.top:
            now_ns, mode = counting.feed.now_ns, counting.mode
            screen = Top(config.sort, output.write, stopped.set, now_ns=now_ns, clock=clock, mode=mode)
        else:
            screen = Printer(config, clock, output)
        watcher = Watcher(selection, config.count, screen, stopped)
        counting.pipeline.observe(watcher.take)
        sound = await _run(config, counting, watcher, screen, stopped)
    if config.summary:
        output.write(f"{watcher.summary.json_line()}\n" if config.output == "json" else watcher.summary.text())
    if output.problem is not None:
        _LOG.error("cannot write to standard output", extra={"error": output.problem})
    return sound and output.problem is None


async def _run(
    config: WatchConfig, counting: Core, watcher: Watcher, screen: Screen, stopped: asyncio.Event
) -> bool:
    feed = counting.feed
    enough: asyncio.Future[Any] = asyncio.ensure_future(stopped.wait())
    waited_for: list[asyncio.Future[Any]] = [enough, feed.crashed]
    screen.begin()
    try:
        await feed.start()
        _LOG.info("watching", extra={"mode": counting.mode, "events": ",".join(sorted(counting.plan.wanted))})
        if isinstance(feed, Replay):
            waited_for.append(feed.ended)
        elif isinstance(feed, Listener):
            canary = Canary(counting.pipeline, feed, _CANARY_SECONDS, records=counting.has_records)
            waited_for.append(asyncio.ensure_future(canary.run()))
        done, _ = await asyncio.wait(
            waited_for, timeout=config.duration_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        # Raises what a bug raised; of a replay, whether the capture was sound.
        sound = [task.result() for task in done].count(False) == 0
        if enough not in done or not watcher.has_enough:
            await _finish(counting, watcher)
        return sound
    finally:
        for task in waited_for:
            task.cancel()
        feed.stop()
        screen.end()


async def _finish(counting: Core, watcher: Watcher) -> None:
    """Tell what has happened until now and is not known yet."""
    feed, pipeline = counting.feed, counting.pipeline
    if isinstance(feed, Listener):
        watcher.until_ns = time.monotonic_ns()
        for _ in range(_LAST_LOOKS):
            await feed.drain_all()
            if not pipeline.waits:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        feed.count_losses()
    pipeline.lose_track()
