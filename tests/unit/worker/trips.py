"""A row's way with fakes all around it, and the errors that it meets."""

from __future__ import annotations

from collections.abc import Sequence

from flavor.errors import RowError, ThrottledError, TransientError
from flavor.prices import Price
from flavor.types import Row
from tests.fake_redis import FakeRedis
from tests.unit.worker.fakes import OpenLimiter, RecordingStop, ScriptedClient, ScriptedModel
from tests.unit.worker.making import error_info, make_rows
from worker.breaker import Breaker
from worker.gate import Gate
from worker.jobs import Outcome
from worker.row import run_rows
from worker.trip import SupportsSend, Way


class Trip:
    """One way with its fakes, and what they recorded."""

    def __init__(
        self,
        client: SupportsSend,
        *,
        model: ScriptedModel | None = None,
        max_attempts: int = 3,
        deadline_s: float = 60,
        timeout_s: float = 10,
        price: Price | None = None,
    ) -> None:
        self.limiter = OpenLimiter()
        self.stop = RecordingStop()
        self.breaker = Breaker(FakeRedis(), "breaker:{endpoint:gpt}", look_s=0.01)
        self.gate = Gate()
        self.client = client
        self.way = Way(
            model=model or ScriptedModel(),
            client=client,
            limiter=self.limiter,
            breaker=self.breaker,
            gate=self.gate,
            stop=self.stop,
            max_attempts=max_attempts,
            deadline_s=deadline_s,
            timeout_s=timeout_s,
            price=price,
        )

    async def run(self, rows: Sequence[Row] | None = None) -> list[Outcome]:
        return await run_rows(rows or make_rows(1), self.way)

    @property
    def sent(self) -> list[list[str]]:
        """The ids of the rows of each request, where the client is a scripted one."""
        assert isinstance(self.client, ScriptedClient)
        return self.client.sent

    @property
    def counted(self) -> tuple[int, int, int]:
        tally = self.way.tally
        return (tally.sent, tally.retried, tally.throttled)


def transient(message: str = "server error", *, retry_after_s: float | None = None) -> Exception:
    """A passing error."""
    return TransientError(error_info(message, status=500), retry_after_s=retry_after_s)


def throttled(retry_after_s: float | None = None) -> Exception:
    """A 429."""
    return ThrottledError(error_info("slow down", status=429), retry_after_s=retry_after_s)


def rejected() -> Exception:
    """The API refuses this input."""
    return RowError(error_info("bad input", status=400, code="invalid", request_id="req-9"))
