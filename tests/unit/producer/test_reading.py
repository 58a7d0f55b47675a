"""How a job stands, by whoever knows: Redis, the run, or neither."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from flavor.errors import InputError, StoreError
from producer.reading import note_pause, read_spec_of, read_status
from producer.services import Services
from worker.jobs import JobState, Verdict
from worker.status import JobStatus, Requests, Tokens


class _Store:
    """A Redis that knows no job, or is away."""

    def __init__(self, *, is_away: bool) -> None:
        self._is_away = is_away

    async def status(self, job_id: str) -> None:
        if self._is_away:
            raise StoreError(f"Redis is away: {job_id}")

    spec = status


class _Runs:
    """MLflow with one run, ``j``."""

    def __init__(self, status: str) -> None:
        self._status = status
        self._metrics: dict[str, float] = {}
        self._tags = {"batch.job": "true"}

    def log_metrics(self, _job_id: str, values: dict[str, float], **_: Any) -> None:
        self._metrics |= values

    def set_tags(self, _job_id: str, tags: dict[str, str]) -> None:
        self._tags |= tags

    def get(self, job_id: str) -> Any:
        if job_id != "j":
            raise InputError(f"MLflow: Run with id={job_id} not found")
        info = SimpleNamespace(
            run_id="j", run_name="n", status=self._status, start_time=1, end_time=2
        )
        data = SimpleNamespace(metrics=self._metrics, params={}, tags=self._tags)
        return SimpleNamespace(info=info, data=data)


def make_services(
    run: str = "RUNNING", *, is_away: bool = False, has_redis: bool = True
) -> Services:
    settings = SimpleNamespace(has_redis=has_redis)
    made = SimpleNamespace(store=_Store(is_away=is_away), runs=_Runs(run), settings=settings)
    return cast("Services", made)


async def test_a_running_job_whose_redis_is_away_is_not_guessed_at() -> None:
    with pytest.raises(StoreError):
        await read_status(make_services(is_away=True), "j")


async def test_a_finished_job_needs_no_redis() -> None:
    status = await read_status(make_services("FINISHED", is_away=True), "j")

    assert (status.state, status.reason) == (JobState.COMPLETED, None)


async def test_without_a_redis_of_its_own_the_run_says_all() -> None:
    status = await read_status(make_services(is_away=True, has_redis=False), "j")

    assert status.state is JobState.PAUSED


async def test_a_running_job_that_redis_forgot_says_how_it_goes_on() -> None:
    status = await read_status(make_services(), "j")

    assert status.state is JobState.PAUSED
    assert status.reason == ("interrupted: producer resume j continues it")
    assert (await read_status(make_services("KILLED"), "j")).reason is None


@pytest.mark.parametrize("is_away", [True, False])
async def test_an_unknown_job_is_named_with_where_to_look(*, is_away: bool) -> None:
    for read in (read_status, read_spec_of):
        with pytest.raises(InputError, match="no job f00: see producer jobs"):
            await read(make_services(is_away=is_away), "f00")


async def test_a_pause_outlives_the_redis_of_a_local_run() -> None:
    """Its reason, and figures that the last sample was too early for."""
    services = make_services()
    paused = JobStatus(
        job_id="j",
        name="n",
        state=JobState.PAUSED,
        rows_total=0,
        rows={**dict.fromkeys(Verdict, 0), Verdict.SUCCEEDED: 709},
        tokens=Tokens(prompt=5, completion=2, total=7),
        requests=Requests(sent=710, answered=709, retried=1),
        rows_in_doubt=1,
        cost_usd=0.005,
        created_ms=1,
        reason="the cap is reached: …",
    )
    note_pause(services, paused)

    status = await read_status(services, "j")

    assert (status.state, status.reason) == (JobState.PAUSED, paused.reason)
    assert status.rows == paused.rows
    assert (status.tokens, status.requests) == (paused.tokens, paused.requests)
    assert status.rows_in_doubt == 1
    assert status.cost_usd == paused.cost_usd
