"""The bodies of answers: rendered once for all who ask at the same time, kept zipped, and bounded together.

A body describes a moment after its request came. So a request that comes while a body is rendered does not get
that one: it waits for the next, with all others that come until then. At most one is rendered at a time.

Only the zipped form is kept, a tenth of the text. A client that does not accept it gets it unzipped piece by
piece. A body is in memory while a client reads it; if all of them together are too many bytes, the clients that
read the oldest are cut.
"""

import asyncio
import contextlib
import time
import zlib
from collections.abc import Awaitable, Callable, Collection, Iterator

Pieces = Callable[[str, Collection[str]], Awaitable[tuple[str, Iterator[bytes]]]]
"""Accept header, names of the wanted samples or none for all -> (Content-Type, body in pieces)"""

_Asked = tuple[Pieces, str, frozenset[str]]

# Half the time of zlib's default level, for 10 % more bytes.
_GZIP_LEVEL = 3
_GZIP = 16 + zlib.MAX_WBITS
_PIECE_BYTES = 16 << 10
# CPU time that the rendering takes in a turn of the event loop: a part of what the receive buffers can wait for.
_SLICE_NS = 40_000_000


class Body:
    """An answer's body.

    Attributes:
        content_type: Its Content-Type.
        zipped_bytes: Its length with gzip.
        plain_bytes: Its length without.
    """

    def __init__(self, content_type: str, chunks: list[bytes], plain_bytes: int) -> None:
        self.content_type = content_type
        self._chunks = chunks
        self.zipped_bytes = sum(map(len, chunks))
        self.plain_bytes = plain_bytes

    def pieces(self, *, zipped: bool) -> Iterator[memoryview | bytes]:
        """Iterate over it in small pieces; those of the zipped form are not copied."""
        if not zipped:
            yield from self._unzipped()
            return
        for chunk in self._chunks:
            view = memoryview(chunk)
            for at in range(0, len(view), _PIECE_BYTES):
                yield view[at : at + _PIECE_BYTES]

    def _unzipped(self) -> Iterator[bytes]:
        unzip = zlib.decompressobj(_GZIP)
        for chunk in self._chunks:
            rest = chunk
            while rest:
                yield unzip.decompress(rest, _PIECE_BYTES)
                rest = unzip.unconsumed_tail
        yield unzip.flush()


class _Rendering:
    """A body that is rendered or will be, and how many wait for it."""

    def __init__(self, task: "asyncio.Task[Body]") -> None:
        self.task = task
        self.waiting = 0


class Bodies:
    """Renders bodies, and knows who reads them.

    Args:
        pieces: Renders a body of the metrics.
        form: Accept header -> a shorter one for which `pieces` returns the same.
        most_bytes: How many bytes all bodies together may have; one can always be read, however long it is.
    """

    def __init__(self, pieces: Pieces, form: Callable[[str], str], most_bytes: int) -> None:
        self._pieces = pieces
        self._form = form
        self._most_bytes = most_bytes
        self._lock = asyncio.Lock()
        # There are any number of sets of names, and of other pages: only one of them at a time waits with the
        # bodies that have all metrics.
        self._lock_of_names = asyncio.Lock()
        # Those whose rendering has not begun, by form and names.
        self._next: dict[_Asked, _Rendering] = {}
        # Who reads each body, the oldest body first.
        self._readers: dict[Body, list[Callable[[], None]]] = {}

    async def render(self, accept: str, names: frozenset[str] = frozenset(), page: Pieces | None = None) -> Body:
        """Return a body that describes a moment after this call.

        Args:
            accept: The request's Accept header.
            names: The samples in it; empty for all.
            page: Renders another page than the metrics; equal ones render the same. It takes no other argument
                into account.
        """
        asked: _Asked = (self._pieces, self._form(accept), names) if page is None else (page, "", frozenset())
        rendering = self._next.get(asked)
        if rendering is None:
            rendering = self._next[asked] = _Rendering(asyncio.ensure_future(self._render_next(asked)))
        rendering.waiting += 1
        try:
            return await asyncio.shield(rendering.task)
        finally:
            rendering.waiting -= 1
            if not rendering.waiting and not rendering.task.done():
                # All who asked for it have disconnected.
                rendering.task.cancel()
                if self._next.get(asked) is rendering:
                    del self._next[asked]

    async def _render_next(self, asked: _Asked) -> Body:
        pieces, form, names = asked
        in_turn = bool(names) or pieces != self._pieces
        async with self._lock_of_names if in_turn else contextlib.nullcontext(), self._lock:
            # What comes from now on has to be told of a later moment.
            del self._next[asked]
            content_type, parts = await pieces(form, names)
            compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP)
            chunks: list[bytes] = []
            plain_bytes = 0
            ends_ns = time.thread_time_ns() + _SLICE_NS
            for part in parts:
                plain_bytes += len(part)
                if chunk := compressor.compress(part):
                    chunks.append(chunk)
                if time.thread_time_ns() > ends_ns:
                    # Let the exporter count events between the slices of a large exposition.
                    await asyncio.sleep(0)
                    ends_ns = time.thread_time_ns() + _SLICE_NS
            chunks.append(compressor.flush())
            body = Body(content_type, chunks, plain_bytes)
            self._make_room(body)
            return body

    def _make_room(self, new: Body) -> None:
        total = new.zipped_bytes + sum(body.zipped_bytes for body in self._readers)
        for body, readers in list(self._readers.items()):
            if total <= self._most_bytes:
                return
            total -= body.zipped_bytes
            for cut in readers:
                cut()

    @contextlib.contextmanager
    def read(self, body: Body, cut: Callable[[], None]) -> Iterator[None]:
        """Read a body while the block runs.

        Args:
            body: The body.
            cut: Ends the client's connection.
        """
        readers = self._readers.setdefault(body, [])
        readers.append(cut)
        try:
            yield
        finally:
            readers.remove(cut)
            if not readers:
                self._readers.pop(body, None)
