"""Wires everything together, runs it, and stops it."""

import asyncio
import logging
import os
import platform
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from aiohttp import web

from exporter import __version__
from exporter.canary import Canary
from exporter.config import Config, ListenAddress
from exporter.crosscheck import ExitCheck
from exporter.errors import MalformedMessage
from exporter.exposition import Exposition, Status, TallySnapshot, program_metrics
from exporter.kernel.procfs import Procfs
from exporter.kernel.taskstats import RecordDecoder
from exporter.listener import Listener
from exporter.pipeline import Pipeline
from exporter.privileges import drop_privileges
from exporter.readings import EarlyReader
from exporter.sources import Sources, open_sources
from exporter.table import ProcessTable
from exporter.tally import Tallies
from exporter.web import make_app, open_web_sockets

_LOG = logging.getLogger(__name__)

# Scrapers keep their connections open: do not wait for them.
_SHUTDOWN_SECONDS = 0.5


class Exporter:
    """The running program. Made while an event loop runs.

    Args:
        sources: What it listens to.
        procfs: The host's.
    """

    def __init__(self, sources: Sources, procfs: Procfs) -> None:
        self._sources = sources
        self._procfs = procfs
        taskstats = sources.taskstats
        self._tallies = Tallies()
        self._table = ProcessTable(
            self._tallies,
            procfs.read_comm,
            time.monotonic_ns,
            records_end_processes=sources.records_end_processes,
            own_tgid=os.getpid(),
            keeps=sources.plan.keeps_table,
            failures_only=sources.plan.failures_only and taskstats is not None,
        )
        decoder = None if taskstats is None else RecordDecoder(taskstats.family_id)
        early = None if sources.names is None else EarlyReader(procfs.read_comm, time.monotonic_ns)
        self._pipeline = Pipeline(self._table, decoder, _complain)
        self._listener = Listener(sources, early, self._pipeline, procfs)
        self._exposition = Exposition(self._snapshot, self._status)
        self._shown = program_metrics(
            sources.plan.wanted, records=taskstats is not None, live=sources.plan.keeps_table
        )
        self._exit_check = ExitCheck() if sources.plan.all_ends else None
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
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(stopped.wait()), self._listener.crashed]
        try:
            for sock in open_web_sockets(config.listen_address):
                await web.SockSite(runner, sock).start()
            if config.user is not None:
                drop_privileges(config.user)
            self._procfs.check()
            await self._listener.start()
            await self._drain()
            self._ready = True
            self._log_start(config.listen_address)
            if config.canary_interval_seconds:
                self._canary = Canary(
                    self._table,
                    self._listener,
                    config.canary_interval_seconds,
                    records=self._sources.taskstats is not None,
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
            self._listener.stop()
            await runner.cleanup()

    def _log_start(self, address: ListenAddress) -> None:
        buffers = {f"{name}_buffer_bytes": buffer.limit_bytes for name, buffer in self._listener.buffers().items()}
        fields = {
            "version": __version__,
            "address": str(address),
            "kernel": platform.release(),
            "mode": self._sources.mode,
            "filter": self._sources.filter,
            "events": ",".join(sorted(self._sources.plan.wanted)),
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
        totals = self._procfs.read_task_totals() if self._exit_check is not None else None
        await self._listener.drain_all()
        if self._exit_check is not None:
            events = self._table.events
            seen = events.exit + events.thread_exit + self._table.canaries_ended
            self._exit_check.look(totals, seen)

    def _canary_age(self) -> float | None:
        if self._canary is None or self._canary.came_back_at is None:
            return None
        return time.monotonic() - self._canary.came_back_at

    def _snapshot(self) -> TallySnapshot:
        return TallySnapshot(
            self._tallies.cells(),
            self._tallies.programs(),
            self._table.live(),
            self._shown,
        )

    def _status(self) -> Status:
        buffers = self._listener.buffers()
        wanted = self._sources.plan.wanted
        return Status(
            events=_only(wanted, asdict(self._table.events)),
            records=None if self._sources.taskstats is None else self._pipeline.records,
            task_exits=None if self._exit_check is None else self._exit_check.ended,
            pending=_only(wanted, self._table.pending()),
            unattributed=_only(wanted, self._tallies.unattributed()),
            unknown_lifetimes=self._table.unknown_lifetimes,
            lost_ends=self._table.lost_ends,
            resyncs=self._listener.resyncs,
            resubscriptions=self._listener.resubscriptions,
            canary_age_seconds=self._canary_age(),
            lost_messages={name: buffer.drops for name, buffer in buffers.items()},
            malformed=self._listener.malformed(),
            drain_ns=self._listener.drain_ns,
            receive_buffer_bytes={name: buffer.limit_bytes for name, buffer in buffers.items()},
            receive_buffer_used_bytes={name: buffer.used_bytes for name, buffer in buffers.items()},
            mode=self._sources.mode,
            filter=self._sources.filter,
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
    procfs = Procfs(config.procfs_path)
    procfs.check()
    with open_sources(config.attribution, config.events, config.filter_by, config.receive_buffer_bytes) as sources:
        await Exporter(sources, procfs).serve(config, stopped)
