"""exporter/files.py: nothing that stands where a file should be is waited for, or read without end."""

import os
from pathlib import Path

import pytest

from exporter.errors import ApiFailure, ConfigError
from exporter.files import read_file, require_regular
from exporter.kubernetes.access import ApiAccess
from exporter.kubernetes.credentials import Credentials
from exporter.tallies.rules_file import RulesReader
from exporter.web.gate import Gate


def test_a_file_is_read_whole_or_one_byte_too_far(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert (read_file(file, 5), read_file(str(file), 3)) == (b"12345", b"1234")
    require_regular(file)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_a_pipe_is_refused_at_once(pipe: Path) -> None:
    with pytest.raises(OSError, match="it is no regular file"):
        read_file(pipe, 100)
    with pytest.raises(OSError, match="it is no regular file"):
        require_regular(pipe)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(path: str) -> None:
    with pytest.raises(OSError, match="it is no regular file"):
        read_file(path, 100)


def test_a_folder_and_what_is_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        read_file(tmp_path, 100)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none", 100)


# What is read again while the exporter runs.


def test_a_pipe_in_place_of_the_rules_holds_up_nothing(pipe: Path) -> None:
    with pytest.raises(ConfigError, match="no regular file"):
        RulesReader(str(pipe)).read()


def test_a_pipe_in_place_of_the_web_configuration_or_a_certificate_holds_up_nothing(
    pipe: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no regular file"):
        Gate(pipe)
    file = tmp_path / "web.yml"
    file.write_text("tls_server_config: {cert_file: pipe, key_file: pipe}\n")
    with pytest.raises(ConfigError, match="no regular file"):
        Gate(file)


def test_a_web_configuration_without_end_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    file.write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(ConfigError, match="longer than"):
        Gate(file)


def test_a_pipe_in_place_of_the_token_or_the_authority_holds_up_nothing(pipe: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("token")
    for files in ((str(pipe), ""), (str(token), str(pipe))):
        with pytest.raises(ApiFailure, match="no regular file") as caught:
            Credentials(ApiAccess("https://127.0.0.1", *files, "node")).read()
        assert caught.value.reason == "credentials"
