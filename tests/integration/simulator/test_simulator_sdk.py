"""OpenAI's own client takes the simulation for the real thing."""

import asyncio
from collections.abc import Awaitable, Callable

import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI
from openai.types.chat import ChatCompletion

pytestmark = pytest.mark.integration

Connect = Callable[..., Awaitable[AsyncOpenAI]]
Start = Callable[..., Awaitable[str]]


async def chat(
    client: AsyncOpenAI, text: str, *, openai_model: str = "gpt-4o-mini"
) -> ChatCompletion:
    return await client.chat.completions.create(
        model=openai_model, messages=[{"role": "user", "content": text}]
    )


async def test_chat(connect: Connect) -> None:
    client = await connect()

    reply = await chat(client, "Classify as positive, negative or neutral: I love it")

    assert reply.choices[0].message.content == "positive"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.system_fingerprint == "simulated"
    assert reply.usage is not None
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


async def test_completions(connect: Connect) -> None:
    client = await connect()

    reply = await client.completions.create(model="gpt-3.5-turbo-instruct", prompt=["one", "two"])

    assert [choice.text for choice in reply.choices] == ["[simulated] one", "[simulated] two"]
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == 2


async def test_embeddings(connect: Connect) -> None:
    """The SDK asks for base64 by itself, and for floats when told."""
    client = await connect()
    texts = ["hello", "world"]
    model = "text-embedding-3-small"

    packed = await client.embeddings.create(model=model, input=texts)
    plain = await client.embeddings.create(model=model, input=texts, encoding_format="float")

    assert [len(row.embedding) for row in packed.data] == [1536, 1536]
    assert packed.data[1].embedding == pytest.approx(plain.data[1].embedding)
    assert packed.usage.prompt_tokens == 4


async def test_models(connect: Connect) -> None:
    client = await connect(models="a,b")

    assert [model.id async for model in client.models.list()] == ["a", "b"]


async def test_azure(start: Start) -> None:
    base_url = await start()
    endpoint = base_url.removesuffix("/v1")

    async with AsyncAzureOpenAI(
        azure_endpoint=endpoint, api_key="azure-key", api_version="2024-10-21", max_retries=0
    ) as client:
        reply = await chat(client, "hello", openai_model="my-deployment")

    assert reply.model == "my-deployment"


@pytest.mark.parametrize(
    ("text", "openai_model", "error", "code"),
    [
        ("[[reject]]", "m", openai.BadRequestError, "invalid_prompt"),
        ("[[filter]]", "m", openai.BadRequestError, "content_filter"),
        ("[[error]]", "m", openai.InternalServerError, None),
        ("[[unavailable]]", "m", openai.InternalServerError, None),
        ("[[throttle]]", "m", openai.RateLimitError, "rate_limit_exceeded"),
        ("[[reset]]", "m", openai.APIConnectionError, None),
        ("[[truncate]]", "m", openai.APIConnectionError, None),
        ("hello", "unknown-model", openai.NotFoundError, "model_not_found"),
    ],
)
async def test_errors_are_the_sdk_s_exceptions(
    connect: Connect, text: str, openai_model: str, error: type[openai.APIError], code: str | None
) -> None:
    client = await connect()

    with pytest.raises(error) as raised:
        await chat(client, text, openai_model=openai_model)

    assert raised.value.code == code


async def test_a_bad_key_is_an_authentication_error(connect: Connect) -> None:
    client = await connect(api_key="invalid")

    with pytest.raises(openai.AuthenticationError) as raised:
        await chat(client, "hello")

    assert raised.value.code == "invalid_api_key"


async def test_an_exhausted_quota_is_told_from_a_limit(connect: Connect) -> None:
    client = await connect(quota_tokens=1)
    await chat(client, "hello")

    with pytest.raises(openai.RateLimitError) as raised:
        await chat(client, "hello")

    assert raised.value.code == "insufficient_quota"


async def test_a_request_that_is_never_answered_times_out(connect: Connect) -> None:
    client = (await connect(timeout_rate=1)).with_options(timeout=0.2)

    with pytest.raises(openai.APITimeoutError):
        await chat(client, "hello")


async def test_limits_and_request_id_are_in_the_headers(connect: Connect) -> None:
    client = await connect(rpm=600, tpm=60_000)

    raw = await client.chat.completions.with_raw_response.create(
        model="m", messages=[{"role": "user", "content": "hello"}]
    )

    assert raw.headers["x-ratelimit-limit-requests"] == "600"
    assert raw.headers["x-ratelimit-remaining-requests"] == "599"
    assert raw.headers["x-ratelimit-reset-requests"] == "100ms"
    assert raw.headers["x-ratelimit-limit-tokens"] == "60000"
    assert raw.headers["x-simulated"] == "true"
    assert raw.request_id is not None


async def test_a_limit_lets_no_more_pass_than_it_says(connect: Connect) -> None:
    """1,200 a minute are 20 at once: of 50 in one moment about 20 pass, the rest is told."""
    client = await connect(rpm=1200, counts_refused=False)

    replies = await asyncio.gather(
        *(chat(client, f"row {n}") for n in range(50)), return_exceptions=True
    )

    refused = [reply for reply in replies if isinstance(reply, openai.RateLimitError)]
    passed = [reply for reply in replies if isinstance(reply, ChatCompletion)]
    assert len(refused) + len(passed) == 50
    # What is refilled while 50 requests travel, at 20 a second, on a busy machine.
    assert 20 <= len(passed) <= 40
    assert refused[0].response.headers["retry-after"] == "1"
    assert 0 < int(refused[0].response.headers["retry-after-ms"]) <= 1000


async def test_requests_wait_side_by_side(connect: Connect) -> None:
    client = await connect(latency_s=0.2)
    loop = asyncio.get_running_loop()
    started_s = loop.time()

    await asyncio.gather(*(chat(client, f"row {n}") for n in range(20)))

    assert 0.2 <= loop.time() - started_s < 3
    stats = await client.get("/../stats", cast_to=object)
    assert isinstance(stats, dict)
    assert (stats["max_in_flight"], stats["in_flight"], stats["rows_accepted"]) == (20, 0, 20)
