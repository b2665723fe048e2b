"""Records what kernels deliver of a few processes, beside what their parent knows of them.

`PYTHONPATH=tests python -m kernels.record`, as root, writes tests/unit/kernel/data/linux-*.hex anew: of this
machine's kernel, and of Debian's Linux 6.1 in QEMU. With `--here` it prints the recording of the kernel that it
runs on.

A recording has a line for everything; numbers are decimal, bytes are hexadecimal:

    kernel RELEASE
    truth CASE PID UID WAIT-STATUS CPU-US MAX-RSS-KIB COMM-AT-THE-END
    C a datagram of the connector
    T a datagram of taskstats

The order within each socket is the kernel's. Datagrams of other processes are left out.
"""

import argparse
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from kernels import image
from kernels.guests import Plan, booted
from kernels.machines import LINUX_6_1

from exporter.events import EVENTS
from exporter.kernel.connector_socket import open_connector
from exporter.kernel.recvmmsg import Receiver
from exporter.kernel.taskstats_socket import open_taskstats
from exporter.plan import make_plan

DATA = image.ROOT / "tests" / "unit" / "kernel" / "data"
UID = 70_001

# Commands of tests/kernel/programs.c.
CASES = {
    "exits": ["exit", "7"],
    "succeeds": ["exit", "0"],
    "is killed": ["signal", "9", "0"],
    "renames itself": ["rename", b"n\nl\xff".hex(), "3"],
    "dumps core in a thread": ["threads", "3", "11", "0"],
    "loses its leader first": ["leader_first", "thread", "17", "group", "33"],
}

_PATIENCE_SECONDS = 20.0
_FORK, _EXIT = 0x1, 0x80000000


def record_here() -> Iterator[str]:
    """Yield the lines of a recording of this kernel."""
    yield f"kernel {os.uname().release}"
    cpus = Path("/sys/devices/system/cpu/possible").read_text().strip()
    everything = make_plan(EVENTS, exact=False, records_end_processes=False).deliver
    events: list[bytes] = []
    records: list[bytes] = []
    ended: set[int] = set()
    with closing(open_taskstats(cpus)) as taskstats, closing(open_connector(everything, "bpf")) as connector:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o755)
            source = image.ROOT / "tests" / "kernel" / "programs.c"
            subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", folder / "recorded", source], check=True)
            for case, words in CASES.items():
                command: list[str | Path] = [folder / "recorded", *words]
                child = subprocess.Popen(
                    command, user=UID, group=UID, extra_groups=[], cwd="/", stdin=subprocess.DEVNULL
                )
                _, status, usage = os.wait4(child.pid, 0)
                child.returncode = status  # reaped
                ended.add(child.pid)
                cpu_us = round((usage.ru_utime + usage.ru_stime) * 1e6)
                comm = bytes.fromhex(words[1]) if "rename" in words else b"recorded"
                numbers = f"{child.pid} {UID} {status} {cpu_us} {usage.ru_maxrss}"
                yield f"truth {case.replace(' ', '-')} {numbers} {comm.hex()}"
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not ended <= {_u32(event, 52) for event in events if _u32(event, 36) == _EXIT}:
            assert time.monotonic() < give_up, "not all ends were told"
            connector.wait(give_up)
            events += _drain(connector)
        records += _drain(taskstats)
    events = [event for event in events if _tgid(event) in ended]
    threads = ended | {_u32(event, 60) for event in events if _u32(event, 36) == _FORK}
    for kind, datagrams in ("C", events), ("T", [record for record in records if _u32(record, 28) in threads]):
        for datagram in datagrams:
            yield f"{kind} {datagram.hex()}"


def _drain(socket: Receiver) -> list[bytes]:
    return [bytes(batch.datagram(i)) for batch in socket.iter_batches() for i in range(len(batch.lengths))]


def _u32(datagram: bytes, offset: int) -> int:
    return int(struct.unpack_from("=I", datagram, offset)[0])


def _tgid(event: bytes) -> int:
    """Whom an event is about; a fork is about the child."""
    return _u32(event, 64 if _u32(event, 36) == _FORK else 56)


def _write(lines: list[str]) -> None:
    release = lines[0].split()[1]
    major_minor = ".".join(release.split(".")[:2])
    # What follows the numbers can name the machine.
    lines[0] = f"kernel {major_minor}"
    DATA.mkdir(exist_ok=True)
    (DATA / f"linux-{major_minor}.hex").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--here", action="store_true")
    if parser.parse_args().here:
        for line in record_here():
            sys.stdout.write(f"{line}\n")
        return
    _write(list(record_here()))
    plan = Plan(LINUX_6_1, ("python3", "-m", "kernels.record", "--here"))
    with tempfile.TemporaryDirectory() as name, booted({"record": plan}, Path(name)) as fleet:
        guest = fleet.guest("record")
        lines = list(guest.lines())
        assert "".join(lines[-1:]).startswith("T "), guest.last_words()
        _write(lines)


if __name__ == "__main__":
    main()
