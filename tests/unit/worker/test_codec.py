"""How rows and outcomes travel: what is encoded is decoded as it was, garbage is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flavor.errors import ErrorInfo
from flavor.types import Row, Usage
from tests.unit.worker.making import make_outcome, make_rows
from worker.codec import (
    decode_outcomes,
    decode_rows,
    encode_outcomes,
    encode_rows,
)
from worker.jobs import Outcome, Verdict

ODD_TEXTS = [
    *("", "\0", "a\0b", "\ud800", "é\udfff\0", "{x} {{y}}", "007", '"', " x"),
    "\u202e\u0645\u0631\u062d\u0628\u0627",  # right to left
]


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_texts_of_rows_survive(text: str) -> None:
    rows = [Row(row_id=f"id{text}", index=7, values={"text": text}, params={"stop": [text]})]

    assert decode_rows(encode_rows(rows)) == rows


@pytest.mark.parametrize("number", [2**53 + 1, 2**63 - 1, 2**64, -(2**70), 0, 0.1, 1e300])
def test_numbers_of_rows_keep_every_digit(number: float) -> None:
    rows = [Row(row_id="r", index=0, values={"n": number, "deep": [{"n": number}]})]

    (decoded,) = decode_rows(encode_rows(rows))

    assert decoded.values == rows[0].values
    assert type(decoded.values["n"]) is type(number)


def test_a_huge_number_does_not_change_the_other_rows() -> None:
    rows = [*make_rows(2), Row(row_id="\ud800", index=2, values={"n": 2**80, "text": "é\0"})]

    assert decode_rows(encode_rows(rows)) == rows


def test_a_row_of_ten_megabytes_survives() -> None:
    rows = make_rows(1, text="x" * 10_000_000)

    payload = encode_rows(rows)

    assert len(payload) < 100_000
    assert decode_rows(payload) == rows


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"1234567",
        b"12345678",
        b"\xff" * 40,
        b"\x05" + b"\0" * 8 + b"no zstd at all",
        encode_rows(make_rows(3))[:-3],
        encode_rows(make_rows(3))[:-3] + b"???",
        struct.pack("<Q", 2**62) + encode_rows(make_rows(3))[8:],
        struct.pack("<Q", 3) + encode_rows(make_rows(3))[8:],
        b"\x80\x04\x95pickle",
    ],
)
def test_a_payload_of_another_form_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode_rows(payload)


OUTCOMES = [
    Outcome(row_id="a", index=0, verdict=Verdict.CANCELLED),
    make_outcome(3, output="é\ud800\0", finish_reason="stop", cost_usd=1e-7, latency_s=0.25),
    make_outcome(4, output="", request_id="req", response_model="gpt-x", attempts=6),
    make_outcome(5, output=b"\0\0\x80?" * 1536),
    make_outcome(6, output=b""),
    make_outcome(7, usage=Usage(prompt_tokens=0, total_tokens=0)),
    Outcome(
        row_id="b",
        index=2**40,
        verdict=Verdict.REJECTED,
        error=ErrorInfo(type="T", message="m\0\ud800", status=400, code="c", request_id="r"),
    ),
]


@pytest.mark.parametrize("outcome", OUTCOMES, ids=range(len(OUTCOMES)))
def test_an_outcome_survives(outcome: Outcome) -> None:
    assert decode_outcomes(encode_outcomes([outcome])) == [outcome]


@pytest.mark.parametrize("count", range(1, len(OUTCOMES) + 1))
def test_outcomes_of_every_kind_survive_together(count: int) -> None:
    assert decode_outcomes(encode_outcomes(OUTCOMES[:count])) == OUTCOMES[:count]


def test_an_outcome_that_an_older_worker_wrote_by_itself_is_read() -> None:
    text = b'["a",0,"succeeded","hi","stop",[1,2,3,0,0],1e-07,1,0.5,"req","gpt-x",null]'
    vector = b'["b",1,"succeeded",null,null,null,null,1,null,null,null,null]\0\0\0\x80?'

    (said,), (embedded,) = decode_outcomes(text), decode_outcomes(vector)

    assert (said.row_id, said.output, said.finish_reason, said.latency_s) == (
        "a",
        "hi",
        "stop",
        0.5,
    )
    assert said.usage == Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    assert (embedded.row_id, embedded.output) == ("b", b"\0\0\x80?")


@given(
    row_id=st.text(st.characters(exclude_categories=())),
    output=st.none() | st.text(st.characters(exclude_categories=())) | st.binary(),
    cost_usd=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
@settings(max_examples=60, deadline=None)
def test_any_outcome_survives(
    row_id: str, output: str | bytes | None, cost_usd: float | None
) -> None:
    outcome = make_outcome(1, row_id=row_id, output=output, cost_usd=cost_usd)

    assert decode_outcomes(encode_outcomes([outcome])) == [outcome]


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"5",
        b"null",
        b"[1]",
        b"{}",
        b"\xff\xfe",
        b"\x80\x04\x95pickle",
        b"[" * 200_000,
        encode_outcomes(OUTCOMES[1:2])[:-1],
        encode_outcomes(OUTCOMES[:1]).replace(b"cancelled", b"vanished"),
        b"[]",
        encode_outcomes(OUTCOMES)[:-1],
        encode_outcomes(OUTCOMES) + b"?",
        encode_outcomes(OUTCOMES).replace(b",6144,", b",null,"),
        b'["a",0,"succeeded",null,null,[1],null,1,null,null,null,null]',
        b'["a",0,"succeeded",null,null,5,null,1,null,null,null,null]',
        b'["a",0,"succeeded",null,null,null,null,1,null,null,null,["T"]]',
    ],
)
def test_an_outcome_of_another_form_is_a_value_error(blob: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode_outcomes(blob)
