"""Runs `proc-connector-exporter watch`: prints events as they happen."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

from exporter.capture.file import open_capture
from exporter.capture.replay import Replay
from exporter.errors import ConfigError
from exporter.feeds import Core, LiveGroups, make_live_core, make_replay_core
from exporter.kernel.netlink_socket import RECEIVE_BUFFER_BYTES
from exporter.kernel.procfs import Procfs
from exporter.kubernetes.access import find_access, is_in_pod
from exporter.kubernetes.pod_names import PodNames
from exporter.kubernetes.pod_watch import PodWatch
from exporter.live.canary import Canary
from exporter.live.listener import Listener
from exporter.live.oom_sources import open_oom_source
from exporter.live.open_sources import open_sources
from exporter.live.placing import Names
from exporter.plan import ENDS
from exporter.processes.open_names import READING_SETTLES_NS
from exporter.runtimes.container_names import ContainerNames
from exporter.runtimes.container_watch import ContainerWatch
from exporter.stream.selection import Selection, unavailable
from exporter.stream.wall_clock import WallClock
from exporter.tallies.labels import group_label_names
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


class _Watched(NamedTuple):
    """What is watched."""

    counting: Core
    selection: Selection
    clock: Callable[[], WallClock]
    names: tuple[PodWatch | ContainerWatch, ...] = ()
    """Follow names of pods and containers."""


@contextmanager
def _counting(config: WatchConfig) -> Iterator[_Watched]:
    tallies = Tallies(group_labels=group_label_names(config.groups))
    if config.replay is not None:
        with open_capture(config.replay) as (header, file):
            selection = config.selection.with_default(header.events & _DEFAULT_OF_CAPTURES or header.events)
            if missing := unavailable(selection, header.events):
                raise ConfigError(f"--events: the capture has none of {', '.join(missing)}")
            if config.groups and not header.groups:
                raise ConfigError("--replay: the capture does not say where processes ran")
            clock = WallClock(header.wall_ns, header.monotonic_ns)
            core = make_replay_core(header, file, tallies, speed=config.speed, group_by=config.groups)
            yield _Watched(core, selection, lambda: clock)
        return
    procfs = Procfs(config.procfs_path)
    procfs.check()
    selection = config.selection.with_default(_DEFAULT_EVENTS)
    wanted = selection.wanted(_DEFAULT_EVENTS)
    pods, containers = _pods(config), _containers(config)
    groups = None
    if config.groups:
        names = Names(
            None if pods is None else pods.names.lookup, None if containers is None else containers.names.lookup
        )
        groups = LiveGroups(config.groups, os.environ.get("POD_UID", ""), names)
    with (
        open_oom_source("auto" if wanted & ENDS else "off", procfs, becomes_other=False) as oom,
        open_sources(
            config.attribution, wanted, "auto", RECEIVE_BUFFER_BYTES, named=True, grouped=groups is not None
        ) as sources,
    ):
        core = make_live_core(sources, procfs, tallies, groups=groups, oom=oom)
        followed = tuple(each for each in (pods, containers) if each is not None)
        yield _Watched(core, selection, WallClock.now, followed)


def _pods(config: WatchConfig) -> PodWatch | None:
    """Return what follows the names of pods; None if they are not asked for, or cannot be known here.

    Raises:
        ConfigError: A filter needs them.
    """
    if "pod" in config.groups and is_in_pod(os.environ):
        return PodWatch(find_access(os.environ), PodNames())
    for name, _ in config.selection.groups:
        if name in {"namespace", "pod"}:
            raise ConfigError(
                f"--{name} can match nothing here: names of pods are known in a pod of the cluster that has "
                "NODE_NAME and may list pods; --container takes the short id of a container, or its name with "
                "--containers.socket"
            )
    return None


def _containers(config: WatchConfig) -> ContainerWatch | None:
    path = config.containers_socket
    return None if path is None else ContainerWatch(str(path), ContainerNames())


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
    with _counting(config) as (counting, selection, clock, names):
        screen: Screen
        if config.top:
            now_ns, mode = counting.feed.now_ns, counting.mode
            screen = TopScreen(
                config.sort,
                output.write,
                stopped.set,
                now_ns=now_ns,
                clock=clock,
                mode=mode,
                grouped=bool(config.groups),
            )
        else:
            screen = Printer(config, clock, output)
        watcher = Watcher(selection, config.count, screen, stopped)
        counting.pipeline.observe(watcher.take)
        async with _followed(names) as following:
            ends = [asyncio.ensure_future(stopped.wait()), *following]
            sound = await _run(config, counting, watcher, screen, ends)
    if config.summary:
        output.write(f"{watcher.summary.json_line()}\n" if config.output == "json" else watcher.summary.text())
    if output.problem is not None:
        _LOG.error("cannot write to standard output", extra={"error": output.problem})
    return sound and output.problem is None


@asynccontextmanager
async def _followed(names: Sequence[PodWatch | ContainerWatch]) -> AsyncIterator[list[asyncio.Future[Any]]]:
    """Follow the names of pods and containers while the block runs."""
    following: list[asyncio.Future[Any]] = [each.start() for each in names]
    try:
        yield following
    finally:
        for each in names:
            await each.stop()


async def _run(
    config: WatchConfig, counting: Core, watcher: Watcher, screen: Screen, ends: list[asyncio.Future[Any]]
) -> bool:
    """Print events until one of the futures is done, of which the first says that there are enough."""
    feed, enough = counting.feed, ends[0]
    waited_for: list[asyncio.Future[Any]] = [*ends, feed.crashed]
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
