"""Every Redis key of the project, and what it holds. Celery's own keys are not listed here.

``{job_id}`` is a hash tag: all keys of one job live in one slot of a Redis cluster.

===============================  ======  ===========================================================
``jobs``                         ZSET    job id by the time it was created, in ms
``jobs:active``                  SET     ids of jobs that are neither final nor drafts
``jobs:drafts``                  ZSET    ids of jobs still being written, by their last sign of life
``job:{J}``                      HASH    ``spec`` (JSON), ``state``, ``reason``, ``ending``,
                                         ``created_ms``, ``started_ms``, ``finished_ms``,
                                         ``rows_before`` (done before a resume),
                                         ``server`` (run id of the Redis it was submitted to),
                                         ``priority``, ``cap_tokens``, ``cap_pico`` (of a cap)
``job:{J}:queued``               ZSET    batches that nobody has claimed, by their time in ms
``job:{J}:due``                  ZSET    claimed batches, by the end of their lease in ms
``job:{J}:counts``               HASH    progress: rows by verdict, tokens, requests, cost, and
                                         ``rows_in_doubt``: at most so many were paid twice
``job:{J}:held``                 HASH    what processes hold of the job's cap (``lua/allow.lua``)
``job:{J}:workers``              HASH    worker -> JSON of what it does for the job right now
``job:{J}:sampled``              STRING  held by whoever writes the run's next metric points
``job:{J}:batch:N``              HASH    ``fence``, ``owner``, ``deliveries``, ``packed`` of batch N
``job:{J}:rows:N``               STRING  the rows of batch N (``codec.encode_rows``)
``job:{J}:outcomes:N``           HASH    the first row's index -> outcomes that were written
                                         together (``codec.encode_outcomes``)
``pulse``                        HASH    when workers were last alive (``lua/pulse.lua``)
``limit:{H}``                    HASH    one endpoint's shared limits (``lua/reserve.lua``)
``limit:{H}:askers``             ZSET    jobs and processes that wait for turns on it, by time
``concurrency:{H}``              HASH    how many requests it bears (``lua/concurrency.lua``)
``concurrency:{H}:shares``       HASH    process -> its share of them
``breaker:{H}``                  HASH    there while the endpoint is down (``lua/trip.lua``)
===============================  ======  ===========================================================

A batch's keys go when it is counted off; a finished job's keys expire after ``FINISHED_TTL_S``.
"""

from __future__ import annotations

FINISHED_TTL_S = 7 * 24 * 3600
"""How long Redis remembers a finished job; the MLflow run remembers it for good."""

JOBS = "jobs"
ACTIVE = "jobs:active"
DRAFTS = "jobs:drafts"
PULSE = "pulse"


def job(job_id: str) -> str:
    """HASH: the job itself."""
    return f"job:{{{job_id}}}"


def queued(job_id: str) -> str:
    """ZSET: batches that nobody has claimed."""
    return f"job:{{{job_id}}}:queued"


def due(job_id: str) -> str:
    """ZSET: claimed batches by the end of their lease."""
    return f"job:{{{job_id}}}:due"


def counts(job_id: str) -> str:
    """HASH: progress counters."""
    return f"job:{{{job_id}}}:counts"


def held(job_id: str) -> str:
    """HASH: what each process holds of the cap."""
    return f"job:{{{job_id}}}:held"


def workers(job_id: str) -> str:
    """HASH: what each worker does for the job."""
    return f"job:{{{job_id}}}:workers"


def sampled(job_id: str) -> str:
    """STRING: the right to write metric points."""
    return f"job:{{{job_id}}}:sampled"


def batch(job_id: str, batch: str) -> str:
    """HASH: a batch's lease."""
    return f"job:{{{job_id}}}:batch:{batch}"


def rows(job_id: str, batch: str) -> str:
    """STRING: a batch's rows."""
    return f"job:{{{job_id}}}:rows:{batch}"


def outcomes(job_id: str, batch: str) -> str:
    """HASH: a batch's checkpoint."""
    return f"job:{{{job_id}}}:outcomes:{batch}"


def limit(limit_key: str, openai_model: str) -> str:
    """HASH: the limits of one endpoint, key and OpenAI model."""
    return f"limit:{{{limit_key}:{openai_model}}}"


def askers(limit_key: str, openai_model: str) -> str:
    """ZSET: who waits for turns on these limits."""
    return f"limit:{{{limit_key}:{openai_model}}}:askers"


def concurrency(limit_key: str, openai_model: str) -> str:
    """HASH: how many requests an endpoint bears at once."""
    return f"concurrency:{{{limit_key}:{openai_model}}}"


def shares(limit_key: str, openai_model: str) -> str:
    """HASH: each process's share of them."""
    return f"concurrency:{{{limit_key}:{openai_model}}}:shares"


def breaker(limit_key: str, openai_model: str) -> str:
    """HASH: the circuit breaker of one endpoint, key and OpenAI model."""
    return f"breaker:{{{limit_key}:{openai_model}}}"
