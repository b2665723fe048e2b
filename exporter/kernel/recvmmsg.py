"""Reading a netlink socket in batches.

Source: recvmmsg(2), netlink(7), include/net/sock.h (SK_MEMINFO_*).
"""

import ctypes
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from exporter.kernel.netlink import Batch

_SO_MEMINFO = 55
_SK_MEMINFO = struct.Struct("=9I")


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
        connected: The socket is connected to the kernel, which then refuses what others send to it. So no sender
            is asked for, which is an eighth of what a datagram costs. (A socket that is in a group gets what
            others send to that, connected or not.)

    Attributes:
        slots: As given.
        malformed: Datagrams dropped because they were too long or did not come from the kernel.
    """

    def __init__(self, sock: socket.socket, *, slots: int, stride: int, connected: bool = False) -> None:
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
            if not connected:
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

        Usual is: from the kernel (its port is 0; a program with CAP_NET_ADMIN can send here too), not cut off, and
        all of one length. One comparison of memory then checks a whole batch.
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
