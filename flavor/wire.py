"""One HTTP/1.1 connection to the API: a request's bytes go out, its answer comes back.

httptools (the parser of Node.js) reads the answers. Nothing is sent twice here: whoever has sent a
request and got no answer cannot know whether it was billed. A connection that has met anything odd
is closed and never used again; so what one request left behind cannot become the answer of another.

Failures below HTTP are aiohttp's own errors, which ``flavor.classify`` knows already.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from yarl import URL

MAX_HEAD_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""Above what 2,048 embeddings in plain JSON take. What is larger is not kept in memory."""

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # source: aiohttp 3.14, http_writer.py


class AnswerTooLargeError(aiohttp.ClientError):
    """The answer takes more memory than any answer should; the next one would as well."""


class Headers(Mapping[str, str]):
    """An answer's headers, decoded when asked for; of several of a name the first. Any case."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Mapping[bytes, bytes]) -> None:
        self._raw = raw  # names in lower case

    def __getitem__(self, name: str) -> str:
        return _text(self._raw[name.lower().encode("utf-8", "surrogateescape")])

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - Mapping's own signature
        """As a dict's: without the exception that ``Mapping`` raises where a header is missing."""
        raw = self._raw.get(name.lower().encode("utf-8", "surrogateescape"))
        return default if raw is None else _text(raw)

    def __iter__(self) -> Iterator[str]:
        return map(_text, self._raw)

    def __len__(self) -> int:
        return len(self._raw)


@dataclass(slots=True)  # not frozen: one per request, it costs time
class Answer:
    """What came back: any status, and the body as it was before it was compressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """One connection, for one request at a time. ``lost`` is called once, when it has ended.

    An answer of more than ``most_bytes`` is refused.
    """

    def __init__(self, lost: Callable[[Connection], None], *, most_bytes: int) -> None:
        self.idle_since_s = 0.0  # the pool's
        self._lost = lost
        self._most_bytes = most_bytes
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._waiter: asyncio.Future[Answer] | None = None
        self._is_reusable = True
        self._headers: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        self._received = 0
        self._is_head_complete = False

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent, as far as is known."""
        transport = self._transport
        return self._is_reusable and transport is not None and not transport.is_closing()

    def ask(self, head: bytes, body: bytes) -> asyncio.Future[Answer]:
        """Send a request; its answer's future. ``head`` lacks the length of the body.

        The future raises aiohttp's errors. Whoever stops waiting for it must call ``abort``.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionError("the connection is closed")
        self._received = 0
        self._is_head_complete = False
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        transport.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        return waiter

    def expire(self) -> None:
        """End the request: it has taken too long."""
        self._fail(asyncio.TimeoutError())

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._fail(aiohttp.ClientConnectionError("the connection is closed"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: asyncio calls this first."""
        # A cast, as uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take in a piece of an answer."""
        if self._waiter is None:  # nobody has asked
            self.abort()
            return
        self._received += len(data)
        if self._received > self._most_bytes:
            self._fail(_too_large(self._most_bytes))
            return
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._fail(aiohttp.ClientPayloadError(f"the answer is not HTTP: {error}"))
        self._judge()

    def eof_received(self) -> None:
        """Nothing more will come: asyncio closes the connection."""

    def connection_lost(self, exc: Exception | None) -> None:
        """End: one side has closed it, or the network has."""
        if self._waiter is not None and exc is None and self._ends_with_connection():
            self._answer()
        self._fail(self._reason(exc))
        self._transport = None
        self._lost(self)

    def on_message_begin(self) -> None:
        """httptools: an answer begins, be it one that nobody has asked for."""
        self._headers, self._pieces, self._is_head_complete = {}, [], False
        if self._waiter is None:
            self._is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a header, or behind the last chunk a trailer, which means nothing to us."""
        if not self._is_head_complete:
            self._headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        """httptools: the body comes next."""
        self._is_head_complete = True

    def on_body(self, piece: bytes) -> None:
        """httptools: a piece of the body."""
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """httptools: the answer is whole."""
        if self._parser.get_status_code() < 200:  # "100 Continue" and the like: not the answer yet
            self._is_head_complete = False
            return
        transport = self._transport
        # An answer to half a request (413): the other half is still being sent.
        if not self._parser.should_keep_alive() or (
            transport is not None and transport.get_write_buffer_size()
        ):
            self._is_reusable = False
        self._answer()

    def _answer(self) -> None:
        waiter, self._waiter = self._waiter, None
        pieces, self._pieces = self._pieces, []  # not until the next answer: there may be none
        if waiter is not None and not waiter.done():
            body = b"".join(pieces)
            waiter.set_result(Answer(self._parser.get_status_code(), Headers(self._headers), body))

    def _fail(self, error: Exception) -> None:
        waiter, self._waiter = self._waiter, None
        self._is_reusable = False
        if self._transport is not None:
            self._transport.abort()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _judge(self) -> None:
        """End what goes on like this for ever, and a connection that is of no more use."""
        if self._waiter is None:
            if not self._is_reusable:
                self.abort()
        elif not self._is_head_complete and self._received > MAX_HEAD_BYTES:
            self._fail(aiohttp.ClientPayloadError(f"headers of over {MAX_HEAD_BYTES} bytes"))

    def _ends_with_connection(self) -> bool:
        """Whether the answer says neither how long it is nor that it comes in chunks."""
        framing = (b"content-length", b"transfer-encoding")
        return self._is_head_complete and not any(name in self._headers for name in framing)

    def _reason(self, exc: Exception | None) -> Exception:
        if isinstance(exc, OSError):
            return aiohttp.ClientOSError(*exc.args)
        if self._received:
            return aiohttp.ClientPayloadError("the answer was cut off")
        return aiohttp.ServerDisconnectedError()


def render_head(url: URL, headers: Mapping[str, str]) -> bytes:
    """A POST's head as ``Connection.ask`` wants it: up to the length of the body.

    Raises:
        ValueError: a name or a value cannot stand in a header; the text names it, not its value.
    """
    lines = [f"POST {url.raw_path_qs} HTTP/1.1", f"host: {url.host_port_subcomponent}"]
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a header")
        if _FORBIDDEN.search(value):
            raise ValueError(f"the header {name} holds a line break or another control character")
        lines.append(f"{name}: {value}")
    lines += ["accept-encoding: gzip", "content-length: "]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")


def unpack(answer: Answer, *, most_bytes: int) -> None:
    """Uncompress the body. Raises aiohttp's errors where it is broken, cut off or too large."""
    if answer.headers.get("content-encoding", "").lower() in ("gzip", "x-gzip", "deflate"):
        answer.body = _inflate(answer.body, most_bytes)


def _too_large(most_bytes: int) -> AnswerTooLargeError:
    return AnswerTooLargeError(f"the answer takes more than {most_bytes} bytes")


def _inflate(packed: bytes, most_bytes: int) -> bytes:
    inflated = bytearray()
    while packed:  # gzip allows for several members in a row
        member = zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            inflated += member.decompress(packed, most_bytes + 1 - len(inflated))
        except zlib.error as error:
            raise aiohttp.ClientPayloadError(f"the answer is not compressed: {error}") from error
        if len(inflated) > most_bytes:
            raise _too_large(most_bytes)
        if not member.eof:
            raise aiohttp.ClientPayloadError("the compressed answer was cut off")
        packed = member.unused_data
    return bytes(inflated)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
