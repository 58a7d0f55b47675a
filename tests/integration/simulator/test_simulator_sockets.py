"""The server on the wire: what a well-behaved client never shows."""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from producer.simulator import SimulatorSettings, prompt_hash, serve

pytestmark = pytest.mark.integration

Start = Callable[..., Awaitable[str]]


def post(path: str, body: object, *headers: str) -> bytes:
    raw = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: x", "authorization: Bearer sk-test", *headers]
    return "\r\n".join([*lines, f"content-length: {len(raw)}", "", ""]).encode() + raw


def chat(text: str, *headers: str) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return post("/v1/chat/completions", body, *headers)


def said(response: tuple[int, Any]) -> str:
    status, body = response
    assert status == 200, body
    return str(body["choices"][0]["message"]["content"])


async def until(is_true: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(500):
        if await is_true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 5 s")


async def test_pipelined_requests_are_answered_in_order(start: Start, open_wire: Any) -> None:
    """The slow first one holds the others back."""
    async with open_wire(await start(latency_s=0.01)) as wire:
        wire.send(chat("[[slow]] first") + chat("second") + chat("third"))

        answers = [said(await wire.response()) for _ in range(3)]

    assert answers == ["[simulated] [[slow]] first", "[simulated] second", "[simulated] third"]


async def test_a_deep_pipeline_is_answered_whole(start: Start, open_wire: Any) -> None:
    """2,000 requests before the first answer is read: neither side's buffers may run full."""
    async with open_wire(await start()) as wire:
        wire.send(b"".join(chat(f"row {n}") for n in range(2000)))

        for n in range(2000):
            assert said(await wire.response()) == f"[simulated] row {n}"


async def test_a_pipeline_behind_a_slow_request_is_answered_whole(
    start: Start, open_wire: Any
) -> None:
    """More than the server reads ahead while one request is under way."""
    async with open_wire(await start(latency_s=0.02)) as wire:
        wire.send(b"".join(chat(f"row {n} {'x' * 60_000}") for n in range(5)))

        for n in range(5):
            assert said(await wire.response()).startswith(f"[simulated] row {n}")


async def test_a_request_may_come_byte_by_byte(start: Start, open_wire: Any) -> None:
    async with open_wire(await start()) as wire:
        for byte in chat("hello"):
            wire.send(bytes([byte]))
            await asyncio.sleep(0)

        assert said(await wire.response()) == "[simulated] hello"


async def test_a_chunked_body_is_read(start: Start, open_wire: Any) -> None:
    head, _, body = chat("hello").partition(b"\r\n\r\n")
    head = head[: head.rindex(b"\r\n")] + b"\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = b"".join(
        f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in (body[:10], body[10:])
    )
    async with open_wire(await start()) as wire:
        wire.send(head + chunks + b"0\r\n\r\n")

        assert said(await wire.response()) == "[simulated] hello"


async def test_a_client_that_waits_for_100_continue_gets_it(start: Start, open_wire: Any) -> None:
    head, end, body = chat("hello", "expect: 100-continue").partition(b"\r\n\r\n")
    async with open_wire(await start()) as wire:
        wire.send(head + end)
        assert await wire.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(body)

        assert said(await wire.response()) == "[simulated] hello"


async def test_what_is_no_request_gets_a_400_and_a_close(start: Start, open_wire: Any) -> None:
    async with open_wire(await start()) as wire:
        wire.send(b"this is not HTTP\r\n\r\n" + chat("hello"))

        status, body = await wire.response()
        assert (status, body["error"]["type"]) == (400, "invalid_request_error")
        assert await wire.rest() == b""


async def test_a_body_that_is_too_large_is_refused_before_it_is_sent(
    start: Start, open_wire: Any
) -> None:
    async with open_wire(await start()) as wire:
        wire.send(b"POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 67108865\r\n\r\n")

        assert (await wire.response())[0] == 413


async def test_a_body_of_megabytes_is_taken(start: Start, open_wire: Any) -> None:
    async with open_wire(await start()) as wire:
        wire.send(chat("x" * 10_000_000))

        status, body = await wire.response()

    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")


async def test_connection_close_is_kept(start: Start, open_wire: Any) -> None:
    async with open_wire(await start()) as wire:
        wire.send(chat("hello", "connection: close"))

        assert b"connection: close" in await wire.head()
        assert json.loads(await wire.rest())["choices"]


async def test_a_client_that_has_sent_its_last_still_gets_what_is_ready(
    start: Start, open_wire: Any
) -> None:
    async with open_wire(await start()) as wire:
        wire.send(chat("one") + chat("two"))
        wire.writer.write_eof()

        answers = [said(await wire.response()) for _ in range(2)]
        assert await wire.rest() == b""

    assert answers == ["[simulated] one", "[simulated] two"]


async def test_a_truncated_answer_ends_before_its_length(start: Start, open_wire: Any) -> None:
    async with open_wire(await start()) as wire:
        wire.send(chat("[[truncate]]"))

        head = await wire.head()
        body = await wire.rest()

    (length,) = (int(line[16:]) for line in head.splitlines() if b"content-length" in line)
    assert 0 < len(body) < length


@pytest.mark.parametrize("is_paid", [True, False])
async def test_a_reset_is_a_reset(start: Start, open_wire: Any, is_paid: bool) -> None:
    base_url = await start(reset_rate=1, reset_is_paid=is_paid)
    async with open_wire(base_url) as wire:
        wire.send(chat("hello"))
        with pytest.raises(ConnectionResetError):
            await wire.rest()

    async with open_wire(base_url) as wire:
        wire.send(b"GET /stats HTTP/1.1\r\nhost: x\r\n\r\n")
        _, stats = await wire.response()
    assert stats["paid"] == ({prompt_hash("hello"): 1} if is_paid else {})


@pytest.mark.parametrize("is_reset", [True, False])
async def test_a_client_that_leaves_has_still_paid(
    start: Start, open_wire: Any, is_reset: bool
) -> None:
    base_url = await start(latency_s=30)
    async with open_wire(base_url) as watch:

        async def stats() -> Any:
            watch.send(b"GET /stats HTTP/1.1\r\nhost: x\r\n\r\n")
            return (await watch.response())[1]

        async def is_under_way() -> bool:
            return bool((await stats())["in_flight"] == 1)

        async def is_abandoned() -> bool:
            return bool((await stats())["abandoned"] == 1)

        async with open_wire(base_url) as wire:
            wire.send(chat("hello"))
            await until(is_under_way)
            if is_reset:
                peer = wire.writer.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.writer.transport.abort()
        await until(is_abandoned)

        assert (await stats())["rows_accepted"] == 1
        assert (await stats())["in_flight"] == 0


async def test_a_client_that_reads_slowly_gets_everything(start: Start, open_wire: Any) -> None:
    """Twenty megabytes of answers: more than the kernel takes in while nobody reads."""
    async with open_wire(await start()) as wire:
        wire.send(b"".join(chat(f"[[huge]] {n}", "x-pad: " + "x" * 4000) for n in range(20)))

        for _ in range(20):
            assert len(said(await wire.response())) > 1_000_000


async def test_a_server_that_stops_drops_who_waits(open_wire: Any) -> None:
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(
        serve(SimulatorSettings(timeout_rate=1), on_ready=ready.set_result)
    )
    async with open_wire(await ready) as wire:
        wire.send(chat("hello"))
        await asyncio.sleep(0)
        serving.cancel()

        with suppress(ConnectionResetError):  # or an orderly end, as the kernel has it
            assert await wire.rest() == b""
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_limit_set_in_mid_run_holds_from_then_on(start: Start, open_wire: Any) -> None:
    """600 a minute are 10 at once, and a few more while 100 requests travel."""
    async with open_wire(await start()) as wire:

        async def statuses() -> list[int]:
            wire.send(b"".join(chat(f"row {n}") for n in range(100)))
            return [(await wire.response())[0] for _ in range(100)]

        before = await statuses()
        wire.send(post("/config", {"rpm": 600, "counts_refused": False}))
        await wire.response()
        after = await statuses()

    assert before == [200] * 100
    assert after[:10] == [200] * 10
    assert 10 <= after.count(200) <= 40
    assert after.count(429) == 100 - after.count(200)
