"""Checks the passwords of basic_auth_users against their bcrypt hashes."""

import asyncio
import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from exporter.errors import ConfigError

# bcrypt uses no more bytes of a password.
_BCRYPT_BYTES = 72


class Passwords:
    """Checks passwords against bcrypt hashes in a thread, and remembers which were right.

    A check takes as long as the exporter needs for a thousand events. It takes the same time for a user name that
    does not exist: otherwise a client could find out which names exist.

    Args:
        users: Name -> bcrypt hash.
        thread: Computes the hashes, one at a time.

    Raises:
        ConfigError: bcrypt cannot be imported.
    """

    def __init__(self, users: Mapping[str, str], thread: ThreadPoolExecutor) -> None:
        try:
            from bcrypt import checkpw  # noqa: PLC0415 - its memory is needed only with passwords
        except ImportError as error:
            raise ConfigError(f"basic_auth_users: {error}") from error
        self._checkpw = checkpw
        self._hashes = {name.encode(): hashed.encode() for name, hashed in users.items()}
        cost = max(hashed[4:6] for hashed in users.values())
        self._unknown_users_hash = f"$2b${cost}${'.' * 53}".encode()
        self._thread = thread
        self._salt = os.urandom(16)
        self._right: set[bytes] = set()

    async def admit(self, request: web.Request) -> bool:
        """Return whether a request has the name of a user and the password of that user."""
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        except binascii.Error:
            return False
        return bool(colon) and await self._is_right(name, password)

    async def _is_right(self, name: bytes, password: bytes) -> bool:
        # A salted digest is remembered, not the password: a core dump must not contain passwords.
        password = password[:_BCRYPT_BYTES]
        key = hashlib.blake2b(name + b":" + password, salt=self._salt).digest()
        if key in self._right:
            return True
        hashed = self._hashes.get(name, self._unknown_users_hash)
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._thread, self._checkpw, password, hashed)
        if not right or name not in self._hashes:
            return False
        self._right.add(key)
        return True
