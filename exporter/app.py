"""Wires everything together, runs it, and stops it."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import asdict
from typing import Any

from aiohttp import web

from exporter import __version__
from exporter.canary import Canary
from exporter.capturefile import CaptureFile, open_capture
from exporter.config import Config, ListenAddress
from exporter.counting import Counting, count_live, count_replay, header_of
from exporter.crosscheck import ExitCheck
from exporter.errors import MalformedMessage
from exporter.exposition import Exposition, Status, TallySnapshot, program_metrics
from exporter.kernel.procfs import Procfs
from exporter.lines import WallClock
from exporter.listener import Listener
from exporter.privileges import drop_privileges
from exporter.sources import open_sources
from exporter.stream import Hub, Limits, open_stream_socket, serve_stream
from exporter.web import make_app, open_web_sockets

_LOG = logging.getLogger(__name__)

# Scrapers keep their connections open: do not wait for them.
_SHUTDOWN_SECONDS = 0.5


class Exporter:
    """The running program. Made while an event loop runs.

    Args:
        counting: What it shows.
        procfs: The host's; None for a replay.
        hub: Streams to local clients, if anybody wants it.
    """

    def __init__(self, counting: Counting, procfs: Procfs | None, hub: Hub | None) -> None:
        self._counting = counting
        self._plan = counting.plan
        self._procfs = procfs
        self._hub = hub
        self._table = counting.table
        self._feed = counting.feed
        self._exposition = Exposition(self._snapshot, self._status)
        self._shown = program_metrics(self._plan.wanted, records=counting.has_records, live=self._plan.keeps_table)
        self._exit_check = ExitCheck() if self._plan.all_ends and procfs is not None else None
        self._canary: Canary | None = None
        self._ready = False

    async def serve(self, config: Config, stopped: asyncio.Event) -> None:
        """Listen and serve until told to stop.

        Args:
            config: What the user set.
            stopped: Set to stop.

        Raises:
            SetupError: The address cannot be had.
        """
        runner = web.AppRunner(
            make_app(config.telemetry_path, self._render, self._not_ready),
            handle_signals=False,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        await runner.setup()
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(stopped.wait()), self._feed.crashed]
        try:
            for sock in open_web_sockets(config.listen_address):
                await web.SockSite(runner, sock).start()
            if config.user is not None:
                drop_privileges(config.user)
            if self._procfs is not None:
                self._procfs.check()
            await self._feed.start()
            await self._drain()
            self._ready = True
            self._log_start(config.listen_address)
            if config.canary_interval_seconds and isinstance(self._feed, Listener):
                self._canary = Canary(
                    self._table, self._feed, config.canary_interval_seconds, records=self._counting.has_records
                )
                tasks.append(asyncio.ensure_future(self._canary.run()))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                # Raises what a bug raised.
                task.result()
            _LOG.info("stopping")
        finally:
            for task in tasks:
                task.cancel()
            self._feed.stop()
            await runner.cleanup()

    def _log_start(self, address: ListenAddress) -> None:
        buffers = {f"{name}_buffer_bytes": buffer.limit_bytes for name, buffer in self._feed.buffers().items()}
        fields = {
            "version": __version__,
            "address": str(address),
            "kernel": self._counting.kernel,
            "mode": self._counting.mode,
            "filter": self._counting.filter,
            "events": ",".join(sorted(self._plan.wanted)),
            "processes": sum(self._table.live().values()),
        }
        _LOG.info("listening", extra=fields | buffers)

    async def _render(self, accept: str) -> tuple[str, Iterator[bytes]]:
        await self._drain()
        return self._exposition.pieces(accept)

    def _not_ready(self) -> str | None:
        if not self._ready:
            return "the processes that already live are being counted"
        return None if self._canary is None else self._canary.problem

    async def _drain(self) -> None:
        if self._procfs is None or self._exit_check is None:
            await self._feed.drain_all()
        else:
            totals = self._procfs.read_task_totals()
            await self._feed.drain_all()
            events = self._table.events
            seen = events.exit + events.thread_exit + self._table.canaries_ended
            self._exit_check.look(totals, seen)

    def _canary_age(self) -> float | None:
        if self._canary is None or self._canary.came_back_at is None:
            return None
        return time.monotonic() - self._canary.came_back_at

    def _snapshot(self) -> TallySnapshot:
        return TallySnapshot(
            self._counting.tallies.cells(),
            self._counting.tallies.programs(),
            self._table.live(),
            self._shown,
        )

    def _status(self) -> Status:
        buffers = self._feed.buffers()
        wanted = self._plan.wanted
        return Status(
            events=_only(wanted, asdict(self._table.events)),
            records=self._counting.pipeline.records if self._counting.has_records else None,
            task_exits=None if self._exit_check is None else self._exit_check.ended,
            pending=_only(wanted, self._table.pending()),
            unattributed=_only(wanted, self._counting.tallies.unattributed()),
            unknown_lifetimes=self._table.unknown_lifetimes,
            lost_ends=self._table.lost_ends,
            resyncs=self._feed.resyncs,
            resubscriptions=self._feed.resubscriptions,
            canary_age_seconds=self._canary_age(),
            lost_messages=self._counting.pipeline.lost,
            malformed=self._feed.malformed(),
            drain_ns=self._feed.drain_ns,
            receive_buffer_bytes={name: buffer.limit_bytes for name, buffer in buffers.items()},
            receive_buffer_used_bytes={name: buffer.used_bytes for name, buffer in buffers.items()},
            mode=self._counting.mode,
            filter=self._counting.filter,
            stream_clients=None if self._hub is None else self._hub.clients,
            stream_dropped=None if self._hub is None else self._hub.dropped,
        )


def _complain(socket: str, error: MalformedMessage) -> None:
    _LOG.warning("malformed message dropped", extra={"socket": socket, "error": error})


def _only(wanted: frozenset[str], counts: dict[str, int]) -> dict[str, int]:
    """Leave out the events that nobody asked for. A non-zero exit arrives as an exit."""
    names = wanted | ({"exit"} if "nonzero_exit" in wanted else set())
    return {name: count for name, count in counts.items() if name in names}


async def run(config: Config) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        SetupError: It cannot run here.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        if config.replay is not None:
            header, file = stack.enter_context(open_capture(config.replay))
            clock = WallClock(header.wall_ns, header.monotonic_ns)
            counting = count_replay(header, file, _complain, config.speed)
            hub = await _stream(config, counting, lambda: clock, stack)
            await Exporter(counting, None, hub).serve(config, stopped)
            return
        procfs = Procfs(config.procfs_path)
        procfs.check()
        sources = stack.enter_context(
            open_sources(config.attribution, config.events, config.filter_by, config.receive_buffer_bytes)
        )
        tape = None
        if config.capture is not None:
            tape = CaptureFile(config.capture, config.capture_max_bytes, header_of(sources))
            stack.enter_context(closing(tape))
        counting = count_live(sources, procfs, _complain, tape)
        hub = await _stream(config, counting, WallClock.now, stack)
        await Exporter(counting, procfs, hub).serve(config, stopped)


async def _stream(
    config: Config, counting: Counting, clock: Callable[[], WallClock], stack: AsyncExitStack
) -> Hub | None:
    """Serve events to local clients until the stack unwinds, if that was asked for."""
    if config.stream_socket is None:
        return None
    limits = Limits(config.stream_max_clients, config.stream_buffer_bytes, config.stream_uids)
    hub = Hub(counting.table, counting.plan.wanted, clock, limits)
    sock = open_stream_socket(config.stream_socket, config.stream_mode, config.stream_gid)
    await stack.enter_async_context(serve_stream(hub, sock))
    return hub
