"""Messages that are not the kernel's: a program with CAP_NET_ADMIN can send them to the exporter's
sockets."""

import socket
import struct
from pathlib import Path

import builders
import pytest
from bench.machine import netlink_sockets, sockets_of
from kernel.harness import Exporter, Programs, World, running

MALFORMED = "proc_connector_malformed_messages_total"
SENT = 50


def portids(exporter: Exporter, protocol: int) -> list[int]:
    """The netlink ports of the exporter's sockets, from /proc/net/netlink."""
    inodes = sockets_of(exporter.process.pid)
    return [row.portid for row in netlink_sockets() if row.inode in inodes and row.protocol == protocol]


def test_messages_of_other_senders_are_refused_or_dropped_and_counted(programs: Programs, tmp_path: Path) -> None:
    with running("taskstats", tmp_path / "log", "--canary.interval", "0") as exporter:
        world = World(exporter, programs)
        program = world.program("real")
        before = exporter.scrape().get(MALFORMED, socket="connector")
        [connector], [taskstats] = portids(exporter, 11), portids(exporter, 16)
        forged = World(exporter, programs)
        forged_comm = forged.program("forged").name.encode()
        with (
            socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 11) as to_connector,
            socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 16) as to_taskstats,
        ):
            for number in range(SENT):
                pid = 4_000_000 + number
                # To the exporter alone, and to all listeners.
                to_connector.sendto(builders.exit_(tgid=pid, exit_code=0x100), (connector, 0))
                to_connector.sendto(builders.fork(parent_tgid=1, child_tgid=pid), (0, 1))
                record = builders.taskstats_datagram(pid=pid, comm=forged_comm, uid=forged.uid, exit_code=0x100)
                (family,) = struct.unpack_from("=4xH", record)
                assert family == builders.FAMILY_ID
                with pytest.raises(ConnectionRefusedError):
                    to_taskstats.sendto(record, (taskstats, 0))
                world.spawn((program, "exit", "3"))
        world.check()
        assert exporter.scrape().get(MALFORMED, socket="connector") - before == 2 * SENT
        # Nothing of what they said was believed: `finish` compares that world, in which nothing happened.
