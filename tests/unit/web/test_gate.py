"""The web configuration file in force, over real connections; bcrypt and TLS are the real ones."""

import asyncio
import logging
import ssl
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from serving import Authority, Served, basic, hash_password, overwrite, rewrite, serving

from exporter.errors import ConfigError
from exporter.web.gate import Gate
from exporter.web.pages import make_app
from exporter.web.rendered import OtherPage

USERS = f"basic_auth_users:\n  alice: {hash_password('right')}\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "web.yml"


def remove(path: Path) -> None:
    path.unlink()


def gate(path: Path, text: str) -> Gate:
    rewrite(path, text)
    return Gate(path)


# -- headers and rate ---------------------------------------------------------------------------------------------


async def test_configured_headers_are_on_every_answer(file: Path) -> None:
    text = USERS + "http_server_config:\n  headers:\n    X-Frame-Options: deny\n"
    async with serving(gate(file, text)) as served:
        replies = [
            await served.ask(),
            await served.ask(Authorization=basic("alice", "right")),
            await served.ask("/nothing", Authorization=basic("alice", "right")),
            await served.ask(method="POST", Authorization=basic("alice", "right")),
        ]
    assert [reply.status for reply in replies] == [401, 200, 404, 405]
    assert {reply.headers.get("X-Frame-Options") for reply in replies} == {"deny"}


async def test_another_page_is_behind_the_same_passwords_rate_and_headers_as_the_metrics(file: Path) -> None:
    async def pieces(_: str, __: Collection[str]) -> tuple[str, Iterator[bytes]]:
        return "text/html", iter([b"pid 1"])

    def app() -> web.Application:
        return make_app(
            "/metrics", pieces, lambda: None, other_pages={"/failures": OtherPage("failures", lambda *_: pieces)}
        )

    text = (
        f"{USERS}rate_limit: {{interval: 1h, burst: 3}}\n"
        "http_server_config:\n  headers:\n    X-Frame-Options: deny\n"
    )
    async with serving(gate(file, text), make_app=app) as served:
        replies = [
            await served.ask("/failures"),
            await served.ask("/failures", Authorization=basic("alice", "wrong")),
            await served.ask("/failures?comm=x", Authorization=basic("alice", "right")),
            await served.ask("/failures", Authorization=basic("alice", "right")),
        ]
    assert [reply.status for reply in replies] == [401, 401, 200, 429]
    assert [b"pid 1" in reply.body for reply in replies] == [False, False, True, False]
    assert {reply.headers.get("X-Frame-Options") for reply in replies} == {"deny"}


async def test_more_requests_than_the_burst_are_too_many(file: Path) -> None:
    async with serving(gate(file, "rate_limit: {interval: 1h, burst: 3}\n")) as served:
        assert [(await served.ask()).status for _ in range(5)] == [200, 200, 200, 429, 429]
        # The file changed, the limit did not.
        rewrite(file, "# a word\nrate_limit: {interval: 1h, burst: 3}\n")
        assert (await served.ask()).status == 429
        rewrite(file, "rate_limit: {interval: 1h, burst: 9}\n")
        assert (await served.ask()).status == 200


# -- a file that is or becomes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file"),
        ("nonsense: 1\n", "line 1: the file: unknown key 'nonsense'"),
        ("tls_server_config: {cert_file: none.crt, key_file: none.key}\n", "none.crt.*No such file"),
        ("tls_server_config: {cert_file: web.yml, key_file: web.yml}\n", "cert_file web.yml"),
    ],
    ids=["missing", "wrong", "no certificate", "no certificate in it"],
)
def test_a_wrong_file_is_refused_at_start_in_one_line(file: Path, text: str | None, reason: str) -> None:
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=reason) as refusal:
        Gate(file)
    assert str(refusal.value).startswith(f"--web.config.file {file}: ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_is_refused_at_start(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"the file is empty; to let every client in, write \{\}"):
        Gate(file)


@pytest.mark.parametrize(
    ("text", "levels"),
    [("# nothing\n", ["WARNING"]), ("{}\n", ["WARNING"]), (USERS, [])],
    ids=["comment", "{}", "users"],
)
def test_a_file_that_protects_nothing_is_warned_of(
    file: Path, text: str, levels: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    gate(file, text).close()
    assert [record.levelname for record in caplog.records] == levels


def test_a_file_that_is_not_utf_8_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Gate(file)


def test_a_key_that_needs_a_password_is_refused_instead_of_asking_for_it(file: Path, authority: Authority) -> None:
    _, path = authority.issue("server", "localhost")
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    with pytest.raises(ConfigError, match=r"key_file server\.key"):
        gate(file, TLS)


async def test_while_the_file_is_wrong_every_request_is_refused(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(gate(file, USERS)) as served:
        login = basic("alice", "right")
        assert (await served.ask(Authorization=login)).status == 200
        with caplog.at_level(logging.INFO, "exporter"):
            rewrite(file, "oops")
            assert (await served.ask(Authorization=login)).status == 500
            [broken] = caplog.records
            assert broken.levelno == logging.ERROR
            assert "line 1" in vars(broken)["error"]
            remove(file)
            assert (await served.ask(Authorization=login)).status == 500
            rewrite(file, USERS)
            assert (await served.ask(Authorization=login)).status == 200
        assert caplog.records[-1].getMessage() == "web configuration read"


# -- a file that protects less than the one before ---------------------------------------------------------------

PROTECTED = f"""tls_server_config:
  cert_file: server.crt
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  client_allowed_sans: [prometheus]
  min_version: TLS13
rate_limit: {{interval: 1ms, burst: 1000}}
{USERS}"""


def in_order(text: str, *, users_first: bool) -> str:
    return USERS + text.replace(USERS, "") if users_first else text


@pytest.mark.parametrize("users_first", [True, False], ids=["users first", "users last"])
def test_a_file_that_is_cut_at_any_place_lets_no_client_in(
    file: Path, authority: Authority, *, users_first: bool
) -> None:
    authority.issue("server", "localhost")
    whole = in_order(PROTECTED, users_first=users_first)
    checked = gate(file, whole)
    before = checked.tls()
    for length in range(len(whole) - 1):
        if whole[length:].strip():
            file.write_text(whole[:length])
            checked._follow()
            if checked._problem is None:
                # Nothing was lost but a comment or a user.
                assert checked._config.tls is not None
                assert checked._config.tls.client_allowed_sans
                assert checked._config.tls.min_version == "TLS13"
                assert checked._config.users
                assert checked._config.rate_limit
    file.write_text("# nothing\n")
    checked._follow()
    assert checked._problem is not None
    assert checked._tls is not None
    assert before is not None
    checked.close()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "write `basic_auth_users: {}`"),
        ("# nothing\n", "write `basic_auth_users: {}`"),
        ("basic_auth_users:\n", "write `basic_auth_users: {}`"),
        ("basic_auth_users: {}\n", "read once more in a second"),
    ],
    ids=["empty", "a comment", "cut", "said for the first time"],
)
async def test_a_file_that_lost_its_users_lets_no_client_in(
    file: Path, text: str, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(gate(file, USERS)) as served:
        overwrite(file, text)
        assert (await served.ask(Authorization=basic("alice", "right"))).status == 500
        assert (await served.ask()).status == 500
    assert word in vars(caplog.records[0])["error"]


async def test_a_protection_ends_when_the_file_says_so_for_a_second(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("exporter.web.gate.time.monotonic", lambda: now)
    async with serving(gate(file, USERS)) as served:
        rewrite(file, "basic_auth_users: {}\n")
        assert (await served.ask()).status == 500
        now += 0.9
        assert (await served.ask()).status == 500
        # It says something else: its second begins anew.
        rewrite(file, "# open\nbasic_auth_users: {}\n")
        assert (await served.ask()).status == 500
        now += 0.9
        assert (await served.ask()).status == 500
        now += 0.2
        assert (await served.ask()).status == 200


async def test_a_certificate_with_a_name_that_no_file_can_have_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="null"):
        gate(file, 'tls_server_config: {cert_file: "a\\0b", key_file: k}\n')


# -- TLS ----------------------------------------------------------------------------------------------------------

TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
MUTUAL = TLS + "  client_auth_type: {policy}\n  client_ca_file: ca.pem\n"


async def is_turned_away(served: Served, context: ssl.SSLContext) -> bool:
    """Try to ask; in TLS 1.3 a client learns only from its first answer that it is not wanted."""
    try:
        await served.ask(tls=context)
    except (OSError, asyncio.IncompleteReadError):
        return True
    return False


async def test_over_tls_and_nothing_else(file: Path, authority: Authority) -> None:
    authority.issue("server", "localhost")
    async with serving(gate(file, TLS)) as served:
        assert (await served.ask(tls=authority.client())).body == b"hello"
        plain = await served.connect()
        plain.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await plain.is_cut()


@pytest.mark.parametrize(
    ("settings", "highest", "gets_in"),
    [
        ("", ssl.TLSVersion.TLSv1_3, True),
        ("", ssl.TLSVersion.TLSv1_2, True),
        ("", ssl.TLSVersion.TLSv1_1, False),
        ("  min_version: TLS13\n", ssl.TLSVersion.TLSv1_2, False),
    ],
    ids=["1.3", "1.2", "1.1", "1.2 below the minimum"],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_a_client_cannot_negotiate_an_older_tls(
    file: Path, authority: Authority, settings: str, highest: ssl.TLSVersion, *, gets_in: bool
) -> None:
    authority.issue("server", "localhost")
    context = authority.client()
    # The client itself would do anything.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = highest
    async with serving(gate(file, TLS + settings)) as served:
        assert await is_turned_away(served, context) != gets_in


async def test_cipher_suites_are_those_of_the_file(file: Path, authority: Authority) -> None:
    authority.issue("server", "localhost")
    suites = "  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n"
    async with serving(gate(file, TLS + suites)) as served:
        client = await served.connect(authority.client())
        assert client.writer.get_extra_info("cipher")[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
        context = authority.client()
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        assert await is_turned_away(served, context)


@pytest.mark.parametrize(
    ("policy", "certificate", "gets_in"),
    [
        ("RequireAndVerifyClientCert", "own", True),
        ("RequireAndVerifyClientCert", "stranger's", False),
        ("RequireAndVerifyClientCert", "none", False),
        ("VerifyClientCertIfGiven", "own", True),
        ("VerifyClientCertIfGiven", "stranger's", False),
        ("VerifyClientCertIfGiven", "none", True),
    ],
)
async def test_client_certificates_are_verified(
    file: Path, authority: Authority, tmp_path: Path, policy: str, certificate: str, *, gets_in: bool
) -> None:
    authority.issue("server", "localhost")
    (tmp_path / "strange").mkdir()
    stranger = Authority(tmp_path / "strange")
    certificates = {
        "own": authority.issue("client", "prometheus"),
        "stranger's": stranger.issue("client", "prometheus"),
        "none": None,
    }
    async with serving(gate(file, MUTUAL.format(policy=policy))) as served:
        assert await is_turned_away(served, authority.client(certificates[certificate])) != gets_in


@pytest.mark.parametrize(
    ("identity", "status"),
    [
        ("prometheus.example", 200),
        ("10.1.2.3", 200),
        ("me@example.org", 200),
        ("prometheus.example.org", 403),
        ("10.1.2.4", 403),
        ("2001:db8::1", 200),
        ("2001:db8::2", 403),
    ],
)
async def test_a_client_needs_one_of_the_allowed_names(
    file: Path, authority: Authority, identity: str, status: int
) -> None:
    authority.issue("server", "localhost")
    context = authority.client(authority.issue("client", identity))
    mutual = MUTUAL.format(policy="RequireAndVerifyClientCert")
    sans = "  client_allowed_sans: [prometheus.example, 10.1.2.3, me@example.org, '2001:db8::1']\n"
    async with serving(gate(file, mutual + sans)) as served:
        assert (await served.ask(tls=context)).status == status


async def test_a_new_certificate_is_served_without_a_restart(file: Path, authority: Authority) -> None:
    def serial(certificate: object) -> object:
        return certificate["serialNumber"] if isinstance(certificate, dict) else None

    authority.issue("server", "localhost")
    async with serving(gate(file, TLS)) as served:
        old = await served.connect(authority.client())
        assert (await old.ask()).status == 200
        authority.issue("server", "localhost")
        new = await served.connect(authority.client())
        assert (await new.ask()).status == 200
        assert serial(old.writer.get_extra_info("peercert")) != serial(new.writer.get_extra_info("peercert"))


async def test_a_connection_made_under_old_certificates_is_refused_under_new_ones(
    file: Path, authority: Authority, tmp_path: Path
) -> None:
    authority.issue("server", "localhost")
    context = authority.client(authority.issue("client", "prometheus"))
    async with serving(gate(file, MUTUAL.format(policy="RequireAndVerifyClientCert"))) as served:
        client = await served.connect(context)
        assert (await client.ask()).status == 200
        (tmp_path / "other").mkdir()
        Authority(tmp_path / "other").ca_file.replace(authority.ca_file.with_name("ca2.pem"))
        rewrite(file, MUTUAL.format(policy="RequireAndVerifyClientCert").replace("ca.pem", "ca2.pem"))
        client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await client.is_cut()
        assert await is_turned_away(served, context)


async def test_while_a_certificate_is_broken_every_request_is_refused(
    file: Path, authority: Authority, tmp_path: Path
) -> None:
    authority.issue("server", "localhost")
    async with serving(gate(file, TLS)) as served:
        client = await served.connect(authority.client())
        assert (await client.ask()).status == 200
        (tmp_path / "server.crt").write_text("not a certificate")
        assert (await client.ask()).status == 500
        assert (await served.ask(tls=authority.client())).status == 500
        authority.issue("server", "localhost")
        assert (await served.ask(tls=authority.client())).status == 200
