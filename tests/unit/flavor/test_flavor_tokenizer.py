"""Tokens are counted by tiktoken where it has its file, roughly elsewhere; nothing is fetched."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from flavor import tokenizer
from flavor.tokenizer import (
    BY_CHARACTERS_ERROR,
    CL100K,
    O200K,
    encoding_of,
    exact_tokenizer,
    tokenizer_by_characters,
)
from flavor.tokens import TOKENS_PER_ATTACHMENT, prompt_tokens
from flavor.types import Task

# Text -> what tiktoken 0.14.0 counts, with o200k_base and with cl100k_base.
COUNTED = {
    "The battery lasts two full days, which is more than I hoped for. The hinge, however, broke "
    "after a week and nobody answers the phone.": (30, 30),
    "Der Akku hält zwei volle Tage, mehr als ich gehofft hatte. Das Scharnier ist aber nach einer "
    "Woche gebrochen, und niemand geht ans Telefon.": (32, 38),
    "Батарея держится целых два дня, это больше, чем я надеялся. "
    "Но петля сломалась через неделю, и никто не берёт трубку.": (36, 61),  # noqa: RUF001
    "电池可以用整整两天,比我希望的还要长。但是铰链一周后就断了,电话也没人接。": (32, 39),
    "バッテリーは丸二日もち、期待以上でした。でもヒンジは一週間で壊れ、電話には誰も出ません。": (
        32,
        47,
    ),
    '{"id": 17, "name": "cable", "price_usd": 12.99, "tags": ["usb-c", "1 m"], "stock": null, '
    '"sold": [104, 98, 231]}': (51, 51),
    "def total(rows: list[Row]) -> int:\n    found = 0\n    for row in rows:\n"
    "        found += row.usage.total_tokens\n    return found\n": (36, 35),
}


@pytest.mark.parametrize(("encoding", "place"), [(O200K, 0), (CL100K, 1)])
def test_a_count_by_characters_is_as_good_as_it_says(encoding: str, place: int) -> None:
    count = tokenizer_by_characters(encoding).count

    exact = sum(counts[place] for counts in COUNTED.values())
    assert sum(map(count, COUNTED)) == pytest.approx(exact, rel=BY_CHARACTERS_ERROR)
    for text, counts in COUNTED.items():
        assert count(text) == pytest.approx(counts[place], rel=0.25)


def test_a_text_has_a_token_and_no_text_has_none() -> None:
    count = tokenizer_by_characters(O200K).count

    assert (count(""), count(" "), count("\ud800")) == (0, 1, 1)


@pytest.mark.parametrize(
    ("openai_model", "encoding"),
    [
        ("gpt-4o-mini-2024-07-18", O200K),
        ("gpt-4.1", O200K),
        ("o3", O200K),
        ("ft:gpt-4o-mini:acme::x1", O200K),
        ("somebody's-own", O200K),
        ("gpt-4", CL100K),
        ("gpt-4-turbo", CL100K),
        ("azure/gpt-35-turbo", CL100K),
        ("text-embedding-3-small", CL100K),
    ],
)
def test_each_model_has_its_encoding(openai_model: str, encoding: str) -> None:
    assert encoding_of(openai_model) == encoding


def test_tiktoken_is_not_asked_for_a_file_that_it_would_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))

    assert exact_tokenizer(O200K) is None
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_is_none_and_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tiktoken would remove it and fetch a new one."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    file = _cached(tmp_path, CL100K)
    file.write_bytes(b"cut off")

    assert exact_tokenizer(CL100K) is None
    assert file.read_bytes() == b"cut off"


def test_a_whole_file_is_found_where_tiktoken_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", str(tmp_path))
    _cached(tmp_path, O200K).write_bytes(b"whole")
    monkeypatch.setitem(tokenizer._SHA256, O200K, hashlib.sha256(b"whole").hexdigest())

    assert tokenizer._has_file(O200K)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # tiktoken's way of saying: no cache
    assert not tokenizer._has_file(O200K)


def test_tiktoken_counts_exactly_where_its_file_is() -> None:
    exact = exact_tokenizer(O200K)
    if exact is None:
        pytest.skip("tiktoken has no o200k_base here")

    assert [exact.count(text) for text in COUNTED] == [counts[0] for counts in COUNTED.values()]
    assert exact.count("<|endoftext|> \ud800") > 1  # special to tiktoken, text to us


def test_a_prompt_is_counted_with_all_that_goes_along() -> None:
    def count(text: str) -> int:
        return len(text)

    image = {"type": "image_url", "image_url": {"url": "https://x"}}
    body = {
        "messages": [
            {"role": "system", "content": "ab"},
            {"role": "user", "content": [{"type": "text", "text": "cde"}, image]},
        ],
        "tools": [1],
    }

    overhead = 3 + 2 * 4
    asked = prompt_tokens(Task.CHAT, body, count)
    assert asked == overhead + 2 + 3 + TOKENS_PER_ATTACHMENT + len("[1]")
    assert prompt_tokens(Task.COMPLETIONS, {"prompt": ["ab", "c"]}, count) == 3
    assert prompt_tokens(Task.EMBEDDINGS, {"input": ["ab"]}, count) == 2


def _cached(folder: Path, encoding: str) -> Path:
    url = f"https://openaipublic.blob.core.windows.net/encodings/{encoding}.tiktoken"
    return folder / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
