"""What a simulation can be told: limits, latency, faults; at the start or in mid-run.

Every field is also an option of ``producer simulate`` (its description is the help text)
and a key of ``POST /config``. Values are checked here, once, so that nothing below has to.
"""

from functools import cached_property
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Rate = Annotated[float, Field(ge=0, le=1)]

FAULT_RATES = (
    "error_rate",
    "throttle_rate",
    "unavailable_rate",
    "timeout_rate",
    "reset_rate",
    "garbage_rate",
    "truncate_rate",
    "no_usage_rate",
    "no_choices_rate",
)


class SimulatorSettings(BaseModel):
    """A simulation's settings; frozen: a change in mid-run is a new object."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, description="Same seed, model and prompt: same answer, latency, faults.")
    models: tuple[str, ...] = Field(
        (), description="The only models there are, comma separated; default: any not 'unknown-…'."
    )
    keys: tuple[str, ...] = Field(
        (), description="The only API keys accepted, comma separated; default: any but 'invalid'."
    )
    quota_tokens: int | None = Field(
        None, ge=0, description="Tokens per key, after which it answers 429 insufficient_quota."
    )
    context_tokens: int = Field(128_000, gt=0, description="Longest prompt of a chat, in tokens.")
    cached_share: Rate = Field(0.0, description="Share of prompt tokens reported as cached.")

    rpm: int | None = Field(None, gt=0, description="Requests per minute, per key and model.")
    tpm: int | None = Field(None, gt=0, description="Tokens per minute, per key and model.")
    burst_s: float = Field(
        1.0, gt=0, le=60, description="Seconds of a limit that can be used at once; 60: a minute's."
    )
    counts_refused: bool = Field(True, description="A refused request uses up the limit too.")
    charges_usage: bool = Field(
        False, description="Debit the answer's real tokens, not prompt + max_tokens as OpenAI does."
    )
    limit_headers: bool = Field(True, description="Send x-ratelimit-* headers (vLLM does not).")
    retry_after: bool = Field(True, description="Send retry-after and retry-after-ms with a 429.")
    retry_after_date: bool = Field(
        False, description="Send retry-after as an HTTP date, and no retry-after-ms."
    )

    latency_s: float = Field(0.0, ge=0, description="Median time to an answer.")
    latency_spread: float = Field(0.0, ge=0, le=5, description="Sigma of the lognormal around it.")
    tail_share: Rate = Field(0.0, description="Share of prompts that take much longer.")
    tail_factor: float = Field(20.0, ge=0, description="How many times the median those take.")

    parallel: int | None = Field(
        None, gt=0, description="Requests worked on at once, as by a GPU; the others queue."
    )
    queue: int = Field(512, ge=0, description="Longest queue of those; beyond, it answers 503.")

    error_rate: Rate = Field(0.0, description="Share of requests answered 500.")
    throttle_rate: Rate = Field(0.0, description="Share answered 429, whatever the limits.")
    throttle_retry_after_s: float = Field(
        1.0, ge=0, description="What those 429s and the 503s name as retry-after."
    )
    unavailable_rate: Rate = Field(0.0, description="Share answered 503.")
    timeout_rate: Rate = Field(0.0, description="Share never answered; the connection is held.")
    reset_rate: Rate = Field(0.0, description="Share whose connection is reset.")
    reset_is_paid: bool = Field(
        True, description="Reset in mid-answer, the row being paid; else before it is."
    )
    garbage_rate: Rate = Field(0.0, description="Share answered 200 with what is not JSON.")
    truncate_rate: Rate = Field(0.0, description="Share whose answer is cut off half-way.")
    no_usage_rate: Rate = Field(0.0, description="Share answered without usage.")
    no_choices_rate: Rate = Field(0.0, description="Share answered without choices or data.")
    shuffle_embeddings: bool = Field(False, description="Return embeddings out of order.")

    keep_texts: int = Field(
        1000, ge=0, description="How many prompts GET /stats?texts=1 can show; the rest is hashed."
    )
    keep_vectors: int = Field(
        1000, ge=0, description="How many vectors are kept for when their texts come again."
    )
    access_log: bool = Field(False, description="Log every request (never its text) to stderr.")

    @field_validator("models", "keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part for part in value.split(",") if part)
        return value

    @model_validator(mode="after")
    def _rates_fit_together(self) -> "SimulatorSettings":
        if sum(getattr(self, name) for name in FAULT_RATES) > 1 + 1e-9:
            raise ValueError("the fault rates are shares of all requests: together at most 1")
        return self

    @cached_property
    def faults(self) -> tuple[tuple[str, float], ...]:
        """The fault rates that are not 0, by name; looked up for every request."""
        rates = ((name, float(getattr(self, name))) for name in FAULT_RATES)
        return tuple((name, rate) for name, rate in rates if rate)

    def changed(self, changes: dict[str, object]) -> "SimulatorSettings":
        """These settings with some of them changed.

        Raises:
            ValueError: an unknown name or a value out of range (pydantic's is one).
        """
        return SimulatorSettings.model_validate({**self.model_dump(), **changes})
