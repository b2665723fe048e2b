"""exporter/live/sessions.py: who began a session is caught, and found when it is gone."""

import asyncio
import os
from collections.abc import Iterator
from typing import cast

import builders
import pytest
from live_rig import FakeSocket

from exporter.groups.cgroup_path import NOWHERE, Placement
from exporter.kernel.bpf import EventFilter
from exporter.kernel.connector_socket import Connector
from exporter.live import sessions as module
from exporter.live.placements import Placements
from exporter.live.sessions import SESSIONS, Sessions
from exporter.processes.grouping import Found

MS = 1_000_000
SID_NS = 5 * MS
CONTAINER = Placement("", 64 * "a", "", "")
CRON = Placement("", "", "cron.service", "")


class SidSocket(FakeSocket):
    """A socket whose filter can be narrowed."""

    def __init__(self) -> None:
        super().__init__(256, builders.CONNECTOR_STRIDE)
        self.wanted: list[EventFilter] = []

    def narrow(self, wanted: EventFilter) -> None:
        self.wanted.append(wanted)


class Host:
    """Processes with descriptors, and the sessions of an exporter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, rereads: bool = False) -> None:
        self.now_ns = 10 * MS
        self.socket = SidSocket()
        # Where each is that lives; and what the kernel says of those that are gone.
        self.living: dict[int, Placement] = {}
        self.remembered: dict[int, Placement] = {}
        self.drains = 0
        self._tgids: dict[int, int] = {}
        monkeypatch.setattr(module, "open_pidfd", self._open)
        self.sessions = Sessions(
            cast("Connector", self.socket),
            cast("Placements", self),
            lambda: self.now_ns,
            rereads=rereads,
            drain_soon=self._drain,
        )

    def _drain(self) -> None:
        self.drains += 1

    def _open(self, tgid: int) -> int | None:
        if tgid not in self.living:
            return None
        fd = os.open(os.devnull, os.O_RDONLY)
        self._tgids[fd] = tgid
        return fd

    # What Placements has.

    def learn_of(self, fd: int, tgid: int) -> Placement | None:
        assert self._tgids[fd] == tgid
        return self.read(tgid)

    def of_descriptor(self, fd: int) -> Placement | None:
        os.fstat(fd)
        return self.remembered.get(self._tgids[fd])

    def read(self, tgid: int) -> Placement | None:
        return self.living.get(tgid)

    def begins(self, *tgids: int) -> None:
        """Processes begin sessions, and the source is read."""
        self.socket.datagrams += [builders.sid(tgid=tgid, timestamp_ns=SID_NS) for tgid in tgids]
        self.sessions.read()

    def find(self, tgid: int, execd_ns: int = 0) -> Found | None:
        return self.sessions.find((tgid, SID_NS), execd_ns)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    host = Host(monkeypatch)
    yield host
    host.sessions.close()


def test_a_process_that_is_gone_is_where_the_kernel_says_that_it_was(host: Host) -> None:
    host.living[400] = CRON
    host.begins(400)
    opened_ns = host.now_ns
    del host.living[400]
    host.remembered[400] = CONTAINER
    host.now_ns += MS
    assert host.find(400) == Found(CONTAINER, host.now_ns, opened_ns)
    assert host.drains == 0


def test_another_session_of_the_pid_is_another_process(host: Host) -> None:
    host.living[400] = CRON
    host.begins(400)
    assert host.sessions.find((400, SID_NS + 1), 0) is None
    assert host.sessions.find((401, SID_NS), 0) is None


def test_one_that_lives_is_read_where_the_kernel_does_not_say_it(host: Host) -> None:
    host.living[400] = CRON
    host.begins(400)
    host.living[400] = CONTAINER
    host.now_ns += MS
    assert host.find(400) == Found(CONTAINER, host.now_ns, host.now_ns)


def test_of_one_that_was_gone_already_the_likely_children_are_opened(host: Host) -> None:
    host.living[402] = CONTAINER
    host.begins(400)
    assert host.drains == 1
    del host.living[402]
    host.remembered[402] = CONTAINER
    assert host.find(400) is None
    found = host.find(402)
    assert found is not None
    assert found.placement == CONTAINER


def test_a_reading_before_the_exec_is_early(host: Host) -> None:
    host.living[400] = CRON
    host.begins(400)
    read_ns = host.now_ns
    del host.living[400]
    host.now_ns += MS
    assert host.find(400, execd_ns=read_ns + 1) == Found(CRON, read_ns, read_ns, early=True)
    assert host.find(400, execd_ns=read_ns - 1) == Found(CRON, read_ns, read_ns, early=False)


def test_amid_other_work_it_is_read_each_millisecond(host: Host) -> None:
    host.living[400] = host.living[500] = CRON
    host.begins(400)
    host.socket.datagrams.append(builders.sid(tgid=500, timestamp_ns=SID_NS))
    host.now_ns += MS - 1
    host.sessions.follow()
    assert host.find(500) is None
    host.now_ns += 1
    host.sessions.follow()
    assert host.find(500) == Found(CRON, host.now_ns, host.now_ns)


async def test_without_ids_a_process_is_read_again_until_it_was_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, rereads=True)
    host.living[400] = CRON
    host.living[500] = NOWHERE
    host.begins(400, 500)
    opened_ns = host.now_ns
    host.now_ns += MS
    host.living[400] = CONTAINER
    for _ in range(1000):
        await asyncio.sleep(0.001)
        host.now_ns += MS
        if not host.sessions._rereading:  # noqa: SLF001 - that it ends is seen nowhere else
            break
    del host.living[400], host.living[500]
    found = host.find(400)
    assert found is not None
    assert (found.placement, found.opened_ns, found.early) == (CONTAINER, opened_ns, False)
    # It was given up after a tenth of a second.
    assert host.now_ns - opened_ns < 150 * MS
    host.sessions.close()


def test_the_budget_of_descriptors_is_filled_slowly_and_the_kernel_is_asked_for_no_more(host: Host) -> None:
    host.living |= dict.fromkeys(range(400, 1000), CRON)
    host.begins(*range(400, 700))
    opened = [tgid for tgid in range(400, 700) if host.find(tgid) is not None]
    assert opened == list(range(400, 600))
    assert host.socket.wanted[-1] != SESSIONS
    host.now_ns += 20 * MS
    host.sessions.narrow()
    assert host.socket.wanted[-1] == SESSIONS
    host.begins(700, 701, 702)
    assert [tgid for tgid in (700, 701, 702) if host.find(tgid)] == [700, 701]


def test_descriptors_are_closed_when_they_are_old_or_too_many_or_answered(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.living |= dict.fromkeys(range(400, 500), CRON)
    host.begins(400)
    host.sessions.forget((400, SID_NS))
    assert host.find(400) is None
    host.begins(401)
    host.now_ns += 11_000 * MS
    host.begins(402)
    assert (host.find(401), host.find(402) is not None) == (None, True)
    monkeypatch.setattr(host.sessions, "_most", 3)
    host.begins(403, 404, 405)
    assert [tgid for tgid in range(402, 406) if host.find(tgid)] == [403, 404, 405]
    descriptors = [fd for fd in host._tgids if _is_open(fd)]  # noqa: SLF001 - of this file
    host.sessions.close()
    assert len(descriptors) == 3
    assert not any(map(_is_open, descriptors))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_reading_during_which_the_process_execd_is_early(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter was not run between the reading and its look at the clock: meanwhile the process was moved."""
    read = host.read

    def slow(tgid: int) -> Placement | None:
        placement = read(tgid)
        host.now_ns += 20 * MS
        return placement

    host.living[400] = CRON
    monkeypatch.setattr(host, "read", slow)
    asked_ns = host.now_ns
    host.begins(400)
    del host.living[400]
    found = host.find(400, execd_ns=asked_ns + 10 * MS)
    assert found is not None
    assert found.early
