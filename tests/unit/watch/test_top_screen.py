"""`watch --top` of a capture in a terminal."""

import os
import pty
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from golden.busy_minute import SAMPLE

WATCH = (sys.executable, "-m", "exporter", "watch", "--replay")


class Terminal:
    """A terminal, and `watch --top` of a capture in it."""

    def __init__(self, *flags: str, **environment: str) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ.update({"COLUMNS": "80", "LINES": "24"} | environment)
            os.execv(WATCH[0], [*WATCH, str(SAMPLE), "--top", *flags])  # noqa: S606 - the program itself, in the terminal
        self.seen = b""

    def read_until(self, shows: bytes) -> None:
        """Read until it shows something that it has not shown before."""
        before = len(self.seen)
        while shows not in self.seen[before:]:
            self.seen += os.read(self._fd, 4096)

    def press(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def reads_lines(self) -> bool:
        """The terminal is as a shell wants it."""
        return bool(termios.tcgetattr(self._fd)[3] & termios.ICANON)

    def wait(self) -> int:
        """Wait for the end of the program; return its exit code."""
        try:
            while chunk := os.read(self._fd, 4096):
                self.seen += chunk
        except OSError:
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        os.close(self._fd)


@contextmanager
def terminal(*flags: str, **environment: str) -> Iterator[Terminal]:
    opened = Terminal(*flags, **environment)
    try:
        yield opened
    finally:
        opened.close()


def test_a_terminal_that_cannot_move_the_cursor_gets_plain_lines() -> None:
    with terminal(TERM="dumb") as screen:
        screen.read_until(b"COMM")
        screen.press(b"\x03")
        assert screen.wait() == 0
        assert b"\x1b" not in screen.seen


def test_a_replay_that_ends_before_the_first_refresh_leaves_a_table() -> None:
    with terminal("--speed", "0", TERM="xterm") as screen:
        assert screen.wait() == 0
    assert b"mail-worker" in screen.seen.rpartition(b"\x1b[?1049l")[2]


def test_ctrl_z_gives_the_terminal_back_until_the_program_is_continued() -> None:
    with terminal(TERM="xterm") as screen:
        screen.read_until(b"COMM")
        assert not screen.reads_lines()
        screen.press(b"\x1a")
        _, status = os.waitpid(screen.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        screen.read_until(b"\x1b[?1049l")
        assert screen.reads_lines()
        os.kill(screen.pid, signal.SIGCONT)
        screen.read_until(b"COMM")
        assert not screen.reads_lines()
        screen.press(b"q")
        assert screen.wait() == 0
        assert screen.reads_lines()
