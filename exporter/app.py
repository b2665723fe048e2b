"""Wires everything together, runs it, and stops it."""

import asyncio
import logging
import platform
import signal
import time
from collections.abc import Iterator

from aiohttp import web

from exporter import __version__
from exporter.config import Config, ListenAddress
from exporter.errors import MalformedMessage, SetupError
from exporter.exposition import Exposition, Status, TallySnapshot
from exporter.kernel.procfs import Procfs
from exporter.kernel.taskstats import AGROUP_SINCE_VERSION, RecordDecoder
from exporter.listener import Listener
from exporter.logs import LogLimiter
from exporter.pipeline import Pipeline
from exporter.readings import EarlyReader
from exporter.sources import Sources, open_sources
from exporter.table import ProcessTable
from exporter.tally import Tallies
from exporter.web import make_app

_LOG = logging.getLogger(__name__)

# Scrapers keep their connections open: do not wait for them.
_SHUTDOWN_SECONDS = 0.5

# Every event is delivered: nobody filters.
_FILTER = "none"


class Exporter:
    """The running program. Made while an event loop runs.

    Args:
        sources: What it listens to.
        procfs: The host's.
    """

    def __init__(self, sources: Sources, procfs: Procfs) -> None:
        self._sources = sources
        taskstats = sources.taskstats
        self._tallies = Tallies()
        self._table = ProcessTable(
            self._tallies,
            procfs.read_comm,
            time.monotonic_ns,
            records_end_processes=taskstats is not None and taskstats.version >= AGROUP_SINCE_VERSION,
        )
        decoder = None if taskstats is None else RecordDecoder(taskstats.family_id)
        early = None if sources.names is None else EarlyReader(procfs.read_comm, time.monotonic_ns)
        self._listener = Listener(sources, early, Pipeline(self._table, decoder, self._complain), procfs)
        self._exposition = Exposition(self._snapshot, self._status)
        self._limiter = LogLimiter()
        self._ready = False

    async def serve(self, address: ListenAddress, telemetry_path: str, stopped: asyncio.Event) -> None:
        """Listen and serve until told to stop.

        Args:
            address: Where to serve.
            telemetry_path: Path of the metrics.
            stopped: Set to stop.

        Raises:
            SetupError: The address cannot be had.
        """
        runner = web.AppRunner(
            make_app(telemetry_path, self._render, self._not_ready),
            handle_signals=False,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, address.host, address.port).start()
            except OSError as error:
                raise SetupError(
                    f"cannot listen on {address}: {error.strerror}; choose another --web.listen-address"
                ) from error
            await self._listener.start()
            self._ready = True
            self._log_start(address)
            waiting = asyncio.ensure_future(stopped.wait())
            await asyncio.wait((waiting, self._listener.crashed), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if self._listener.crashed.done():
                await self._listener.crashed
            _LOG.info("stopping")
        finally:
            self._listener.stop()
            await runner.cleanup()

    def _log_start(self, address: ListenAddress) -> None:
        buffers = {f"{name}_buffer_bytes": buffer.limit_bytes for name, buffer in self._listener.buffers().items()}
        fields = {
            "version": __version__,
            "address": str(address),
            "kernel": platform.release(),
            "mode": self._sources.mode,
            "filter": _FILTER,
            "processes": sum(self._table.live().values()),
        }
        _LOG.info("listening", extra=fields | buffers)

    async def _render(self, accept: str) -> tuple[str, Iterator[bytes]]:
        await self._listener.drain_all()
        return self._exposition.pieces(accept)

    def _not_ready(self) -> str | None:
        return None if self._ready else "the processes that already live are being counted"

    def _complain(self, socket: str, error: MalformedMessage) -> None:
        if self._limiter.allows("malformed", time.monotonic()):
            _LOG.warning("malformed message dropped", extra={"socket": socket, "error": error})

    def _snapshot(self) -> TallySnapshot:
        return TallySnapshot(
            self._tallies.cells(),
            self._tallies.programs(),
            self._table.live(),
            records=self._sources.taskstats is not None,
        )

    def _status(self) -> Status:
        buffers = self._listener.buffers()
        return Status(
            events=self._table.events.snapshot(),
            pending=self._table.pending(),
            unattributed=self._tallies.unattributed(),
            unknown_lifetimes=self._table.unknown_lifetimes,
            lost_ends=self._table.lost_ends,
            resyncs=self._listener.resyncs,
            lost_messages={name: buffer.drops for name, buffer in buffers.items()},
            malformed=self._listener.malformed(),
            drain_ns=self._listener.drain_ns,
            receive_buffer_bytes={name: buffer.limit_bytes for name, buffer in buffers.items()},
            receive_buffer_used_bytes={name: buffer.used_bytes for name, buffer in buffers.items()},
            mode=self._sources.mode,
            filter=_FILTER,
        )


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
    with open_sources(config.attribution) as sources:
        await Exporter(sources, procfs).serve(config.listen_address, config.telemetry_path, stopped)
