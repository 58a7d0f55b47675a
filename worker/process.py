"""One worker process: its connections, its models, its open batches. All mutable state is here.

Celery's threads call ``ProcessThread.run``, which hands a coroutine to the one event loop and
waits. Nothing is made before the first call, so nothing with a socket survives a fork.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar
from uuid import uuid4

import anyio
import uvloop
from anyio.abc import TaskGroup
from celery import Celery
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_exponential_jitter

from flavor.client import Client
from flavor.errors import BatchError, StoreError, TrackingError
from flavor.model import load_model, read_spec
from worker.allowance import Allowances
from worker.breaker import Breakers
from worker.gate import Gate
from worker.jobs import JobSpec
from worker.lanes import Lanes
from worker.ledger import Ledger
from worker.memory import Model, is_worth_a_look, settle_memory
from worker.meter import Meter
from worker.open_batch import OpenBatch
from worker.redis_client import connect
from worker.runs import Runs
from worker.schedule import Schedule
from worker.settings import Settings
from worker.slots import Slots
from worker.stop import Stop
from worker.store import Store
from worker.suspects import Suspects
from worker.traces import Traces

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_P = ParamSpec("_P")

SAY_AGAIN_S = 10.0
"""Between log lines that say of the same service that it is awaited."""


class Process:
    """Everything that the batches of one process share. Belongs to one event loop.

    ``runs`` stands in for MLflow where a test needs none.
    """

    def __init__(
        self, settings: Settings, app: Celery, tasks: TaskGroup, *, runs: Runs | None = None
    ) -> None:
        self.settings = settings
        self.app = app
        # Host and pid are not enough: containers may share both, and a restart has them again.
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self.redis = connect(settings.redis_url.get_secret_value())
        self.store = Store(self.redis)
        self.ledger = Ledger(self.redis, owner=self.name, lease_s=settings.lease_s)
        self.lanes = Lanes(
            self.redis,
            tasks,
            name=self.name,
            burst_s=settings.burst_s,
            most=settings.max_concurrency,
        )
        self.allowances = Allowances(self.redis, tasks, name=self.name)
        self.schedule = Schedule(self.redis)
        self.is_any_neglected = False  # a running job whose batches no worker has
        self.breakers = Breakers(self.redis, tasks)
        self.gate = Gate()
        self.suspects = Suspects()
        self.meter = Meter()
        self.runs = runs or Runs(settings.tracking_uri)
        self.traces = Traces(self.runs)
        self.slots = Slots(settings.concurrency)
        self.open: dict[tuple[str, str], OpenBatch] = {}
        self.too_late: set[tuple[str, str]] = set()  # batches whose messages came while stopping
        self.stopping = Stop()  # set when the process shall end: nothing new is claimed
        self._mlflow_threads = ThreadPoolExecutor(8, thread_name_prefix="mlflow")
        # A predict may take minutes: it must not keep anything else waiting for a thread.
        self.predict_threads = ThreadPoolExecutor(2, thread_name_prefix="predict")
        self.flush_lock = asyncio.Lock()
        self.listed_parts: dict[tuple[str, str], dict[int, list[str]]] = {}  # worker.recovery's
        self._said_s: dict[type, float] = {}  # by error: when it was last said that it waits
        self._client: Client | None = None
        self._specs: OrderedDict[str, JobSpec] = OrderedDict()
        self._models: OrderedDict[tuple[str, str | None, str], Model] = OrderedDict()
        self._model_lock = asyncio.Lock()

    async def client(self) -> Client:
        """The connection to the endpoint, made on first use: a pyfunc needs none, and no key.

        Raises:
            InputError: this worker's environment holds no key.
        """
        if self._client is None:
            self._client = Client.from_environment(
                concurrency=self.settings.concurrency,
                timeout_s=self.settings.request_timeout_s,
            )
        return self._client

    async def spec(self, job_id: str) -> JobSpec | None:
        """The job's spec, read from Redis once: it never changes."""
        if job_id not in self._specs:
            found = await self.store.spec(job_id)
            if found is None:
                return None
            self._specs[job_id] = found
            _keep_newest(self._specs, 64)
        return self._specs[job_id]

    def known_name(self, job_id: str) -> str:
        """The job's name, or its id where this process has not met the job."""
        spec = self._specs.get(job_id)
        return spec.name if spec else job_id

    async def model(self, spec: JobSpec) -> Model:
        """The job's model: loaded once per process, shared by its batches, a few at a time.

        Raises:
            InputError: it cannot be loaded here.
        """
        key = (spec.model_uri, spec.openai_model, repr(sorted(spec.params.items())))
        async with self._model_lock:
            if key not in self._models:
                self._models[key] = await self.in_mlflow_thread(
                    _load, spec, [*self._models.values()]
                )
                _keep_newest(self._models, self.settings.models)
                log.info("model loaded", extra={"event": "model_loaded", "job_id": spec.job_id})
            self._models.move_to_end(key)
            return self._models[key]

    async def in_mlflow_thread(
        self, blocking: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Run what blocks on MLflow in a thread that nothing else waits for."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._mlflow_threads, partial(blocking, *args, **kwargs))

    async def patiently(self, step: Callable[[], Awaitable[_T]], stop: Stop) -> _T:
        """Repeat ``step`` while Redis or MLflow is away, until ``stop`` ends it.

        Raises:
            StoppedError: the lease was lost or the process ends.
        """
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((StoreError, TrackingError)),
            wait=wait_exponential_jitter(multiplier=0.2, max=5, jitter=0.2),
            sleep=stop.sleep,
            before_sleep=self._say_that_it_waits,
        )
        return await retrying(step)

    def _say_that_it_waits(self, state: RetryCallState) -> None:
        """Every open batch waits for the same service: a line of each would fill the log."""
        error = state.outcome.exception() if state.outcome else None
        now_s = time.monotonic()
        if now_s - self._said_s.get(type(error), -math.inf) < SAY_AGAIN_S:
            return
        self._said_s[type(error)] = now_s
        log.warning(
            "waiting for a service", extra={"event": "service_awaited", "reason": str(error)}
        )

    @property
    def wanted_batches(self) -> int:
        """How many more batches keep the slots busy until the next look, 0 when there are enough.

        One refill of all slots waits in memory: a batch takes a moment to fetch, and a slot shall
        not be idle meanwhile. Everything beyond that is left to other workers, also while this one
        still fetches what it has claimed.
        """
        open_batches = list(self.open.values())  # at once: Celery's thread asks, the loop opens
        room = self.settings.open_batches - len(open_batches)
        if self.stopping.reason is not None or room <= 0:
            return 0
        requests = [batch.requests for batch in open_batches if batch.requests]
        typical = max(1.0, sum(requests) / len(requests) if requests else self.slots.size)
        coming = sum(batch.is_coming for batch in open_batches)
        missing = self.slots.size - self.slots.waiting - coming * typical
        if missing <= 0:  # but the rows of a job that came later need not wait for all of these
            return int(self.is_any_neglected)
        return int(min(room, max(1, missing // typical)))

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
        await self.redis.aclose()
        await asyncio.to_thread(self.traces.close)
        self._mlflow_threads.shutdown(wait=False, cancel_futures=True)
        self.predict_threads.shutdown(wait=False, cancel_futures=True)


def _load(spec: JobSpec, others: Sequence[Model]) -> Model:
    model = load_model(read_spec(spec.model_uri, openai_model=spec.openai_model), spec.params)
    if is_worth_a_look(model, others):
        settle_memory(has_old_models=bool(others))
    return model


def _keep_newest(cache: OrderedDict[Any, Any], size: int) -> None:
    while len(cache) > size:
        cache.popitem(last=False)


Upkeep = Callable[[Process], Coroutine[Any, Any, None]]
"""A loop that runs beside the batches for as long as the process lives."""


class ProcessThread:
    """The thread that holds the process's event loop. Started by the first ``run``."""

    def __init__(self, settings: Settings, app: Celery, upkeep: tuple[Upkeep, ...]) -> None:
        self._settings = settings
        self._app = app
        self._upkeep = upkeep
        self._lock = threading.Lock()
        self._is_ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._end: asyncio.Event | None = None
        self.process: Process | None = None

    def run(self, step: Callable[[Process], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine on the process's event loop and wait for its result. Thread-safe.

        Raises:
            BatchError: the process could not start, or has ended.
        """
        self.start()
        if self._loop is None or self.process is None:
            raise BatchError("this worker process could not start; see its log")
        return asyncio.run_coroutine_threadsafe(step(self.process), self._loop).result()

    def start(self) -> None:
        """Start the event loop, unless it runs. Returns when it is ready."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name="event-loop", daemon=True)
                self._thread.start()
        self._is_ready.wait()

    def stop(self, timeout_s: float = 30) -> None:
        """End the event loop and close its connections."""
        if self._thread is None or self._loop is None or self._end is None:
            return
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(timeout_s)

    def _main(self) -> None:
        try:
            loop = uvloop.new_event_loop()
            asyncio.set_event_loop(loop)
            loop.run_until_complete(self._live())
            loop.close()
        except BaseException:
            # Without its loop the process would hold its batches and do nothing.
            log.critical("event loop died", exc_info=True, extra={"event": "process_died"})
            os._exit(70)
        finally:
            self._is_ready.set()

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        async with anyio.create_task_group() as tasks:
            process = self.process = Process(self._settings, self._app, tasks)
            for _ in range(process.slots.size):
                tasks.start_soon(process.slots.serve)
            for loop in self._upkeep:
                tasks.start_soon(loop, process)
            self._is_ready.set()
            await self._end.wait()
            tasks.cancel_scope.cancel()
        await process.close()
