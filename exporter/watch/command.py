"""Runs `proc-connector-exporter watch`: prints events as they happen."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from exporter.capture.file import open_capture
from exporter.capture.replay import Replay
from exporter.errors import ConfigError
from exporter.feeds import Core, make_live_core, make_replay_core
from exporter.kernel.netlink_socket import RECEIVE_BUFFER_BYTES
from exporter.kernel.procfs import Procfs
from exporter.live.canary import Canary
from exporter.live.listener import Listener
from exporter.live.open_sources import open_sources
from exporter.processes.open_names import READING_SETTLES_NS
from exporter.stream.selection import Selection, unavailable
from exporter.stream.wall_clock import WallClock
from exporter.tallies.tallies import Tallies
from exporter.watch.flags import WatchConfig
from exporter.watch.output import Output
from exporter.watch.printer import Printer
from exporter.watch.top_screen import TopScreen
from exporter.watch.watcher import Screen, Watcher

_LOG = logging.getLogger(__name__)

# The events that are shown without --events. A capture can have nonzero_exit as its only kind of end.
_DEFAULT_EVENTS = frozenset({"fork", "exec", "exit", "coredump"})
_DEFAULT_OF_CAPTURES = _DEFAULT_EVENTS | {"nonzero_exit"}

_CANARY_SECONDS = 15.0
# A name that was read in /proc at the end is certain after a settling time and a drain, or after two of each if a
# child inherits the name.
_LAST_LOOKS = 4
_LOOK_SECONDS = 1.1 * READING_SETTLES_NS / 1e9


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
    """Print events until a signal, or until --count, --duration or the capture ends.

    Returns:
        False if the capture was damaged, or if standard output could not be written.

    Raises:
        ConfigError: The capture does not have the events that --events asks for.
        CaptureError: The file is not a capture.
        SetupError: This host does not let the exporter receive events.
        KeyboardInterrupt: A second SIGINT or SIGTERM came.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    output = Output(stopped.set)

    def stop(number: int, _: object) -> None:
        # On an overloaded host the pending events can take long: a second signal ends the program at once.
        signal.signal(number, signal.default_int_handler)
        output.hurry()
        loop.call_soon_threadsafe(stopped.set)

    # The handlers are not the event loop's: the loop does not run while a write waits for the reader.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with _counting(config) as (counting, selection, clock):
        screen: Screen
        if config.top:
            now_ns, mode = counting.feed.now_ns, counting.mode
            screen = TopScreen(config.sort, output.write, stopped.set, now_ns=now_ns, clock=clock, mode=mode)
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
        # result() raises the exception of a task that failed. Of a replay it is whether the capture was sound.
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
    """Emit the events that have happened until now and are not emitted yet."""
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
