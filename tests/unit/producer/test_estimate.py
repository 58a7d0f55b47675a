"""What a job will take is said before anything is sent, and so is how that is known."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flavor.errors import InputError
from flavor.model import ModelSpec, OpenAIModel
from flavor.tokenizer import Tokenizer
from flavor.types import Task
from producer.estimate import Estimate, Measured, Range, estimate_job, sum_up
from producer.estimate_table import estimate_table
from producer.intake import SubmitOptions, open_rows, read_asked
from producer.interval import Interval
from producer.survey import Survey
from worker.jobs import JobState
from worker.settings import Settings

Estimator = Callable[..., Estimate]


@pytest.fixture
def estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Estimator:
    """Estimate a job over these texts, on a machine without tiktoken's files."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "none"))

    def estimate(*texts: str, settings: Settings | None = None, **options: Any) -> Estimate:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        values = {"prompt": "Say: {text}", "openai_model": "gpt-4o-mini", **options}
        return estimate_job(settings or Settings(), SubmitOptions(input_path=str(path), **values))

    return estimate


def _shown(found: Estimate) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(estimate_table(found))
    return captured.get()


def test_rows_requests_and_tokens_are_counted(estimated: Estimator) -> None:
    found = estimated("one two three", "four", params={"max_tokens": 5})

    assert (found.rows, found.requests) == (2, 2)
    assert found.tokens is not None
    assert (found.tokens.counted_by, found.tokens.error) == ("characters", 0.15)
    assert found.tokens.prompt.low < found.tokens.counted < found.tokens.prompt.high
    assert found.tokens.completion == Range(low=2, high=10)
    assert found.tokens.total == found.tokens.prompt + found.tokens.completion
    assert "2 to 10 (from 1 token to what max_tokens allows)" in _shown(found)


def test_an_answer_that_nothing_bounds_is_an_assumption_that_is_said(estimated: Estimator) -> None:
    found = estimated("one", "two", params={"n": 2})

    assert found.tokens is not None
    assert found.tokens.completion == Range(low=64, high=1024)
    assert "assumed: 16 to 256 an answer" in _shown(found)


@pytest.mark.parametrize("answers", ["many", -3, None])
def test_a_number_of_answers_that_is_none_counts_as_one(
    estimated: Estimator, answers: object
) -> None:
    """The API will refuse it, in its own words; the estimate is no place to crash over it."""
    found = estimated("one", params={"n": answers})

    assert found.tokens is not None
    assert found.tokens.completion == Range(low=16, high=256)


def test_money_is_the_tokens_at_their_price(estimated: Estimator) -> None:
    found = estimated("one", price="1000/2000", params={"max_tokens": 5})

    assert found.tokens is not None
    assert found.cost_usd is not None
    assert found.cost_usd.low == pytest.approx(found.tokens.prompt.low / 1000 + 0.002)
    assert found.cost_usd.high == pytest.approx(found.tokens.prompt.high / 1000 + 0.010)


def test_a_price_that_nobody_knows_is_not_nothing(estimated: Estimator) -> None:
    found = estimated("one", openai_model="somebody's-own")

    assert found.cost_usd is None
    assert found.to_json()["cost_usd"] is None
    assert "cost" in _shown(found)
    assert "no price is known" in _shown(found)


def test_time_is_that_of_the_limit_that_binds(estimated: Estimator) -> None:
    texts = ["word " * 50] * 30

    by_requests = estimated(*texts, rpm=10, tpm=1_000_000, params={"max_tokens": 1})
    by_tokens = estimated(*texts, rpm=10_000, tpm=1000, params={"max_tokens": 1})

    assert by_requests.duration is not None
    assert by_requests.duration.seconds == Range(low=180, high=180)
    assert "at least 3 min 0 s, at 10 requests a minute" in _shown(by_requests)
    assert by_tokens.duration is not None
    assert by_tokens.tokens is not None
    assert by_tokens.duration.seconds == by_tokens.tokens.total.times(60 / 1000)
    assert by_tokens.to_json()["bound_by"] == "tokens_per_min"


def test_the_limits_of_the_environment_count_too(estimated: Estimator) -> None:
    found = estimated("one", "two", settings=Settings(rpm=60), params={"max_tokens": 1})

    assert found.to_json()["time_s"] == {"low": 2, "high": 2}


def test_without_limits_nobody_knows_the_time(estimated: Estimator) -> None:
    found = estimated("one")

    assert found.duration is None
    assert "no limits are given" in _shown(found)


def test_embeddings_share_requests_and_have_no_answers(estimated: Estimator) -> None:
    texts = ["some text"] * 5

    found = estimated(*texts, prompt=None, openai_model="text-embedding-3-small", batch_size=2)

    assert found.requests == 3
    assert found.tokens is not None
    assert found.tokens.completion == Range(low=0, high=0)


def test_completions_are_bounded_by_the_api(estimated: Estimator) -> None:
    """Its own default of ``max_tokens`` is 16."""
    found = estimated("one", task=Task.COMPLETIONS, openai_model="gpt-3.5-turbo-instruct")

    assert found.tokens is not None
    assert found.tokens.completion == Range(low=1, high=16)


def test_a_row_that_does_not_fit_the_template_is_said_and_costs_nothing(
    estimated: Estimator,
) -> None:
    found = estimated("good", "bad", prompt="{text:.1f}")

    assert (found.rows, found.unsendable, found.requests) == (2, 2, 0)
    assert found.to_json()["tokens"]["total"] == {"low": 0, "high": 0}
    assert "2 that do not fit the template" in _shown(found)


def test_of_a_pyfunc_only_the_rows_are_known(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("abc\nde\n")
    options = SubmitOptions(input_path=str(path), openai_model="gpt-4o-mini")
    pyfunc = ModelSpec(uri="m", resolved_uri="m", task=Task.PYFUNC, variables=("text",))
    asked = dataclasses.replace(read_asked(Settings(), options), model=pyfunc)
    survey = Survey.over(asked)
    _, rows = open_rows(asked)
    for found in rows:
        survey.add(found.row)

    estimate = sum_up(asked, survey, rows=rows)

    assert (estimate.rows, estimate.requests, estimate.tokens) == (2, None, None)
    assert "a pyfunc tells nothing of what it spends" in _shown(estimate)
    assert estimate.to_json()["tokens"] is None


def test_no_rows_are_an_error(estimated: Estimator) -> None:
    with pytest.raises(InputError, match="no rows to send"):
        estimated()


def test_what_is_wrong_with_the_input_is_said_with_its_line(estimated: Estimator) -> None:
    with pytest.raises(InputError, match=r"rows\.jsonl:1: no column 'review'"):
        estimated("one", prompt="{review}")


def test_tiktoken_is_named_where_it_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("abc\nde\n")
    asked = read_asked(
        Settings(),
        SubmitOptions(input_path=str(path), prompt="Say: {text}", openai_model="gpt-4o-mini"),
    )
    tokenizer = Tokenizer(name="tiktoken, o200k_base", count=len, error=0.0)
    survey = Survey(OpenAIModel(asked.model, {}), tokenizer)
    _, rows = open_rows(asked)
    for found in rows:
        survey.add(found.row)

    estimate = sum_up(asked, survey, rows=rows)

    counted = 2 * (3 + 4) + len("Say: abc") + len("Say: de")
    assert estimate.tokens is not None
    assert estimate.tokens.prompt == Range(low=counted, high=counted)
    assert f"{counted} (counted with tiktoken, o200k_base)" in _shown(estimate)


def test_what_submit_would_refuse_is_no_estimate(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"id": number, "text": "x"} for number in [*range(5000), 4999, 7]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = SubmitOptions(
        input_path=str(path), prompt="Say: {text}", openai_model="gpt-4o-mini", id_column="id"
    )

    with pytest.raises(InputError, match=r"rows.jsonl:5001: the id '4999' stands at .*:5000"):
        estimate_job(Settings(), options)

    without_ids = dataclasses.replace(options, id_column=None)
    assert estimate_job(Settings(), without_ids).rows == 5002


def test_a_row_too_big_to_be_sent_is_no_estimate(
    estimated: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.spool.MAX_ROW_BYTES", 1 << 20)

    with pytest.raises(InputError, match=r"rows.jsonl:2: the row takes 2 MiB"):
        estimated("small", "x" * (2 << 20))


def test_the_pilot_says_its_intervals_and_how_to_go_on(estimated: Estimator) -> None:
    interval = Interval(estimate=1000, low=900, high=1100)
    pilot = Measured(
        job_id="p1", state=JobState.COMPLETED, rows=10,
        prompt=interval, completion=interval, total=interval, cost_usd=interval,
    )  # fmt: skip
    found = dataclasses.replace(estimated("one"), pilot=pilot)

    assert "1,000 (900 to 1,100), 95% interval" in _shown(found)
    assert "run or submit --pilot-of p1" in _shown(found)
    assert found.to_json()["pilot"]["tokens"]["total"] == {
        "estimate": 1000, "low": 900, "high": 1100,
    }  # fmt: skip


def test_a_pilot_that_did_not_complete_says_nothing_of_the_rest(estimated: Estimator) -> None:
    pilot = Measured(job_id="p1", state=JobState.PAUSED, rows=10, reason="no quota is left")
    found = dataclasses.replace(estimated("one"), pilot=pilot)

    assert "p1 (paused)" in _shown(found)
    assert "says nothing of all rows: no quota is left" in _shown(found)
    assert found.to_json()["pilot"]["tokens"]["total"] is None
