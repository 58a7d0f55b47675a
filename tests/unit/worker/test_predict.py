"""Rows through a model's own ``predict``."""

from __future__ import annotations

import threading

from tests.unit.worker.fakes import ScriptedPyfunc
from tests.unit.worker.making import error_info, make_rows
from worker.jobs import Verdict
from worker.predict import predict_rows


async def test_a_batch_is_predicted_in_one_go_off_the_event_loop() -> None:
    model = ScriptedPyfunc()

    outcomes = await predict_rows(model, make_rows(3))

    assert [outcome.output for outcome in outcomes] == ["R0", "R1", "R2"]
    assert {o.verdict for o in outcomes} == {Verdict.SUCCEEDED}
    assert len(model.asked) == 1
    assert threading.current_thread().name not in model.threads


async def test_what_a_pyfunc_spends_is_unknown_not_zero() -> None:
    (outcome,) = await predict_rows(ScriptedPyfunc(), make_rows(1))

    assert (outcome.usage, outcome.cost_usd) == (None, None)
    assert outcome.latency_s is not None


async def test_halving_finds_the_rows_to_blame() -> None:
    model = ScriptedPyfunc(1, 6)

    outcomes = await predict_rows(model, make_rows(8))

    dead = [outcome for outcome in outcomes if outcome.verdict is Verdict.REJECTED]
    assert [outcome.index for outcome in outcomes] == list(range(8))
    assert [outcome.index for outcome in dead] == [1, 6]
    assert all(outcome.error == error_info("ValueError: bad row") for outcome in dead)
    assert len(model.asked) == 11


async def test_a_model_that_always_fails_rejects_every_row() -> None:
    outcomes = await predict_rows(ScriptedPyfunc(0, 1, 2), make_rows(3))

    assert [outcome.verdict for outcome in outcomes] == [Verdict.REJECTED] * 3
