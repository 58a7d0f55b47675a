"""What an answer's headers say of the account's limits: OpenAI's ``x-ratelimit-*``.

Only a limit *per minute* is of use for pacing. Some servers send a day's under the same name, or
count in fixed windows; what the headers say of themselves tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

TOLERANCE_S = 1.0
"""``remaining`` is a whole number and ``reset`` may be in whole seconds: so far they may differ."""

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """One limit. ``used_s`` is how long until it would be whole again, as far as that is known.

    ``per_min`` is None where the server names a limit that is none per minute.
    """

    per_min: int | None
    used_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """Both limits as one answer tells them; None is one that it does not mention."""

    requests: RateLimit | None = None
    tokens: RateLimit | None = None


def read_rate_limits(headers: Mapping[str, str] | None) -> RateLimits:
    """The limits in the headers of an answer, of whatever status. Never raises."""
    if not headers:
        return RateLimits()
    return RateLimits(requests=_read(headers, "requests"), tokens=_read(headers, "tokens"))


def read_duration(text: str) -> float | None:
    """Seconds of ``6ms``, ``1m30s``, ``1.5s``, or of a plain number; None for anything else."""
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    return _number(text)


def _read(headers: Mapping[str, str], name: str) -> RateLimit | None:
    limit = _number(headers.get(f"x-ratelimit-limit-{name}", ""))
    if not limit or limit < 1:
        return None
    remaining = _number(headers.get(f"x-ratelimit-remaining-{name}", ""))
    reset_s = read_duration(headers.get(f"x-ratelimit-reset-{name}", ""))
    if remaining is None or reset_s is None:
        return RateLimit(per_min=int(limit))
    used_s = max(0.0, limit - remaining) / limit * 60
    if abs(reset_s - used_s) <= max(TOLERANCE_S, 0.2 * used_s):
        return RateLimit(per_min=int(limit), used_s=reset_s)
    # A bucket that is refilled over a day (Groq's requests) takes far longer to be whole.
    is_per_day = used_s > 0 and reset_s / used_s > 100
    return RateLimit(per_min=None if is_per_day else int(limit))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e15 else None
