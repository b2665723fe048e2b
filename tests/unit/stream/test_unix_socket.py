"""The Unix socket of the stream: mode, group, and what may be in its place."""

import errno
import os
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from exporter.errors import AddressError, SetupError
from exporter.stream.unix_socket import open_stream_socket, remove_socket


def test_the_socket_has_the_mode_and_the_group(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    gid = os.getegid()
    with open_stream_socket(path, 0o620, gid):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o620, gid)


def test_a_group_that_is_not_permitted_is_blamed_on_its_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chown(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chown", chown)
    path = tmp_path / "socket"
    with pytest.raises(AddressError) as raised:
        open_stream_socket(path, 0o660, 4711)
    assert str(raised.value).startswith(f"cannot give {path} to group 4711: Operation not permitted; ")
    assert str(raised.value).endswith("or change --stream.group")
    assert "--stream.socket" not in str(raised.value)
    # It is closed: the next one finds it dead.
    monkeypatch.undo()
    open_stream_socket(path, 0o660, os.getegid()).close()


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


# -- other users in the directory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(SetupError, match="others can write to it"):
        open_stream_socket(tmp_path / "socket", 0o600, None)
    assert list(tmp_path.iterdir()) == []
    # In a directory like /tmp they cannot replace the socket.
    tmp_path.chmod(mode | stat.S_ISVTX)
    open_stream_socket(tmp_path / "socket", 0o600, None).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a directory away")
def test_a_directory_of_another_user_is_refused_unless_that_user_is_trusted(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(SetupError, match="it belongs to uid 12345"):
        open_stream_socket(tmp_path / "socket", 0o600, None)
    open_stream_socket(tmp_path / "socket", 0o600, None, 12345).close()


def test_the_file_that_a_symlink_names_gets_neither_mode_nor_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("")
    precious.chmod(0o600)
    path = tmp_path / "socket"
    bind = socket.socket.bind

    def bind_and_swap(sock: socket.socket, address: str) -> None:
        bind(sock, address)
        path.unlink()
        path.symlink_to(precious)

    monkeypatch.setattr(socket.socket, "bind", bind_and_swap)
    before = precious.stat()
    with open_stream_socket(path, 0o666, os.getegid()):
        after = precious.stat()
    assert (after.st_mode, after.st_gid, after.st_ctime_ns) == (before.st_mode, before.st_gid, before.st_ctime_ns)


def test_of_two_that_find_a_dead_socket_one_finds_the_other(tmp_path: Path) -> None:
    for n in range(20):
        path = tmp_path / f"socket{n}"
        open_stream_socket(path, 0o600, None).close()
        with ThreadPoolExecutor(4) as threads:
            tries = [threads.submit(open_stream_socket, path, 0o600, None) for _ in range(4)]
        opened = [one.result() for one in tries if one.exception() is None]
        assert len(opened) == 1
        opened[0].close()
