"""Tells systemd how the service is: sd_notify(3), without its library."""

import os
import socket
from collections.abc import Mapping

# Where there is no watchdog: for the status.
_INTERVAL_SECONDS = 15.0


class Notifier:
    """Sends states to whoever started this process, if that wants to know.

    Args:
        environment: Where systemd has left its wishes.

    Attributes:
        interval_seconds: How often to say WATCHDOG=1: twice as often as systemd wants it.
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
        """Whether anybody listens."""
        return bool(self._address)

    def send(self, *states: str) -> None:
        """Send states like READY=1; a service runs as well when nobody hears them."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                # It must not hold up the exporter.
                sock.setblocking(False)
                sock.sendto("\n".join(states).encode(), self._address)
        except OSError:
            pass
