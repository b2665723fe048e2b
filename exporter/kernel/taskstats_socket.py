"""The socket that registers for the exit records of taskstats.

Source: Documentation/accounting/taskstats.rst, kernel/taskstats.c.
"""

import errno
import os
import secrets
import socket
import time
from collections.abc import Callable

from exporter.errors import MalformedMessage, SetupError
from exporter.kernel import bpf, netlink, taskstats
from exporter.kernel.netlink import NLMSG_ERROR
from exporter.kernel.netlink_socket import NETLINK_GENERIC, RECEIVE_BUFFER_BYTES, attach_filter, open_netlink
from exporter.kernel.recvmmsg import Receiver
from exporter.kernel.taskstats import AGROUP_SINCE_VERSION

# Room for a record with both aggregates of a struct taskstats twice as long as today's.
_STRIDE = 2560
_SLOTS = 256

_ANSWER_SECONDS = 1.0


class Taskstats(Receiver):
    """A socket that receives exit records.

    Attributes:
        family_id: The nlmsg_type of records.
        version: That of their struct taskstats.
        stats_offset: Where that begins in a record's datagram, in bytes.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, slots=_SLOTS, stride=_STRIDE, connected=True)
        self.family_id = 0
        self.version = 0
        self.stats_offset = 0

    def keep_failed_only(self) -> None:
        """Let only the records of processes that failed through: see bpf.failure_program."""
        attach_filter(self._sock, bpf.failure_program(self.version, self.stats_offset))

    def keep_ends_only(self) -> None:
        """Let only the records of leaders and last threads through, from the version on that has these."""
        if self.version >= AGROUP_SINCE_VERSION:
            attach_filter(self._sock, bpf.end_program(self.version, self.stats_offset))

    def register(self, cpus: str) -> None:
        """Look up the family and the version of its records, and ask for those of these CPUs.

        Raises:
            OSError: The kernel's answer; ENOENT where it has no taskstats.
            MalformedMessage: Its answer makes no sense.
        """
        family_id = taskstats.decode_family_id(
            netlink.decode_message(self._ask(taskstats.encode_get_family)).payload
        )
        decoder = taskstats.RecordDecoder(family_id)
        own, tgid = decoder.decode(self._ask(lambda seq: taskstats.encode_get(family_id, seq, os.getpid())))
        if own[0] != tgid:
            # A version that moved its fields, as version 15 did.
            raise MalformedMessage(f"ac_tgid of struct taskstats v{decoder.version}", own[0], tgid)
        self._ask(lambda seq: taskstats.encode_register(family_id, seq, cpus))
        self.family_id = family_id
        self.version = decoder.version
        self.stats_offset = decoder.stats_offset

    def _ask(self, encode: Callable[[int], bytes]) -> bytes:
        seq = secrets.randbelow(0x7FFFFFFF) + 1
        self.send(encode(seq))
        deadline = time.monotonic() + _ANSWER_SECONDS
        while self.wait(deadline):
            for batch in self.iter_batches():
                for index in range(len(batch.lengths)):
                    datagram = batch.datagram(index)
                    message = netlink.decode_message(datagram)
                    if message.seq != seq:
                        continue
                    if message.type == NLMSG_ERROR and (error := netlink.decode_error(message.payload)):
                        raise OSError(error, os.strerror(error))
                    return datagram
        raise TimeoutError(errno.ETIMEDOUT, "taskstats did not answer")


def open_taskstats(cpus: str, *, buffer_bytes: int = RECEIVE_BUFFER_BYTES) -> Taskstats:
    """Open a socket and register it for the exit records of these CPUs.

    Args:
        cpus: All possible CPUs, as in /sys/devices/system/cpu/possible.
        buffer_bytes: Size of the receive buffer, as the kernel counts it.

    Raises:
        SetupError: It cannot be had here.
    """
    try:
        sock = open_netlink(NETLINK_GENERIC, buffer_bytes)
    except OSError as error:
        raise SetupError(f"cannot open a generic netlink socket: {error.strerror}") from error
    receiver = Taskstats(sock)
    try:
        # Binds it too. What another program sends before that is done is read, and dropped, by register.
        sock.connect((0, 0))
        receiver.register(cpus)
    except PermissionError as error:
        receiver.close()
        raise SetupError("taskstats needs CAP_NET_ADMIN: run as root or with that capability") from error
    except FileNotFoundError as error:
        receiver.close()
        raise SetupError("the kernel has no taskstats: it needs CONFIG_TASKSTATS=y") from error
    except MalformedMessage as error:
        receiver.close()
        raise SetupError(f"cannot read this kernel's exit records: {error}") from error
    except OSError as error:
        receiver.close()
        raise SetupError(f"cannot register for taskstats: {error}; run in the host's pid namespace") from error
    return receiver
