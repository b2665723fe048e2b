"""The exporter as it is run where it is attacked: TLS, a password, the stream, rules, and the chart's memory."""

import contextlib
import gzip
import http.client
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from attack.cpu_cgroup import cpu_cgroup
from attack.memory_cgroup import MemoryCgroup, memory_cgroup
from attack.program import limits_of_memory_mib
from kernel.harness import DEADLINE_SECONDS, Exporter, Response, ask_over, wait_until
from serving import Authority, basic, hash_password
from soak.attacks import RENAMES, RULES

_PASSWORD = "long and secret"  # noqa: S105
# The web server's connections and those of the stream, and what else one look can meet.
MOST_DESCRIPTORS = 256 + 80 + 40


class Attacked(Exporter):
    """An exporter that lets one user in.

    Args:
        folder: For its files.
        cgroup: Where it runs; None for no limit of its memory.
        cpu: Begins its command, so that it has a share of the CPUs.
    """

    def __init__(self, folder: Path, cgroup: MemoryCgroup | None, cpu: Sequence[str]) -> None:
        authority = Authority(folder)
        authority.issue("server", "localhost", "127.0.0.1")
        self.tls = authority.client()
        self.ca = folder / "ca.pem"
        self.stream = folder / "events.sock"
        self.rules = folder / "rules.yml"
        self.rules.write_text(RULES)
        web = folder / "web.yml"
        web.write_text(
            "tls_server_config: {cert_file: server.crt, key_file: server.key}\n"
            f"basic_auth_users: {{prometheus: {hash_password(_PASSWORD)}}}\n"
        )
        super().__init__(
            "taskstats",
            folder / "log",
            f"--web.config.file={web}",
            f"--stream.socket={self.stream}",
            f"--config.file={self.rules}",
            prefix=[*cpu, *(() if cgroup is None else cgroup.command([]))],
        )
        self.cgroup = cgroup

    def request(self, path: str, method: str = "GET", **headers: str) -> Response:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=DEADLINE_SECONDS, context=self.tls
        )
        as_prometheus = {"Authorization": basic("prometheus", _PASSWORD), "Accept-Encoding": "gzip"}
        answer = ask_over(connection, path, method, as_prometheus | headers)
        is_zipped = answer.headers.get("Content-Encoding") == "gzip"
        return answer._replace(body=gzip.decompress(answer.body)) if is_zipped else answer

    @property
    def renames(self) -> int:
        """How often the attackers renamed themselves, up to the last of some thousand times."""
        return int(self.rules.with_name(RENAMES).read_text())

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @contextlib.contextmanager
    def under_attack(self) -> Iterator[None]:
        """Let all attackers at it while the block runs; after that its descriptors must be as they were."""
        before = self.descriptors
        words = [str(one) for one in (self.port, self.ca, self.stream, self.rules, self.process.pid)]
        with cpu_cgroup("attackers") as cpu:
            command = [*cpu, sys.executable, "-m", "soak.attacks", *words]
            attackers = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            try:
                yield
                assert attackers.poll() is None, "the attackers have given up"
            finally:
                attackers.kill()
                attackers.wait()
        wait_until(lambda: self.descriptors, lambda now: now <= before + 2, "descriptors are given back")


@contextlib.contextmanager
def attacked(folder: Path) -> Iterator[Attacked]:
    """Run such an exporter while the block runs, under the chart's limit of memory where that is permitted."""
    with memory_cgroup(min(limits_of_memory_mib()) << 20) as cgroup, cpu_cgroup("exporter") as cpu:
        exporter = Attacked(folder, cgroup, cpu)
        with exporter.closing():
            yield exporter
