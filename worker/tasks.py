"""The Celery tasks and the worker's signals: the entry of a worker process.

``celery -A worker worker`` finds ``app`` here. The task only names what is to be done; the process
(``worker.process``) does it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any

from celery import signals

from flavor.errors import BatchError, InputError, StoreError
from worker.batch import run_batch
from worker.broker import RUN_BATCH, described, keep_apart, make_app, publish
from worker.checkpoint import flush_regularly
from worker.demand import make_demand_step
from worker.final import run_final
from worker.jobs import FINAL, FIRST
from worker.logs import set_up_logs
from worker.metrics import serve_metrics
from worker.process import Process, ProcessThread
from worker.recovery import rescue_regularly
from worker.sampling import sample_regularly
from worker.settings import read_settings
from worker.stop import StopReason
from worker.task_events import GroupedEvents
from worker.upkeep import (
    beat_regularly,
    look_regularly,
    reap_regularly,
)

log = logging.getLogger(__name__)

ORPHAN_GRACE_S = 30.0

settings = read_settings()
app = make_app(settings.redis_url.get_secret_value(), open_batches=settings.open_batches)
thread = ProcessThread(
    settings,
    app,
    (
        flush_regularly,
        beat_regularly,
        look_regularly,
        sample_regularly,
        reap_regularly,
        rescue_regularly,
    ),
)
app.steps["consumer"].add(make_demand_step(thread))
app.steps["consumer"].add(GroupedEvents)


@app.task(name=RUN_BATCH)  # type: ignore[untyped-decorator] # Celery has no types
def run_batch_task(job_id: str, batch: str) -> str:
    """Work one batch off. The ledger decides whether there is anything to do.

    The result is for people: Flower shows it. A delivery that did nothing is no failure.
    """
    if not isinstance(job_id, str) or not isinstance(batch, str) or not _is_batch(batch):
        log.error("message refused", extra={"event": "message_refused", "reason": "wrong shape"})
        return "refused"
    try:
        if batch == FINAL:
            return str(thread.run(lambda process: run_final(process, job_id)))
        return str(thread.run(lambda process: run_batch(process, job_id, batch)))
    except InputError as error:
        log.error(
            "job cannot run here",
            extra={"event": "job_refused", "job_id": job_id, "batch": batch, "reason": str(error)},
        )
        return f"refused: the job is paused, see its reason ({described(job_id, batch, None)})"
    except BatchError as error:
        log.warning(
            "batch interrupted",
            extra={
                "event": "batch_interrupted",
                "job_id": job_id,
                "batch": batch,
                "reason": str(error),
            },
        )
        return f"interrupted: see the worker's log ({described(job_id, batch, None)})"
    except Exception:
        # The lease runs out by itself, and the ledger gives the batch to the next worker.
        log.exception(
            "batch crashed",
            extra={"event": "batch_crashed", "job_id": job_id, "batch": batch},
        )
        raise


def _is_batch(batch: str) -> bool:
    return batch == FINAL or (batch.isascii() and batch.isdigit() and len(batch) <= 9)


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]
def _prepare(**_: Any) -> None:  # noqa: ANN401
    keep_apart()


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _set_up_logs(**_: Any) -> None:  # noqa: ANN401
    set_up_logs(settings.log_format)


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _start(**_: Any) -> None:  # noqa: ANN401
    """The reaper must run in every worker, also in one that has not had a message yet."""
    thread.start()
    if settings.metrics_port is not None and thread.process is not None:
        serve_metrics(thread.process, host=settings.metrics_host, port=settings.metrics_port)
    if settings.parent_pid is not None:
        threading.Thread(target=_end_with, args=(settings.parent_pid,), daemon=True).start()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _drain(**_: Any) -> None:  # noqa: ANN401
    """SIGTERM: send nothing new, keep what is in flight, give the batches back."""
    _stop_sending()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _stop(**_: Any) -> None:  # noqa: ANN401
    thread.stop()
    _hand_on()


def _hand_on() -> None:
    """Give the messages that came too late to other workers: until here they would come back.

    Where Redis is away, the ledger names those batches to the others, some seconds later.
    """
    process = thread.process
    if process is None:
        return
    for job_id, batch in process.too_late:
        name = process.known_name(job_id)
        with suppress(StoreError):
            publish(app, job_id, name=name, batches={batch: None}, priority=FIRST)


def _end_with(parent_pid: int) -> None:
    """Workers of ``producer run`` must not outlive it, however it ends."""
    while os.getppid() == parent_pid:
        time.sleep(0.5)
    log.error("parent is gone", extra={"event": "parent_lost"})
    _stop_sending(has_redis=False)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_S)  # Celery may wait for a Redis that is gone, too
    os._exit(1)


def _stop_sending(*, has_redis: bool = True) -> None:
    async def stop(process: Process) -> None:
        process.stopping.set(StopReason.SHUTDOWN)
        for batch in process.open.values():
            batch.sending.set(StopReason.SHUTDOWN)
            if not has_redis:
                batch.holding.set(StopReason.SHUTDOWN)

    if thread.process is not None:
        thread.run(stop)
