"""The machines that QEMU makes here, and the kernels of the distribution that boot on them."""

from pathlib import Path
from typing import NamedTuple


class Machine(NamedTuple):
    """What a machine is called, and where its two serial ports are."""

    architecture: str
    """As Debian calls it."""
    uname: str
    qemu: str
    package: str
    """Debian's, of that program."""
    compiler: str
    """By the name that it has on each architecture, its own too."""
    options: tuple[str, ...]
    """Of QEMU, besides those that all machines have."""
    words: str
    """Of the kernel's command line, likewise."""
    console: str
    results: str
    results_device: str
    """As what QEMU adds the port for results; a device of the guest's console comes with the machine."""

    def ports(self, console: Path, results: Path) -> list[str]:
        """Return QEMU's options that write the two to these files."""
        device = f"{self.results_device},chardev=results"
        return ["-serial", f"file:{console}", "-chardev", f"file,id=results,path={results}", "-device", device]


class Kernel(NamedTuple):
    """A series of kernels of the distribution."""

    machine: Machine
    title: str
    packages: str
    """A regular expression for their names. Of those that apt knows the newest one is taken."""


AMD64 = Machine(
    architecture="amd64",
    uname="x86_64",
    qemu="qemu-system-x86_64",
    package="qemu-system-x86",
    compiler="x86_64-linux-gnu-gcc",
    options=(),
    # The kernel's check of its timer panics if the host gives the guest no CPU meanwhile.
    words="no_timer_check",
    console="ttyS0",
    results="ttyS1",
    results_device="isa-serial",
)
ARM64 = Machine(
    architecture="arm64",
    uname="aarch64",
    qemu="qemu-system-aarch64",
    package="qemu-system-arm",
    compiler="aarch64-linux-gnu-gcc",
    options=("-machine", "virt", "-cpu", "cortex-a72"),
    words="",
    console="ttyAMA0",
    results="ttyS0",
    results_device="pci-serial",
)

LINUX_6_1 = Kernel(AMD64, "Linux 6.1", r"linux-image-6\.1\.0-[0-9]+-amd64")
# Of Debian's archive of backports for security. That for clouds has the same options in half the size.
LINUX_6_12 = Kernel(AMD64, "Linux 6.12", r"linux-image-6\.12\.[0-9]+\+deb[0-9]+-cloud-amd64")
LINUX_6_12_ARM64 = Kernel(ARM64, "Linux 6.12 for arm64", r"linux-image-6\.12\.[0-9]+\+deb[0-9]+-cloud-arm64")
