"""HTTP/1.1 as bytes: reading requests, writing answers. No sockets: ``protocol.py`` has those.

Strict where leniency would let two readers see two requests (RFC 9112, 11.2): a request
with two lengths, a folded header or a stray control character is refused, not guessed at.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_CHUNK_LINE_BYTES = 1024
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_CACHED_HEAD_BYTES = 4096
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VERSION = re.compile(r"HTTP/1\.[0-9]")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")


class WireError(Exception):
    """What came in is no request: answer with ``status`` and close."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the simulation reads of a request's head."""

    method: str
    path: str
    query: str
    api_key: str | None
    body_bytes: int | None  # None: chunked
    expects_continue: bool
    is_kept_alive: bool


@dataclass(slots=True)  # not frozen: one per request, it costs time
class Request:
    """A whole request."""

    head: Head
    body: bytes


class RequestReader:
    """Cuts a stream of bytes into requests, however the network has cut it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Head | None = None
        self._chunks = bytearray()
        self._is_in_trailer = False
        self._owes_continue = False

    @property
    def buffered_bytes(self) -> int:
        """What was fed and not yet returned."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add what the network brought."""
        self._buffer += data

    def next_request(self) -> Request | None:
        """The next whole request, or None until more is fed.

        Raises:
            WireError: there is none and never will be; the stream is of no more use.
        """
        head = self._head
        if head is None:
            head = self._head = self._read_head()
            if head is None:
                return None
            self._owes_continue = head.expects_continue
        body = self._read_chunked() if head.body_bytes is None else self._read_sized(head)
        if body is None:
            return None
        self._head = None
        return Request(head, body)

    def take_continue(self) -> bool:
        """Whether the client waits for ``100 Continue``; true once."""
        owes = self._owes_continue and self._head is not None
        self._owes_continue = False
        return owes

    def _read_head(self) -> Head | None:
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):  # RFC 9112, 2.2: tolerate empty lines before a request
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if b"\n\n" in buffer:
                raise WireError("lines must end in CR LF")
            end = len(buffer)
        if end > MAX_HEAD_BYTES:
            raise WireError("the request's head is too large", status=431)
        if end == len(buffer):
            return None
        raw = bytes(buffer[:end])
        del buffer[: end + 4]
        return _parse_cached(raw) if end <= _CACHED_HEAD_BYTES else parse_head(raw)

    def _read_sized(self, head: Head) -> bytes | None:
        size = head.body_bytes or 0
        if size == 0:
            return b""
        if len(self._buffer) < size:
            return None
        body = bytes(self._buffer[:size])
        del self._buffer[:size]
        return body

    def _read_chunked(self) -> bytes | None:
        while not self._is_in_trailer:
            size = self._read_chunk()
            if size is None:
                return None
            self._is_in_trailer = size == 0
        while (line := self._read_line(MAX_HEAD_BYTES)) is not None:
            if not line:
                body = bytes(self._chunks)
                self._chunks.clear()
                self._is_in_trailer = False
                return body
        return None

    def _read_chunk(self) -> int | None:
        """Move one whole chunk to the body; its size, or None until it is there."""
        buffer = self._buffer
        end = self._line_end(MAX_CHUNK_LINE_BYTES)
        if end is None:
            return None
        match = _CHUNK_SIZE.fullmatch(bytes(buffer[:end]))
        if match is None:
            raise WireError("not a chunk's size")
        size = int(match[1], 16)
        if len(self._chunks) + size > MAX_BODY_BYTES:
            raise WireError("the request's body is too large", status=413)
        start = end + 2
        if size == 0:
            del buffer[:start]
            return 0
        if len(buffer) < start + size + 2:
            return None
        if buffer[start + size : start + size + 2] != b"\r\n":
            raise WireError("a chunk is longer than its size")
        self._chunks += buffer[start : start + size]
        del buffer[: start + size + 2]
        return size

    def _line_end(self, max_bytes: int) -> int | None:
        end = self._buffer.find(b"\r\n", 0, max_bytes)
        if end < 0 and len(self._buffer) >= max_bytes:
            raise WireError("a line of a chunked body is too long")
        return None if end < 0 else end

    def _read_line(self, max_bytes: int) -> bytes | None:
        end = self._line_end(max_bytes)
        if end is None:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


def parse_head(raw: bytes) -> Head:
    """A request's head, without the empty line that ends it.

    Raises:
        WireError: it is not one.
    """
    first, *lines = raw.decode("latin-1").split("\r\n")
    method, target, version = _request_line(first)
    headers = _headers(lines)
    if "host" not in headers and version == "HTTP/1.1":
        raise WireError("HTTP/1.1 wants a Host header")
    parts = urlsplit(target)
    connection = headers.get("connection", "").lower()
    return Head(
        method=method,
        path=unquote(parts.path),
        query=parts.query,
        api_key=_api_key(headers),
        body_bytes=_body_bytes(headers),
        expects_continue=headers.get("expect", "").lower() == "100-continue",
        is_kept_alive="keep-alive" in connection
        if version == "HTTP/1.0"
        else "close" not in connection,
    )


# A client sends the same head again and again, but for the length of its body.
_parse_cached = lru_cache(maxsize=4096)(parse_head)


def encode(status: int, *, body: bytes, headers: str = "", is_kept_alive: bool = True) -> bytes:
    """An answer; ``headers`` are whole lines."""
    closing = "" if is_kept_alive else "connection: close\r\n"
    head = (
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n"
        "server: producer-simulator\r\n"
        f"x-simulated: true\r\n{headers}{closing}\r\n"
    )
    return head.encode("latin-1") + body


_REASONS = {status.value: status.phrase for status in HTTPStatus}


def _request_line(line: str) -> tuple[str, str, str]:
    parts = line.split(" ")
    if len(parts) != 3 or _CONTROL.search(line):
        raise WireError("not a request line")
    method, target, version = parts
    if _TOKEN.fullmatch(method) is None or not target:
        raise WireError("not a request line")
    if _VERSION.fullmatch(version) is None:
        raise WireError("only HTTP/1.1 is spoken here", status=505)
    return method, target, version


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or _TOKEN.fullmatch(name) is None or _CONTROL.search(value):
            raise WireError("not a header")
        name, value = name.lower(), value.strip(" \t")
        if name in {"content-length", "transfer-encoding", "host"} and name in headers:
            raise WireError(f"two {name} headers")
        headers[name] = value
    return headers


def _body_bytes(headers: dict[str, str]) -> int | None:
    coding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if coding is not None:
        if length is not None:
            raise WireError("both content-length and transfer-encoding")
        if coding.lower() != "chunked":
            raise WireError("of transfer codings, only chunked is known", status=501)
        return None
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()):
        raise WireError("content-length is not a number")
    if len(length) > 18 or int(length) > MAX_BODY_BYTES:
        raise WireError("the request's body is too large", status=413)
    return int(length)


def _api_key(headers: dict[str, str]) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("api-key")
