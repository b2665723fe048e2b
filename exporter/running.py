"""The running program: listens, serves, keeps systemd informed, and stops."""

import asyncio
import gc
import logging
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from exporter import __version__
from exporter.config import Config
from exporter.exposition.budget import budget
from exporter.exposition.scrape import Exposition
from exporter.feeds import Core, count_for
from exporter.kernel.procfs import Procfs
from exporter.live.canary import Canary
from exporter.live.listener import Listener
from exporter.report import Helpers, Report
from exporter.service.privileges import User, drop_privileges
from exporter.service.sd_notify import Notifier
from exporter.service.upkeep import Upkeep
from exporter.tallies.expiry import Expiry, GoneGroups
from exporter.web.deadline import Limits
from exporter.web.gate import Gate
from exporter.web.listening_sockets import open_web_sockets, socket_name, take_passed_sockets
from exporter.web.pages import make_app
from exporter.web.server import Server

_LOG = logging.getLogger(__name__)

_READY_LOOK_SECONDS = 0.1
# The sockets of the kernel are open by then: no event is missed meanwhile.
_CONTAINERS_TRIED_SECONDS = 2.0
# A scrape waits so long at most for what has happened before it to be counted. In a flood that can take as long as
# the flood lasts, and Prometheus gives up after ten seconds.
_COUNTED_WITHIN_SECONDS = 3.0


class Exporter:
    """The running program. Made while an event loop runs.

    Args:
        core: What it shows.
        procfs: The host's; None for a replay.
        config: What the user set.
        helpers: What runs beside the core.
        connections: How many connections the web server may have.
    """

    def __init__(
        self, core: Core, procfs: Procfs | None, config: Config, helpers: Helpers, connections: int
    ) -> None:
        self._core = core
        self._procfs = procfs
        self._config = config
        self._helpers = helpers
        self._connections = connections
        self._feed = core.feed
        self._report = Report(core, helpers, self._canary_age)
        self._exposition = Exposition(
            self._report.snapshot,
            self._report.status,
            own_process=not config.web.disable_exporter_metrics,
            exemplars=helpers.failures.exemplars,
        )
        self._upkeep = self._make_upkeep()
        self._canary: Canary | None = None
        self._ready = False

    def _make_upkeep(self) -> Upkeep:
        limits, tallies, table = self._config.limits, self._core.tallies, self._core.table
        expiry = Expiry(tallies, table.cells_in_use, limits.idle_seconds) if limits.idle_seconds else None
        places, gone = table.grouping.places, None
        if places is not None and limits.gone_seconds:
            in_use = table.grouping.groups_in_use
            gone = GoneGroups(tallies, in_use, places.is_container, places.forget, limits.gone_seconds)
        return Upkeep(tallies, expiry, lambda: budget(self._report.snapshot()), gone)

    async def serve(self, stopped: asyncio.Event) -> None:
        """Listen and serve until told to stop.

        Args:
            stopped: Set to stop.

        Raises:
            SetupError: It cannot run here.
            ConfigError: The web configuration file is wrong.
        """
        config, pods, containers = self._config, self._helpers.pods, self._helpers.containers
        gate = None if config.web.config_file is None else Gate(Path(config.web.config_file))
        server = self._make_server(gate)
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
            if containers is not None:
                # As the user that the exporter still is: to open that socket is a great privilege.
                tasks.append(containers.start())
                await containers.tried(_CONTAINERS_TRIED_SECONDS)
            self._become(config.privileges.user, gate)
            if pods is not None:
                # As the user that the exporter is now: its token has to be readable later too.
                tasks.append(pods.start())
            await self._feed.start()
            await self._drain()
            self._ready = True
            # What is here now stays: a full collection amid a storm would look at all of it again, for 20 ms.
            gc.freeze()
            _LOG.info(
                "listening", extra={"version": __version__, "address": addresses, **self._report.first_line()}
            )
            tasks += self._start_tasks(notifier)
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
            for names in (pods, containers):
                if names is not None:
                    await names.stop()
            await server.stop()

    def _make_server(self, gate: Gate | None) -> Server:
        config = self._config
        app = make_app(
            config.web.telemetry_path,
            self._render,
            self._not_ready,
            config.web.max_requests,
            reload=self._reload if config.web.enable_lifecycle else None,
            subject=self._report.subject(),
            facts=self._report.facts,
            form=self._exposition.form,
            most_bytes=config.limits.client_bytes // 2,
            other_pages=self._helpers.failures.pages(self._drain),
        )
        return Server(app, gate, Limits(connections=self._connections))

    def _start_tasks(self, notifier: Notifier) -> list[asyncio.Future[Any]]:
        """Start what goes on for ever."""
        endless = [self._upkeep.run(), self._helpers.failures.run()]
        interval = self._config.events.canary_interval_seconds
        if interval and isinstance(self._feed, Listener):
            self._canary = Canary(self._core.pipeline, self._feed, interval, records=self._core.has_records)
            endless.append(self._canary.run())
        if notifier.is_wanted:
            endless.append(self._notify(notifier))
        return [asyncio.ensure_future(task) for task in endless]

    def _become(self, user: User | None, gate: Gate | None) -> None:
        """Become the user that the exporter runs as, and check what that user can read."""
        if user is not None:
            drop_privileges(user)
            if gate is not None:
                # Every change is read as that user.
                gate.load()
        if self._procfs is not None:
            self._procfs.check()
            if self._helpers.exit_check is not None and self._procfs.read_task_totals() is None:
                _LOG.warning("no proc_connector_task_exits_total: /proc lacks stat or loadavg (subset=pid)")

    def reload_soon(self) -> None:
        """Read the rules anew; once for all SIGHUPs that come together, as a large file takes its time."""
        if self._helpers.reloading is None:
            _LOG.info("nothing to reload: there is no --config.file")
        else:
            self._helpers.reloading.soon()

    async def _reload(self) -> str | None:
        reloading = self._helpers.reloading
        return "there is no --config.file" if reloading is None else await reloading.reload()

    async def _notify(self, notifier: Notifier) -> None:
        """Tell systemd when the numbers can be trusted, and prove to it for ever that they are counted."""
        while (reason := self._not_ready()) is not None:
            notifier.send(f"STATUS=Not ready: {reason}")
            await asyncio.sleep(_READY_LOOK_SECONDS)
        notifier.send("READY=1")
        while True:
            await count_for(self._feed, _COUNTED_WITHIN_SECONDS)
            reason = self._not_ready()
            notifier.send("WATCHDOG=1", "STATUS=Ready" if reason is None else f"STATUS=Not ready: {reason}")
            await asyncio.sleep(notifier.interval_seconds)

    async def _render(self, accept: str, names: Collection[str]) -> tuple[str, Iterator[bytes]]:
        await self._drain()
        self._helpers.failures.refresh()
        return self._exposition.pieces(accept, names)

    def _not_ready(self) -> str | None:
        if not self._ready:
            return "the processes that already live are being counted"
        return None if self._canary is None else self._canary.problem_now(time.monotonic())

    async def _drain(self) -> None:
        check = self._helpers.exit_check
        # Read before the events that it is compared with.
        totals = None if check is None or self._procfs is None else self._procfs.read_task_totals()
        self._feed.look_at_buffers()
        is_complete = await count_for(self._feed, _COUNTED_WITHIN_SECONDS)
        if check is not None and is_complete:
            table = self._core.table
            check.look(totals, table.events.exit + table.events.thread_exit, table.canaries.ended)

    def _canary_age(self) -> float | None:
        return None if self._canary is None else self._canary.age_seconds(time.monotonic())
