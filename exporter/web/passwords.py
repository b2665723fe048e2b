"""Checks the passwords of basic_auth_users against their bcrypt hashes."""

import base64
import hashlib
import os
from collections.abc import Collection, Mapping

from aiohttp import web

from exporter.errors import ConfigError
from exporter.web.fair_queue import FairQueue

# bcrypt uses no more bytes of a password.
_BCRYPT_BYTES = 72


class KnownPasswords:
    """Which passwords were right: it outlives a file whose users change.

    A salted digest is kept, not the password: a core dump must not contain passwords.
    """

    def __init__(self) -> None:
        self._salt = os.urandom(16)
        # A digest of name and password -> the hash that it was right for.
        self._hash_of: dict[bytes, bytes] = {}

    def _digest(self, name: bytes, password: bytes) -> bytes:
        return hashlib.blake2b(name + b":" + password, salt=self._salt).digest()

    def add(self, name: bytes, password: bytes, hashed: bytes) -> None:
        """Note that a password is right."""
        self._hash_of[self._digest(name, password)] = hashed

    def has(self, name: bytes, password: bytes, hashed: bytes) -> bool:
        """Return whether a password is known to be right for this user and hash."""
        return self._hash_of.get(self._digest(name, password)) == hashed

    def keep(self, hashes: Collection[bytes]) -> None:
        """Forget what was right for other hashes than these."""
        self._hash_of = {digest: hashed for digest, hashed in self._hash_of.items() if hashed in hashes}


class Passwords:
    """Checks passwords against bcrypt hashes in a thread, and remembers which were right.

    A check takes as long as the exporter needs for a thousand events. It takes the same time for a user name that
    does not exist: otherwise a client could find out which names exist.

    Args:
        users: Name -> bcrypt hash.
        hashing: Computes the hashes, one at a time.
        known: What was right before.

    Raises:
        ConfigError: bcrypt cannot be imported.
    """

    def __init__(self, users: Mapping[str, str], hashing: FairQueue, known: KnownPasswords) -> None:
        try:
            from bcrypt import checkpw  # noqa: PLC0415 - its memory is needed only with passwords
        except ImportError as error:
            raise ConfigError(f"basic_auth_users: {error}") from error
        self._checkpw = checkpw
        self._hashes = {name.encode(): hashed.encode() for name, hashed in users.items()}
        cost = max(hashed[4:6] for hashed in users.values())
        self._unknown_users_hash = f"$2b${cost}${'.' * 53}".encode()
        self._hashing = hashing
        self._known = known
        known.keep(set(self._hashes.values()))

    async def admit(self, request: web.Request) -> bool:
        """Return whether a request has the name of a user and the password of that user.

        Raises:
            TooManyWaitingError: Too many passwords wait to be checked already.
        """
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        except ValueError:
            # It is no base64, or has characters that are not even ASCII.
            return False
        return bool(colon) and await self._is_right(name, password, request.get_extra_info("peer", ""))

    async def _is_right(self, name: bytes, password: bytes, peer: str) -> bool:
        password = password[:_BCRYPT_BYTES]
        hashed = self._hashes.get(name, self._unknown_users_hash)
        if self._known.has(name, password, hashed):
            return True
        right = await self._hashing.run(peer, lambda: self._checkpw(password, hashed))
        if not right or name not in self._hashes:
            return False
        self._hashing.prefer(peer)
        self._known.add(name, password, hashed)
        return True
