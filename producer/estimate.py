"""What a job will take, said before it is submitted: rows, tokens, money, time. Sends nothing.

The input is read once, as a stream, and every row is rendered and counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from flavor.errors import InputError
from flavor.prices import Price
from flavor.types import Json, Task
from producer.intake import Asked, SubmitOptions, open_rows, read_asked
from producer.interval import CONFIDENCE, Interval
from producer.source import SourceRows
from producer.spool import acceptable
from producer.survey import ASSUMED_ANSWER, Survey
from worker.jobs import JobState, Limits
from worker.runs import prepare_tracking
from worker.settings import Settings

REQUESTS, TOKENS = "requests_per_min", "tokens_per_min"


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """From a least to a most; the same where it is known."""

    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(low=self.low + other.low, high=self.high + other.high)

    def times(self, factor: float) -> Range:
        """Both ends, multiplied."""
        return Range(low=self.low * factor, high=self.high * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """How long the limits make a job last, in seconds, and which of them does: ``REQUESTS`` or
    ``TOKENS``."""

    seconds: Range
    bound_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a pilot's rows say of all rows: nothing, where it did not complete (``reason`` may say
    why) or the API told no usage. ``cost_usd`` is None where nobody knows the price. ``limits`` are
    those that were given, and else what the pilot's answers told."""

    job_id: str
    state: JobState
    rows: int
    reason: str | None = None
    prompt: Interval | None = None
    completion: Interval | None = None
    total: Interval | None = None
    cost_usd: Interval | None = None
    duration: Duration | None = None
    limits: Limits = field(default_factory=Limits)

    def to_json(self) -> dict[str, Json]:
        """As ``Estimate.to_json`` has it."""
        duration = self.duration
        return {
            "job_id": self.job_id,
            "state": self.state.value,
            "reason": self.reason,
            "rows": self.rows,
            "confidence": CONFIDENCE,
            "tokens": {
                "prompt": _interval(self.prompt),
                "completion": _interval(self.completion),
                "total": _interval(self.total),
            },
            "cost_usd": _interval(self.cost_usd, digits=6),
            "limits": _limits(self.limits),
            "time_s": _range(duration.seconds, digits=1) if duration else None,
            "bound_by": duration.bound_by if duration else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """How many tokens all rows will use, and how that is known: ``error`` is how far the count of
    the prompts may be off, as a share of it, and ``prompt`` what it may be then."""

    counted: int
    prompt: Range
    completion: Range
    counted_by: str
    error: float
    completion_by: str

    @property
    def total(self) -> Range:
        """Prompts and answers."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a job will take. None is what nobody can tell: the tokens of a pyfunc, the money
    without a price, the time without limits."""

    input_name: str
    model: str
    rows: int
    skipped: int
    unsendable: int
    requests: int | None
    tokens: Tokens | None
    cost_usd: Range | None
    limits: Limits
    duration: Duration | None
    pilot: Measured | None = None

    def to_json(self) -> dict[str, Json]:
        """The object that ``estimate --json`` prints."""
        tokens, duration = self.tokens, self.duration
        return {
            "input": self.input_name,
            "model": self.model,
            "rows": {"total": self.rows, "skipped": self.skipped, "unsendable": self.unsendable},
            "requests": self.requests,
            "tokens": tokens
            and {
                "counted_by": tokens.counted_by,
                "error": tokens.error,
                "completion_by": tokens.completion_by,
                "prompt": {"estimate": tokens.counted, **_range(tokens.prompt)},
                "completion": _range(tokens.completion),
                "total": _range(tokens.total),
            },
            "cost_usd": _range(self.cost_usd, digits=6) if self.cost_usd else None,
            "limits": _limits(self.limits),
            "time_s": _range(duration.seconds, digits=1) if duration else None,
            "bound_by": duration.bound_by if duration else None,
            "pilot": self.pilot.to_json() if self.pilot else None,
        }


def estimate_job(settings: Settings, options: SubmitOptions) -> Estimate:
    """Read the whole input and say what its job will take. Blocks; keeps nothing anywhere.

    Raises:
        InputError: something is wrong with the input, the model or the options: what ``submit``
            would say.
    """
    if options.model is not None:
        prepare_tracking(settings.tracking_uri)
    asked = read_asked(settings, options)
    survey = Survey.over(asked)
    records, rows = open_rows(asked)
    for found in acceptable(rows, has_ids=bool(options.id_column)):
        survey.add(found.row)
    records.close()
    return sum_up(asked, survey, rows=rows)


def sum_up(asked: Asked, survey: Survey, *, rows: SourceRows) -> Estimate:
    """The estimate of rows that were all surveyed.

    Raises:
        InputError: there were none.
    """
    if not survey.rows:
        raise InputError(f"no rows to send: {rows.first_skip or 'the input is empty'}")
    tokens = _tokens(survey)
    requests = _requests(asked, survey)
    return Estimate(
        input_name=asked.input_name,
        model=asked.openai_model or asked.model.uri,
        rows=survey.rows,
        skipped=rows.skipped,
        unsendable=survey.unsendable,
        requests=requests,
        tokens=tokens,
        cost_usd=_cost(asked.price, tokens),
        limits=asked.limits,
        duration=duration_of(
            asked.limits, requests=requests, tokens=tokens.total if tokens else None
        ),
    )


def duration_of(limits: Limits, *, requests: int | None, tokens: Range | None) -> Duration | None:
    """How long the limits make so many requests and tokens last; None without either.

    It is the least: an endpoint or workers that cannot keep up make it longer.
    """
    found: list[Duration] = []
    for name, limit, used in (
        (REQUESTS, limits.requests_per_min, requests and Range(low=requests, high=requests)),
        (TOKENS, limits.tokens_per_min, tokens),
    ):
        if limit and used:
            found.append(Duration(seconds=used.times(60 / limit), bound_by=name))
    if not found:
        return None
    return Duration(
        seconds=Range(
            low=max(d.seconds.low for d in found), high=max(d.seconds.high for d in found)
        ),
        bound_by=max(found, key=lambda d: d.seconds.high).bound_by,
    )


def _limits(limits: Limits) -> dict[str, Json]:
    return {
        "requests_per_min": limits.requests_per_min,
        "tokens_per_min": limits.tokens_per_min,
    }


def _tokens(survey: Survey) -> Tokens | None:
    if survey.model is None:
        return None
    error = survey.tokenizer.error
    return Tokens(
        counted=survey.prompt,
        prompt=Range(low=survey.prompt * (1 - error), high=survey.prompt * (1 + error)),
        completion=Range(low=survey.answers_low, high=survey.answers_high),
        counted_by=survey.tokenizer.name,
        error=error,
        completion_by=_completion_by(survey),
    )


def _completion_by(survey: Survey) -> str:
    if survey.model is not None and survey.model.spec.task is Task.EMBEDDINGS:
        return "embeddings have none"
    if not survey.unbounded:
        return "from 1 token to what max_tokens allows"
    low, high = ASSUMED_ANSWER
    some = "" if survey.unbounded == survey.rows else f" in {survey.unbounded:,} rows"
    return f"assumed: {low} to {high} an answer{some}, as no max_tokens bounds it"


def _requests(asked: Asked, survey: Survey) -> int | None:
    """Requests without those that are repeated; fewer rows share one where texts are very long."""
    if survey.model is None:
        return None
    together = min(survey.model.rows_per_request, asked.batch_size)
    return math.ceil((survey.rows - survey.unsendable) / together)


def _cost(price: Price | None, tokens: Tokens | None) -> Range | None:
    if price is None or tokens is None:
        return None
    answers = tokens.completion.times(price.output_usd_per_token)
    return tokens.prompt.times(price.input_usd_per_token) + answers


def _range(found: Range, *, digits: int | None = None) -> dict[str, float]:
    return {"low": round(found.low, digits), "high": round(found.high, digits)}


def _interval(found: Interval | None, *, digits: int | None = None) -> dict[str, float] | None:
    if found is None:
        return None
    ends = _range(Range(low=found.low, high=found.high), digits=digits)
    return {"estimate": round(found.estimate, digits), **ends}
