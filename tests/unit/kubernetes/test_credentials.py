"""exporter/kubernetes/credentials.py: files that change while they are used."""

import ssl
from pathlib import Path

import pytest
import trustme

from exporter.errors import ApiFailure
from exporter.kubernetes.access import ApiAccess
from exporter.kubernetes.credentials import Credentials


class Files:
    """A token and an authority, as the kubelet writes them."""

    def __init__(self, folder: Path) -> None:
        self.token = folder / "token"
        self.ca = folder / "ca.crt"
        self.token.write_text("first")
        self.write_ca()
        self.credentials = Credentials(ApiAccess("https://api", str(self.token), str(self.ca), "node"))

    def write_ca(self) -> None:
        self.ca.write_bytes(trustme.CA().cert_pem.bytes())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_the_token_is_read_anew_each_time(files: Files) -> None:
    assert files.credentials.read()[0] == "first"
    files.token.write_text("second\n")
    assert files.credentials.read()[0] == "second"


def test_the_authority_is_another_only_when_the_file_has_changed(files: Files) -> None:
    first = files.credentials.read()[1]
    assert files.credentials.read()[1] is first
    files.write_ca()
    second = files.credentials.read()[1]
    assert second is not first
    assert second is not None
    assert second.verify_mode is ssl.CERT_REQUIRED
    assert second.check_hostname
    # The authorities of many clusters lack what Python 3.13 would ask for.
    assert not second.verify_flags & ssl.VERIFY_X509_STRICT
    assert len(second.get_ca_certs()) == 1


@pytest.mark.parametrize("file", ["token", "ca"])
@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"\xff\n")]
)
def test_what_was_read_before_stays_while_a_file_cannot_be_read(files: Files, file: str, damage: object) -> None:
    before = files.credentials.read()
    assert files.credentials.problem is None
    path: Path = getattr(files, file)
    sound = path.read_bytes()
    assert callable(damage)
    damage(path)
    assert files.credentials.read() == before
    assert str(path) in str(files.credentials.problem)
    path.write_bytes(sound)
    assert files.credentials.read() == before
    assert files.credentials.problem is None


@pytest.mark.parametrize("file", ["token", "ca"])
def test_a_file_that_never_could_be_read_is_a_failure(files: Files, file: str) -> None:
    getattr(files, file).unlink()
    with pytest.raises(ApiFailure, match="cannot read the") as caught:
        files.credentials.read()
    assert caught.value.reason == "credentials"


@pytest.mark.parametrize("content", [b"a\nb", b" ", b"\xff", b"x" * ((4 << 20) + 1)])
def test_what_is_no_token_is_not_sent(files: Files, content: bytes) -> None:
    files.token.write_bytes(content)
    with pytest.raises(ApiFailure, match="cannot read the token"):
        files.credentials.read()


def test_without_tls_no_token_is_sent(files: Files) -> None:
    access = ApiAccess("http://127.0.0.1:8001", str(files.token), str(files.ca), "node")
    assert Credentials(access).read() == ("", None)


def test_without_a_file_the_authorities_of_the_system_are_asked_and_no_token_is_sent() -> None:
    token, context = Credentials(ApiAccess("https://api", "", "", "node")).read()
    assert token == ""
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
