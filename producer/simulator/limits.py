"""Requests and tokens per minute, enforced as short-window servers do.

An allowance is refilled continuously and holds at most ``burst_s`` seconds' worth. Limits
are looked up at each request, so a change in mid-run holds at once. The clock is an argument.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil

from producer.simulator.settings import SimulatorSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """So many a minute, and what of it can be used at once."""

    per_min: int
    per_s: float
    burst: float


@dataclass(slots=True)
class Allowance:
    """What is left of one limit. Negative: a debt, see ``take``."""

    left: float
    at_s: float

    def refill(self, limit: Limit, *, now_s: float) -> None:
        """Add what has come since; a limit that was lowered takes what is above it."""
        gained = max(0.0, now_s - self.at_s) * limit.per_s
        self.left = min(limit.burst, self.left + gained)
        self.at_s = now_s

    def wait_s(self, limit: Limit, *, amount: float) -> float:
        """How long until ``amount`` can be taken; 0: now.

        A full allowance pays for any amount, and owes the rest: else what needs more than a
        burst could never be sent, although the minute's limit has room for it.
        """
        missing = min(amount, limit.burst) - self.left
        # Below a nanosecond's worth it is the rounding of floats that is missing.
        return missing / limit.per_s if missing > limit.per_s * 1e-9 else 0.0

    def take(self, amount: float) -> None:
        """Debit what was granted."""
        self.left -= amount

    def punish(self) -> None:
        """Debit a refused request, to no less than nothing: who resends at once gets nothing."""
        if self.left > 0:
            self.left = max(0.0, self.left - 1)


@dataclass(slots=True, kw_only=True)  # not frozen: see ``ModelRequest``
class Admission:
    """Whether a request may pass, and what its answer says of the limits."""

    wait_s: float  # 0: admitted
    short_of: str  # "requests" or "tokens"
    is_too_large: bool  # no wait could help
    headers: str

    @property
    def is_admitted(self) -> bool:
        """Whether the request may pass."""
        return self.wait_s == 0 and not self.is_too_large


UNLIMITED = Admission(wait_s=0.0, short_of="", is_too_large=False, headers="")


@dataclass(slots=True)
class Account:
    """The state of one key's limits for one model."""

    requests: Allowance | None = None
    tokens: Allowance | None = None


@dataclass(slots=True)
class Limits:
    """The accounts of a simulation: the mutable part of this module."""

    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)

    def admit(
        self, account: tuple[str, str], *, tokens: int, settings: SimulatorSettings, now_s: float
    ) -> Admission:
        """Debit one request and ``tokens``, both or neither."""
        if settings.rpm is None and settings.tpm is None:
            return UNLIMITED
        state = self.accounts.get(account)
        if state is None:
            state = self.accounts[account] = Account()
        by_request = _limit(settings.rpm, settings=settings)
        by_token = _limit(settings.tpm, settings=settings)
        state.requests = _refilled(state.requests, limit=by_request, now_s=now_s)
        state.tokens = _refilled(state.tokens, limit=by_token, now_s=now_s)
        request_wait_s = _wait_s(state.requests, limit=by_request, amount=1)
        token_wait_s = _wait_s(state.tokens, limit=by_token, amount=tokens)
        is_too_large = by_token is not None and tokens > by_token.per_min
        wait_s = max(request_wait_s, token_wait_s)
        if wait_s == 0 and not is_too_large:
            _debit(state, tokens=tokens)
        elif settings.counts_refused and state.requests is not None:
            # Source: OpenAI's guide to rate limits, "unsuccessful requests contribute to your
            # per-minute limit, so continuously resending a request won't work".
            state.requests.punish()
        headers = ""
        if settings.limit_headers:
            headers = _headers("requests", limit=by_request, allowance=state.requests)
            headers += _headers("tokens", limit=by_token, allowance=state.tokens)
        return Admission(
            wait_s=wait_s,
            short_of="tokens" if is_too_large or token_wait_s > request_wait_s else "requests",
            is_too_large=is_too_large,
            headers=headers,
        )


def duration(seconds: float) -> str:
    """A time as OpenAI's headers write it: ``6ms``, ``1s``, ``1.5s``, ``1m30s``, ``1h0m0s``."""
    total_ms = ceil(seconds * 1000 - 1e-6)
    if 0 < total_ms < 1000:
        return f"{total_ms}ms"
    minutes, rest_ms = divmod(total_ms, 60_000)
    text = f"{rest_ms / 1000:g}s"
    if minutes >= 60:
        return f"{minutes // 60}h{minutes % 60}m{text}"
    return f"{minutes}m{text}" if minutes else text


@lru_cache(maxsize=16)
def make_limit(per_min: int, *, burst_s: float) -> Limit:
    """A limit that is refilled continuously and holds ``burst_s`` seconds' worth."""
    return Limit(per_min=per_min, per_s=per_min / 60, burst=per_min / 60 * burst_s)


def _limit(per_min: int | None, *, settings: SimulatorSettings) -> Limit | None:
    return None if per_min is None else make_limit(per_min, burst_s=settings.burst_s)


def _refilled(
    allowance: Allowance | None, *, limit: Limit | None, now_s: float
) -> Allowance | None:
    if limit is None:
        return None
    if allowance is None:
        return Allowance(left=limit.burst, at_s=now_s)
    allowance.refill(limit, now_s=now_s)
    return allowance


def _wait_s(allowance: Allowance | None, *, limit: Limit | None, amount: float) -> float:
    if allowance is None or limit is None:
        return 0.0
    return allowance.wait_s(limit, amount=amount)


def _debit(state: Account, *, tokens: int) -> None:
    if state.requests is not None:
        state.requests.take(1)
    if state.tokens is not None:
        state.tokens.take(tokens)


def _headers(name: str, *, limit: Limit | None, allowance: Allowance | None) -> str:
    """What a minute's limit has left, and when it is whole again.

    As OpenAI's, they speak of the minute, although less than that can be used at once: what
    is missing from the minute is what is missing from the allowance. So with a short burst a
    429 comes while ``remaining`` is far from 0.
    """
    if limit is None or allowance is None:
        return ""
    used = limit.burst - allowance.left
    return (
        f"x-ratelimit-limit-{name}: {limit.per_min}\r\n"
        f"x-ratelimit-remaining-{name}: {max(0, int(limit.per_min - used))}\r\n"
        f"x-ratelimit-reset-{name}: {duration(used / limit.per_s)}\r\n"
    )
