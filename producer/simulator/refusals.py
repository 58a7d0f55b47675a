"""Refusals that the simulation decides on by itself: a limit is reached, or a fault strikes."""

from email.utils import formatdate
from math import ceil

from producer.simulator.embeddings import refused_input
from producer.simulator.errors import ApiError, Headers, content_filtered, leaked, server_error
from producer.simulator.faults import Fault
from producer.simulator.limits import Admission
from producer.simulator.requests import Endpoint
from producer.simulator.settings import SimulatorSettings


def fault_error(
    fault: Fault, *, endpoint: Endpoint, key: str, settings: SimulatorSettings, now_s: float
) -> ApiError | None:
    """The error that a fault is answered with; None where it is not one."""
    if fault in (Fault.UNAVAILABLE, Fault.THROTTLE):
        headers = _retry_after(settings.throttle_retry_after_s, settings=settings, now_s=now_s)
        if fault is Fault.THROTTLE:
            message = "Rate limit reached (simulated: a fault, no limit)"
            return _throttled(message, kind="requests", headers=headers)
        message = "The engine is currently overloaded, please try again later (simulated)"
        return ApiError(message, status=503, kind="server_error", headers=headers)
    if fault is Fault.REJECT and endpoint is Endpoint.EMBEDDINGS:
        return refused_input()
    return {
        Fault.ERROR: server_error(),
        Fault.REJECT: ApiError("Invalid prompt: refused by the simulation.", code="invalid_prompt"),
        Fault.FILTER: content_filtered(),
        Fault.LEAK: leaked(key, status=400),
        Fault.LEAK_ERROR: leaked(key, status=500),
    }.get(fault)


def overloaded() -> ApiError:
    """The 503 of a server whose queue is full, in Ollama's words."""
    message = "server busy, please try again.  maximum pending requests exceeded"
    return ApiError(message, status=503, kind="server_error")


def over_limit(
    admission: Admission, *, openai_model: str, settings: SimulatorSettings, now_s: float
) -> ApiError:
    """The 429 of a request that the limits do not let pass."""
    name = "TPM" if admission.short_of == "tokens" else "RPM"
    kind = admission.short_of
    where = f"for {openai_model} in organization org-simulated on {kind} per min ({name})"
    if admission.is_too_large:
        message = f"Request too large {where}. The input or output tokens must be reduced."
    else:
        message = f"Rate limit reached {where}. Please try again in {admission.wait_s:.3f}s."
    headers = _retry_after(admission.wait_s, settings=settings, now_s=now_s)
    return _throttled(message, kind=kind, headers=headers)


def _throttled(message: str, *, kind: str, headers: Headers) -> ApiError:
    code = "rate_limit_exceeded"
    return ApiError(message, status=429, kind=kind, code=code, headers=headers)


def _retry_after(wait_s: float, *, settings: SimulatorSettings, now_s: float) -> Headers:
    if not settings.retry_after:
        return ()
    if settings.retry_after_date:
        return (("retry-after", formatdate(ceil(now_s + wait_s), usegmt=True)),)
    return (
        ("retry-after", str(max(1, ceil(wait_s)))),
        ("retry-after-ms", str(ceil(wait_s * 1000))),
    )
