"""The gate: closed while a duty is neglected, open again when it is done."""

from __future__ import annotations

import asyncio

import pytest

from flavor.errors import StoreError
from tests.unit.worker.making import until
from worker import gate as gate_module
from worker.gate import Duty, Gate
from worker.stop import Stop, StoppedError, StopReason


async def test_a_failed_duty_closes_it_until_that_duty_is_done() -> None:
    gate = Gate()
    for duty in Duty:
        with pytest.raises(StoreError), gate.watched(duty):
            raise StoreError("away")

    with gate.watched(Duty.LEASE):
        pass
    is_closed_by_the_other = gate.is_closed
    with gate.watched(Duty.CHECKPOINT):
        pass

    assert is_closed_by_the_other
    assert not gate.is_closed


async def test_what_is_less_than_the_duty_closes_it_and_opens_nothing() -> None:
    gate = Gate()
    with gate.watched(Duty.CHECKPOINT, is_proof=False):
        pass
    is_closed_by_success = gate.is_closed
    with pytest.raises(StoreError), gate.watched(Duty.CHECKPOINT, is_proof=False):
        raise StoreError("away")
    with gate.watched(Duty.CHECKPOINT, is_proof=False):
        pass

    assert not is_closed_by_success
    assert gate.is_closed


async def test_a_duty_that_stalls_closes_it_before_it_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate_module, "STALL_S", 0.01)
    gate = Gate()

    with gate.watched(Duty.CHECKPOINT):
        await until(lambda: gate.is_closed)

    assert not gate.is_closed


async def test_whoever_waits_goes_on_when_it_opens_or_ends_when_stopped() -> None:
    gate, stop = Gate(), Stop()
    gate._close(Duty.LEASE)
    waiting, stopped = (asyncio.ensure_future(gate.wait(s)) for s in (Stop(), stop))
    await asyncio.sleep(0)

    stop.set(StopReason.SHUTDOWN)
    with pytest.raises(StoppedError):
        await stopped
    gate._open(Duty.LEASE)

    await waiting
