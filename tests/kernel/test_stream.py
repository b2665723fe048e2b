"""The stream of a running exporter: exactly what happened, for many clients, in time."""

import asyncio
import contextlib
import json
import os
import selectors
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from documented import documented, shown
from kernel.harness import DEADLINE_SECONDS, Exporter, Programs, World, running, wait_until
from kernel.received import EVENTS, Received
from kernel.test_web import storm_during

CLIENTS = 50
COUNT = 2_000
CODES = 4
FAILURES = 80
SENT_WITHIN_SECONDS = 0.1


class Client:
    """Reads /events, if it is asked to."""

    def __init__(self, path: Path, query: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE_SECONDS)
        self.sock.connect(str(path))
        # HTTP/1.0: the body comes without chunks.
        self.sock.sendall(f"GET /events?{query} HTTP/1.0\r\n\r\n".encode())
        self._data = bytearray()
        while b"\r\n\r\n" not in self._data:
            self._data += self.sock.recv(1 << 16)
        head, _, rest = bytes(self._data).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.0 200"):
            self.sock.close()
            raise AssertionError(head)
        self._data[:] = rest

    def read(self) -> bool:
        """Read what is there; False at the end."""
        chunk = self.sock.recv(1 << 18)
        self._data += chunk
        return bool(chunk)

    @property
    def lines(self) -> list[bytes]:
        """Whole lines."""
        return bytes(self._data).split(b"\n")[:-1]


@contextlib.contextmanager
def clients(path: Path, queries: list[str]) -> Iterator[list[Client]]:
    with contextlib.ExitStack() as stack:
        opened = [Client(path, query) for query in queries]
        for client in opened:
            stack.callback(client.sock.close)
        yield opened


def read_all(readers: list[Client], seconds: float) -> None:
    """Read what comes until nothing has come for a while."""
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader.sock, selectors.EVENT_READ, reader)
        while ready := selector.select(seconds):
            for key, _ in ready:
                assert key.data.read()


@pytest.fixture(params=["taskstats", "procfs"])
def streaming(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Exporter, Path]]:
    path = tmp_path / "events.sock"
    with running(str(request.param), tmp_path / "log", "--stream.socket", str(path)) as exporter:
        yield exporter, path


def test_a_client_receives_the_events_of_every_process_and_nothing_else(
    streaming: tuple[Exporter, Path], programs: Programs
) -> None:
    exporter, path = streaming
    with clients(path, [f"events={EVENTS}"]) as [client]:
        world = World(exporter, programs)
        plain, killed, forking = world.program("plain"), world.program("killed"), world.program("forking")
        kinds: list[list[str | Path]] = [
            [plain, "exit", "7"],
            [killed, "signal", "9", "0"],
            [forking, "fork", "2", "6"],
        ]
        world.spawn(*(kinds * 10))
        world.count("forks", forking.name, 20)
        world.count("exits", forking.name, 20, status=6 << 8)
        world.check()
        read_all([client], 0.5)
        world.compare(Received(client.lines))
    assert not [line for line in exporter.log.read_text().splitlines() if "level=error" in line]


def test_the_command_of_the_documentation_prints_what_is_shown_there(programs: Programs, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl here (Debian: apt-get install curl)")
    block = ("docs/stream.md", "tests/kernel/test_stream.py")
    [command] = documented(*block)
    path = tmp_path / "events.sock"
    command = command.replace("/run/proc-connector-exporter/events.sock", str(path))
    command = f"exec {command} --max-time {DEADLINE_SECONDS}"
    failing, other = programs.link("oracle"), programs.link("other")
    with (
        running("taskstats", tmp_path / "log", "--stream.socket", str(path)) as exporter,
        subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE) as client,
    ):
        assert client.stdout is not None
        try:
            exporter.wait_for(lambda scrape: scrape.total("proc_connector_stream_clients") == 1, "the client")
            for program, *words in ((other, "exit", "3"), (failing, "exit", "0"), (failing, "signal", "9", "0")):
                subprocess.run([program, *words], check=False)
            event = json.loads(client.stdout.readline())
        finally:
            client.kill()
    [example] = map(json.loads, shown(*block))
    assert event.keys() == example.keys()
    assert (event["comm"], event["exit_code"], event["signal"]) == (failing.name, 137, "SIGKILL")


@pytest.mark.slow
def test_a_storm_is_sent_to_fifty_clients_of_which_one_reads_nothing(
    streaming: tuple[Exporter, Path], programs: Programs
) -> None:
    exporter, path = streaming
    world = World(exporter, programs)
    victims = [programs.link(f"sent{k}") for k in range(4)]
    spawner = world.program("spawner")
    with clients(path, [f"events={EVENTS}"] * CLIENTS) as all_clients:
        *readers, _ = all_clients
        storm = world.start(spawner, "storm", str(COUNT), "64", str(CODES), *victims, stdout=subprocess.PIPE)
        with storm:
            read_all(readers, 1.0)
            output, _ = storm.communicate()
        assert storm.returncode == 0
        world.count("exits", spawner.name, status=0)
        world.count("forks", spawner.name, COUNT)
        for victim, status, n in (map(int, line.split()) for line in output.splitlines()):
            world.count("execs", victims[victim].name, n)
            world.count("exits", victims[victim].name, n, status=status)
        scrape = world.check()
        read_all(readers, 1.0)
        assert scrape.get("proc_connector_stream_clients") == CLIENTS
    assert scrape.total("proc_connector_lost_messages_total") == 0
    ours = f'"uid": {world.uid},'.encode()
    first, *others = ([line for line in reader.lines if ours in line] for reader in readers)
    world.compare(Received(first))
    for other in others:
        assert other == first


def received_by_pid(client: Client, count: int) -> dict[int, tuple[dict[str, Any], float]]:
    """Read so many objects; return each with the time.monotonic() at which it was there, by pid."""
    received: dict[int, tuple[dict[str, Any], float]] = {}
    seen = 0
    while seen < count and client.read():
        now = time.monotonic()
        for line in client.lines[seen:]:
            one = json.loads(line)
            received[one["pid"]] = one, now
        seen = len(client.lines)
    return received


def late_seconds(program: Path, client: Client) -> list[float]:
    """Run many processes of which some fail; return how long after each death the client received it."""
    died: dict[int, float] = {}
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(received_by_pid, client, FAILURES)
        for number in range(100 * FAILURES):
            fails = number % 100 == 0
            pid = os.posix_spawn(program, (program, "exit", "3" if fails else "0"), {})
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            if fails:
                died[pid] = time.monotonic()
            os.waitpid(pid, 0)
        received = reading.result()
    assert received.keys() == died.keys()
    assert {(one["event"], one["exit_code"]) for one, _ in received.values()} == {("exit", 3)}
    return sorted(at - died[pid] for pid, (_, at) in received.items())


@pytest.mark.slow
def test_each_failure_among_many_ends_is_sent_within_100_ms(programs: Programs, tmp_path: Path) -> None:
    path = tmp_path / "events.sock"
    program = programs.link("one-in-100")
    rounds: list[list[float]] = []
    with running("taskstats", tmp_path / "log", "--stream.socket", str(path)) as exporter:
        # What else the machine does can hold one of them up.
        while not rounds or (rounds[-1][-1] > SENT_WITHIN_SECONDS and len(rounds) < 3):
            with clients(path, [f"events=nonzero_exit&comm={program.name}"]) as [client]:
                rounds.append(late_seconds(program, client))
        wait_until(lambda: exporter.scrape().get("proc_connector_stream_clients"), (0.0).__eq__, "that it left")
    assert min(late[-1] for late in rounds) <= SENT_WITHIN_SECONDS, [late[-5:] for late in rounds]


def costliest(path: Path, n: int) -> Client:
    """Subscribe with as many globs as are allowed, and as are looked at for as long as can be."""
    globs = [f"comm=*{n}*{m}*c*t*z" for m in range(200)]
    for count in (200, 16):
        with contextlib.suppress(AssertionError):
            return Client(path, "&".join(globs[:count]))
    raise AssertionError("no filter is allowed")


@pytest.mark.slow
def test_filters_that_take_long_cost_no_event_and_no_answer(programs: Programs, tmp_path: Path) -> None:
    path = tmp_path / "events.sock"
    longest = 0.0
    with running("taskstats", tmp_path / "log", "--stream.socket", str(path)) as exporter:
        attackers = [costliest(path, n) for n in range(60)]

        async def look() -> None:
            nonlocal longest
            began = time.monotonic()
            assert (await asyncio.to_thread(exporter.request, "/-/healthy")).status == 200
            longest = max(longest, time.monotonic() - began)

        storm_during(exporter, programs, look)
        for attacker in attackers:
            attacker.sock.close()
        assert longest < 1
