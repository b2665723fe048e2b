"""Wires everything together, runs it, and stops it."""

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from exporter import __version__
from exporter.capture.file import CaptureFile, open_capture
from exporter.config import Config
from exporter.errors import ConfigError
from exporter.exposition.budget import budget
from exporter.exposition.metrics import LIFETIME, program_metrics
from exporter.exposition.scrape import Exposition
from exporter.exposition.self_metrics import Status
from exporter.exposition.snapshot import TallySnapshot
from exporter.failures.keeper import Keeper
from exporter.failures.log import LOGGER as FAILURE_LOGGER
from exporter.feeds import Core, LiveGroups, header_of, make_live_core, make_replay_core
from exporter.kernel.procfs import Procfs
from exporter.kubernetes.access import find_access, is_in_pod
from exporter.kubernetes.pod_names import PodNames
from exporter.kubernetes.pod_watch import PodWatch
from exporter.live.canary import Canary
from exporter.live.crosscheck import ExitCheck
from exporter.live.listener import Listener
from exporter.live.open_sources import open_sources
from exporter.revision import REVISION
from exporter.service.logs import log_all_of
from exporter.service.privileges import User, drop_privileges
from exporter.service.reloading import Reloading
from exporter.service.sd_notify import Notifier
from exporter.service.upkeep import Upkeep
from exporter.stream.endpoint import OTHER_CONNECTIONS, serve_stream
from exporter.stream.hub import Hub, Limits
from exporter.stream.unix_socket import open_stream_socket
from exporter.stream.wall_clock import WallClock
from exporter.tallies.births import Births
from exporter.tallies.expiry import Expiry, GoneGroups
from exporter.tallies.histograms import CLASSIC_BOUNDS
from exporter.tallies.labels import EXCLUDED, group_label_names
from exporter.tallies.native import BOTH_BOUNDS
from exporter.tallies.rules import RulesFile
from exporter.tallies.tallies import Tallies
from exporter.web.deadline import Limits as WebLimits
from exporter.web.descriptors import share_descriptors
from exporter.web.gate import Gate
from exporter.web.listening_sockets import open_web_sockets, socket_name, take_passed_sockets
from exporter.web.pages import make_app
from exporter.web.server import Server

_LOG = logging.getLogger(__name__)

_READY_LOOK_SECONDS = 0.1


class OneByOne(NamedTuple):
    """Where events are shown one by one."""

    hub: Hub | None
    """Streams to local clients, if anybody wants it."""
    failures: Keeper


class Exporter:
    """The running program. Made while an event loop runs.

    Args:
        counting: What it shows.
        procfs: The host's; None for a replay.
        config: What the user set.
        one_by_one: Where events are shown one by one.
        read_rules: Reads the file of rules; None if there is none.
        pods: Follows the names of pods; None if they are not asked for.
    """

    def __init__(
        self,
        counting: Core,
        procfs: Procfs | None,
        config: Config,
        one_by_one: OneByOne,
        *,
        read_rules: Callable[[], RulesFile] | None,
        pods: PodWatch | None,
    ) -> None:
        self._counting = counting
        self._plan = counting.plan
        self._procfs = procfs
        self._hub, self._failures = one_by_one
        self._pods = pods
        self._tallies = counting.tallies
        self._table = counting.table
        self._feed = counting.feed
        self._exposition = Exposition(
            self._snapshot,
            self._status,
            own_process=not config.web.disable_exporter_metrics,
            exemplars=self._failures.exemplars,
        )
        self._shown = program_metrics(self._plan.wanted, records=counting.has_records, live=self._plan.keeps_table)
        self._upkeep = Upkeep(
            self._tallies,
            Expiry(self._tallies, self._table.cells_in_use, config.limits.idle_seconds)
            if config.limits.idle_seconds
            else None,
            lambda: budget(self._snapshot()),
            self._gone_groups(config.limits.gone_seconds),
        )
        self._reloading = None if read_rules is None else Reloading(self._tallies, read_rules)
        self._exit_check = ExitCheck() if self._plan.all_ends and procfs is not None else None
        self._canary: Canary | None = None
        self._ready = False
        self._started = time.monotonic()

    def _gone_groups(self, gone_seconds: float) -> GoneGroups | None:
        grouping = self._table.grouping
        places = grouping.places
        if places is None or not gone_seconds:
            return None
        return GoneGroups(self._tallies, grouping.groups_in_use, places.is_container, places.forget, gone_seconds)

    async def serve(self, config: Config, stopped: asyncio.Event) -> None:
        """Listen and serve until told to stop.

        Args:
            config: What the user set.
            stopped: Set to stop.

        Raises:
            SetupError: It cannot run here.
            ConfigError: The web configuration file is wrong.
        """
        gate = None if config.web.config_file is None else Gate(Path(config.web.config_file))
        app = make_app(
            config.web.telemetry_path,
            self._render,
            self._not_ready,
            config.web.max_requests,
            reload=self._reload if config.web.enable_lifecycle else None,
            facts=self._facts,
            form=self._exposition.form,
            most_bytes=config.limits.client_bytes // 2,
            other_pages=self._failures.pages(self._drain),
        )
        server = Server(app, gate, WebLimits(connections=_connections(config).web))
        notifier = Notifier()
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(stopped.wait()), self._feed.crashed]
        try:
            sockets = (
                take_passed_sockets()
                if config.web.systemd_socket
                else open_web_sockets(config.web.listen_addresses)
            )
            addresses = ",".join(socket_name(sock) for sock in sockets)
            await server.start(sockets)
            self._become(config.privileges.user, gate)
            if self._pods is not None:
                # As the user that the exporter is now: its token has to be readable later too.
                tasks.append(self._pods.start())
            await self._feed.start()
            await self._drain()
            self._ready = True
            # What is here now stays: a full collection amid a storm would look at all of it again, for 20 ms.
            gc.freeze()
            self._log_start(addresses)
            tasks += [asyncio.ensure_future(self._upkeep.run()), asyncio.ensure_future(self._failures.run())]
            if config.events.canary_interval_seconds and isinstance(self._feed, Listener):
                interval, records = config.events.canary_interval_seconds, self._counting.has_records
                self._canary = Canary(self._counting.pipeline, self._feed, interval, records=records)
                tasks.append(asyncio.ensure_future(self._canary.run()))
            if notifier.is_wanted:
                tasks.append(asyncio.ensure_future(self._notify(notifier)))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                # Raises what a bug raised.
                task.result()
            _LOG.info("stopping")
            notifier.send("STOPPING=1")
        finally:
            for task in tasks:
                task.cancel()
            self._feed.stop()
            if self._pods is not None:
                await self._pods.stop()
            await server.stop()

    def _become(self, user: User | None, gate: Gate | None) -> None:
        """Become the user that the exporter runs as, and check what that user can read."""
        if user is not None:
            drop_privileges(user)
            if gate is not None:
                # Every change is read as that user.
                gate.load()
        if self._procfs is not None:
            self._procfs.check()
            if self._exit_check is not None and self._procfs.read_task_totals() is None:
                _LOG.warning("no proc_connector_task_exits_total: /proc lacks stat or loadavg (subset=pid)")

    def reload_soon(self) -> None:
        """Read the rules anew; once for all SIGHUPs that come together, as a large file takes its time."""
        if self._reloading is None:
            _LOG.info("nothing to reload: there is no --config.file")
        else:
            self._reloading.soon()

    async def _reload(self) -> str | None:
        return "there is no --config.file" if self._reloading is None else await self._reloading.reload()

    async def _notify(self, notifier: Notifier) -> None:
        """Tell systemd when the numbers can be trusted, and prove to it for ever that they are counted."""
        while (reason := self._not_ready()) is not None:
            notifier.send(f"STATUS=Not ready: {reason}")
            await asyncio.sleep(_READY_LOOK_SECONDS)
        notifier.send("READY=1")
        while True:
            await self._feed.drain_all()
            reason = self._not_ready()
            notifier.send("WATCHDOG=1", "STATUS=Ready" if reason is None else f"STATUS=Not ready: {reason}")
            await asyncio.sleep(notifier.interval_seconds)

    def _log_start(self, addresses: str) -> None:
        buffers = {f"{name}_buffer_bytes": buffer.limit_bytes for name, buffer in self._feed.buffers().items()}
        fields = {
            "version": __version__,
            "address": addresses,
            "kernel": self._counting.kernel,
            "mode": self._counting.mode,
            "filter": self._counting.filter,
            "exec_names": self._counting.exec_names,
            "events": ",".join(sorted(self._plan.wanted)),
            "processes": sum(self._table.live().values()),
        }
        _LOG.info("listening", extra=fields | buffers)

    async def _render(self, accept: str, names: Collection[str]) -> tuple[str, Iterator[bytes]]:
        await self._drain()
        self._failures.refresh()
        return self._exposition.pieces(accept, names)

    def _facts(self) -> dict[str, str]:
        """Return what the landing page says."""
        return {
            "version": f"{__version__} (revision {REVISION})",
            "kernel": self._counting.kernel,
            "mode": self._counting.mode,
            "filter": self._counting.filter,
            "sources": ", ".join(self._feed.buffers()) or "a capture",
            "events": ", ".join(sorted(self._plan.wanted)),
            "processes": str(sum(self._table.live().values())),
            "up for": str(timedelta(seconds=int(time.monotonic() - self._started))),
        }

    def _not_ready(self) -> str | None:
        if not self._ready:
            return "the processes that already live are being counted"
        return None if self._canary is None else self._canary.problem_now(time.monotonic())

    async def _drain(self) -> None:
        procfs = None if self._exit_check is None else self._procfs
        totals = None if procfs is None else procfs.read_task_totals()
        self._feed.look_at_buffers()
        await self._feed.drain_all()
        if self._exit_check is not None:
            events = self._table.events
            self._exit_check.look(totals, events.exit + events.thread_exit, self._table.canaries.ended)

    def _canary_age(self) -> float | None:
        return None if self._canary is None else self._canary.age_seconds(time.monotonic())

    def _snapshot(self) -> TallySnapshot:
        live = self._table.live()
        live.pop(EXCLUDED, None)
        names = self._tallies.groups.names
        in_groups = None
        if names:
            in_groups = {key: n for key, n in self._table.live_in_groups().items() if key[0] != EXCLUDED}
        return TallySnapshot(
            self._tallies.snapshot_cells(),
            self._tallies.snapshot_programs(),
            live,
            self._shown,
            self._tallies.limit,
            has_native=self._tallies.bounds is BOTH_BOUNDS,
            began_seconds=None if self._tallies.births is None else self._tallies.births.began_seconds,
            group_labels=names,
            live_in_groups=in_groups,
        )

    def _missed(self) -> dict[str, int] | None:
        """Return the events that did not come, of the kinds that records show; None if that is none."""
        table, kinds = self._table, set[str]()
        if self._plan.keeps_table and self._counting.has_records:
            kinds.add("exit")
        if table.sideband.is_active:
            kinds |= {"fork", "exec"}
        return {kind: count for kind, count in table.missed_events.items() if kind in kinds} or None

    def _status(self) -> Status:
        buffers = self._feed.buffers()
        wanted = self._plan.wanted
        return Status(
            events=_only(wanted, asdict(self._table.events)),
            records=self._counting.pipeline.records - self._table.canaries.recorded
            if self._counting.has_records
            else None,
            task_exits=None if self._exit_check is None else self._exit_check.ended,
            pending=_only(wanted, self._table.pending()),
            unattributed=_only(wanted, self._tallies.unattributed()),
            excluded=_only(wanted, self._tallies.excluded()),
            group_unresolved=self._table.grouping.unresolved or None,
            kubernetes_last_sync_seconds=None if self._pods is None else self._pods.last_sync_seconds or 0.0,
            kubernetes_failures=None if self._pods is None else self._pods.failures,
            expired=_only(wanted, self._tallies.expired()),
            reload_successful=None if self._reloading is None else self._reloading.successful,
            reload_timestamp_seconds=None if self._reloading is None else self._reloading.timestamp_seconds,
            unknown_lifetimes=self._table.unknown_lifetimes if LIFETIME in self._shown else None,
            lost_ends=self._table.lost_ends if self._plan.keeps_table else None,
            missed=self._missed(),
            resyncs=self._feed.resyncs,
            resubscriptions=self._feed.resubscriptions,
            failures_left_out=self._failures.left_out(),
            canary_age_seconds=self._canary_age(),
            lost_messages=self._counting.pipeline.lost,
            malformed=self._feed.malformed(),
            drain_ns=self._feed.drain_ns,
            receive_buffer_bytes={name: buffer.limit_bytes for name, buffer in buffers.items()},
            receive_buffer_used_bytes={name: buffer.used_bytes for name, buffer in buffers.items()},
            attribution=(self._counting.mode, self._counting.filter, self._counting.exec_names),
            stream_clients=None if self._hub is None else self._hub.clients,
            stream_dropped=None if self._hub is None else self._hub.dropped,
        )


def _reader_of_rules(path: str | None) -> Callable[[], RulesFile] | None:
    if path is None:
        return None
    from exporter.tallies.rules_file import RulesReader  # noqa: PLC0415 - most do without YAML, and its parser's memory

    return RulesReader(path).read


def _only(wanted: frozenset[str], counts: dict[str, int]) -> dict[str, int]:
    """Leave out the events that the user did not ask for. A non-zero exit arrives as an exit."""
    names = wanted | ({"exit"} if "nonzero_exit" in wanted else set())
    return {name: count for name, count in counts.items() if name in names}


async def run(config: Config) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        ConfigError: A configuration file is wrong.
        SetupError: It cannot run here.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    read_rules = _reader_of_rules(config.names.rules_path)
    tallies = Tallies(
        config.limits.series,
        None if read_rules is None else read_rules().rules,
        births=Births(time.time) if config.web.created_timestamps else None,
        bounds=BOTH_BOUNDS if config.web.native_histograms else CLASSIC_BOUNDS,
        group_labels=group_label_names(config.groups.by),
    )
    pods = _pods(config)
    async with AsyncExitStack() as stack:
        procfs: Procfs | None = None
        clock: Callable[[], WallClock] = WallClock.now
        if config.capture.replay is not None:
            header, file = stack.enter_context(open_capture(config.capture.replay))
            of_then = WallClock(header.wall_ns, header.monotonic_ns)
            clock = lambda: of_then  # noqa: E731 - what the other branch has by name
            counting = make_replay_core(
                header, file, tallies, speed=config.capture.speed, group_by=config.groups.by
            )
        else:
            procfs = Procfs(config.names.procfs_path)
            procfs.check()
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
            tape = None
            if config.capture.file is not None:
                header = header_of(sources, names_pods=pods is not None)
                tape = CaptureFile(config.capture.file, config.capture.max_bytes, header)
                stack.enter_context(closing(tape))
            groups = None
            if config.groups.by:
                look_up = None if pods is None else pods.names.lookup
                groups = LiveGroups(config.groups.by, os.environ.get("POD_UID", ""), look_up)
            counting = make_live_core(sources, procfs, tallies, tape=tape, groups=groups)
        one_by_one = OneByOne(
            await _stream(config, counting, clock, stack), _keep_failures(config, counting, clock)
        )
        exporter = Exporter(counting, procfs, config, one_by_one, read_rules=read_rules, pods=pods)
        loop.add_signal_handler(signal.SIGHUP, exporter.reload_soon)
        await exporter.serve(config, stopped)


def _keep_failures(config: Config, counting: Core, clock: Callable[[], WallClock]) -> Keeper:
    if config.failures.log:
        log_all_of(FAILURE_LOGGER)
    ends = bool(counting.plan.wanted & {"exit", "nonzero_exit"})
    return Keeper(
        counting.pipeline,
        counting.feed.now_ns,
        clock,
        most=config.failures.keep if ends else 0,
        log=config.failures.log and ends,
        exemplars=config.web.exemplars and ends,
    )


def _pods(config: Config) -> PodWatch | None:
    """Return what follows the names of pods; None if they are not asked for, or this is no pod of a cluster.

    Raises:
        ConfigError: What it takes is not set.
    """
    server, node = config.kubernetes.api_server, config.kubernetes.node_name
    files = config.kubernetes.token_file, config.kubernetes.ca_file
    is_set = any((server, node, *files))
    if "pod" not in config.groups.by:
        if is_set:
            raise ConfigError("--kubernetes.* has no effect unless --group.by has pod")
        return None
    if config.capture.replay is not None or not (is_set or is_in_pod(os.environ)):
        return None
    access = find_access(os.environ, api_server=server, token_file=files[0], ca_file=files[1], node_name=node)
    return PodWatch(access, PodNames())


async def _stream(
    config: Config, counting: Core, clock: Callable[[], WallClock], stack: AsyncExitStack
) -> Hub | None:
    """Serve events to local clients until the stack unwinds, if that was asked for."""
    if config.stream.socket is None:
        return None
    connections = _connections(config).stream
    limits = Limits(
        min(config.stream.max_clients, connections),
        config.stream.buffer_bytes,
        config.stream.uids,
        config.limits.client_bytes // 2,
    )
    feed = counting.feed
    hub = Hub(counting.pipeline, counting.plan.wanted, clock, limits, feed.emit_soon, fill=feed.look_at_buffers)
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
