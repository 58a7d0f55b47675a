"""How many tokens a text will cost, roughly, before it is sent.

For reserving from the limiter and for packing rows into requests; what was really used is in the
response. A tokenizer would be exact and costs 20 to 100 times more than everything else done per
row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from flavor.types import Json, Task

# Measured with o200k_base: bytes of UTF-8 per token are 4.42 on 3,708 product reviews, 4.11 on
# 1,319 maths problems, 3.98 on Python code, 3.29 on JSON, 4.5 to 4.9 on Japanese and Chinese, 9.0
# on Russian. A little below prose: reserving too much is given back when the response comes,
# reserving too little is a 429.
BYTES_PER_TOKEN = 3.7

# Source: OpenAI cookbook, "How to count tokens with tiktoken": 3 per message, 1 for its role, 3 for
# the reply.
TOKENS_PER_MESSAGE = 4
TOKENS_PER_REPLY = 3

# Source: OpenAI "Images and vision": 85 for an image in low detail, 765 for 1024 x 1024 in high
# detail.
TOKENS_PER_ATTACHMENT = 765

# What to reserve for an answer whose length nothing bounds; the real usage settles it.
ANSWER_TOKENS = {
    Task.CHAT: 64,
    Task.COMPLETIONS: 16,  # the API's own default of max_tokens (source: its reference)
}

_ATTACHMENTS = ("image_url", "input_audio", "file")
_CARRIED = ("tools", "functions", "response_format")


def estimate_tokens(text: str) -> int:
    """Tokens of ``text``, at least 1."""
    size = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    return int(size / BYTES_PER_TOKEN) + 1


def estimate_messages(messages: list[Json], count: Callable[[str], int] = estimate_tokens) -> int:
    """Tokens of a rendered chat prompt, with what the API adds around its messages."""
    return TOKENS_PER_REPLY + sum(
        TOKENS_PER_MESSAGE + _estimate_content(message.get("content"), count)
        for message in messages
    )


def reserve_per_row(task: Task, body: Mapping[str, Json]) -> int:
    """Tokens that every row costs whatever its text: its answer, tools and schema sent along.

    OpenAI counts ``max_tokens`` against the limit when a request arrives (source: its guide "Rate
    limits").
    """
    return answer_per_row(task, body) + carried_tokens(body)


def carried_tokens(body: Mapping[str, Json], count: Callable[[str], int] = estimate_tokens) -> int:
    """Tokens of the tools and schema that go along with a prompt."""
    carried = [body[key] for key in _CARRIED if body.get(key)]
    return sum(count(json.dumps(value, default=str)) for value in carried)


def prompt_tokens(
    task: Task, body: Mapping[str, Json], count: Callable[[str], int] = estimate_tokens
) -> int:
    """Tokens of a whole request but for its answers, its texts counted by ``count``."""
    if task is Task.CHAT:
        return carried_tokens(body, count) + estimate_messages(body["messages"], count)
    texts = body["prompt" if task is Task.COMPLETIONS else "input"]
    return sum(map(count, texts))


def answer_per_row(task: Task, body: Mapping[str, Json]) -> int:
    """Tokens to expect of a row's answer: what bounds it, else a guess."""
    if task is Task.EMBEDDINGS:
        return 0
    bound = answer_bound(body)
    return (ANSWER_TOKENS[task] if bound is None else bound) * answers_per_row(body)


def answers_per_row(body: Mapping[str, Json]) -> int:
    """How many answers a row asks for; 1 where it says nothing that the API would take."""
    answers = body.get("n")
    return max(answers, 1) if isinstance(answers, int) else 1


def answer_bound(body: Mapping[str, Json]) -> int | None:
    """The most tokens that one answer may have; None where nothing bounds it."""
    bound = body.get("max_completion_tokens") or body.get("max_tokens")
    return bound if isinstance(bound, int) else None


def _estimate_content(content: Json, count: Callable[[str], int]) -> int:
    if isinstance(content, str):
        return count(content)
    if isinstance(content, list):
        return sum(_estimate_part(part, count) for part in content)
    return 0


def _estimate_part(part: Json, count: Callable[[str], int]) -> int:
    if not isinstance(part, Mapping):
        return count(str(part))
    if any(key in part for key in _ATTACHMENTS):
        return TOKENS_PER_ATTACHMENT
    return count(str(part.get("text", "")))
