"""Bytes to requests, however they are cut; and what is no request."""

import pytest

from producer.simulator.wire import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    Request,
    RequestReader,
    WireError,
    encode,
    parse_head,
)

PLAIN = b"POST /v1/x?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /v1/x HTTP/1.1\r\nhost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"3\r\nhel\r\n2;note=1\r\nlo\r\n0\r\nTrailer: t\r\n\r\n"
)


def read_all(*pieces: bytes) -> list[Request]:
    reader = RequestReader()
    requests = []
    for piece in pieces:
        reader.feed(piece)
        while (request := reader.next_request()) is not None:
            requests.append(request)
    return requests


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST / HTTP/1.1", "host: x", *lines]).encode("latin-1")


@pytest.mark.parametrize("raw", [PLAIN, CHUNKED])
def test_a_request_reads_the_same_in_one_piece_and_byte_by_byte(raw: bytes) -> None:
    whole = read_all(raw)
    pieces = read_all(*(raw[n : n + 1] for n in range(len(raw))))

    assert [request.body for request in whole] == [b"hello"]
    assert pieces == whole


def test_pipelined_requests_come_in_their_order() -> None:
    bodies = [request.body for request in read_all(b"\r\n" + PLAIN + CHUNKED + PLAIN)]

    assert bodies == [b"hello"] * 3


def test_path_query_and_keys_are_read() -> None:
    openai = parse_head(b"GET /a%20b?c=d HTTP/1.1\r\nHost: x\r\nAuthorization: bearer sk-1 ")
    azure = parse_head(b"GET http://x/a HTTP/1.1\r\nHost: x\r\nApi-Key: k2")

    assert (openai.path, openai.query, openai.api_key) == ("/a b", "c=d", "sk-1")
    assert (azure.path, azure.api_key) == ("/a", "k2")


@pytest.mark.parametrize(
    ("raw", "is_kept_alive"),
    [
        (b"GET / HTTP/1.1\r\nhost: x", True),
        (b"GET / HTTP/1.1\r\nhost: x\r\nConnection: Close", False),
        (b"GET / HTTP/1.0", False),
        (b"GET / HTTP/1.0\r\nconnection: Keep-Alive", True),
    ],
)
def test_keep_alive_is_as_the_version_and_the_client_say(raw: bytes, is_kept_alive: bool) -> None:
    assert parse_head(raw).is_kept_alive is is_kept_alive


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense", 400),
        (b"GET  / HTTP/1.1\r\nhost: x", 400),
        (b"G@T / HTTP/1.1\r\nhost: x", 400),
        (b"GET / HTTP/2.0\r\nhost: x", 505),
        (b"GET / HTTP/1.1", 400),
        (head("no colon"), 400),
        (head("bad name : x"), 400),
        (head(" folded: x"), 400),
        (head("x: a\x00b"), 400),
        (head("x: a\nb: c"), 400),
        (head("host: y"), 400),
        (head("content-length: 1", "content-length: 2"), 400),
        (head("content-length: 1", "transfer-encoding: chunked"), 400),
        (head("content-length: -1"), 400),
        (head("content-length: +1"), 400),
        (head("content-length: \xb2"), 400),
        (head(f"content-length: {MAX_BODY_BYTES + 1}"), 413),
        (head(f"content-length: {'9' * 5000}"), 413),
        (head("transfer-encoding: gzip, chunked"), 501),
    ],
)
def test_what_is_no_request_is_refused(raw: bytes, status: int) -> None:
    with pytest.raises(WireError) as refused:
        parse_head(raw)

    assert refused.value.status == status


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\nhost: x\n\n",
        b"x" * (MAX_HEAD_BYTES + 1),
        CHUNKED.replace(b"3\r\nhel", b"zz\r\nhel"),
        CHUNKED.replace(b"3\r\nhel", b"2\r\nhel"),
        CHUNKED.replace(b"3\r\nhel", b"3;" + b"x" * 2000),
        CHUNKED.replace(b"3\r\nhel", b"FFFFFFFF\r\nhel"),
    ],
    ids=["bare LF", "endless head", "no size", "chunk too long", "endless line", "too large"],
)
def test_a_broken_stream_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        read_all(raw)


def test_continue_is_owed_once_and_only_while_the_body_is_missing() -> None:
    reader = RequestReader()
    reader.feed(head("content-length: 2", "expect: 100-continue") + b"\r\n\r\n")

    assert reader.next_request() is None
    assert [reader.take_continue(), reader.take_continue()] == [True, False]
    reader.feed(b"hi")
    assert reader.next_request() is not None
    assert not reader.take_continue()


def test_an_answer_says_that_it_is_simulated_and_when_the_connection_closes() -> None:
    answer = encode(429, body=b"{}", headers="retry-after: 1\r\n", is_kept_alive=False)

    assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert answer.endswith(b"x-simulated: true\r\nretry-after: 1\r\nconnection: close\r\n\r\n{}")
