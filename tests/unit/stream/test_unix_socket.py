"""The Unix socket of the stream: mode, group, and what may be in its place."""

import os
import socket
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest

from exporter.errors import SetupError
from exporter.stream.unix_socket import open_stream_socket, remove_socket


def test_the_socket_has_the_mode_and_the_group(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    gid = os.getegid()
    with open_stream_socket(path, 0o620, gid):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o620, gid)


def test_a_socket_without_a_listener_is_replaced_and_one_with_a_listener_is_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    open_stream_socket(path, 0o600, None).close()
    with (
        open_stream_socket(path, 0o600, None),
        pytest.raises(SetupError, match=r"cannot listen on .*/socket: Address already in use"),
    ):
        open_stream_socket(path, 0o600, None)


def test_a_listener_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as hung, ExitStack() as waiting:
        hung.bind(str(path))
        hung.listen(0)
        status = 0
        while status == 0:
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            status = client.connect_ex(str(path))
        with pytest.raises(SetupError, match="Address already in use"):
            open_stream_socket(path, 0o600, None)


def test_a_path_that_is_too_long_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r": AF_UNIX path too long; choose another --stream.socket"):
        open_stream_socket(tmp_path / ("x" * 108), 0o600, None)


def test_a_file_in_its_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(SetupError, match=r"choose another --stream.socket"):
        open_stream_socket(path, 0o600, None)
    assert path.read_text() == "precious"


def test_a_socket_that_is_gone_already_can_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with open_stream_socket(path, 0o600, None):
        remove_socket(path)
        assert not path.exists()
        remove_socket(path)
