"""exporter/web/config_file.py: the file's text becomes a value, or a reason with its line."""

import re
from pathlib import Path

import pytest

from exporter.errors import ConfigError
from exporter.web.config_file import parse_web_config
from exporter.web.web_settings import RateLimit, TlsConfig, WebConfig

HASH = "$2y$10$" + "abcdefghijklmnopqrstuv" + "x" * 31

EVERYTHING = f"""\
# as exporter-toolkit's documentation has it
tls_server_config:
  cert_file: server.crt
  key_file: /etc/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  client_allowed_sans:
    - prometheus.example
    - 10.0.0.1
  min_version: TLS13
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
    Strict-Transport-Security: max-age=3600
    Content-Security-Policy:
basic_auth_users:
  alice: {HASH}
  bob: {HASH}
rate_limit:
  interval: 1m0.5s
  burst: 20
"""


def tls(*lines: str) -> str:
    """Return a file with these lines after its certificate, from line 4 on."""
    head = ("tls_server_config:", "cert_file: a", "key_file: b", *lines)
    return "\n  ".join(head) + "\n"


def test_everything_that_can_be_set() -> None:
    assert parse_web_config(EVERYTHING) == WebConfig(
        tls=TlsConfig(
            cert_file="server.crt",
            key_file="/etc/server.key",
            client_ca_file="ca.crt",
            client_must_verify=True,
            client_allowed_sans=frozenset({"prometheus.example", "10.0.0.1"}),
            min_version="TLS13",
            max_version="TLS13",
            ciphers=("ECDHE-RSA-AES128-GCM-SHA256",),
            prefer_server_ciphers=False,
        ),
        users={"alice": HASH, "bob": HASH},
        headers={"X-Frame-Options": "deny", "Strict-Transport-Security": "max-age=3600"},
        rate_limit=RateLimit(60.5, 20),
    )


def test_the_file_of_the_documentation_is_right() -> None:
    page = (Path(__file__).parents[3] / "docs" / "web.md").read_text(encoding="utf-8")
    [block] = re.findall(r"(?ms)^```yaml\n(.*?)^```", page)
    config = parse_web_config(block.replace("$2y$10$...", HASH))
    assert config.tls is not None
    assert (config.tls.cert_file, config.tls.client_must_verify, config.tls.min_version) == (
        "server.crt",
        True,
        "TLS13",
    )
    assert config.users == {"prometheus": HASH}
    assert config.headers == {"Strict-Transport-Security": "max-age=31536000"}
    assert config.rate_limit == RateLimit(0.1, 20)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "{}", "tls_server_config:\nbasic_auth_users:\n", "tls_server_config: {}"]
)
def test_nothing_set_is_no_tls_and_no_password(text: str) -> None:
    assert parse_web_config(text) == WebConfig()


def test_defaults_of_tls() -> None:
    assert parse_web_config(tls()).tls == TlsConfig(cert_file="a", key_file="b")


@pytest.mark.parametrize(
    ("policy", "must_verify"), [("VerifyClientCertIfGiven", False), ("RequireAndVerifyClientCert", True)]
)
def test_policies_that_verify_clients(policy: str, *, must_verify: bool) -> None:
    got = parse_web_config(tls(f"client_auth_type: {policy}", "client_ca_file: ca")).tls
    assert got is not None
    assert (got.client_ca_file, got.client_must_verify) == ("ca", must_verify)


@pytest.mark.parametrize("policy", ["NoClientCert", "RequestClientCert"])
def test_policies_that_look_at_no_certificate(policy: str) -> None:
    assert parse_web_config(tls(f"client_auth_type: {policy}")).tls == TlsConfig(cert_file="a", key_file="b")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("250ms", 0.25), ("1h2m3s", 3723.0), ("1.5s", 1.5), ("100us", 1e-4), ("100µs", 1e-4)],
)
def test_durations_are_written_as_in_go(text: str, seconds: float) -> None:
    got = parse_web_config(f"rate_limit: {{interval: {text}, burst: 1}}").rate_limit
    assert got is not None
    assert got.interval_seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["rate_limit: {interval: 0}", "rate_limit: {interval: 0s, burst: 5}", "rate_limit:"]
)
def test_an_interval_of_0_is_no_limit(text: str) -> None:
    assert parse_web_config(text).rate_limit is None


REFUSED = {
    "not YAML": ("a: b\n{", 2, "expected"),
    "two documents": ("{}\n---\n{}\n", 2, "another document"),
    "a list": ("- a\n", 1, "mapping"),
    "a word": ("hello", 1, "mapping"),
    "an unknown section": ("\ntls_config: {}\n", 2, "unknown key 'tls_config'"),
    "an unknown key": (tls("cert_fil: c"), 4, "unknown key 'cert_fil'"),
    "a key twice": (tls("key_file: c"), 4, "'key_file' is there twice"),
    "a merge": ("x: &x {}\n<<: *x\n", 1, "unknown key 'x'"),
    "a key within": (tls("key: c"), 4, "key is not supported"),
    "curves": (tls("curve_preferences: [X25519]"), 4, "curve_preferences is not supported"),
    "no key file": ("tls_server_config:\n  cert_file: a\n", 2, "needs key_file"),
    "a version only": ("tls_server_config:\n  min_version: TLS13\n", 2, "needs cert_file"),
    "a certificate that is a list": ("tls_server_config:\n  cert_file: [a]\n  key_file: b\n", 2, "plain value"),
    "an unknown policy": (tls("client_auth_type: Maybe"), 4, "client_auth_type must be one of"),
    "a policy that lets all in": (tls("client_auth_type: RequireAnyClientCert"), 4, "RequireAndVerifyClientCert"),
    "its old name": (tls("client_auth_type: RequireClientCert"), 4, "RequireAndVerifyClientCert"),
    "no CA": (tls("client_auth_type: VerifyClientCertIfGiven"), 4, "needs client_ca_file"),
    "a CA without verification": (tls("client_ca_file: ca"), 4, "needs client_auth_type"),
    "SANs that need not be shown": (
        tls("client_ca_file: c", "client_auth_type: VerifyClientCertIfGiven", "client_allowed_sans: [a]"),
        6,
        "needs client_auth_type RequireAndVerifyClientCert",
    ),
    "SANs that are no list": (tls("client_allowed_sans: a"), 4, "must be a list"),
    "TLS 1.1": (tls("min_version: TLS11"), 4, "min_version must be one of TLS12, TLS13"),
    "a maximum below the minimum": (tls("min_version: TLS13", "max_version: TLS12"), 5, "is below"),
    "an unknown suite": (tls("cipher_suites:", "  - TLS_NULL"), 5, "'TLS_NULL' is none of"),
    "a boolean that is none": (tls("prefer_server_cipher_suites: maybe"), 4, "true or false"),
    "http2 that is none": ("http_server_config:\n  http2: 2\n", 2, "true or false"),
    "a header that cannot be set": ("http_server_config:\n  headers:\n    Server: x\n", 3, "unknown key 'Server'"),
    "a value that a header cannot have": (
        "http_server_config:\n  headers:\n    X-Frame-Options: allow\n", 3, "deny or sameorigin",
    ),
    "a header within a header": (
        'http_server_config:\n  headers:\n    X-XSS-Protection: "1\\r\\nSet-Cookie: a"\n', 3, "header cannot have",
    ),
    "a password in the clear": ("basic_auth_users:\n  alice: secret\n", 2, "not a bcrypt hash"),
    "no password": ("basic_auth_users:\n  alice:\n", 2, "not a bcrypt hash"),
    "a cost beyond bcrypt's": (f"basic_auth_users:\n  a: {HASH.replace('10', '32', 1)}\n", 2, "not a bcrypt hash"),
    "a user with a colon": (f"basic_auth_users:\n  'a:b': {HASH}\n", 2, "cannot be the name of a user"),
    "a rate without a burst": ("rate_limit:\n  interval: 1s\n", 2, "burst must be a number"),
    "a burst of none": ("rate_limit:\n  interval: 1s\n  burst: 0\n", 3, "burst must be a number"),
    "a rate without a unit": ("rate_limit:\n  interval: 5\n  burst: 1\n", 2, "duration like 1s"),
    "a negative rate": ("rate_limit:\n  interval: -1s\n  burst: 1\n", 2, "duration like 1s"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_file_is_refused_with_line_and_reason(text: str, line: int, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"^line {line}: ") as refusal:
        parse_web_config(text)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    ["[" * 20_000, "a: \x00", "a: \ud800", 'a: "\\UFFFFFFFF"'],
    ids=["too deep", "NUL", "surrogate", "escape"],
)
def test_what_is_no_text_at_all_is_refused_too(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_web_config(text)


def test_a_refusal_does_not_repeat_a_secret() -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_web_config("basic_auth_users:\n  alice: hunter2\n")
    assert "hunter2" not in str(refusal.value)
