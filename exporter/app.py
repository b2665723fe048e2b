"""Puts everything together as the user asked for it, and runs it."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import NamedTuple

from exporter.capture.file import CaptureFile, open_capture
from exporter.config import Config
from exporter.errors import ConfigError
from exporter.failures.keeper import Keeper
from exporter.failures.log import LOGGER as FAILURE_LOGGER
from exporter.feeds import Core, LiveGroups, header_of, make_live_core, make_replay_core
from exporter.kernel.procfs import Procfs
from exporter.kubernetes.access import find_access, is_in_pod
from exporter.kubernetes.pod_names import PodNames
from exporter.kubernetes.pod_watch import PodWatch
from exporter.live.crosscheck import ExitCheck
from exporter.live.oom_sources import open_oom_source
from exporter.live.open_sources import open_sources
from exporter.live.placing import Names
from exporter.plan import ENDS
from exporter.report import Helpers
from exporter.running import Exporter
from exporter.runtimes.container_names import ContainerNames
from exporter.runtimes.container_watch import ContainerWatch
from exporter.service.logs import log_all_of
from exporter.service.reloading import Reloading
from exporter.stream.endpoint import OTHER_CONNECTIONS, serve_stream
from exporter.stream.hub import Hub, Limits
from exporter.stream.unix_socket import open_stream_socket
from exporter.stream.wall_clock import WallClock
from exporter.tallies.births import Births
from exporter.tallies.histograms import CLASSIC_BOUNDS
from exporter.tallies.labels import group_label_names
from exporter.tallies.native import BOTH_BOUNDS
from exporter.tallies.rules import RulesFile
from exporter.tallies.tallies import Tallies
from exporter.web.deadline import Limits as WebLimits
from exporter.web.descriptors import share_descriptors


def _reader_of_rules(path: str | None, labels: tuple[str, ...]) -> Callable[[], RulesFile] | None:
    if path is None:
        return None
    from exporter.tallies.rules_file import RulesReader  # noqa: PLC0415 - most do without YAML, and its parser's memory

    return RulesReader(path, labels).read


async def run(config: Config) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        ConfigError: A configuration file is wrong.
        SetupError: It cannot run here.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # It has every signal wake the loop.
        loop.add_signal_handler(number, stopped.set)
        _handle(number, stopped.set)
    # What wakes it is a socket, which many signals can fill; Python would print a traceback for each further one.
    signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
    # The rules are about to be read.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    group_labels = group_label_names(config.groups.by)
    read_rules = _reader_of_rules(config.names.rules_path, group_labels)
    tallies = Tallies(
        config.limits.series,
        None if read_rules is None else read_rules().rules,
        births=Births(time.time) if config.web.created_timestamps else None,
        bounds=BOTH_BOUNDS if config.web.native_histograms else CLASSIC_BOUNDS,
        group_labels=group_labels,
        group_histograms=config.groups.histograms,
    )
    pods, containers = _pods(config), _containers(config)
    names = Names(
        None if pods is None else pods.names.lookup, None if containers is None else containers.names.lookup
    )
    async with AsyncExitStack() as stack:
        counting = (
            _count_events(config, tallies, names, stack)
            if config.capture.replay is None
            else _count_capture(config, config.capture.replay, tallies, stack)
        )
        core, procfs, _ = counting
        connections = _connections(config)
        hub = await _stream(config, counting, stack, connections.stream)
        helpers = Helpers(
            failures=_keep_failures(config, counting),
            hub=hub,
            pods=pods,
            containers=containers,
            reloading=None if read_rules is None else Reloading(tallies, read_rules),
            exit_check=ExitCheck() if core.plan.all_ends and procfs is not None else None,
        )
        exporter = Exporter(core, procfs, config, helpers, connections.web)
        _handle(signal.SIGHUP, exporter.reload_soon)
        stack.callback(signal.signal, signal.SIGHUP, signal.SIG_IGN)
        await exporter.serve(stopped)


def _handle(number: signal.Signals, act: Callable[[], object]) -> None:
    """Act on a signal, in a turn of the event loop.

    A handler of the loop's own learns from that socket which signals came: where it is full, one is lost, SIGTERM
    too. And it ends with the loop: a SIGHUP would then end the program.
    """
    loop = asyncio.get_running_loop()

    def handle(*_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(act)

    signal.signal(number, handle)


class _Counting(NamedTuple):
    """What counts."""

    core: Core
    procfs: Procfs | None
    """The host's; None for a replay."""
    clock: Callable[[], WallClock]
    """Returns the clock of the host where the events happen."""


def _count_events(config: Config, tallies: Tallies, names: Names, stack: AsyncExitStack) -> _Counting:
    """Count the events of this host, until the stack unwinds."""
    procfs = Procfs(config.names.procfs_path)
    procfs.check()
    # Before the connector: no end is missed of those that are chosen already.
    oom = stack.enter_context(
        open_oom_source(
            config.names.oom_kills if config.events.wanted & ENDS else "off",
            procfs,
            becomes_other=config.privileges.user is not None,
        )
    )
    sources = stack.enter_context(
        open_sources(
            config.names.attribution,
            config.events.wanted,
            config.events.filter_by,
            config.events.receive_buffer_bytes,
            exec_names=config.names.exec_names,
            grouped=bool(config.groups.by),
        )
    )
    oom.log_choice()
    tape = None
    if config.capture.file is not None:
        header = header_of(sources, names=names, oom=oom.name)
        tape = stack.enter_context(closing(CaptureFile(config.capture.file, config.capture.max_bytes, header)))
    groups = None
    if config.groups.by:
        groups = LiveGroups(config.groups.by, os.environ.get("POD_UID", ""), names)
    core = make_live_core(sources, procfs, tallies, tape=tape, groups=groups, oom=oom)
    return _Counting(core, procfs, WallClock.now)


def _count_capture(config: Config, path: Path, tallies: Tallies, stack: AsyncExitStack) -> _Counting:
    """Count the events of a capture, which is open until the stack unwinds."""
    header, file = stack.enter_context(open_capture(path))
    of_then = WallClock(header.wall_ns, header.monotonic_ns)
    core = make_replay_core(header, file, tallies, speed=config.capture.speed, group_by=config.groups.by)
    return _Counting(core, None, lambda: of_then)


def _keep_failures(config: Config, counting: _Counting) -> Keeper:
    if config.failures.log:
        log_all_of(FAILURE_LOGGER)
    core = counting.core
    ends = core.plan.has_ends
    return Keeper(
        core.pipeline,
        core.feed.now_ns,
        counting.clock,
        most=config.failures.keep if ends else 0,
        log=config.failures.log and ends,
        exemplars=config.web.exemplars and ends,
        labels=core.tallies.groups.names,
    )


def _pods(config: Config) -> PodWatch | None:
    """Return what follows the names of pods; None if they are not asked for, or this is no pod of a cluster.

    Raises:
        ConfigError: What it takes is not set.
    """
    server, node = config.kubernetes.api_server, config.kubernetes.node_name
    files = config.kubernetes.token_file, config.kubernetes.ca_file
    names = "--kubernetes.api-server", "--kubernetes.node-name", "--kubernetes.token-file", "--kubernetes.ca-file"
    set_flags = [name for name, value in zip(names, (server, node, *files), strict=True) if value]
    if "pod" not in config.groups.by:
        if set_flags:
            raise ConfigError(f"{set_flags[0]} has no effect unless --group.by has pod")
        return None
    if config.capture.replay is not None or not (set_flags or is_in_pod(os.environ)):
        return None
    access = find_access(os.environ, api_server=server, token_file=files[0], ca_file=files[1], node_name=node)
    return PodWatch(access, PodNames())


def _containers(config: Config) -> ContainerWatch | None:
    """Return what follows the names of containers; None if they are not asked for.

    Raises:
        ConfigError: They have no effect.
    """
    path = config.containers.socket
    if path is None:
        return None
    if "pod" not in config.groups.by:
        raise ConfigError("--containers.socket has no effect unless --group.by has pod")
    return ContainerWatch(str(path), ContainerNames())


async def _stream(config: Config, counting: _Counting, stack: AsyncExitStack, connections: int) -> Hub | None:
    """Serve events to local clients until the stack unwinds, if that was asked for."""
    if config.stream.socket is None:
        return None
    limits = Limits(
        min(config.stream.max_clients, connections),
        config.stream.buffer_bytes,
        config.stream.uids,
        config.limits.client_bytes // 2,
    )
    core, feed = counting.core, counting.core.feed
    hub = Hub(
        core.pipeline,
        core.plan.wanted,
        counting.clock,
        limits,
        feed.emit_soon,
        fill=feed.look_at_buffers,
        labels=core.tallies.groups.names,
    )
    sock = open_stream_socket(
        config.stream.socket,
        config.stream.mode,
        config.stream.gid,
        None if config.privileges.user is None else config.privileges.user.uid,
    )
    await stack.enter_async_context(serve_stream(hub, sock, connections))
    return hub


class _Connections(NamedTuple):
    """How many connections each server may have."""

    web: int
    stream: int


def _connections(config: Config) -> _Connections:
    stream = 0 if config.stream.socket is None else config.stream.max_clients + OTHER_CONNECTIONS
    return _Connections(*share_descriptors([WebLimits().connections, stream]))
