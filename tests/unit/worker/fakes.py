"""What plays the worker's counterparts in its tests: each plays a script, and keeps a record."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from redis.asyncio import Redis

from flavor.errors import RequestError, RowError, StoreError, TrackingError, TransientError
from flavor.model import PyfuncModel, RowReply
from flavor.types import Reply, Request, Response, Row, Task, Usage
from tests.unit.worker.making import USAGE, error_info
from worker.expectation import Expected
from worker.jobs import JobState, Lease
from worker.ledger import CountOff, Ledger
from worker.pending import Pending
from worker.redis_client import _script
from worker.runs import Runs
from worker.stop import Stop

SCRIPTS = ("reserve", "pause", "checkpoint")


class ScriptedModel:
    """Renders rows as their ids, but for those ``refused``; replies come as scripted."""

    openai_model = "gpt-4o-mini"

    def __init__(
        self, *, rows_per_request: int = 1, tokens_per_row: int = 10, broken_answers: int = 0
    ) -> None:
        self.rows_per_request = rows_per_request
        self.tokens_per_row = tokens_per_row
        self.broken_answers = broken_answers
        self.refused: dict[str, Exception] = {}

    def request(self, rows: Sequence[Row]) -> Request:
        for row in rows:
            if row.row_id in self.refused:
                raise self.refused[row.row_id]
        ids = [row.row_id for row in rows]
        return Request(
            path="/chat/completions",
            body={"rows": ids},
            rows=len(ids),
            estimated_tokens=self.estimate_tokens(rows[0]) * len(ids),
        )

    def replies(self, request: Request, response: Response) -> list[RowReply]:
        if self.broken_answers:
            self.broken_answers -= 1
            raise TransientError(error_info("cut off"))
        return cast("list[RowReply]", response.payload)

    def estimate_tokens(self, row: Row) -> int:
        if row.row_id in self.refused:
            raise self.refused[row.row_id]
        return int(row.values.get("tokens", self.tokens_per_row))


Step = Exception | list[RowReply]
"""What one request meets: an error of the client's, or a reply per row."""


class ScriptedClient:
    """Plays one step per request: raises errors, answers with replies. Then answers everything."""

    limit_key = "endpoint"

    def __init__(self, *script: Step, answer: Callable[[Request], Step] | None = None) -> None:
        self.script = list(script)
        self.answer = answer or (lambda request: answers(request.rows))
        self.sent: list[list[str]] = []

    async def send(self, request: Request) -> Response:
        self.sent.append(list(request.body["rows"]))
        step = self.script.pop(0) if self.script else self.answer(request)
        if isinstance(step, Exception):
            raise step
        return Response(payload=step, latency_s=0.25, request_id="req-1")


class ScriptedPyfunc(PyfuncModel):
    """Answers in capitals; fails as a whole where a row of ``bad`` is among those asked for."""

    def __init__(self, *bad: int) -> None:
        self.bad = set(bad)
        self.asked: list[list[int]] = []
        self.threads: set[str] = set()

    def predict(self, rows: Sequence[Row]) -> list[Reply]:
        self.asked.append([row.index for row in rows])
        self.threads.add(threading.current_thread().name)
        if self.bad.intersection(self.asked[-1]):
            raise RowError(error_info("ValueError: bad row"))
        return [Reply(output=row.row_id.upper()) for row in rows]


class SilentClient:
    """Takes requests and never answers."""

    async def send(self, request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


def answers(count: int, *, usage: Usage | None = USAGE) -> list[RowReply]:
    """One good reply per row."""
    reply = Reply(output="fine", finish_reason="stop", usage=usage, response_model="gpt-x")
    return [reply] * count


def answer_of(task: Task, text: str = "fine") -> Callable[[Request], list[RowReply]]:
    """Good replies to every request of a job of that task; vectors begin with the text."""
    output = text if task is Task.CHAT else text.encode().ljust(8)
    reply = Reply(output=output, usage=USAGE, response_model="gpt-x")
    return lambda request: [reply] * request.rows


class OpenLimiter:
    """Gives every turn at once, and records what was asked of it."""

    def __init__(self) -> None:
        self.reserved: list[int] = []
        self.settled: list[tuple[int, int]] = []
        self.released: list[RequestError | None] = []
        self.pauses: list[float] = []
        self.heard_of: list[Mapping[str, str] | None] = []
        self.largest = 10**9

    async def reserve(self, request: Request, stop: Stop) -> Expected:
        stop.check()
        if request.estimated_tokens > self.largest:
            raise RowError(error_info("too large"))
        self.reserved.append(request.estimated_tokens)
        return Expected(request.estimated_tokens, 0)

    def settle(
        self, request: Request, reserved: Expected, usages: Sequence[Usage], *, latency_s: float
    ) -> None:
        if usages:
            self.settled.append((reserved.tokens, sum(usage.total_tokens for usage in usages)))

    def release(self, reserved: Expected, error: RequestError | None = None) -> None:
        self.released.append(error)

    def heard(self, headers: Mapping[str, str] | None) -> None:
        self.heard_of.append(headers)

    async def pause(self, pause_s: float) -> None:
        self.pauses.append(pause_s)


class RecordingStop(Stop):
    """A stop whose sleeps take no time and are recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, delay_s: float) -> None:
        self.check()
        self.slept.append(delay_s)


class CountingRedis:
    """Passes scripts on to a real client, and records their names; ``meanwhile`` comes between."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._names = {_script(name)[0]: name for name in SCRIPTS}
        self.calls: list[str] = []
        self.args: list[tuple[Any, ...]] = []
        self.meanwhile: Callable[[], object] = lambda: None

    async def evalsha(self, sha: str, count: int, *rest: Any) -> Any:
        self.calls.append(self._names[sha])
        self.args.append(rest[count:])
        self.meanwhile()
        await asyncio.sleep(0)
        return await cast("Any", self._redis.evalsha(sha, count, *rest))

    async def eval(self, text: str, count: int, *rest: Any) -> Any:
        return await cast("Any", self._redis.eval(text, count, *rest))


class AwayRedis:
    """A Redis that cannot be reached."""

    async def evalsha(self, *_: Any) -> Any:
        raise OSError("connection refused")


class FlakyLedger(Ledger):
    """A ledger that fails as often as told, and that others overtake ``meanwhile``."""

    failures = 0
    checkpoints = 0
    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def checkpoint(self, pending: Sequence[tuple[Lease, Pending]]) -> list[bool]:
        self.checkpoints += 1
        self._maybe_fail()
        return await super().checkpoint(pending)

    async def count_off(self, lease: Lease, pending: Pending) -> CountOff:
        self._maybe_fail()
        if self.meanwhile:
            await self.meanwhile()
        return await super().count_off(lease, pending)

    async def finish(self, lease: Lease, state: JobState, totals: Mapping[str, int]) -> None:
        if self.meanwhile:
            await self.meanwhile()
        await super().finish(lease, state, totals)

    def _maybe_fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreError("Redis cannot be reached")


class FolderRuns:
    """MLflow's runs as a folder of files and a record of what was logged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics: dict[str, float] = {}
        self.metric_calls = 0
        self.history_error: Exception | None = None
        self.points: dict[str, list[tuple[int, float]]] = {}
        self.tags: dict[str, str] = {}
        self.statuses: list[str] = []
        self.failures = 0

    @property
    def as_runs(self) -> Runs:
        return cast("Runs", self)

    def log_text(self, job_id: str, name: str, text: str) -> None:
        self._maybe_fail()
        (self.folder / name).write_text(text, "utf-8")

    def log_file(self, job_id: str, path: Path, folder: str | None = None) -> None:
        self._maybe_fail()
        target = self.folder / (folder or "")
        target.mkdir(parents=True, exist_ok=True)
        # At once, as MLflow's own store does: a test may look at any moment.
        with tempfile.TemporaryDirectory(dir=self.folder) as staging:
            staged = shutil.copy(path, staging)
            Path(staged).replace(target / path.name)

    def files(self, job_id: str, folder: str | None) -> list[str]:
        where = self.folder / (folder or "")
        return sorted(str(p.relative_to(self.folder)) for p in where.glob("*") if p.is_file())

    def fetch(self, job_id: str, path: str, into: Path) -> Path:
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / path, target)
        return target

    def log_metrics(
        self,
        job_id: str,
        values: Mapping[str, float],
        *,
        step: int,
        model_id: str | None = None,
        at_ms: int | None = None,
    ) -> None:
        self._maybe_fail()
        self.metric_calls += 1
        self.metrics.update(values)

    def history(
        self, job_id: str, is_wanted: Callable[[str], bool]
    ) -> dict[str, list[tuple[int, float]]]:
        if self.history_error:
            raise self.history_error
        return {name: points for name, points in self.points.items() if is_wanted(name)}

    def set_tags(self, job_id: str, tags: Mapping[str, str]) -> None:
        self.tags.update(tags)

    def end(self, job_id: str, status: str) -> None:
        self.statuses.append(status)

    def _maybe_fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise TrackingError("MLflow: away")
