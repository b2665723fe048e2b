"""Sends the state of the service to systemd: sd_notify(3), without its library."""

import os
import socket
from collections.abc import Mapping

# How often the status is sent where there is no watchdog.
_INTERVAL_SECONDS = 15.0


class Notifier:
    """Sends states to systemd, if systemd started this process and asks for them.

    Args:
        environment: Has NOTIFY_SOCKET and WATCHDOG_USEC if systemd asks for states.

    Attributes:
        interval_seconds: How often to send WATCHDOG=1: twice in the time that systemd allows.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        # An abstract socket is written with @, and begins with a zero byte.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        watchdog_usec = environment.get("WATCHDOG_USEC", "")
        usec = int(watchdog_usec) if watchdog_usec.isdecimal() else 0
        self.interval_seconds = usec / 2e6 if usec else _INTERVAL_SECONDS

    @property
    def is_wanted(self) -> bool:
        """Whether systemd asks for states."""
        return bool(self._address)

    def send(self, *states: str) -> None:
        """Send states like READY=1. Errors are ignored: the service works without a listener."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                # A full socket buffer must not hold up the exporter.
                sock.setblocking(False)
                sock.sendto("\n".join(states).encode(), self._address)
        except OSError:
            pass
