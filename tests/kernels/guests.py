"""Boots machines in QEMU, without KVM, and reads what they have to say."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from kernels import image
from kernels.machines import Kernel, Machine

# For a guest that hangs. What waits in it for something gives up before, and a busy host slows all of it down: so
# this is how long a guest may be silent, and not how long it may take.
SILENCE_SECONDS = 480.0
_CPUS = 2
_MEMORY_MIB = 1536
_POLL_SECONDS = 0.2
# One waits where the other works.
_GUESTS_AT_ONCE = max(2, (os.cpu_count() or 1) // _CPUS)


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
        self,
        name: str,
        folder: Path,
        kernel: Kernel,
        initramfs: Path,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        machine = kernel.machine
        self.name = name
        self.console = folder / f"{name}.console"
        self._results = folder / f"{name}.results"
        self._results.touch()
        self._silence_seconds = silence_seconds
        options = {
            "accel": "tcg,thread=multi",
            "smp": str(_CPUS),
            "m": str(_MEMORY_MIB),
            "display": "none",
            "monitor": "none",
            "kernel": str(image.vmlinuz(kernel)),
            "initrd": str(initramfs),
            # A word that the kernel does not know becomes a variable of the first program. No attacker is in the
            # guest, and what keeps attackers away from the kernel's memory makes each system call slow to emulate.
            "append": (
                f"console={machine.console} quiet panic=-1 mitigations=off nokaslr {machine.words} "
                f"results={machine.results} guest={name}"
            ),
        }
        words = [word for name, value in options.items() for word in (f"-{name}", value)]
        ports = machine.ports(self.console, self._results)
        self._qemu = subprocess.Popen(
            [machine.qemu, "-nodefaults", "-no-reboot", *machine.options, *words, *ports],
            stdin=subprocess.DEVNULL,
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

    def wait(self) -> None:
        """Wait until it has turned itself off, or is killed."""
        self._qemu.wait()

    def kill(self) -> None:
        """Turn it off if it did not do that itself."""
        if self._qemu.poll() is None:
            self._qemu.kill()
            self._qemu.wait()


class Plan(NamedTuple):
    """What a guest boots, and what it then runs."""

    kernel: Kernel
    command: tuple[str, ...]


class Fleet:
    """Guests that run beside each other, the first ones first. Where there are too many, others wait for an end.

    Args:
        plans: By the guest's name.
        folder: Where they write to.
    """

    def __init__(self, plans: Mapping[str, Plan], folder: Path) -> None:
        self._plans = plans
        self._folder = folder
        self._is_over = threading.Event()
        self._booted: dict[str, Future[Guest]] = {name: Future() for name in plans}
        self._guests: list[Guest] = []
        self._archives: dict[Machine, Path] = {}
        self._makes = threading.Lock()
        self._pool = ThreadPoolExecutor(_GUESTS_AT_ONCE)
        for name in plans:
            self._pool.submit(self._run, name)

    def guest(self, name: str) -> Guest:
        """Return a guest when it has its turn."""
        return self._booted[name].result()

    def _run(self, name: str) -> None:
        try:
            guest = self._boot(name)
        except BaseException as error:  # noqa: BLE001 - it is raised where the guest is asked for
            self._booted[name].set_exception(error)
            return
        self._booted[name].set_result(guest)
        guest.wait()

    def _boot(self, name: str) -> Guest:
        kernel = self._plans[name].kernel
        with self._makes:
            if self._is_over.is_set():
                raise RuntimeError("its turn never came")
            if kernel.machine not in self._archives:
                commands = {
                    name: plan.command
                    for name, plan in self._plans.items()
                    if plan.kernel.machine == kernel.machine
                }
                self._archives[kernel.machine] = image.initramfs(kernel.machine, commands)
            initramfs = self._archives[kernel.machine]
            self._guests.append(Guest(name, self._folder, kernel, initramfs))
            return self._guests[-1]

    def close(self) -> None:
        """Turn all of them off."""
        self._is_over.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._makes:
            for guest in self._guests:
                guest.kill()
        self._pool.shutdown()


@contextlib.contextmanager
def booted(plans: Mapping[str, Plan], folder: Path) -> Iterator[Fleet]:
    """Boot all guests, and turn them off in the end."""
    fleet = Fleet(plans, folder)
    try:
        yield fleet
    finally:
        fleet.close()
