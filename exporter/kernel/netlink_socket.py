"""How a netlink socket of the exporter is opened: its receive buffer, its overruns, its filter.

Source: netlink(7), include/uapi/linux/netlink.h, socket(7).
"""

import ctypes
import socket
import struct

from exporter.kernel import bpf

NETLINK_CONNECTOR = 11
NETLINK_GENERIC = 16
_SOL_NETLINK = 270
_NETLINK_NO_ENOBUFS = 5
_SO_RCVBUFFORCE = 33
_SO_ATTACH_FILTER = 26

# The memory is used only while messages wait in it. 64 MiB hold more than 80,000 events: a second of forks as fast
# as 32 CPUs make them.
RECEIVE_BUFFER_BYTES = 64 << 20


def open_netlink(protocol: int, buffer_bytes: int) -> socket.socket:
    """Open a netlink socket that is not bound yet.

    Args:
        protocol: NETLINK_CONNECTOR or NETLINK_GENERIC.
        buffer_bytes: Size of the receive buffer, as the kernel counts it.

    Raises:
        OSError: The kernel's answer.
    """
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, protocol)
    try:
        # Without it one overrun makes the kernel drop everything until the socket is empty. Drops are counted
        # either way.
        sock.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
        # The kernel doubles what is asked for.
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes // 2)
        except PermissionError:
            # Clamped to net.core.rmem_max.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes // 2)
    except OSError:
        sock.close()
        raise
    return sock


def attach_filter(sock: socket.socket, program: bytes) -> None:
    """Attach a classic BPF program (struct sock_fprog) to a socket; it replaces the one before."""
    code = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // bpf.INSTRUCTION_BYTES, ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
