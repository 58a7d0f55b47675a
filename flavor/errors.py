"""Errors by the decision that the caller takes, not by their cause.

Foreign exceptions are translated once, at the door where they come in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from socket import gaierror

from flavor.types import Usage


class BatchError(Exception):
    """Root of all errors that this project raises on purpose. Its text is one line for a person."""


class InputError(BatchError):
    """Input, options or set-up cannot work; the text names the remedy. Nothing was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """What a row's record says of its last error. ``status`` is the HTTP status, if any."""

    type: str
    message: str
    status: int | None = None
    code: str | None = None
    request_id: str | None = None


_UNHEARD = frozenset({502, 504, 520, 522, 524})
"""What a gateway answers that did not hear the server out. Sources: RFC 9110, section 15.6;
Cloudflare's 52x."""


class RequestError(BatchError):
    """A request failed; the subclass says what to do next.

    ``usage`` is set where the API billed the request although its answer is of no use to us (a
    filtered completion), so that the job's totals stay exact. ``headers`` are those of a refusal by
    a limit. ``is_unsent`` is set where nothing had reached the API.
    """

    def __init__(
        self,
        info: ErrorInfo,
        *,
        retry_after_s: float | None = None,
        usage: Usage | None = None,
        headers: Mapping[str, str] | None = None,
        is_unsent: bool = False,
    ) -> None:
        super().__init__(info.message)
        self.info = info
        self.retry_after_s = retry_after_s
        self.usage = usage
        self.headers = headers
        self.is_unsent = is_unsent

    @property
    def may_be_paid(self) -> bool:
        """Whether the API may bill the request all the same: it has not said that it failed."""
        status = self.info.status
        if status is None:
            return not self.is_unsent
        return status < 300 or status in _UNHEARD


_OUTAGES = frozenset({502, 503, 504, 520, 521, 522, 523, 524, 529})
"""What a gateway answers for a server that it cannot reach, or an overloaded one: no row's fault.
Sources: RFC 9110, section 15.6; Cloudflare's 52x; Anthropic's 529."""


class TransientError(RequestError):
    """Passing: send again later. Counts as an attempt."""

    @property
    def is_outage(self) -> bool:
        """Whether only a server in trouble, or one that cannot be reached, fails so."""
        return self.info.status is None or self.info.status in _OUTAGES


class ThrottledError(RequestError):
    """A limit was hit: send again later, for free. Does not count as an attempt."""


class RowError(RequestError):
    """The API refuses this input: the row is dead, the job goes on. A retry cannot help."""


class JobError(RequestError):
    """The endpoint refuses every request (bad key, no quota, unknown model): pause the job."""


class CapReachedError(JobError):
    """The job's cap has no room for another request: pause the job. Nothing was sent."""


class LeaseLostError(BatchError):
    """Somebody else has the batch: stop, and write nothing more."""


class StoreError(BatchError):
    """Redis cannot be reached or refuses to write; what is held must be kept and written later."""


class TrackingError(BatchError):
    """MLflow cannot be reached or refuses; what is held must be kept and written later."""


def is_unreachable(error: BaseException) -> bool:
    """Whether a server did not answer at all: HTTP clients hide that below errors of their own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ConnectionError, TimeoutError, gaierror)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
