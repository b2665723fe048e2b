"""A fake server in a thread of its own, for an exporter that is a process."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Self, TypeVar

from kernel.harness import DEADLINE_SECONDS

_Fake = TypeVar("_Fake")


class Served(Generic[_Fake]):
    """A server that serves while the block runs.

    Args:
        serving: Serves it.
    """

    def __init__(self, serving: Callable[[], AbstractAsyncContextManager[_Fake]]) -> None:
        self._serving = serving
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._is_serving = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self.fake: _Fake

    async def _serve(self) -> None:
        async with self._serving() as self.fake:
            self._is_serving.set()
            await self._stopped.wait()

    def do(self, what: Any, *arguments: Any) -> None:
        """Do something to the server, in its thread."""

        async def do() -> None:
            what(*arguments)

        asyncio.run_coroutine_threadsafe(do(), self._loop).result(DEADLINE_SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_serving.wait(DEADLINE_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        self._loop.close()
