"""Containers of a runtime alone, as an engine starts them: runc and crun, without an image and a network."""

import contextlib
import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_CGROUP2_MAGIC = "cgroup2fs"
_PATIENCE_SECONDS = 60.0
# crun knows pure v2 hosts only. On a hybrid one it gets a view without the v1 hierarchies.
_ONLY_V2 = (
    "unshare", "--mount", "sh", "-c",
    'umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"', "sh",
)  # fmt: skip


def _is_pure_v2() -> bool:
    told = subprocess.run(
        ["stat", "--file-system", "--format=%T", "/sys/fs/cgroup"], capture_output=True, text=True, check=True
    )
    return told.stdout.strip() == _CGROUP2_MAGIC


class Runtime:
    """An OCI runtime, and one folder that all its containers have as root.

    Args:
        name: runc or crun.
        folder: Where the folder is made.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._command = (name,) if name == "runc" or _is_pure_v2() else (*_ONLY_V2, name)
        self._bundle = folder / name
        self.root = self._bundle / "rootfs"
        for directory in ("proc", "dev"):
            (self.root / directory).mkdir(parents=True)

    def add(self, binary: Path, name: str) -> str:
        """Add a program to the containers' root; returns its path there."""
        shutil.copy(binary, self.root / name)
        return f"/{name}"

    def _call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *words],
            cwd=self._bundle,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def _write_config(self, container: str, words: tuple[str, ...], parent: str = "/docker") -> None:
        """Write what the next container runs. Its cgroup is that of a container of Docker's, or below another."""
        config = self._bundle / "config.json"
        config.unlink(missing_ok=True)
        told = self._call("spec")
        assert told.returncode == 0, told.stdout
        spec = json.loads(config.read_text())
        spec["process"] |= {"terminal": False, "args": list(words)}
        spec["mounts"] = [mount for mount in spec["mounts"] if mount["destination"] == "/proc"]
        # Device rules are a BPF program, which takes memory that a test's user need not have.
        spec["linux"].pop("resources", None)
        spec["linux"]["cgroupsPath"] = f"{parent}/{container}"
        config.write_text(json.dumps(spec))

    def run(self, *words: str) -> str:
        """Run a container to its end; returns its id."""
        container = secrets.token_hex(32)
        self._write_config(container, words)
        self._call("run", container)
        return container

    @contextlib.contextmanager
    def running(self, *words: str, parent: str = "/docker") -> Iterator[str]:
        """Run a container in the background, in a cgroup below this one; hands out its id."""
        container = secrets.token_hex(32)
        self._write_config(container, words, parent)
        subprocess.run(
            [*self._command, "run", "--detach", container],
            cwd=self._bundle,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        try:
            yield container
        finally:
            self._call("delete", "--force", container)

    def exec(self, container: str, *words: str) -> str:
        """Run a program in a container to its end; returns what it wrote."""
        return self._call("exec", container, *words).stdout


class Podman:
    """podman with a storage of its own, and one folder that all its containers have as root; as Runtime.

    Args:
        folder: Where its storage is made.
        run_root: Where it keeps what runs.
    """

    def __init__(self, folder: Path, run_root: Path) -> None:
        self._folder = folder / "podman"
        self.root = self._folder / "rootfs"
        self.root.mkdir(parents=True)
        self._command = (
            *("podman", "--root", str(self._folder / "storage"), "--runroot", str(run_root)),
            *("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc"),
            # There need be no journal to which it could write its events.
            *("--events-backend", "file"),
        )
        # podman 4 asks for more files and processes than a container may give.
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")
        self._options = ("--rm", "--network", "none", *limits)

    def add(self, binary: Path, name: str) -> str:
        """Add a program to the containers' root; returns its path there."""
        shutil.copy(binary, self.root / name)
        return f"/{name}"

    def _call(self, *words: str) -> str:
        return subprocess.run(
            [*self._command, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        ).stdout.strip()

    def run(self, *words: str, options: tuple[str, ...] = ()) -> str:
        """Run a container to its end; returns its id."""
        id_file = self._folder / secrets.token_hex(8)
        options = ("--cidfile", str(id_file), *self._options, *options)
        self._call("run", *options, "--rootfs", str(self.root), *words)
        return id_file.read_text()

    @contextlib.contextmanager
    def running(self, *words: str, options: tuple[str, ...] = ()) -> Iterator[str]:
        """Run a container in the background; hands out its id."""
        container = self._call("run", "--detach", *self._options, *options, "--rootfs", str(self.root), *words)
        assert len(container) == 64, container
        try:
            yield container
        finally:
            self._call("rm", "--force", "--time", "0", container)

    def exec(self, container: str, *words: str) -> str:
        """Run a program in a container to its end; returns what it wrote."""
        return self._call("exec", container, *words)

    def rename(self, container: str, name: str) -> None:
        self._call("rename", container, name)

    @contextlib.contextmanager
    def serving(self, socket: Path) -> Iterator[None]:
        """Serve podman's API on a socket."""
        with subprocess.Popen([*self._command, "system", "service", "--time=0", f"unix://{socket}"]) as service:
            try:
                deadline = time.monotonic() + _PATIENCE_SECONDS
                while not socket.exists():
                    assert service.poll() is None, "podman does not serve"
                    assert time.monotonic() < deadline, "podman does not serve"
                    time.sleep(0.05)
                yield
            finally:
                service.terminate()
