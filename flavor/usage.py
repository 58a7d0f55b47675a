"""Tokens that a response says it billed, and each row's share where rows shared a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flavor.types import Json, Usage

MAX_COUNT = 2**63 - 1
"""The most that a part's columns and Redis's counters hold."""


def read_usage(usage: Json) -> Usage | None:
    """The ``usage`` object of a response; None where it says nothing that can be counted on."""
    if not isinstance(usage, Mapping):
        return None
    prompt: Json = usage.get("prompt_tokens")
    completion = _said(usage, "completion_tokens")
    if not (_is_count(prompt) and _is_count(completion)):
        return None
    total = _said(usage, "total_tokens", otherwise=prompt + completion)
    cached = _said(usage.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _said(usage.get("completion_tokens_details"), "reasoning_tokens")
    if not all(map(_is_count, (total, cached, reasoning))):
        return None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
    )


def split_usage(
    usage: Usage | None, prompts: Sequence[int], *, answers: Sequence[int]
) -> list[Usage | None]:
    """Shares of ``usage`` to rows of these sizes; every field sums exactly to the whole.

    The API bills a pack as one, so a row's share is an estimate and only their sum is exact. A part
    of a count (cached of prompt, reasoning of completion) never exceeds it in any row.
    """
    if usage is None:
        return [None] * len(prompts)
    asked = split_count(usage.prompt_tokens, prompts)
    completions = split_count(usage.completion_tokens, answers)
    spent = [p + c for p, c in zip(asked, completions, strict=True)]
    shares = zip(
        asked,
        completions,
        spent if sum(spent) == usage.total_tokens else split_count(usage.total_tokens, spent),
        split_count(usage.cached_tokens, asked),
        split_count(usage.reasoning_tokens, completions),
        strict=True,
    )
    return [
        Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=total,
            cached_tokens=cached,
            reasoning_tokens=reasoning,
        )
        for prompt, completion, total, cached, reasoning in shares
    ]


def split_count(count: int, weights: Sequence[int]) -> list[int]:
    """Integers in proportion to ``weights`` that sum exactly to ``count``.

    By largest remainder; the first row wins a tie. Weights that sum to nothing share equally.
    """
    if not count:  # most counts of an embedding
        return [0] * len(weights)
    whole = sum(weights)
    if not whole:
        weights, whole = [1] * len(weights), len(weights)
    shares = [count * weight // whole for weight in weights]
    missing = count - sum(shares)
    # sorted() keeps equal remainders in row order, also in reverse.
    by_remainder = sorted(
        range(len(weights)), key=lambda i: count * weights[i] % whole, reverse=True
    )
    for i in by_remainder[:missing]:
        shares[i] += 1
    return shares


def _said(counts: Json, key: str, *, otherwise: int = 0) -> Json:
    """What stands under ``key``, be it a count or not; ``otherwise`` where nothing does."""
    value = counts.get(key) if isinstance(counts, Mapping) else None
    return otherwise if value is None else value


def _is_count(value: Json) -> bool:
    return type(value) is int and 0 <= value <= MAX_COUNT
