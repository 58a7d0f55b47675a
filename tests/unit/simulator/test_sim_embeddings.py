"""Vectors: their length, likeness and encodings; and the refusals of whole packs."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from producer.simulator.embeddings import Vectors, read_embedding


def vectors(asked: Any) -> npt.NDArray[np.float32]:
    assert asked.status == 200, asked.body
    return np.array([row["embedding"] for row in asked.body["data"]], dtype=np.float32)


@pytest.mark.parametrize(
    ("openai_model", "dimensions"),
    [
        ("text-embedding-3-small", 1536),
        ("text-embedding-3-large", 3072),
        ("text-embedding-ada-002", 1536),
    ],
)
def test_vectors_have_the_model_s_dimensions_and_length_1(
    desk: Any, openai_model: str, dimensions: int
) -> None:
    (vector,) = vectors(desk.embed("hello world", model=openai_model))

    assert vector.shape == (dimensions,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_fewer_dimensions_are_honoured_and_still_of_length_1(desk: Any) -> None:
    (vector,) = vectors(desk.embed("hello world", dimensions=256))

    assert vector.shape == (256,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_base64_holds_the_same_numbers(desk: Any) -> None:
    (plain,) = vectors(desk.embed("hello"))
    row = desk.embed("hello", encoding_format="base64").body["data"][0]

    assert np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") == pytest.approx(plain)


def test_texts_alike_have_vectors_alike(desk: Any) -> None:
    rows = vectors(
        desk.embed(
            [
                "the picture of this player is sharp and clear",
                "the picture of this player is sharp and bright",
                "batteries went empty within two days",
            ]
        )
    )

    assert rows[0] @ rows[1] > 0.8
    assert abs(rows[0] @ rows[2]) < 0.4


def test_different_texts_have_different_vectors(desk: Any) -> None:
    rows = vectors(desk.embed(["a b", "b a", "a  b", " "]))

    assert len(np.unique(rows, axis=0)) == 4


def test_the_same_text_has_the_same_vector_in_any_company(make_desk: Callable[..., Any]) -> None:
    alone = vectors(make_desk(seed=3).embed("hello"))
    packed = vectors(make_desk(seed=3).embed(["other", "hello"]))
    other_seed = vectors(make_desk(seed=4).embed("hello"))

    assert np.array_equal(alone[0], packed[1])
    assert not np.allclose(alone[0], other_seed[0])


def test_a_kept_vector_is_that_of_its_text_model_and_length(make_desk: Callable[..., Any]) -> None:
    asked: list[dict[str, Any]] = [{}, {"dimensions": 8}, {"model": "text-embedding-3-large"}]
    keeping = make_desk(keep_vectors=100)

    first = [vectors(keeping.embed(["a", "b"], **options)) for options in asked]
    again = [vectors(keeping.embed(["b", "a"], **options)) for options in asked]

    for (a, b), (b_again, a_again), options in zip(first, again, asked, strict=True):
        assert np.array_equal(a, a_again)
        assert np.array_equal(b, b_again)
        assert np.array_equal(a, vectors(make_desk(keep_vectors=0).embed("a", **options))[0])


def test_no_more_vectors_are_kept_than_were_asked_for() -> None:
    kept = Vectors()
    request = read_embedding({"input": ["a"]}, openai_model="text-embedding-3-small")

    for key in range(9):
        kept.of("a", key=key, request=request, seed=0, most=3)

    assert len(kept) == 3


def test_tokens_are_accepted(desk: Any) -> None:
    assert len(vectors(desk.embed([1, 2, 3]))) == 1
    assert len(vectors(desk.embed([[1, 2], [3]]))) == 2
    assert desk.embed([[1, 2], [3]]).body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        ("", None),
        (["a", ""], None),
        ([], "empty_array"),
        (["a"] * 2049, "array_above_max_length"),
        (["a", 1], None),
        ([1, "a"], None),
        ([[]], None),
        ({"a": 1}, "invalid_type"),
        ("x" * 40_000, None),
        (["x" * 30_000] * 41, "max_tokens_per_request"),
    ],
)
def test_what_openai_refuses_is_refused(desk: Any, texts: object, code: str | None) -> None:
    asked = desk.embed(texts)

    assert (asked.status, asked.error["code"]) == (400, code)


@pytest.mark.parametrize("trigger", ["[[reject]]", "[[filter]]"])
def test_one_bad_input_refuses_the_whole_pack(desk: Any, trigger: str) -> None:
    pack = [f"text {n}" for n in range(10)]
    pack[6] = trigger

    assert desk.embed(pack).status == 400
    assert desk.embed(pack[:6] + pack[7:]).status == 200
    assert desk.stats()["rows_accepted"] == 9


def test_options_out_of_range_are_refused(desk: Any) -> None:
    assert desk.embed("a", dimensions=1537).status == 400
    assert desk.embed("a", dimensions=0).status == 400
    assert desk.embed("a", encoding_format="hex").error["param"] == "encoding_format"
    assert desk.embed("a", dimensions=10, model="text-embedding-ada-002").status == 400
    assert desk.ask("/v1/embeddings", {"model": "m"}).error["param"] == "input"


def test_rows_can_come_out_of_order(make_desk: Callable[..., Any]) -> None:
    in_order = make_desk().embed(["a", "b", "c"]).body["data"]
    for texts in (["a", "b"], ["a", "b", "c"]):
        shuffled = make_desk(shuffle_embeddings=True).embed(texts).body["data"]

        assert [row["index"] for row in shuffled] != list(range(len(texts)))
        assert sorted(shuffled, key=lambda row: row["index"]) == in_order[: len(texts)]
