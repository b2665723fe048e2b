"""Boots machines in QEMU, without KVM, and reads what they have to say."""

import contextlib
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kernels import image

# For a guest that hangs. What waits in it for something gives up before, and a busy host slows all of it down: so
# this is how long a guest may be silent, and not how long it may take.
SILENCE_SECONDS = 480.0
_MEMORY_MIB = 1536
_POLL_SECONDS = 0.2


class Guest:
    """One machine, running.

    Args:
        name: Of its command in the initramfs.
        folder: Where its two serial ports are written to.
        kernel: What boots.
        initramfs: What that runs.
        silence_seconds: For how long it may say nothing.
    """

    def __init__(
        self, name: str, folder: Path, kernel: Path, initramfs: Path, silence_seconds: float = SILENCE_SECONDS
    ) -> None:
        self.name = name
        self.console = folder / f"{name}.console"
        self._results = folder / f"{name}.results"
        self._results.touch()
        self._silence_seconds = silence_seconds
        options = {
            "accel": "tcg,thread=multi",
            "smp": "2",
            "m": str(_MEMORY_MIB),
            "display": "none",
            "monitor": "none",
            "kernel": str(kernel),
            "initrd": str(initramfs),
            # A word that the kernel does not know becomes a variable of the first program.
            "append": f"console=ttyS0 quiet panic=-1 guest={name}",
        }
        words = [word for name, value in options.items() for word in (f"-{name}", value)]
        serial = [word for path in (self.console, self._results) for word in ("-serial", f"file:{path}")]
        self._qemu = subprocess.Popen(
            ["qemu-system-x86_64", "-nodefaults", "-no-reboot", *words, *serial], stdin=subprocess.DEVNULL
        )

    def lines(self) -> Iterator[str]:
        """Yield what the guest prints, as it comes, until it has turned itself off or was silent for too long."""
        with self._results.open(encoding="utf-8", errors="backslashreplace") as results:
            begun = ""
            heard = time.monotonic()
            while True:
                runs = self._qemu.poll() is None
                while part := results.readline():
                    begun += part
                    if begun.endswith("\n"):
                        yield begun.rstrip("\r\n")
                        begun = ""
                    heard = time.monotonic()
                if not runs or time.monotonic() > heard + self._silence_seconds:
                    return
                time.sleep(_POLL_SECONDS)

    def last_words(self) -> str:
        """Return the end of the console."""
        return "\n".join(self.console.read_text(encoding="utf-8", errors="backslashreplace").splitlines()[-40:])

    def kill(self) -> None:
        """Turn it off if it did not do that itself."""
        if self._qemu.poll() is None:
            self._qemu.kill()
            self._qemu.wait()


@contextlib.contextmanager
def booted(kernel: Path, commands: Mapping[str, Sequence[str]], folder: Path) -> Iterator[dict[str, Guest]]:
    """Boot a guest for every command, at the same time."""
    initramfs = image.initramfs(commands)
    with contextlib.ExitStack() as stack:
        guests = {}
        for name in commands:
            guests[name] = Guest(name, folder, kernel, initramfs)
            stack.callback(guests[name].kill)
        yield guests
