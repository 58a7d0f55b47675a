"""Which batch is next: of the most urgent jobs, and among them of the one that has the fewest open.

The broker hands messages out first come, first served, so a large job's would keep those of a
small one waiting. A message is only a hint: whoever takes it may claim another batch whose turn it
is, and the batch that it named is claimed by whoever takes the other's message. Jobs are read one
by one, since a Redis cluster keeps each in a slot of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from worker import keys
from worker.jobs import FINAL, NORMAL, JobState
from worker.redis_client import text, translated_errors

_RUNNING = frozenset({JobState.QUEUED.value, JobState.IN_PROGRESS.value})

CANDIDATES = 16
"""Batches that are looked at per job: others may claim some of them at the same moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How many batches a running job has with workers, and the first of those that it has not."""

    job_id: str
    priority: int
    open: int
    queued: Sequence[str]


def claim_order(standings: Sequence[Standing], *, hint: tuple[str, str]) -> list[tuple[str, str]]:
    """Job and batch in the order in which to try to claim them.

    The hinted job goes before others that are as urgent and have as many batches open, and the
    hinted batch before others of its job: most messages do what they say.
    """
    job_id, batch = hint
    order = sorted(standings, key=lambda s: (s.priority, s.open, s.job_id != job_id))
    chosen = [
        (standing.job_id, name)
        for standing in order
        for name in sorted(standing.queued, key=lambda name: (standing.job_id, name) != hint)
    ]
    return chosen if hint in chosen else [*chosen, (job_id, batch)]


class Schedule:
    """The running jobs' batches that wait. Methods raise ``StoreError`` without Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def candidates(self, job_id: str, batch: str) -> list[tuple[str, str]]:
        """What to try to claim on a message that names this batch; see ``claim_order``."""
        return claim_order(await self._standings((job_id, batch)), hint=(job_id, batch))

    async def is_any_neglected(self) -> bool:
        """Whether the job whose turn it is has no batch with any worker."""
        waiting = [standing for standing in await self._standings() if standing.queued]
        return bool(waiting) and not min(waiting, key=lambda s: (s.priority, s.open)).open

    async def _standings(self, hint: tuple[str, str] | None = None) -> list[Standing]:
        """Of all running jobs; the hinted batch stands among the first ones if it is queued."""
        async with translated_errors():
            job_ids = {text(job_id) for job_id in await self._redis.smembers(keys.ACTIVE)}
            pipe = self._redis.pipeline(transaction=False)
            if hint is not None:
                job_ids.add(hint[0])
                pipe.zscore(keys.queued(hint[0]), hint[1])
            for job_id in sorted(job_ids):
                pipe.hmget(keys.job(job_id), "state", "priority")
                pipe.zcard(keys.due(job_id))
                pipe.zrange(keys.queued(job_id), 0, CANDIDATES - 1)
            replies = await pipe.execute()
        hinted = {hint[0]: [hint[1]]} if hint and replies.pop(0) is not None else {}
        standings = []
        for at, job_id in enumerate(sorted(job_ids)):
            (state, priority), due, queued = replies[3 * at : 3 * at + 3]
            if text(state) in _RUNNING:
                names = dict.fromkeys([*hinted.get(job_id, []), *map(text, queued)])
                standings.append(
                    Standing(
                        job_id=job_id,
                        priority=int(priority or NORMAL),
                        open=due,
                        queued=[name for name in names if name != FINAL],
                    )
                )
        return standings
