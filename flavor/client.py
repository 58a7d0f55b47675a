"""Sends requests to OpenAI, or to what speaks its API. Retries nothing: the worker does.

Connections of our own send and orjson encodes, at a small part of the CPU of the SDK's verbs; what
the SDK knows of addresses and credentials is kept (see ``flavor.endpoint``). aiohttp sends what
these connections do not know: through a proxy, or with headers that change how HTTP is spoken.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping

import aiohttp
import orjson
from yarl import URL

from flavor.classify import classify_exception, classify_response, fold, garbled, read_request_id
from flavor.endpoint import Endpoint, Prepared, read_endpoint
from flavor.errors import ErrorInfo, JobError, RowError
from flavor.pool import CONNECT_TIMEOUT_S, Pool
from flavor.proxy import find_proxy
from flavor.redact import redact
from flavor.types import Json, Request, Response
from flavor.wire import Answer, render_head

LARGE_BYTES = 128 * 1024
"""Answers of this size are read one at a time, with a turn of the loop between: fifty to packs of
texts, that came together, would keep it from all else for half a second."""

_OF_THE_CONNECTION = {
    "accept-encoding", "connection", "content-encoding", "content-length", "expect", "host",
    "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip


class Client:
    """One per process and event loop: create it inside the running loop, never before a fork.

    ``endpoint`` is its address for people and logs, ``limit_key`` a name of address and account
    that is safe to store: workers with the same one share their limits.
    """

    def __init__(self, endpoint: Endpoint, *, concurrency: int, timeout_s: float = 600) -> None:
        self.endpoint = endpoint.url
        self.limit_key = endpoint.limit_key
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._concurrency = concurrency
        self._proxy = find_proxy(endpoint.url)
        self._pool = Pool(URL(endpoint.url), size=concurrency)
        self._session: aiohttp.ClientSession | None = None
        self._reading = asyncio.Lock()  # of large answers

    @classmethod
    def from_environment(cls, *, concurrency: int, timeout_s: float = 600) -> Client:
        """The client that the environment describes, as MLflow and the SDK read it.

        Raises:
            InputError: a key or an address is missing; the text names the variable.
        """
        return cls(read_endpoint(os.environ), concurrency=concurrency, timeout_s=timeout_s)

    async def send(self, request: Request) -> Response:
        """One HTTP call, sent once; the answer with its latency.

        Raises:
            RequestError: as the subclass that says what to do next.
        """
        openai_model = str(request.body.get("model", ""))
        body = _encode(request.body)
        prepared = await self._endpoint.prepare(request.path, openai_model)
        try:
            return await self._post(request, prepared, body=body)
        except JobError as error:
            if error.info.status != 401 or not self._endpoint.has_token_provider:
                raise
        # The token may have been revoked or have expired early; a fresh one is tried once.
        self._endpoint.forget(prepared)
        prepared = await self._endpoint.prepare(request.path, openai_model)
        return await self._post(request, prepared, body=body)

    def redact(self, text: str) -> str:
        """``text`` without this client's key and without anything that looks like one."""
        return redact(text, self._endpoint.secrets)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()
        if self._session is not None:
            await self._session.close()
        await self._endpoint.close()

    async def _post(self, request: Request, prepared: Prepared, *, body: bytes) -> Response:
        started_s = time.perf_counter()
        is_plain = self._proxy is None and not _speaks_otherwise(request.headers)
        post = self._post_plainly if is_plain else self._post_by_aiohttp
        try:
            answer = await post(request, prepared, body=body)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise classify_exception(error, redact=self.redact) from error
        except ValueError as error:  # a header of the row's own
            info = ErrorInfo(type="InvalidInput", message=fold(self.redact(str(error))))
            raise RowError(info, is_unsent=True) from error
        if not 200 <= answer.status < 300:
            raise classify_response(
                answer.status, answer.body, headers=answer.headers, redact=self.redact
            )
        latency_s = time.perf_counter() - started_s
        return Response(
            payload=await self._payload(answer),
            latency_s=latency_s,
            request_id=read_request_id(answer.headers),
            headers=answer.headers,
        )

    async def _payload(self, answer: Answer) -> Json:
        if len(answer.body) < LARGE_BYTES:
            return _decode(answer.body, answer.headers)
        async with self._reading:
            await asyncio.sleep(0)
            return _decode(answer.body, answer.headers)

    async def _post_plainly(self, request: Request, prepared: Prepared, *, body: bytes) -> Answer:
        head = prepared.head
        if request.query or request.headers:
            head = render_head(
                _with_query(prepared.url, request.query),
                _with_headers(prepared.headers, request.headers),
            )
        return await self._pool.post(head, body, timeout_s=request.timeout_s or self._timeout_s)

    async def _post_by_aiohttp(
        self, request: Request, prepared: Prepared, *, body: bytes
    ) -> Answer:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._concurrency),
                cookie_jar=aiohttp.DummyCookieJar(),  # rows have nothing to remember between them
                # Not trust_env, which asks in a thread at every request: 0.6 ms of CPU out of 1.0.
                proxy=self._proxy,
            )
        async with self._session.post(
            _with_query(prepared.url, request.query),
            data=body,
            headers=_with_headers(prepared.headers, request.headers),
            allow_redirects=False,  # another host must not be given the key
            timeout=_timeout(request.timeout_s or self._timeout_s),
        ) as response:
            return Answer(response.status, response.headers, await response.read())


def _timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_TIMEOUT_S)


def _encode(body: Mapping[str, Json]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        return _encode_slowly(body)


def _encode_slowly(body: Mapping[str, Json]) -> bytes:
    """What orjson refuses and JSON can say: lone surrogates, huge integers, other keys."""
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        info = ErrorInfo(type="InvalidInput", message=fold(f"cannot be said in JSON: {error}"))
        raise RowError(info) from error


def _decode(raw: bytes, headers: Mapping[str, str]) -> Json:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise garbled(raw, read_request_id(headers)) from error


def _speaks_otherwise(headers: Mapping[str, str] | None) -> bool:
    """Whether a row's headers are about the connection."""
    return not _OF_THE_CONNECTION.isdisjoint(map(str.lower, headers or ()))


def _with_query(url: URL, query: Mapping[str, str] | None) -> URL:
    return url.update_query(query) if query else url


def _with_headers(headers: Mapping[str, str], extra: Mapping[str, str] | None) -> Mapping[str, str]:
    """A row's own headers win, whatever their case."""
    if not extra:
        return headers
    return {**headers, **{name.lower(): value for name, value in extra.items()}}
