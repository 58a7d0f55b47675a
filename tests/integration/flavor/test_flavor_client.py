"""The client against a real socket: what is sent, what failures mean, that no key leaks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest

from flavor.client import LARGE_BYTES, Client
from flavor.endpoint import azure_endpoint
from flavor.errors import (
    InputError,
    JobError,
    RequestError,
    RowError,
    ThrottledError,
    TransientError,
)
from flavor.types import Request
from flavor.wire import Answer

pytestmark = pytest.mark.integration

KEY = "sk-test-0123456789"


def make_request(**fields: Any) -> Request:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
    defaults: dict[str, Any] = {"path": "/chat/completions", "body": body, "rows": 1}
    return Request(**{**defaults, "estimated_tokens": 1, **fields})


async def test_address_and_headers_are_the_sdks(
    client: Client, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    other = Client.from_environment(concurrency=1)

    response = await other.send(make_request())
    await other.close()

    recorded = api.requests[0]
    assert recorded.path == "/v1/chat/completions"
    assert recorded.headers["authorization"] == f"Bearer {KEY}"
    assert recorded.headers["openai-organization"] == "org-1"
    assert recorded.headers["openai-project"] == "proj-1"
    assert recorded.headers["content-type"] == "application/json"
    assert not [name for name in recorded.headers if name.startswith("x-stainless")]
    assert response.request_id == "req-1"
    assert response.headers is not None
    assert response.headers["X-Request-Id"] == "req-1"
    assert response.latency_s > 0
    assert other.limit_key != client.limit_key  # another organisation has limits of its own


async def test_extra_headers_and_query_are_sent(client: Client, api: Any) -> None:
    request = make_request(headers={"X-Team": "a", "Content-Type": "text/x"}, query={"q": "1 2"})

    await client.send(request)

    assert api.requests[0].headers["x-team"] == "a"
    assert api.requests[0].headers["content-type"] == "text/x"
    assert api.requests[0].query == "q=1+2"


@pytest.mark.parametrize("text", ["naïve 😀", "lone \ud800 surrogate"])
async def test_any_text_is_sent(client: Client, api: Any, text: str) -> None:
    await client.send(make_request(body={"model": "m", "messages": [{"content": text}]}))

    assert api.requests[0].body["messages"][0]["content"] == text


async def test_what_json_cannot_say_is_the_rows_fault(client: Client, api: Any) -> None:
    with pytest.raises(RowError, match="JSON"):
        await client.send(make_request(body={"model": "m", "seed": object()}))

    assert api.requests == []


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, b"oops", TransientError),
        (503, {"error": {"message": "overloaded"}}, TransientError),
        (408, None, TransientError),
        (409, None, TransientError),
        (425, None, TransientError),
        (429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, ThrottledError),
        (429, {"error": {"message": "pay", "code": "insufficient_quota"}}, JobError),
        (400, {"error": {"message": "too long", "code": "context_length_exceeded"}}, RowError),
        (401, {"error": {"message": "bad key"}}, JobError),
        (403, {"error": {"message": "no"}}, JobError),
        (404, {"error": {"message": "no model", "code": "model_not_found"}}, JobError),
        (404, b"<html>nginx</html>", JobError),
        (413, {"error": {"message": "too big"}}, RowError),
        (422, {"error": {"message": "what"}}, RowError),
        (302, None, JobError),
        (200, b"<html>", TransientError),
        (200, b'{"choices": [', TransientError),
    ],
)
async def test_failures_are_told_apart(
    client: Client, api: Any, status: int, body: Any, kind: type[RequestError]
) -> None:
    api.next(status, body, location="http://elsewhere/v1")

    with pytest.raises(RequestError) as caught:
        await client.send(make_request())

    assert type(caught.value) is kind
    assert caught.value.info.status == status
    assert caught.value.info.request_id == "req-1"
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        ({"retry_after": "0.25"}, 0.25),
        ({"retry_after": "3600"}, 3600.0),
        ({"retry_after": "soon"}, None),
    ],
)
async def test_retry_after_is_read(
    client: Client, api: Any, headers: dict[str, str], seconds: float | None
) -> None:
    api.next(429, {"error": {"message": "slow"}}, **headers)

    with pytest.raises(ThrottledError) as caught:
        await client.send(make_request())

    assert caught.value.retry_after_s == seconds


async def test_an_answer_cut_off_is_passing(client: Client, api: Any) -> None:
    api.next(200, b'{"choices": []}', cut=True)

    with pytest.raises(TransientError, match="ClientPayloadError"):
        await client.send(make_request())


async def test_a_refused_connection_is_passing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{held.getsockname()[1]}/v1")
        client = Client.from_environment(concurrency=1)
        with pytest.raises(TransientError):
            await client.send(make_request())
        await client.close()


async def test_an_answer_that_never_comes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
        client = Client.from_environment(concurrency=1)
        with pytest.raises(TransientError, match="no answer in time"):
            await client.send(make_request(timeout_s=0.05))
        await client.close()


async def test_a_key_echoed_by_the_endpoint_is_hidden(client: Client, api: Any) -> None:
    api.next(401, {"error": {"message": f"Incorrect API key provided:\n {KEY}.", "code": KEY}})

    with pytest.raises(JobError) as caught:
        await client.send(make_request())

    info = caught.value.info
    assert KEY not in f"{info} {caught.value}"
    assert info.message == "Incorrect API key provided: [redacted]."
    assert client.redact(f"key {KEY}") == "key [redacted]"


async def test_nothing_shown_holds_a_credential(monkeypatch: pytest.MonkeyPatch, api: Any) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", api.url.replace("http://", "http://me:pa55word@"))
    client = Client.from_environment(concurrency=1)

    await client.send(make_request())
    await client.close()

    assert client.endpoint == api.url
    assert KEY not in client.limit_key


async def test_limits_are_named_by_endpoint_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for key, url in [("k-one", "http://a/v1"), ("k-two", "http://a/v1"), ("k-one", "http://b/v1")]:
        monkeypatch.setenv("OPENAI_API_KEY", key)
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        client = Client.from_environment(concurrency=1)
        again = Client.from_environment(concurrency=1)
        assert client.limit_key == again.limit_key
        keys.add(client.limit_key)
        await client.close()
        await again.close()

    assert len(keys) == 3


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, "OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": ""}, "OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "localhost:80"}, "OPENAI_BASE_URL"),
        ({"OPENAI_API_TYPE": "azure"}, "AZURE_OPENAI_API_KEY"),
        ({"OPENAI_API_TYPE": "azure", "OPENAI_API_KEY": "k"}, "AZURE_OPENAI_ENDPOINT"),
        (
            {
                "OPENAI_API_TYPE": "azure",
                "AZURE_OPENAI_API_KEY": "k",
                "AZURE_OPENAI_ENDPOINT": "https://a",
            },
            "OPENAI_API_VERSION",
        ),
    ],
)
async def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(InputError, match=named):
        Client.from_environment(concurrency=1)


async def test_entra_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_TYPE", "azure_ad")
    monkeypatch.setitem(__import__("sys").modules, "azure.identity", None)

    with pytest.raises(InputError, match=r"batch-inference-worker\[azure\]"):
        Client.from_environment(concurrency=1)


@pytest.mark.parametrize("deployment", [None, "dep-1"])
async def test_azure_has_its_deployment_version_and_key(
    api: Any, monkeypatch: pytest.MonkeyPatch, deployment: str | None
) -> None:
    monkeypatch.setenv("OPENAI_API_TYPE", "azure")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-1")
    monkeypatch.setenv("OPENAI_API_BASE", api.url.removesuffix("/v1"))
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    if deployment:
        monkeypatch.setenv("OPENAI_DEPLOYMENT_NAME", deployment)
    client = Client.from_environment(concurrency=1)

    await client.send(make_request())
    await client.close()

    recorded = api.requests[0]
    assert recorded.path == f"/openai/deployments/{deployment or 'gpt-4o-mini'}/chat/completions"
    assert recorded.query == "api-version=2024-10-21"
    assert recorded.headers["api-key"] == "azure-key-1"


async def test_of_large_answers_one_is_read_in_a_turn_of_the_loop(client: Client) -> None:
    """Fifty that came together kept the loop from all else for half a second."""
    happened: list[str] = []
    answer = Answer(200, {}, b'"%b"' % (b"x" * LARGE_BYTES))

    async def turn() -> None:
        while True:
            happened.append("turn")
            await asyncio.sleep(0)

    async def read() -> None:
        await client._payload(answer)
        happened.append("read")

    turning = asyncio.ensure_future(turn())
    await asyncio.gather(*(read() for _ in range(4)))
    turning.cancel()

    assert happened.count("read") == 4
    assert ("read", "read") not in pairwise(happened)


@pytest.fixture
async def entra(api: Any) -> AsyncIterator[tuple[Client, list[str]]]:
    """A client whose tokens are token-1, token-2, ... and the list of those that were asked for."""
    asked: list[str] = []

    async def provide() -> str:
        await asyncio.sleep(0)
        asked.append(f"token-{len(asked) + 1}")
        return asked[-1]

    environment = {
        "AZURE_OPENAI_ENDPOINT": api.url.removesuffix("/v1"),
        "OPENAI_API_VERSION": "2024-10-21",
    }
    endpoint = azure_endpoint(environment, key=None, token_provider=provide)
    client = Client(endpoint, concurrency=4)
    yield client, asked
    await client.close()


async def test_one_token_serves_many_requests(entra: Any, api: Any) -> None:
    client, asked = entra

    await asyncio.gather(*[client.send(make_request()) for _ in range(4)])

    assert asked == ["token-1"]
    assert {r.headers["authorization"] for r in api.requests} == {"Bearer token-1"}


async def test_a_refused_token_is_renewed_once(entra: Any, api: Any) -> None:
    client, asked = entra
    api.next(401, {"error": {"message": "expired"}})

    await client.send(make_request())

    assert [r.headers["authorization"] for r in api.requests] == [
        "Bearer token-1",
        "Bearer token-2",
    ]
    api.next(401)
    api.next(401)
    with pytest.raises(JobError):
        await client.send(make_request())
    assert asked == ["token-1", "token-2", "token-3"]


async def test_requests_go_through_the_environments_proxy(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://api.invalid/v1")
    monkeypatch.setenv("HTTP_PROXY", api.url.replace("http://", "http://me:pw@"))
    client = Client.from_environment(concurrency=1)

    await client.send(make_request())
    await client.close()

    assert api.requests[0].headers["host"] == "api.invalid"
    assert api.requests[0].headers["proxy-authorization"].startswith("Basic ")


async def test_a_refused_key_is_not_sent_again(client: Client, api: Any) -> None:
    api.next(401)

    with pytest.raises(JobError):
        await client.send(make_request())

    assert len(api.requests) == 1
