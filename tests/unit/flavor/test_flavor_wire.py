"""The client's own connections, against a server that says byte for byte what it is told to."""

from __future__ import annotations

import asyncio
import gc
import gzip
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path

import pytest
import trustme
from yarl import URL

from flavor.client import Client
from flavor.errors import JobError, RowError, TransientError
from flavor.pool import Pool
from flavor.types import Request
from flavor.wire import MAX_HEAD_BYTES, Answer, AnswerTooLargeError, render_head

KEY = "sk-test-0123456789"
Step = Callable[[asyncio.StreamWriter], Awaitable[None]]


def says(*pieces: bytes, then_close: bool = False) -> Step:
    """An answer, piece by piece."""

    async def step(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.002 if len(pieces) > 1 else 0)
        if then_close:
            writer.close()

    return step


def answer(body: bytes = b'{"ok": 1}', *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, *headers, b"content-length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class RawServer:
    """Plays a step per request; a plain answer when it has none left."""

    def __init__(self) -> None:
        self.url = ""
        self.steps: list[Step] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.left = 0  # connections that the client has closed
        self.most_at_once = 0
        self.asked = asyncio.Event()
        self.handlers: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handlers.add(asyncio.current_task())
        self.connections += 1
        self.most_at_once = max(self.most_at_once, self.connections - self.left)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])
                self.requests.append(head + await reader.readexactly(size))
                self.asked.set()
                step = self.steps.pop(0) if self.steps else says(answer())
                await step(writer)
                if writer.is_closing():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            self.left += 1
            writer.close()


@asynccontextmanager
async def _listening(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[RawServer, str]]:
    played = RawServer()
    server = await asyncio.start_server(played.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield played, f"{'https' if tls else 'http'}://localhost:{port}/v1"
    finally:
        server.close()
        await asyncio.gather(*(handler for handler in played.handlers if handler))


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("OPENAI_API_TYPE", "OPENAI_API_BASE", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http", "https", "all"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with _listening() as (played, url):
        played.url = url
        yield played


@pytest.fixture
async def client(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    made = Client.from_environment(concurrency=4, timeout_s=5)
    yield made
    await made.close()


def _request(**fields: object) -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    values: dict[str, object] = {"path": "/chat/completions", "body": body, "rows": 1, **fields}
    return Request(estimated_tokens=1, **values)  # type: ignore[arg-type]


async def _post(pool: Pool, *, timeout_s: float = 5) -> Answer:
    return await pool.post(render_head(URL("http://a/v1"), {}), b"{}", timeout_s=timeout_s)


def _chunked(*chunks: bytes, trailer: bytes = b"") -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b"")[:-1])
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + framed + b"0\r\n" + trailer + b"\r\n"


_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
_PACKED = gzip.compress(b'{"ok": 1}', mtime=0)


@pytest.mark.parametrize(
    "pieces",
    [
        [answer()],
        [bytes([byte]) for byte in answer()],
        [_chunked(b'{"o', b'k": ', b"1}")],
        [_chunked(b'{"ok": 1}', trailer=b"x-late: 1\r\n")],
        [_CONTINUE, _HINTS, answer()],
        [_CONTINUE + answer()],
        [answer(_PACKED, b"Content-Encoding: gzip")],
        [answer(zlib.compress(b'{"ok": 1}'), b"content-encoding: deflate")],
        [answer(gzip.compress(b'{"ok"') + gzip.compress(b": 1}"), b"content-encoding: GZIP")],
        [answer(b'{"ok": 1}', b"content-encoding: identity")],
    ],
    ids=[
        "whole", "byte by byte", "chunked", "trailer", "1xx", "1xx in one piece", "gzip", "deflate",
        "gzip in members", "identity",
    ],
)  # fmt: skip
async def test_answers_are_read_however_they_are_framed(
    server: RawServer, client: Client, pieces: list[bytes]
) -> None:
    server.steps = [says(*pieces), says(answer(b'{"ok": 2}'))]

    first = await client.send(_request())
    second = await client.send(_request())

    assert (first.payload, second.payload) == ({"ok": 1}, {"ok": 2})
    assert server.connections == 1


@pytest.mark.parametrize(
    ("said", "then_close"),
    [
        (answer(b'{"ok": 1}', b"Connection: close"), False),
        (b'HTTP/1.0 200 OK\r\ncontent-length: 9\r\n\r\n{"ok": 1}', False),
        (b'HTTP/1.0 200 OK\r\n\r\n{"ok": 1}', True),
        (b'HTTP/1.1 200 OK\r\n\r\n{"ok": 1}', True),
        (answer() + b"garbage", False),
        (answer() + answer(b'{"ok": "of nobody"}'), False),
        (answer(b'{"ok": 1}', b"Connection: close") + b"garbage", False),
    ],
    ids=["close", "1.0", "1.0 until its end", "until its end", "garbage", "two", "close, garbage"],
)
async def test_a_connection_that_ends_or_says_too_much_is_not_used_again(
    server: RawServer, client: Client, said: bytes, *, then_close: bool
) -> None:
    server.steps = [says(said, then_close=then_close), says(answer(b'{"ok": 2}'))]

    first = await client.send(_request())
    second = await client.send(_request())

    assert (first.payload, second.payload) == ({"ok": 1}, {"ok": 2})
    assert server.connections == 2
    assert len(server.requests) == 2


async def test_what_comes_while_nobody_asks_is_nobodys_answer(
    server: RawServer, client: Client
) -> None:
    async def late(writer: asyncio.StreamWriter) -> None:
        writer.write(answer())
        await asyncio.sleep(0.02)
        writer.write(answer(b'{"ok": "of nobody"}'))

    server.steps = [late, says(answer(b'{"ok": 2}'))]
    await client.send(_request())
    await asyncio.sleep(0.06)

    second = await client.send(_request())

    assert second.payload == {"ok": 2}
    assert server.connections == 2


async def test_a_kept_connection_that_was_closed_meanwhile_costs_nothing(
    server: RawServer, client: Client
) -> None:
    server.steps = [says(answer(), then_close=True)]
    await client.send(_request())
    await asyncio.sleep(0.02)

    response = await client.send(_request())

    assert response.payload == {"ok": 1}
    assert (server.connections, len(server.requests)) == (2, 2)


async def test_a_request_that_was_sent_is_never_sent_again(
    server: RawServer, client: Client
) -> None:
    """The server may have answered it, and billed it: that it goes again is the worker's choice."""
    server.steps = [says(answer()), says(then_close=True)]
    await client.send(_request())

    with pytest.raises(TransientError) as caught:
        await client.send(_request())

    assert caught.value.info.status is None
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n",
        answer()[:-1],
        _chunked(b'{"ok": 1}')[:-3],
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\ncontent-length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: -9\r\n\r\n{}",
        b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * MAX_HEAD_BYTES,
        _HINTS * (MAX_HEAD_BYTES // len(_HINTS) + 2),
    ],
)
async def test_an_answer_that_is_none_is_passing(
    server: RawServer, client: Client, said: bytes
) -> None:
    server.steps = [says(said, then_close=True), says(answer(b'{"ok": 2}'))]

    with pytest.raises(TransientError):
        await client.send(_request())
    second = await client.send(_request())

    assert second.payload == {"ok": 2}
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "said",
    [
        answer(gzip.compress(b"{}", mtime=0)[:-4], b"content-encoding: gzip"),
        answer(b"not packed", b"content-encoding: gzip"),
        answer(b'{"ok": '),
        answer(b"<html>"),
        answer(b""),
    ],
)
async def test_a_body_that_is_no_json_is_passing(
    server: RawServer, client: Client, said: bytes
) -> None:
    server.steps = [says(said)]

    with pytest.raises(TransientError):
        await client.send(_request())
    await client.send(_request())

    assert server.connections == 1


@pytest.mark.parametrize("headers", [[], [b"content-encoding: gzip"]])
async def test_an_answer_above_the_bound_is_not_kept(
    server: RawServer, headers: list[bytes]
) -> None:
    body = b"0" * 100_000
    server.steps = [says(answer(gzip.compress(body) if headers else body, *headers))]
    pool = Pool(URL(server.url), size=1, most_bytes=50_000)

    with pytest.raises(AnswerTooLargeError, match="50000 bytes"):
        await _post(pool)
    await pool.close()


async def test_an_answer_before_the_request_was_read_is_an_answer() -> None:
    """413 for a body that the server does not want: the rest of it still waits to be sent."""
    is_closed = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b'{"error": {"message": "too large"}}', status=b"413 Too Large"))
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        is_closed.set()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    pool = Pool(URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), size=1)

    head = render_head(URL("http://a/v1"), {})
    got = await pool.post(head, b"x" * 50_000_000, timeout_s=5)
    await pool.close()
    await is_closed.wait()
    server.close()

    assert got.status == 413


async def test_a_kept_connection_holds_nothing_of_its_last_answer(server: RawServer) -> None:
    """Hundreds of connections and answers of tens of megabytes would be gigabytes."""
    size = 8 * 1024 * 1024
    server.steps = [says(answer(b"x" * size))]
    pool = Pool(URL(server.url), size=1)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        got = len((await _post(pool)).body)
        await asyncio.sleep(0)  # the loop lets go of the answer
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        await pool.close()

    assert (got, held < size / 4) == (size, True)


async def test_an_error_status_keeps_its_connection(server: RawServer, client: Client) -> None:
    server.steps = [says(answer(b'{"error": {"message": "no"}}', status=b"500 Oops"))]

    with pytest.raises(TransientError):
        await client.send(_request())
    await client.send(_request())

    assert server.connections == 1


async def test_an_answer_that_stalls_is_bounded(server: RawServer, client: Client) -> None:
    server.steps = [says(answer()[:-3])]

    with pytest.raises(TransientError, match="no answer in time"):
        await client.send(_request(timeout_s=0.05))
    await client.send(_request())

    assert server.connections == 2


async def test_a_row_that_is_given_up_leaves_no_answer_to_another(
    server: RawServer, client: Client
) -> None:
    async def slow(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(answer(b'{"ok": "of nobody"}'))

    server.steps = [slow, says(answer(b'{"ok": 2}'))]
    given_up = asyncio.ensure_future(client.send(_request()))
    await server.asked.wait()
    given_up.cancel()
    await asyncio.wait([given_up])

    second = await client.send(_request())

    assert second.payload == {"ok": 2}
    assert server.connections == 2


async def test_there_are_no_more_connections_than_allowed(
    server: RawServer, client: Client
) -> None:
    sent = await asyncio.gather(*(client.send(_request()) for _ in range(40)))

    assert len(sent) == len(server.requests) == 40
    assert server.most_at_once == 4


async def test_closing_ends_requests_under_way(server: RawServer, client: Client) -> None:
    server.steps = [says(b"HTTP/1.1 200 OK\r\n")]
    sending = asyncio.ensure_future(client.send(_request()))
    await server.asked.wait()

    await client.close()

    with pytest.raises(TransientError):
        await sending


async def test_a_connection_idle_for_long_is_not_trusted(server: RawServer) -> None:
    pool = Pool(URL(server.url), size=1)
    await _post(pool)
    for connection in pool._idle:
        connection.idle_since_s -= 16

    await _post(pool)
    await pool.close()

    assert server.connections == 2


@pytest.mark.parametrize("headers", [{"x-a": "b\r\nx-evil: 1"}, {"x-a": "b\0"}, {"x a": "b"}])
async def test_a_rows_header_cannot_add_another(
    server: RawServer, client: Client, headers: dict[str, str]
) -> None:
    with pytest.raises(RowError, match="header"):
        await client.send(_request(headers=headers))

    assert server.requests == []


async def test_a_key_with_a_line_break_stops_the_job_and_is_not_shown(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    client = Client.from_environment(concurrency=1)

    with pytest.raises(JobError, match="header authorization holds a line break") as caught:
        await client.send(_request())
    await client.close()

    assert KEY not in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize("name", ["Connection", "Transfer-Encoding", "Expect", "Accept-Encoding"])
async def test_a_rows_header_about_the_connection_is_left_to_aiohttp(
    server: RawServer, client: Client, name: str
) -> None:
    sent: list[str] = []
    client._post_plainly = None  # type: ignore[assignment, method-assign]

    async def by_aiohttp(*_: object, **__: object) -> Answer:
        sent.append(name)
        return Answer(200, {}, b"{}")

    client._post_by_aiohttp = by_aiohttp  # type: ignore[method-assign]

    await client.send(_request(headers={name: "x"}))

    assert sent == [name]


async def test_headers_are_found_in_any_case_and_the_first_one_counts(
    server: RawServer, client: Client
) -> None:
    server.steps = [says(answer(b"{}", b"X-Request-ID: one", b"x-request-id: two", b"x-a: \xff"))]

    response = await client.send(_request())

    assert response.request_id == "one"
    assert response.headers is not None
    assert response.headers["X-REQUEST-ID"] == "one"
    assert dict(response.headers)["x-a"] == "\udcff"
    assert len(response.headers) == 3


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_tls_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_trusted: bool
) -> None:
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    (authority if is_trusted else other).cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with _listening(context) as (server, url):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        client = Client.from_environment(concurrency=1)
        with nullcontext() if is_trusted else pytest.raises(JobError, match="CERTIFICATE"):
            await client.send(_request())
            await client.send(_request())
        await client.close()

    assert len(server.requests) == (2 if is_trusted else 0)


@pytest.mark.parametrize("host", ["api..openai.com", f"{'a' * 64}.com"])
async def test_a_name_that_cannot_be_one_stops_the_job(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://{host}/v1")
    client = Client.from_environment(concurrency=1)

    with pytest.raises(JobError, match=host[:40]):
        await client.send(_request())
    await client.close()


async def test_a_name_nobody_knows_is_passing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://nobody.invalid/v1")
    client = Client.from_environment(concurrency=1)

    with pytest.raises(TransientError, match="gaierror"):
        await client.send(_request())
    await client.close()
