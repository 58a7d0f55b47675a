"""Tokens: what a response says, shared out exactly; what is estimated; what it all costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flavor.errors import InputError
from flavor.prices import Price, cost_usd, find_price, parse_price
from flavor.tokens import TOKENS_PER_ATTACHMENT, estimate_messages, estimate_tokens
from flavor.types import Usage
from flavor.usage import read_usage, split_count, split_usage

COUNTS = st.integers(min_value=0, max_value=10**9)
WEIGHTS = st.lists(st.integers(min_value=0, max_value=10**6), min_size=1, max_size=50)


def make_usage(prompt: int, completion: int = 0, **fields: int) -> Usage:
    total = fields.pop("total", prompt + completion)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total, **fields)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, None),
        ([], None),
        ({}, None),
        ({"prompt_tokens": None}, None),
        ({"prompt_tokens": "7"}, None),
        ({"prompt_tokens": -1}, None),
        ({"prompt_tokens": True}, None),
        ({"prompt_tokens": 2**63}, None),
        ({"prompt_tokens": 2**63 - 1}, make_usage(2**63 - 1)),
        ({"prompt_tokens": 2**63 - 1, "completion_tokens": 1}, None),
        ({"prompt_tokens": 7, "completion_tokens": -1}, None),
        ({"prompt_tokens": 7, "completion_tokens": None}, make_usage(7)),
        ({"prompt_tokens": 7, "total_tokens": 7.5}, None),
        ({"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2**64}}, None),
        ({"prompt_tokens": 7, "completion_tokens_details": {"reasoning_tokens": "1"}}, None),
        ({"prompt_tokens": 7, "total_tokens": 7}, make_usage(7)),
        ({"prompt_tokens": 7, "completion_tokens": 2}, make_usage(7, 2)),
        (
            {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 12},
            make_usage(7, 2, total=12),
        ),
        (
            {"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 3}},
            make_usage(7, cached_tokens=3),
        ),
        (
            {"prompt_tokens": 7, "completion_tokens_details": None, "prompt_tokens_details": {}},
            make_usage(7),
        ),
    ],
)
def test_usage_is_what_the_response_says(said: Any, expected: Usage | None) -> None:
    assert read_usage(said) == expected


@given(count=COUNTS, weights=WEIGHTS)
def test_shares_sum_exactly_and_are_fair(count: int, weights: list[int]) -> None:
    shares = split_count(count, weights)

    assert sum(shares) == count
    whole = sum(weights)
    if whole:
        # Integers: floats round at 10**9.
        assert all(
            abs(share * whole - count * weight) < whole
            for share, weight in zip(shares, weights, strict=True)
        )


def test_the_first_row_wins_a_tie() -> None:
    assert split_count(5, [1, 1, 1]) == [2, 2, 1]
    assert split_count(2, [0, 0, 0]) == [1, 1, 0]


@given(data=st.data(), weights=WEIGHTS, prompt=COUNTS, completion=COUNTS, more=st.booleans())
def test_every_field_sums_to_the_pack_and_parts_stay_parts(
    data: st.DataObject, weights: list[int], prompt: int, completion: int, more: bool
) -> None:
    whole = make_usage(
        prompt,
        completion,
        total=prompt + completion + more,
        cached_tokens=data.draw(st.integers(0, prompt)),
        reasoning_tokens=data.draw(st.integers(0, completion)),
    )

    shares = [share for share in split_usage(whole, weights, answers=weights) if share]

    for field in Usage.__slots__:
        assert sum(getattr(share, field) for share in shares) == getattr(whole, field)
    assert all(share.cached_tokens <= share.prompt_tokens for share in shares)
    assert all(share.reasoning_tokens <= share.completion_tokens for share in shares)


def test_unknown_usage_stays_unknown_for_every_row() -> None:
    assert split_usage(None, [1, 2], answers=[1, 2]) == [None, None]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # Counted with o200k_base.
        ("The quick brown fox jumps over the lazy dog and runs away from the hunters.", 16),
        ("公司宣布推出一种新模型,它能够更快、更准确地回答用户的问题。", 18),
    ],
)
def test_estimates_are_near_and_not_below(text: str, tokens: int) -> None:
    assert tokens <= estimate_tokens(text) <= 2 * tokens


def test_any_text_can_be_estimated() -> None:
    assert estimate_tokens("") == 1
    assert estimate_tokens("\ud800") == 1


def test_an_attachment_is_not_its_base64() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10**6}}
    parts = [{"type": "text", "text": "what?"}, image, "more"]

    estimate = estimate_messages([{"role": "user", "content": parts}, {"content": None}])

    assert TOKENS_PER_ATTACHMENT < estimate < TOKENS_PER_ATTACHMENT + 30


def test_cost_counts_cached_tokens_at_their_own_rate() -> None:
    usage = make_usage(1000, 100, cached_tokens=400)

    assert cost_usd(parse_price("1/10/0.5"), usage) == pytest.approx(0.0006 + 0.0002 + 0.001)
    assert cost_usd(parse_price("1/10"), usage) == pytest.approx(0.001 + 0.001)


def test_cost_is_unknown_where_price_or_usage_is() -> None:
    assert cost_usd(None, make_usage(1)) is None
    assert cost_usd(parse_price("1/1"), None) is None


@pytest.mark.parametrize("text", ["", "1", "a/b", "1/2/3/4", "-1/2", "nan/1", "inf/1", "1/"])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="INPUT/OUTPUT"):
        parse_price(text)


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_MODEL_CATALOG_URI", raising=False)


@pytest.mark.usefixtures("bundled")
def test_prices_come_from_the_catalogue_that_mlflow_bundles() -> None:
    price = find_price("gpt-4o-mini")

    assert price is not None
    assert price.input_usd_per_token == pytest.approx(0.15e-6)
    assert price.output_usd_per_token == pytest.approx(0.6e-6)
    assert price.cached_usd_per_token == pytest.approx(0.075e-6)
    assert find_price("openai/gpt-4o-mini") == price
    assert find_price("gpt-4o-mini-2099-01-01") == price
    assert find_price("gpt-4o-mini", "azure") is not None
    assert find_price("text-embedding-3-small") == Price(
        input_usd_per_token=0.02e-6, output_usd_per_token=0.0
    )


@pytest.mark.usefixtures("bundled")
def test_an_unknown_model_has_no_price() -> None:
    assert find_price("my-deployment") is None
    assert find_price("ft:my-model:org") is None
    assert find_price("gpt-4o-mini", "no-such-provider") is None


def test_a_catalogue_of_ones_own_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pricing = {"input_per_million_tokens": 2, "output_per_million_tokens": 4}
    models = {"mine": {"pricing": pricing}, "free?": {"pricing": {}}, "odd": {"pricing": None}}
    (tmp_path / "openai.json").write_text(json.dumps({"models": models}))
    (tmp_path / "azure.json").write_text("not json")
    monkeypatch.setenv("MLFLOW_MODEL_CATALOG_URI", tmp_path.as_uri())

    assert find_price("mine") == Price(input_usd_per_token=2e-6, output_usd_per_token=4e-6)
    assert find_price("free?") is None
    assert find_price("odd") is None
    assert find_price("gpt-4o-mini", "azure") is not None  # a broken file is as good as none


def test_a_catalogue_of_an_unknown_scheme_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_MODEL_CATALOG_URI", "s3://bucket")

    with pytest.raises(InputError, match="MLFLOW_MODEL_CATALOG_URI"):
        find_price("gpt-4o")
