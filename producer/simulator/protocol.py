"""The sockets: one object per connection, between asyncio and ``wire.py``.

One request at a time: what a client pipelines waits in the buffer, so answers cannot
overtake each other. No task per request: an answer that takes time is a timer.
"""

import asyncio
import socket
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, cast

import orjson

from producer.simulator.wire import (
    CONTINUE,
    MAX_HEAD_BYTES,
    Request,
    RequestReader,
    WireError,
    encode,
)

LINGER_S = 2.0  # for a client that still sends while it is being refused
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Delivery(Enum):
    """How an answer reaches the client, if it does."""

    WHOLE = "whole"
    TRUNCATED = "truncated"  # half of it, then an orderly close
    RESET = "reset"  # half of it, then a reset
    DROPPED = "dropped"  # a reset and nothing else
    HELD = "held"  # never; the connection stays open


@dataclass(slots=True, kw_only=True)  # not frozen: one per request, it costs time
class Response:
    """An answer, and how and when it is to be sent."""

    status: int
    body: bytes
    headers: str = ""
    delay_s: float = 0.0
    delivery: Delivery = Delivery.WHOLE
    is_counted: bool = False  # whether ``finished`` must be told


class Application(Protocol):
    """Who decides on the answers. Nothing in here waits."""

    def handle(self, request: Request) -> Response:
        """Decide on the answer to a request."""
        ...

    def finished(self, response: Response, *, is_delivered: bool) -> None:
        """Learn that an answer went out, or that its client is gone."""
        ...


class Connection(asyncio.Protocol):
    """One client's connection.

    Mutable state: the transport; the reader with what is not yet handled; the answer under
    way and its timer; whether we read (``_is_paused``), the client reads (``_can_write``), or
    it is being turned away (``_is_closing``).

    A client that ends its side has left, as asyncio has it by default: what is under way is
    not delivered. One that only means to send no more cannot be told from one that died.
    """

    def __init__(self, application: Application, *, connections: set["Connection"]) -> None:
        self._application = application
        self._connections = connections
        self._reader = RequestReader()
        self._transport: asyncio.Transport | None = None
        self._pending: Response | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_kept_alive = True
        self._is_paused = False
        self._can_write = True
        self._is_closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: asyncio calls this first."""
        # A cast, as uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End: the client left, or we closed."""
        self._connections.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._finish(is_delivered=False)

    def data_received(self, data: bytes) -> None:
        """Handle what the client sent."""
        if self._is_closing:
            return
        self._reader.feed(data)
        self._pump()

    def pause_writing(self) -> None:
        """Stop: the client does not read what we send."""
        self._can_write = False

    def resume_writing(self) -> None:
        """Go on: it does again."""
        self._can_write = True
        self._pump()

    def abort(self) -> None:
        """Drop the connection: the server stops."""
        if self._transport is not None:
            self._transport.abort()

    def _pump(self) -> None:
        """Handle whole requests until one takes time, the client stalls, or none is left."""
        try:
            while self._pending is None and self._can_write and not self._is_closing:
                request = self._reader.next_request()
                if request is None:
                    self._await_more()
                    break
                self._serve(request)
        except WireError as error:
            self._refuse(error)
        self._throttle_reading()

    def _await_more(self) -> None:
        if self._transport is not None and self._reader.take_continue():
            self._transport.write(CONTINUE)

    def _throttle_reading(self) -> None:
        """Leave a pipeliner's further requests in the kernel while one is under way."""
        is_busy = self._pending is not None or not self._can_write
        is_full = is_busy and self._reader.buffered_bytes > MAX_HEAD_BYTES
        if self._transport is None or is_full == self._is_paused or self._transport.is_closing():
            return
        self._is_paused = is_full
        if is_full:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _serve(self, request: Request) -> None:
        response = self._application.handle(request)
        self._pending = response
        self._is_kept_alive = request.head.is_kept_alive
        if response.delivery is Delivery.HELD:
            return
        if response.delay_s <= 0:
            self._deliver()
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(response.delay_s, self._deliver_late)

    def _deliver_late(self) -> None:
        self._timer = None
        self._deliver()
        self._pump()

    def _deliver(self) -> None:
        response, transport = self._pending, self._transport
        if response is None or transport is None:
            return
        data = encode(
            response.status,
            body=response.body,
            headers=response.headers,
            is_kept_alive=self._is_kept_alive,
        )
        if response.delivery is Delivery.WHOLE:
            transport.write(data)
            if not self._is_kept_alive:
                self._close()
        elif response.delivery is Delivery.TRUNCATED:
            transport.write(data[: len(data) - len(response.body) // 2 - 1])
            self._close()
        else:
            self._reset(data if response.delivery is Delivery.RESET else b"", transport=transport)
        self._finish(is_delivered=True)

    def _reset(self, data: bytes, *, transport: asyncio.Transport) -> None:
        self._is_closing = True
        transport.write(data[: len(data) // 2])
        peer = transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()

    def _finish(self, *, is_delivered: bool) -> None:
        response, self._pending = self._pending, None
        if response is not None and response.is_counted:
            self._application.finished(response, is_delivered=is_delivered)

    def _refuse(self, error: WireError) -> None:
        problem = {"message": str(error), "type": "invalid_request_error", "param": None}
        body = orjson.dumps({"error": {**problem, "code": None}})
        if self._transport is not None:
            self._transport.write(encode(error.status, body=body, is_kept_alive=False))
            self._close()

    def _close(self) -> None:
        """Close so that the client gets what was written.

        To close at once while it still sends would reset the connection, and the answer
        would be lost with it: so end our side, and swallow its side for a moment.
        """
        self._is_closing = True
        transport = self._transport
        if transport is None:
            return
        transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, transport.abort)
