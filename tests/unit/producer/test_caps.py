"""What a user may cap, and what a resume may change of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio import Redis

from flavor.errors import InputError
from flavor.prices import Price
from flavor.types import Task
from producer.caps import checked_cap, with_cap
from producer.resume import resume_job
from producer.services import Services
from tests.unit.worker.fakes import FolderRuns
from tests.unit.worker.making import JOB, make_rows, make_spec, submit
from worker.allowance import CAP_REACHED
from worker.broker import make_app
from worker.jobs import Cap, JobSpec
from worker.runs import SPEC_FILE
from worker.settings import Settings

PRICE = Price(input_usd_per_token=1e-6, output_usd_per_token=2e-6)


def test_money_is_capped_only_where_the_price_is_known() -> None:
    cap = Cap(cost_usd=5)

    assert checked_cap(cap, price=PRICE, task=Task.CHAT) is cap
    with pytest.raises(InputError, match="--price IN/OUT"):
        checked_cap(cap, price=None, task=Task.CHAT)


def test_a_model_that_tells_no_usage_cannot_be_capped() -> None:
    assert not checked_cap(Cap(), price=None, task=Task.PYFUNC)
    with pytest.raises(InputError, match="tells none"):
        checked_cap(Cap(total_tokens=5), price=None, task=Task.PYFUNC)


def test_a_resume_raises_one_cap_and_leaves_the_other() -> None:
    spec = make_spec(price=PRICE, cap=Cap(total_tokens=1000, cost_usd=5))

    found = with_cap(spec, Cap(cost_usd=9), spent_usd=5, tokens=900)

    assert found.cap == Cap(total_tokens=1000, cost_usd=9)


async def test_what_one_resume_has_raised_the_next_one_leaves_in_the_run(
    redis: Redis, tmp_path: Path
) -> None:
    """The run is all that there is once Redis was wiped."""
    spec = make_spec(price=PRICE, cap=Cap(total_tokens=1000, cost_usd=5))
    await submit(redis, spec, [make_rows(3)])
    services = Services(settings=Settings(), redis=redis)
    kept = FolderRuns(tmp_path)
    services.__dict__.update(runs=kept, app=make_app("memory://"))

    await resume_job(services, JOB, cap=Cap(total_tokens=2000))
    await resume_job(services, JOB, cap=Cap(cost_usd=9))

    stored = JobSpec.from_json((tmp_path / SPEC_FILE).read_text())
    assert stored.cap == Cap(total_tokens=2000, cost_usd=9)


@pytest.mark.parametrize(
    ("cap", "says"),
    [
        (Cap(cost_usd=4), r"--max-cost 4: \$5.0000 is spent already"),
        (Cap(total_tokens=900), "--max-total-tokens 900: 900 are used already"),
        (Cap(), "would pause again: the cap is reached"),
    ],
)
def test_a_resume_that_would_pause_again_at_once_is_refused(cap: Cap, says: str) -> None:
    with pytest.raises(InputError, match=says):
        with_cap(
            make_spec(price=PRICE), cap, spent_usd=5, tokens=900, reason=f"{CAP_REACHED}: resume"
        )
