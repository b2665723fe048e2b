"""Wires everything together, runs it, and stops it."""

import asyncio
import logging
import os
import platform
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from exporter import __version__
from exporter.canary import Canary
from exporter.comm import EXCLUDED
from exporter.config import Config
from exporter.crosscheck import ExitCheck
from exporter.errors import MalformedMessage
from exporter.expiry import Expiry
from exporter.exposition import LIFETIME, Exposition, Status, TallySnapshot, budget, program_metrics
from exporter.gate import Gate
from exporter.kernel.procfs import Procfs
from exporter.kernel.taskstats import RecordDecoder
from exporter.listener import Listener
from exporter.pipeline import Pipeline
from exporter.privileges import drop_privileges
from exporter.readings import EarlyReader
from exporter.rules import Rules
from exporter.sdnotify import Notifier
from exporter.server import Server, open_web_sockets, socket_name, take_passed_sockets
from exporter.sources import Sources, open_sources
from exporter.table import ProcessTable
from exporter.tally import Tallies
from exporter.upkeep import Upkeep
from exporter.web import make_app

_LOG = logging.getLogger(__name__)

_READY_LOOK_SECONDS = 0.1


class Exporter:
    """The running program. Made while an event loop runs.

    Args:
        sources: What it listens to.
        procfs: The host's.
        config: What the user set.

    Raises:
        ConfigError: The file of rules is broken.
    """

    def __init__(self, sources: Sources, procfs: Procfs, config: Config) -> None:
        self._sources = sources
        self._procfs = procfs
        taskstats = sources.taskstats
        read_rules = None if config.rules_path is None else partial(_read_rules, config.rules_path)
        self._tallies = Tallies(config.series_limit, None if read_rules is None else read_rules())
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
        self._upkeep = Upkeep(
            self._tallies,
            read_rules,
            Expiry(self._tallies, self._table.cells_in_use, config.idle_seconds) if config.idle_seconds else None,
            lambda: budget(self._snapshot()),
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
            SetupError: It cannot run here.
            ConfigError: The web configuration file is wrong.
        """
        gate = None if config.web_config_file is None else Gate(Path(config.web_config_file))
        app = make_app(
            config.telemetry_path,
            self._render,
            self._not_ready,
            config.max_requests,
            self.reload if config.enable_lifecycle else None,
        )
        server = Server(app, gate)
        notifier = Notifier()
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(stopped.wait()), self._listener.crashed]
        try:
            sockets = take_passed_sockets() if config.systemd_socket else open_web_sockets(config.listen_addresses)
            addresses = ",".join(socket_name(sock) for sock in sockets)
            await server.start(sockets)
            if config.user is not None:
                drop_privileges(config.user)
                if gate is not None:
                    # Every change is read as that user.
                    gate.load()
            self._procfs.check()
            await self._listener.start()
            await self._drain()
            self._ready = True
            self._log_start(addresses)
            tasks.append(asyncio.ensure_future(self._upkeep.run()))
            if config.canary_interval_seconds:
                self._canary = Canary(
                    self._table,
                    self._listener,
                    config.canary_interval_seconds,
                    records=self._sources.taskstats is not None,
                )
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
            self._listener.stop()
            await server.stop()

    def reload(self) -> str | None:
        """Read the rules anew; returns what is wrong with them."""
        return self._upkeep.reload()

    async def _notify(self, notifier: Notifier) -> None:
        """Tell systemd when the numbers can be trusted, and prove to it for ever that they are counted."""
        while (reason := self._not_ready()) is not None:
            notifier.send(f"STATUS=Not ready: {reason}")
            await asyncio.sleep(_READY_LOOK_SECONDS)
        notifier.send("READY=1")
        while True:
            await self._listener.drain_all()
            reason = self._not_ready()
            notifier.send("WATCHDOG=1", "STATUS=Ready" if reason is None else f"STATUS=Not ready: {reason}")
            await asyncio.sleep(notifier.interval_seconds)

    def _log_start(self, addresses: str) -> None:
        buffers = {f"{name}_buffer_bytes": buffer.limit_bytes for name, buffer in self._listener.buffers().items()}
        fields = {
            "version": __version__,
            "address": addresses,
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
        return None if self._canary is None else self._canary.problem_now(time.monotonic())

    async def _drain(self) -> None:
        totals = self._procfs.read_task_totals() if self._exit_check is not None else None
        self._listener.look_at_buffers()
        await self._listener.drain_all()
        if self._exit_check is not None:
            events = self._table.events
            self._exit_check.look(totals, events.exit + events.thread_exit, self._table.canaries_ended)

    def _canary_age(self) -> float | None:
        if self._canary is None or self._canary.came_back_at is None:
            return None
        return time.monotonic() - self._canary.came_back_at

    def _snapshot(self) -> TallySnapshot:
        live = self._table.live()
        live.pop(EXCLUDED, None)
        return TallySnapshot(
            self._tallies.cells(), self._tallies.programs(), live, self._shown, self._tallies.limit
        )

    def _status(self) -> Status:
        buffers = self._listener.buffers()
        wanted = self._sources.plan.wanted
        return Status(
            events=_only(wanted, asdict(self._table.events)),
            records=None
            if self._sources.taskstats is None
            else self._pipeline.records - self._table.canaries_recorded,
            task_exits=None if self._exit_check is None else self._exit_check.ended,
            pending=_only(wanted, self._table.pending()),
            unattributed=_only(wanted, self._tallies.unattributed()),
            excluded=_only(wanted, self._tallies.excluded()),
            expired=_only(wanted, self._tallies.expired()),
            reload_successful=self._upkeep.reload_successful,
            reload_timestamp_seconds=self._upkeep.reload_timestamp_seconds,
            unknown_lifetimes=self._table.unknown_lifetimes if LIFETIME in self._shown else None,
            lost_ends=self._table.lost_ends if self._sources.plan.keeps_table else None,
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


def _read_rules(path: str) -> Rules:
    from exporter.rules_file import read_rules  # noqa: PLC0415 - most do without YAML, and its parser's memory

    return read_rules(path)


def _only(wanted: frozenset[str], counts: dict[str, int]) -> dict[str, int]:
    """Leave out the events that nobody asked for. A non-zero exit arrives as an exit."""
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
    procfs = Procfs(config.procfs_path)
    procfs.check()
    with open_sources(config.attribution, config.events, config.filter_by, config.receive_buffer_bytes) as sources:
        exporter = Exporter(sources, procfs, config)
        loop.add_signal_handler(signal.SIGHUP, exporter.reload)
        await exporter.serve(config, stopped)
