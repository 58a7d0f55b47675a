"""The door to Celery: the app and its settings, and the messages that hint at work.

A message carries a job's id and a batch's number, nothing else. Losing one costs seconds (the
ledger publishes it again), a duplicate costs a refused claim.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from kombu.exceptions import OperationalError
from kombu.utils.url import parse_url

from flavor.errors import StoreError
from worker.jobs import FINAL, FIRST, LAST, NORMAL
from worker.transport import register

QUEUE = "batches"
RUN_BATCH = "run_batch"


def make_app(redis_url: str, *, open_batches: int = 64) -> Celery:
    """The Celery app, for the worker as for whoever publishes. Connects to nothing yet.

    ``open_batches`` is the size of the thread pool: a thread waits for each open batch, and the
    process's event loop does the work.
    """
    register()
    app = Celery("worker", broker=redis_url)
    app.conf.update(_CONFIG, worker_concurrency=open_batches, broker_use_ssl=_tls(redis_url))
    return app


def keep_apart() -> None:
    """Let workers neither wait for one another at their start nor read one another's events.

    Celery asks all workers for the tasks they have revoked, and waits a second for answers, also
    after each outage of Redis; the ledger knows what is whose. Call it in a worker's process,
    before it starts. Celery's options for this (``--without-mingle``, …) have no settings.
    """
    from celery.worker.consumer.gossip import Gossip  # what only workers need
    from celery.worker.consumer.mingle import Mingle

    # Source: celery 5.7.0, worker/consumer/mingle.py and gossip.py: on others they are off.
    Mingle.compatible_transports = Gossip.compatible_transports = frozenset()


def publish(
    app: Celery,
    job_id: str,
    *,
    name: str,
    batches: Mapping[str, int | None],
    priority: int = NORMAL,
) -> None:
    """Publish one message per batch, for people with its number of rows where that is known.

    Blocks; at least once. ``priority`` is the job's, from ``FIRST`` to ``LAST``.

    Raises:
        StoreError: Redis does not take the messages.
    """
    try:
        with app.producer_pool.acquire(block=True) as producer:
            for batch, rows in batches.items():
                app.send_task(
                    RUN_BATCH,
                    args=[job_id, batch],
                    queue=QUEUE,
                    producer=producer,
                    priority=priority,
                    argsrepr=f"({described(repr(name), batch, rows)})",
                    kwargsrepr="{}",
                )
    except (OperationalError, OSError) as error:
        raise StoreError(f"Redis does not take messages: {error}") from error


def described(name: str, batch: str, rows: int | None) -> str:
    """A batch as Flower shows it."""
    place = batch if batch == FINAL else f"batch {batch}"
    return f"{name}, {place}" if rows is None else f"{name}, {place}, {rows} rows"


def queue_length(app: Celery) -> int:
    """How many messages wait, of all priorities. Blocks. Raises ``StoreError``."""
    connection = app.connection_for_read()
    # Kombu does not translate here: redis-py's own errors come through.
    errors = (*connection.connection_errors, *connection.channel_errors)
    try:
        with connection, connection.channel() as channel:
            return int(channel._size(QUEUE))  # noqa: SLF001 - kombu has no public queue length
    except (OperationalError, OSError, *errors) as error:
        raise StoreError(f"Redis cannot be reached: {error}") from error


def _tls(redis_url: str) -> dict[str, Any] | None:
    """How to speak TLS with a ``rediss://`` server, in the words of redis-py's own URLs.

    Without this, kombu 5.7 trusts any certificate (its ``Connection.__init__`` falls back to
    CERT_NONE), and Flower, which gets the URL without its query, trusts the system's alone.
    """
    if urlsplit(redis_url).scheme != "rediss":
        return None
    asked: dict[str, Any] = parse_url(redis_url).get("ssl", {})
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, **asked}


_CONFIG: dict[str, Any] = {
    # What may travel: JSON and nothing that could execute.
    "task_serializer": "json",
    "result_serializer": "json",
    "event_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    # A message is acknowledged after its batch, and comes back when its worker dies.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    # Threads share the process's event loop, its model and its connections.
    "worker_pool": "threads",
    "worker_prefetch_multiplier": 1,
    "task_default_queue": QUEUE,
    # Flower's view.
    "worker_send_task_events": True,
    "task_send_sent_event": True,
    "task_track_started": True,
    # Redis comes and goes; the worker stays.
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_transport_options": {
        "socket_timeout": 15,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "priority_steps": list(range(FIRST, LAST + 1)),
        # Decides nothing: the ledger's leases do. Long, so that the broker never redelivers first.
        "visibility_timeout": 3600,
    },
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
}
