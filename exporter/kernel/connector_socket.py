"""The socket that subscribes to the process connector, and why it can stay silent.

Source: drivers/connector/cn_proc.c, drivers/connector/connector.c.
"""

import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path

from exporter.errors import ConnectorError, MalformedMessage, SetupError
from exporter.kernel import bpf, cn_proc
from exporter.kernel.netlink import Batch
from exporter.kernel.netlink_socket import NETLINK_CONNECTOR, RECEIVE_BUFFER_BYTES, attach_filter, open_netlink
from exporter.kernel.recvmmsg import Receiver

_SLOTS = 256

_ANSWER_SECONDS = 1.0
# A request is answered before sendto(2) returns: this is only how long a loaded machine may take to run us.
_FIRST_ANSWER_SECONDS = 0.05
# Later the event loop waits meanwhile, and with it every signal; what one try adds, the next goes on from.
_LATER_ANSWER_SECONDS = 0.3
_ROUNDS_PER_BURST = 128
# How often another program may say IGNORE without having said LISTEN before the host falls silent.
_SPARE_LISTENERS = 32
# An operation that the kernel refuses, and remembers as the last one of this socket all the same.
_PROC_CN_REFUSED = 0

# include/uapi/linux/nsfs.h: PID_NS_INIT_INO, USER_NS_INIT_INO; the same numbers since Linux 3.8.
_INIT_PID_NAMESPACE = 0xEFFFFFFC
_INIT_USER_NAMESPACE = 0xEFFFFFFD


class Connector(Receiver):
    """A socket that listens to the process connector.

    Args:
        sock: Not bound yet.
        wanted: Which events.

    Attributes:
        kernel_masks: The kernel takes event masks (Linux 6.6 and later) and applies ours.
        keep: Gets what arrives while an acknowledgement is waited for; None to throw it away.
    """

    def __init__(self, sock: socket.socket, wanted: bpf.EventFilter) -> None:
        super().__init__(sock, slots=_SLOTS, stride=cn_proc.DATAGRAM_BYTES)
        self._wanted = wanted
        self.kernel_masks = False
        self.keep: Callable[[Batch], None] | None = None
        self._listens = False
        # Before bind: a bound socket gets every event if another program on the host listens.
        attach_filter(sock, bpf.event_program(wanted))
        sock.bind((0, cn_proc.CN_IDX_PROC))

    def subscribe(self, filter_by: str, patience_seconds: float = _ANSWER_SECONDS) -> bool:
        """Subscribe, and have it acknowledged. What arrives before that goes to `keep`.

        The kernel counts LISTEN requests minus IGNORE requests of the whole host, and is silent while the sum is
        below 1. Any program can push it there, and far. A second LISTEN of the same socket adds nothing, unless
        another operation came in between, which need not be a valid one: so that makes a round that adds 1.
        This socket counts as many, so that a program which says IGNORE too often silences no listener.

        Args:
            filter_by: kernel (by event mask), bpf (no mask), or auto: by mask if the kernel knows them.
            patience_seconds: How long to try.

        Returns:
            False if the kernel never acknowledged it.

        Raises:
            OSError: The kernel's answer.
        """
        # Not before it was counted, for close() takes it back: before Linux 6.6 from other listeners.
        if filter_by != "bpf" and self._listen(cn_proc.PROC_EVENT_ALL, patience_seconds):
            self._listens = self.kernel_masks = True
            self._send_rounds(cn_proc.PROC_CN_MCAST_LISTEN, cn_proc.PROC_EVENT_ALL, _SPARE_LISTENERS)
            self._send_mask()
            return True
        if filter_by != "kernel" and self._listen(None, patience_seconds):
            self._listens = True
            self._send_rounds(cn_proc.PROC_CN_MCAST_LISTEN, None, _SPARE_LISTENERS)
            return True
        return False

    def resubscribe(self) -> bool:
        """Subscribe again after silence, in the way that worked before."""
        return self.subscribe("kernel" if self.kernel_masks else "bpf", _LATER_ANSWER_SECONDS)

    def _listen(self, mask: int | None, patience_seconds: float) -> bool:
        ack = secrets.randbelow(0x7FFFFFF0) + 1
        self.send(cn_proc.encode_request(cn_proc.PROC_CN_MCAST_LISTEN, ack, mask))
        if self._is_acknowledged(ack, _FIRST_ANSWER_SECONDS):
            return True
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            self._send_rounds(cn_proc.PROC_CN_MCAST_LISTEN, mask, _ROUNDS_PER_BURST, ack)
            if self._is_acknowledged(ack, 0.0):
                return True
        return False

    def _send_rounds(self, op: int, mask: int | None, times: int, ack: int = 0) -> None:
        """Repeat a request so that the kernel counts each time."""
        refused = cn_proc.encode_request(_PROC_CN_REFUSED, 0, mask)
        request = cn_proc.encode_request(op, ack, mask)
        for _ in range(times):
            self.send(refused)
            self.send(request)

    def _is_acknowledged(self, ack: int, seconds: float) -> bool:
        """Read until the acknowledgement comes, or what proves the same: an event of now, to a listener."""
        began_ns = time.monotonic_ns()
        deadline = time.monotonic() + seconds
        while self.wait(deadline):
            for batch in self.iter_batches():
                if self.keep is not None:
                    self.keep(batch)
                if self._answers(batch, ack, began_ns if self._listens else None):
                    return True
                # Before it listens, it can get the events for other listeners: on a busy host without end.
                if not self._listens and time.monotonic() > deadline:
                    return False
        return False

    def _answers(self, batch: Batch, ack: int, proven_ns: int | None) -> bool:
        for index in range(len(batch.lengths)):
            datagram = batch.datagram(index)
            try:
                answer = cn_proc.decode_ack(datagram)
            except MalformedMessage:
                self.malformed += 1
                continue
            if answer is None:
                if proven_ns is not None and cn_proc.decode_proc_event(datagram)[1] > proven_ns:
                    return True
            elif answer.ack == ack + 1:
                if answer.err:
                    raise OSError(answer.err, os.strerror(answer.err))
                return True
        return False

    def _send_mask(self) -> None:
        # No answer follows: a mask other than "all events" filters acknowledgements too.
        self.send(cn_proc.encode_request(cn_proc.PROC_CN_MCAST_LISTEN, 0, self._wanted.mask))

    def narrow(self, wanted: bpf.EventFilter) -> None:
        """Want other events from now on, without a gap."""
        if wanted != self._wanted:
            self._wanted = wanted
            attach_filter(self._sock, bpf.event_program(wanted))
            if self.kernel_masks:
                self._send_mask()

    def close(self) -> None:
        """Close the socket, and let the kernel stop making events if no other program listens.

        It does not notice by itself when a listener dies.
        """
        if self._listens:
            try:
                mask = self._wanted.mask if self.kernel_masks else None
                self._send_rounds(cn_proc.PROC_CN_MCAST_IGNORE, mask, _SPARE_LISTENERS + 1)
            except OSError:
                # No connector is in this network namespace: that is what the caller is about to report.
                pass
        super().close()


def open_connector(
    wanted: bpf.EventFilter, filter_by: str = "auto", *, buffer_bytes: int = RECEIVE_BUFFER_BYTES
) -> Connector:
    """Open a socket and subscribe it to the process connector.

    Args:
        wanted: Which events.
        filter_by: As in Connector.subscribe.
        buffer_bytes: Size of the receive buffer, as the kernel counts it.

    Raises:
        ConnectorError: It cannot be had here.
        SetupError: It cannot be filtered in that way.
    """
    try:
        sock = open_netlink(NETLINK_CONNECTOR, buffer_bytes)
    except PermissionError as error:
        raise ConnectorError(
            f"not permitted to open a netlink socket ({error.strerror}): a seccomp profile or security module "
            "forbids AF_NETLINK; allow it"
        ) from error
    except OSError as error:
        raise ConnectorError(
            f"the kernel has no netlink connector ({error.strerror}): "
            "it needs CONFIG_CONNECTOR=y and CONFIG_PROC_EVENTS=y"
        ) from error
    try:
        connector = Connector(sock, wanted)
    except PermissionError as error:
        sock.close()
        raise ConnectorError(
            "not permitted to listen to the process connector: "
            "run as root or with CAP_NET_ADMIN, or on Linux 6.6 or later, which needs neither"
        ) from error
    except OSError as error:
        sock.close()
        raise ConnectorError(f"cannot bind to the process connector: {error.strerror}") from error
    try:
        acknowledged = connector.subscribe(filter_by)
    except ConnectionRefusedError as error:
        connector.close()
        raise ConnectorError(
            "no answer on the process connector: run in the host's network namespace "
            "(docker --network host, hostNetwork: true), on a kernel with CONFIG_PROC_EVENTS=y"
        ) from error
    except OSError as error:
        connector.close()
        raise ConnectorError(
            f"the kernel refuses to let us listen to the process connector ({error.strerror}): "
            "run as root or with CAP_NET_ADMIN"
        ) from error
    if not acknowledged:
        connector.close()
        raise _why_silent(filter_by)
    return connector


def _why_silent(filter_by: str) -> SetupError:
    """Return an error that says why the kernel did not acknowledge a subscription."""
    for namespace, inode, remedy in (
        ("pid", _INIT_PID_NAMESPACE, "docker --pid host, hostPID: true"),
        ("user", _INIT_USER_NAMESPACE, "without userns-remap, hostUsers: true"),
    ):
        try:
            if Path(f"/proc/self/ns/{namespace}").stat().st_ino != inode:
                return ConnectorError(
                    f"the process connector sends nothing to this {namespace} namespace: "
                    f"run in the host's {namespace} namespace ({remedy})"
                )
        except OSError:
            continue
    if filter_by == "kernel":
        return SetupError("this kernel knows no event masks (Linux 6.6 and later do): use --filter=bpf or auto")
    return ConnectorError(
        "the kernel did not acknowledge the subscription to the process connector: it needs CONFIG_PROC_EVENTS=y, "
        "and no other program on this host may silence all listeners"
    )
