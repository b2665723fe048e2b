"""The netlink sockets: the only file that opens one.

A `Receiver` reads datagrams in batches by recvmmsg(2) and tells how full its socket is and what was lost.
`open_connector` subscribes one to the process connector, `open_taskstats` registers one for exit records.

Source: netlink(7), recvmmsg(2), include/uapi/linux/netlink.h, include/net/sock.h (SK_MEMINFO_*).
"""

import ctypes
import errno
import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from exporter.errors import MalformedMessage, SetupError
from exporter.kernel import cn_proc, netlink, taskstats
from exporter.kernel.netlink import NLMSG_ERROR, Batch

NETLINK_CONNECTOR = 11
NETLINK_GENERIC = 16
_SOL_NETLINK = 270
_NETLINK_NO_ENOBUFS = 5
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_SK_MEMINFO = struct.Struct("=9I")

# The kernel doubles what is asked for; the memory is used only while messages wait in it. 64 MiB hold more than
# 80,000 events: a second of forks as fast as 32 CPUs make them.
RECEIVE_BUFFER_BYTES = 32 << 20

# Room for a record with both aggregates of a struct taskstats twice as long as today's.
_TASKSTATS_STRIDE = 2560
_CONNECTOR_SLOTS = 256
_TASKSTATS_SLOTS = 64

_ANSWER_SECONDS = 1.0


class _Iovec(ctypes.Structure):
    _fields_ = (("iov_base", ctypes.c_void_p), ("iov_len", ctypes.c_size_t))


class _SockaddrNl(ctypes.Structure):
    _fields_ = (
        ("nl_family", ctypes.c_ushort),
        ("nl_pad", ctypes.c_ushort),
        ("nl_pid", ctypes.c_uint32),
        ("nl_groups", ctypes.c_uint32),
    )


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("msg_name", ctypes.c_void_p),
        ("msg_namelen", ctypes.c_uint32),
        ("msg_iov", ctypes.POINTER(_Iovec)),
        ("msg_iovlen", ctypes.c_size_t),
        ("msg_control", ctypes.c_void_p),
        ("msg_controllen", ctypes.c_size_t),
        ("msg_flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("msg_hdr", _Msghdr), ("msg_len", ctypes.c_uint32))


_HEADER_BYTES = ctypes.sizeof(_Mmsghdr)
_NAME_BYTES = ctypes.sizeof(_SockaddrNl)
# A batch of so many datagrams of one form makes it the usual one; so does the first batch of all.
_ENOUGH_TO_LEARN = 8

_libc = ctypes.CDLL(None, use_errno=True)


class Meminfo(NamedTuple):
    """The state of a socket's receive buffer (SO_MEMINFO)."""

    used_bytes: int
    limit_bytes: int
    drops: int
    """Messages lost since the socket was opened: exact, filtered ones are not among them."""


class Receiver:
    """A netlink socket that is read in batches.

    Args:
        sock: Opened and configured; closed by close().
        slots: Datagrams that one batch can hold.
        stride: Bytes kept for each. A longer datagram is malformed.

    Attributes:
        slots: As given.
        malformed: Datagrams dropped because they were too long or did not come from the kernel.
    """

    def __init__(self, sock: socket.socket, *, slots: int, stride: int) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self.slots = slots
        self._stride = stride
        self.malformed = 0
        self._emptied = False
        self._buffer = ctypes.create_string_buffer(slots * stride)
        self._data = memoryview(self._buffer).cast("B")
        names = (_SockaddrNl * slots)()
        iovecs = (_Iovec * slots)()
        self._headers = (_Mmsghdr * slots)()
        for i in range(slots):
            iovecs[i].iov_base = ctypes.addressof(self._buffer) + i * stride
            iovecs[i].iov_len = stride
            header = self._headers[i].msg_hdr
            header.msg_name = ctypes.addressof(names) + i * ctypes.sizeof(_SockaddrNl)
            header.msg_namelen = ctypes.sizeof(_SockaddrNl)
            header.msg_iov = ctypes.pointer(iovecs[i])
            header.msg_iovlen = 1
        self._iovecs = iovecs
        self._names = names
        self._headers_bytes = memoryview(self._headers).cast("B")
        self._names_bytes = memoryview(names).cast("B")
        # What recvmmsg leaves there when all is as usual: see _look_closer.
        self._usual_headers = b""
        self._usual_names = b""
        self._usual_lengths: list[int] = []

    def fileno(self) -> int:
        """The descriptor, for an event loop."""
        return self._fd

    def receive(self) -> Batch | None:
        """Read what is there, without waiting.

        Returns:
            A batch that is valid until the next call, or None when the socket is empty. A batch can have no
            datagrams left when all that were read were malformed.

        Raises:
            OSError: Anything but "nothing there".
        """
        count = _libc.recvmmsg(self._fd, self._headers, self.slots, socket.MSG_DONTWAIT, None)
        if count < 0:
            error = ctypes.get_errno()
            # ENOBUFS is off where the kernel knows NETLINK_NO_ENOBUFS; where it does not, SO_MEMINFO counts.
            if error in (errno.EAGAIN, errno.EINTR, errno.ENOBUFS):
                return None
            raise OSError(error, os.strerror(error))
        self._emptied = count < self.slots
        if self._usual_headers.startswith(
            bytes(self._headers_bytes[: count * _HEADER_BYTES])
        ) and self._usual_names.startswith(bytes(self._names_bytes[: count * _NAME_BYTES])):
            return Batch(self._data, self._stride, self._usual_lengths[:count])
        return self._look_closer(count)

    def _look_closer(self, count: int) -> Batch:
        """Check each datagram of a batch that is not as usual, or the first of its kind.

        Usual is: from the kernel (its port is 0; whoever has CAP_NET_ADMIN can send here too), not cut off, and
        all of one length. One comparison of memory then tells for a whole batch.
        """
        lengths = [self._headers[i].msg_len for i in range(count)]
        sound = [
            self._names[i].nl_pid == 0 and not self._headers[i].msg_hdr.msg_flags & socket.MSG_TRUNC
            for i in range(count)
        ]
        batch = Batch(self._data, self._stride, lengths)
        if not all(sound):
            kept = [batch.datagram(i) for i in range(count) if sound[i]]
            self.malformed += count - len(kept)
            return Batch.of(kept, self._stride)
        if lengths.count(lengths[0]) == count and (count >= _ENOUGH_TO_LEARN or not self._usual_lengths):
            for i in range(count, self.slots):
                self._headers[i].msg_len = lengths[0]
                self._headers[i].msg_hdr.msg_flags = self._headers[0].msg_hdr.msg_flags
                ctypes.memmove(ctypes.addressof(self._names[i]), self._names, _NAME_BYTES)
            self._usual_headers = bytes(self._headers_bytes)
            self._usual_names = bytes(self._names_bytes)
            self._usual_lengths = [lengths[0]] * self.slots
        return batch

    def iter_batches(self) -> Iterator[Batch]:
        """Read batch after batch until the socket is empty."""
        while (batch := self.receive()) is not None:
            yield batch
            # A read that did not fill all slots emptied the socket: no system call just to hear EAGAIN.
            if self._emptied:
                return

    def meminfo(self) -> Meminfo:
        """Ask how full the socket is and what it lost."""
        values = _SK_MEMINFO.unpack(self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _SK_MEMINFO.size))
        return Meminfo(used_bytes=values[0], limit_bytes=values[1], drops=values[8])

    def send(self, message: bytes) -> None:
        """Send a request to the kernel."""
        self._sock.sendto(message, (0, 0))

    def wait(self, deadline: float) -> bool:
        """Wait until there is something to read; False when time.monotonic() passed the deadline."""
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        return bool(poller.poll(max(0.0, deadline - time.monotonic()) * 1000))

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


def _open_netlink(protocol: int) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, protocol)
    try:
        # Without it one overrun makes the kernel drop everything until the socket is empty. Drops are counted
        # either way.
        sock.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        except PermissionError:
            # Clamped to net.core.rmem_max.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    except OSError:
        sock.close()
        raise
    return sock


class Connector(Receiver):
    """A socket that listens to the process connector."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, slots=_CONNECTOR_SLOTS, stride=cn_proc.DATAGRAM_BYTES)
        self._listens = False
        self._mask = cn_proc.PROC_EVENT_ALL

    def listen(self) -> bool:
        """Subscribe to every event; True once the kernel acknowledged it, False if it never did.

        Events that arrive before the acknowledgement are thrown away: whoever calls scans /proc afterwards.
        """
        ack = secrets.randbelow(0x7FFFFFFF) + 1
        self.send(cn_proc.encode_request(cn_proc.PROC_CN_MCAST_LISTEN, ack))
        self._listens = True
        deadline = time.monotonic() + _ANSWER_SECONDS
        while self.wait(deadline):
            for batch in self.iter_batches():
                for index in range(len(batch.lengths)):
                    try:
                        answer = cn_proc.decode_ack(batch.datagram(index))
                    except MalformedMessage:
                        self.malformed += 1
                        continue
                    if answer is not None and answer.ack == ack + 1:
                        if answer.err:
                            raise OSError(answer.err, os.strerror(answer.err))
                        return True
        return False

    def narrow(self, mask: int) -> None:
        """Ask for some events only (Linux 6.6 and later; older kernels ignore it). No answer follows."""
        if mask != self._mask:
            self.send(cn_proc.encode_request(cn_proc.PROC_CN_MCAST_LISTEN, 0, mask))
            self._mask = mask

    def close(self) -> None:
        """Close the socket, and let the kernel stop making events if nobody else listens.

        The kernel counts LISTEN requests of the whole host and does not notice when a listener dies.
        """
        if self._listens:
            self.send(cn_proc.encode_request(cn_proc.PROC_CN_MCAST_IGNORE, 0))
        super().close()


def open_connector() -> Connector:
    """Open a socket and subscribe it to all events of the process connector.

    Raises:
        SetupError: It cannot be had here.
    """
    try:
        sock = _open_netlink(NETLINK_CONNECTOR)
    except OSError as error:
        raise SetupError(
            f"the kernel has no netlink connector ({error.strerror}): "
            "it needs CONFIG_CONNECTOR=y and CONFIG_PROC_EVENTS=y"
        ) from error
    connector = Connector(sock)
    try:
        sock.bind((0, cn_proc.CN_IDX_PROC))
        acknowledged = connector.listen()
    except PermissionError as error:
        connector.close()
        raise SetupError(
            "not permitted to listen to the process connector: "
            "run as root or with CAP_NET_ADMIN, or on Linux 6.6 or later, which needs neither"
        ) from error
    except ConnectionRefusedError as error:
        connector.close()
        raise SetupError(
            "nobody answers on the process connector: run in the host's network namespace "
            "(docker --network host, hostNetwork: true), on a kernel with CONFIG_PROC_EVENTS=y"
        ) from error
    except OSError as error:
        connector.close()
        raise SetupError(f"cannot listen to the process connector: {error.strerror}") from error
    if not acknowledged:
        connector.close()
        raise SetupError(
            "the kernel did not acknowledge the subscription to the process connector: run in the host's pid and "
            "user namespaces (docker --pid host, hostPID: true)"
        )
    return connector


class Taskstats(Receiver):
    """A socket that receives exit records.

    Attributes:
        family_id: The nlmsg_type of records.
        version: That of their struct taskstats.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, slots=_TASKSTATS_SLOTS, stride=_TASKSTATS_STRIDE)
        self.family_id = 0
        self.version = 0

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
        decoder.decode(self._ask(lambda seq: taskstats.encode_get(family_id, seq, os.getpid())))
        self._ask(lambda seq: taskstats.encode_register(family_id, seq, cpus))
        self.family_id = family_id
        self.version = decoder.version

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


def open_taskstats(cpus: str) -> Taskstats:
    """Open a socket and register it for the exit records of these CPUs.

    Args:
        cpus: All possible CPUs, as in /sys/devices/system/cpu/possible.

    Raises:
        SetupError: It cannot be had here.
    """
    try:
        sock = _open_netlink(NETLINK_GENERIC)
    except OSError as error:
        raise SetupError(f"cannot open a generic netlink socket: {error.strerror}") from error
    receiver = Taskstats(sock)
    try:
        sock.bind((0, 0))
        receiver.register(cpus)
    except PermissionError as error:
        receiver.close()
        raise SetupError("taskstats needs CAP_NET_ADMIN: run as root or with that capability") from error
    except FileNotFoundError as error:
        receiver.close()
        raise SetupError("the kernel has no taskstats: it needs CONFIG_TASKSTATS=y") from error
    except (OSError, MalformedMessage) as error:
        receiver.close()
        raise SetupError(f"cannot register for taskstats: {error}; run in the host's pid namespace") from error
    return receiver
