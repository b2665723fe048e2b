"""Reads the token and the authority anew for each request, as both are replaced while the exporter runs.

The kubelet replaces a token before its hour is over, and the authority when the cluster's is renewed. A file that
cannot be read for a moment takes nothing away: what was read last is used until the API refuses it.
"""

import ssl
from typing import TypeVar

from exporter.errors import ApiFailure
from exporter.files import read_file
from exporter.kubernetes.access import ApiAccess

_T = TypeVar("_T")

# A token is some kilobytes, a bundle of authorities some hundred.
_MOST_BYTES = 4 << 20


class Credentials:
    """What a request is sent with.

    Args:
        access: Where the files are.

    Attributes:
        problem: Why a file could not be read the last time; None if it could.
    """

    def __init__(self, access: ApiAccess) -> None:
        self._access = access
        self._token = ""
        self._authority = b""
        self._context: ssl.SSLContext | None = None
        self.problem: str | None = None

    def read(self) -> tuple[str, ssl.SSLContext | None]:
        """Read the token, and the authority where it has changed.

        Returns:
            The token, "" for none; what TLS is checked by, None without TLS. It is another object after a change.

        Raises:
            ApiFailure: A file cannot be read, and never could.
        """
        self.problem = None
        if not self._access.is_tls:
            return "", None
        if self._access.token_file:
            self._token = self._read_token(self._access.token_file)
        if self._access.ca_file:
            self._context = self._read_authority(self._access.ca_file)
        elif self._context is None:
            self._context = _make_context(None)
        return self._token, self._context

    def _read_token(self, file: str) -> str:
        try:
            token = _read_file(file).decode("ascii").strip()
            if not token or not token.isprintable():
                raise ValueError("it is empty" if not token else "it is more than one line")
        except (OSError, ValueError) as error:
            return self._fall_back(f"cannot read the token {file}: {error}", self._token)
        return token

    def _read_authority(self, file: str) -> ssl.SSLContext:
        try:
            authority = _read_file(file)
            if not authority.strip():
                # Without an authority Python would trust those of the system.
                raise ValueError("it is empty")
            if authority != self._authority or self._context is None:
                self._context = _make_context(authority.decode("ascii"))
                self._authority = authority
        except (OSError, ValueError) as error:
            return self._fall_back(f"cannot read the authority {file}: {error}", self._context)
        return self._context

    def _fall_back(self, problem: str, last: _T | None) -> _T:
        """Go on with what was read last, if there is something."""
        self.problem = problem
        if not last:
            raise ApiFailure("credentials", problem) from None
        return last


def _read_file(file: str) -> bytes:
    data = read_file(file, _MOST_BYTES)
    if len(data) > _MOST_BYTES:
        raise ValueError("it is too large")
    return data


def _make_context(authority: str | None) -> ssl.SSLContext:
    """Make what checks the API's certificate.

    The checks are those of the other clients of Kubernetes: a certificate in the file is trusted, whether it
    signed itself or not, and the authority of a cluster need not have the extensions of RFC 5280, which Python
    3.13 asks for by default and many clusters' authorities lack.
    """
    context = ssl.create_default_context(cadata=authority)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
