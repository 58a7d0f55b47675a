"""Each job's way to what it shares with others: its cap, permits, the limits, in this order.

A permit is held while a request waits for its turn, so that a turn, once given, is used; but not
while it waits for its job's cap, which may take long, and is no other job's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anyio.abc import TaskGroup
from redis.asyncio import Redis

from flavor.errors import RequestError
from flavor.prices import Price, cost_usd
from flavor.types import Request, Usage
from worker import keys
from worker.allowance import Allowance, Spend
from worker.concurrency import Concurrency
from worker.expectation import Expectation, Expected
from worker.jobs import PICO, Limits, Outcome
from worker.limiter import Limiter, Waits
from worker.stop import Stop

LANES = 256
"""Jobs whose usage a process remembers."""


class Lane:
    """One job's way to a limiter: its place in the queue, and what its requests use.

    After ``reserve`` each request ends with ``settle`` or ``release``.
    """

    def __init__(self, limiter: Limiter, concurrency: Concurrency, *, job_id: str) -> None:
        self._limiter = limiter
        self._concurrency = concurrency
        self._job_id = job_id
        self.in_flight = 0  # requests that have their turn and no answer yet
        self._expectation = Expectation()
        self._allowance: Allowance | None = None
        self._price: Price | None = None

    def spend(self, allowance: Allowance | None, price: Price | None) -> None:
        """From now on spend no more than this; None is no cap."""
        self._allowance, self._price = allowance, price

    @property
    def limits(self) -> Limits:
        """The account's limits, set by the user or learned from answers."""
        return self._limiter.limits

    @property
    def waiting_for(self) -> str:
        """What keeps requests from being sent right now, in words; empty when nothing does."""
        cap = self._allowance.waiting_for if self._allowance else ""
        return cap or self._limiter.waiting_for or self._concurrency.waiting_for

    async def reserve(self, request: Request, stop: Stop) -> Expected:
        """Wait for the request's turn; the tokens that were reserved.

        Raises:
            RowError: the limits would never allow it.
            CapReachedError: the job's cap has no room for it.
            StoppedError: the batch stops; nothing may be sent.
        """
        expected = self._expectation.of(request)
        allowance = self._allowance
        if allowance is None:
            await self._take_turn(expected.tokens, stop)
            self.in_flight += 1
            return expected
        spend = self._spend_of(expected)
        await allowance.take(spend, stop)
        try:
            await self._take_turn(expected.tokens, stop)
        except BaseException:
            allowance.give_back(spend)
            raise
        self.in_flight += 1
        return expected._replace(is_capped=True)

    def settle(
        self, request: Request, reserved: Expected, usages: Sequence[Usage], *, latency_s: float
    ) -> None:
        """Correct a reservation by what was used; where nobody says what, it stays."""
        self.in_flight -= 1
        self._concurrency.leave(latency_s=latency_s)
        allowance = self._allowance
        if not usages:
            if allowance is not None:
                allowance.give_back(self._taken_by(reserved))
            return
        prompt = sum(usage.prompt_tokens for usage in usages)
        total = sum(usage.total_tokens for usage in usages)
        self._expectation.learn(request, prompt_tokens=prompt, completion_tokens=total - prompt)
        self._limiter.settle(reserved.tokens, total)
        if allowance is not None:
            allowance.settle(self._taken_by(reserved), spend_of(usages, self._price))

    def release(self, reserved: Expected, error: RequestError | None = None) -> None:
        """The request failed, or was not sent: the cap has it back, the limits have not."""
        self.in_flight -= 1
        self._concurrency.leave(error=error)
        if self._allowance is not None:
            self._allowance.give_back(self._taken_by(reserved))

    def written(self, outcomes: Sequence[Outcome]) -> None:
        """The job's counts in Redis have these outcomes, or never will: the cap needs no more."""
        if self._allowance is not None:
            self._allowance.written(outcomes)

    def heard(self, headers: Mapping[str, str] | None) -> None:
        """Take in what an answer says of the limits."""
        self._limiter.heard(headers)

    async def pause(self, pause_s: float) -> None:
        """Hold everybody on the limit back."""
        await self._limiter.pause(pause_s)

    async def _take_turn(self, tokens: int, stop: Stop) -> None:
        await self._concurrency.enter(stop, is_paced=self._limiter.is_limited)
        try:
            await self._limiter.reserve(tokens, stop, job_id=self._job_id)
        except BaseException:
            self._concurrency.leave()
            raise

    def _taken_by(self, reserved: Expected) -> Spend:
        """Nothing where the cap was set after the request had begun: a resume may set one."""
        return self._spend_of(reserved) if reserved.is_capped else Spend()

    def _spend_of(self, expected: Expected) -> Spend:
        price = self._price
        if price is None:
            return Spend(tokens=expected.tokens)
        usd = (
            expected.prompt * price.input_usd_per_token
            + expected.completion * price.output_usd_per_token
        )
        return Spend(tokens=expected.tokens, pico=round(usd * PICO))


def spend_of(usages: Sequence[Usage], price: Price | None) -> Spend:
    """What was spent, in the units in which the job's counts have it."""
    costs = [cost_usd(price, usage) or 0.0 for usage in usages]
    return Spend(
        tokens=sum(usage.total_tokens for usage in usages),
        pico=sum(round(cost * PICO) for cost in costs),
    )


class Lanes:
    """What the jobs of one process share, per endpoint, key and OpenAI model; made when first
    asked for. ``most`` bounds the requests in flight to one endpoint, over all workers.
    """

    def __init__(
        self,
        redis: Redis,
        tasks: TaskGroup,
        *,
        name: str = "process",
        burst_s: float = 0.1,
        most: int | None = None,
    ) -> None:
        self._redis = redis
        self._tasks = tasks
        self._name = name
        self._burst_s = burst_s
        self._most = most
        self.waits = Waits()  # of all limiters
        self._limiters: dict[tuple[tuple[str, str], Limits], Limiter] = {}
        self._concurrencies: dict[tuple[str, str], Concurrency] = {}
        self._lanes: dict[tuple[Limiter, str], Lane] = {}  # the last used one last

    def of(self, limit_key: str, openai_model: str, limits: Limits, *, job_id: str) -> Lane:
        """The job's way; it remembers from batch to batch what requests use."""
        limiter = self._limiter(limit_key, openai_model, limits)
        lane = self._lanes.pop((limiter, job_id), None)
        if lane is None:
            concurrency = self._concurrency(limit_key, openai_model)
            lane = Lane(limiter, concurrency, job_id=job_id)
        self._lanes[limiter, job_id] = lane
        if len(self._lanes) > LANES:
            del self._lanes[next(iter(self._lanes))]
        return lane

    def _limiter(self, limit_key: str, openai_model: str, limits: Limits) -> Limiter:
        """The limiter that all jobs with the same limits share in this process."""
        key = (keys.limit(limit_key, openai_model), keys.askers(limit_key, openai_model))
        known = self._limiters.get((key, limits))
        if known is None:
            known = self._limiters[key, limits] = Limiter(
                self._redis,
                key,
                limits,
                name=self._name,
                burst_s=self._burst_s,
                waits=self.waits,
            )
            self._tasks.start_soon(known.serve)
        return known

    def _concurrency(self, limit_key: str, openai_model: str) -> Concurrency:
        key = (keys.concurrency(limit_key, openai_model), keys.shares(limit_key, openai_model))
        known = self._concurrencies.get(key)
        if known is None:
            known = self._concurrencies[key] = Concurrency(
                self._redis, key, self._tasks, name=self._name, most=self._most
            )
        return known
