"""Answers as OpenAI writes them: the objects of the three endpoints and of the model list."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from producer.simulator.answers import Answer, answer
from producer.simulator.embeddings import Vectors
from producer.simulator.requests import Endpoint, ModelRequest

FINGERPRINT = "simulated"

_LISTED_MODELS = (
    "gpt-4o-mini",
    "gpt-4o",
    "gpt-3.5-turbo-instruct",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "text-embedding-ada-002",
)


@dataclass(slots=True, kw_only=True)  # not frozen: see ``ModelRequest``
class Origin:
    """What an answer depends on beside its request."""

    seed: int
    serial: int  # of the request: makes ids unique
    created_s: int
    cached_share: float = 0.0
    is_shuffled: bool = False
    vectors: Vectors = field(default_factory=Vectors)
    keep_vectors: int = 0


@dataclass(slots=True, kw_only=True)  # not frozen: see ``ModelRequest``
class Reply:
    """An answer's body, and what it is billed."""

    payload: dict[str, Any]
    prompt_tokens: int
    completion_tokens: int


def reply(request: ModelRequest, *, keys: tuple[int, ...], origin: Origin) -> Reply:
    """The answer to a request whose rows have these keys."""
    if request.endpoint is Endpoint.EMBEDDINGS:
        return _embeddings(request, keys=keys, origin=origin)
    answers = [
        answer(request, text=text, key=key, index=index, seed=origin.seed)
        for text, key in zip(request.texts, keys, strict=True)
        for index in range(request.n)
    ]
    if request.endpoint is Endpoint.CHAT:
        return _chat(request, answers=answers, origin=origin)
    return _completions(request, answers=answers, origin=origin)


def model_list(models: tuple[str, ...]) -> dict[str, Any]:
    """The body of ``GET /v1/models``."""
    return {"object": "list", "data": [model_card(name) for name in models or _LISTED_MODELS]}


def model_card(name: str) -> dict[str, Any]:
    """The body of ``GET /v1/models/{name}``."""
    return {"id": name, "object": "model", "created": 0, "owned_by": FINGERPRINT}


def _chat(request: ModelRequest, *, answers: list[Answer], origin: Origin) -> Reply:
    completion_tokens = sum(one.tokens for one in answers)
    payload = {
        "id": f"chatcmpl-sim-{origin.serial}",
        "object": "chat.completion",
        "created": origin.created_s,
        "model": request.openai_model,
        "choices": [
            {
                "index": index,
                "message": _message(one, serial=origin.serial, index=index),
                "logprobs": None,
                "finish_reason": one.finish_reason,
            }
            for index, one in enumerate(answers)
        ],
        "usage": {
            "prompt_tokens": request.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": request.prompt_tokens + completion_tokens,
            "prompt_tokens_details": {
                "cached_tokens": int(request.prompt_tokens * origin.cached_share),
                "audio_tokens": 0,
            },
            "completion_tokens_details": {
                "reasoning_tokens": sum(one.reasoning_tokens for one in answers),
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }
    return Reply(
        payload=payload,
        prompt_tokens=request.prompt_tokens,
        completion_tokens=completion_tokens,
    )


def _message(one: Answer, *, serial: int, index: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": one.content, "refusal": one.refusal}
    if one.tool_name is None:
        return message
    tool = {
        "id": f"call_sim_{serial}_{index}",
        "type": "function",
        "function": {"name": one.tool_name, "arguments": one.tool_arguments},
    }
    return {**message, "tool_calls": [tool]}


def _completions(request: ModelRequest, *, answers: list[Answer], origin: Origin) -> Reply:
    completion_tokens = sum(one.tokens for one in answers)
    payload = {
        "id": f"cmpl-sim-{origin.serial}",
        "object": "text_completion",
        "created": origin.created_s,
        "model": request.openai_model,
        "choices": [
            {
                "index": index,
                "text": one.content or "",
                "logprobs": None,
                "finish_reason": one.finish_reason,
            }
            for index, one in enumerate(answers)
        ],
        "usage": {
            "prompt_tokens": request.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": request.prompt_tokens + completion_tokens,
        },
        "system_fingerprint": FINGERPRINT,
    }
    return Reply(
        payload=payload,
        prompt_tokens=request.prompt_tokens,
        completion_tokens=completion_tokens,
    )


def _embeddings(request: ModelRequest, *, keys: tuple[int, ...], origin: Origin) -> Reply:
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": origin.vectors.of(
                text, key=key, request=request, seed=origin.seed, most=origin.keep_vectors
            ),
        }
        for index, (text, key) in enumerate(zip(request.texts, keys, strict=True))
    ]
    if origin.is_shuffled:
        Random(origin.seed).shuffle(data)  # noqa: S311 - disorder, not secrecy
        if data[0]["index"] == 0:  # a shuffle can leave two in their order
            data.append(data.pop(0))
    tokens = request.prompt_tokens
    payload = {
        "object": "list",
        "data": data,
        "model": request.openai_model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "system_fingerprint": FINGERPRINT,
    }
    return Reply(payload=payload, prompt_tokens=tokens, completion_tokens=0)
